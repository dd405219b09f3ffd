"""Faults of a written call: values that nobody has said, steps in the wrong order. Each rule with what it must not catch."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tiny import call_message

from rightcall.errors import DataError
from rightcall.toolcalls.conduct import Conduct, is_confirmed, is_error
from rightcall.toolcalls.grounding import id_like_parts, ungrounded_values, what_was_said
from rightcall.toolcalls.judging import FAULTS, gold_calls, judge_step

CONDUCT = Conduct(frozenset({"find_user"}), frozenset({"cancel_order"}), frozenset({"calculate"}))


def tool(name: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [
    tool("find_user", email={"type": "string", "description": "as in someone@example.com"}),
    tool("get_order", order_id={"type": "string", "description": "The order's id, such as '#W0000000'."}),
    tool(
        "cancel_order", order_id={"type": "string"}, reason={"type": "string"},
        method={"type": "string", "enum": ["gift_card", "store_credit_1"], "default": "gift_card"},
    ),
    tool("calculate", expression={"type": "string"}),
]  # fmt: skip
CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Help the users of a shop."},
    {"role": "user", "content": "Please cancel my order W6067464. I am Omar, zip 19031."},
    {"role": "assistant", "content": "Your e-mail address?"},
    {"role": "user", "content": "Omar.Anderson7675@example.com"},
    call_message("find_user", {"email": "omar.anderson7675@example.com"}),
    {"role": "tool", "tool_call_id": "call_0", "name": "find_user", "content": "omar_anderson_3203"},
    call_message("get_order", {"order_id": "#W6067464"}),
    {"role": "tool", "tool_call_id": "call_0", "name": "get_order",
     "content": json.dumps({"item_ids": ["8917609800"], "price": 195.59, "payment": "credit_card_4190576"})},
    {"role": "assistant", "content": "I will cancel order #W6067464. Do you confirm (yes/no)?"},
    {"role": "user", "content": "Yes, please."},
    call_message("cancel_order", {"order_id": "#W6067464", "reason": "no longer needed"}),
    {"role": "tool", "tool_call_id": "call_0", "name": "cancel_order", "content": "{}"},
    {"role": "assistant", "content": "Done. Anything else?"},
]  # fmt: skip
SAID = what_was_said(CONVERSATION)


def step(index: int, behaviour: str = "tool_call") -> dict[str, Any]:
    return {"messages": CONVERSATION[: index + 1], "tools": TOOLS, "behaviour": behaviour}


def written(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def faults(index: int, text: str, behaviour: str = "tool_call", conduct: Conduct | None = CONDUCT) -> list[str]:
    return list(judge_step(step(index, behaviour), text, conduct)["faults"])


@pytest.mark.parametrize("value", [
    "#W6067464", "w6067464", "6067464", "OMAR.ANDERSON7675@example.com", "omar_anderson_3203", "19031", 19031, ["8917609800"],
    "credit_card_4190576", "Omar Anderson, zip 19031",
    # worded or computed, never copied
    "Rome", "no longer needed", "Philadelphia", 4, 2.5, True, None, "2", "54.04", "$54.04", "195.59 + 158.9", "2026-11-25",
    "11/25/2026", "10:30", "7:15 pm", "5 km", "7pm", "The user wants to return 2 of 10 items.", "",
    "gift_card", "store_credit_1",  # of the schema
])  # fmt: skip
def test_what_was_said_or_is_only_worded_is_grounded(value: Any) -> None:
    assert ungrounded_values({"name": "cancel_order", "arguments": {"any": value}}, SAID, TOOLS) == []


@pytest.mark.parametrize("value", [
    "#W6067465", "#W606746", "#W60674641", "omar_anderson_3204", "19032", 99_999, "someone@example.com", "credit_card_4190577",
    "891760980", "gift_card_4190576", "#W0000000", "sara_doe_496", "new_user",
])  # fmt: skip
def test_a_value_that_nobody_has_said_is_found(value: Any) -> None:
    call = {"name": "get_order", "arguments": {"order_id": {"nested": [value]}}}
    assert ungrounded_values(call, SAID, TOOLS) == [str(value)]


def test_only_the_words_of_a_text_that_are_ids_are_looked_at() -> None:
    assert id_like_parts("User omar_anderson_3203 returns 2 items of #W6067464, see a.b@c.org!") == [
        "omar_anderson_3203", "#W6067464", "a.b@c.org",
    ]  # fmt: skip
    assert id_like_parts("845 Willow Lane") == ["845"]
    assert id_like_parts("ordered by mistake") == []


def test_gold_turns_have_no_faults() -> None:
    for index, message in enumerate(CONVERSATION):
        if message["role"] != "assistant":
            continue
        calls = gold_calls(message)
        text = written(calls[0]["name"], **calls[0]["arguments"]) if calls else message["content"]
        behaviour = "tool_call" if calls else "direct" if text.startswith("Done") else "request_for_info"
        judged = judge_step(step(index, behaviour), text, CONDUCT)
        assert (judged["verdict"]["ok"], judged["error_kind"], judged["faults"]) == (True, None, []), index


def test_an_order_is_looked_up_only_when_somebody_is_known() -> None:
    look = written("get_order", order_id="#W6067464")
    assert faults(4, look) == ["lookup_before_authentication"]
    assert faults(6, look) == []
    assert faults(4, written("calculate", expression="1 + 1")) == []
    assert faults(4, look, conduct=None) == []


def test_a_failed_look_up_authenticates_nobody() -> None:
    assert all(map(is_error, ["Error: user not found", '{"error": "none"}', "", "[]", "null"]))
    assert not any(map(is_error, ["omar_anderson_3203", '{"id": 1}', "errorless_user_1"]))
    failed = [*CONVERSATION[:5], CONVERSATION[5] | {"content": "Error: user not found"}, CONVERSATION[6]]
    look = written("get_order", order_id="#W6067464")
    given = {"messages": failed, "tools": TOOLS, "behaviour": "tool_call"}
    assert judge_step(given, look, CONDUCT)["faults"] == ["lookup_before_authentication"]


def test_a_change_needs_a_yes_to_a_question() -> None:
    cancel = written("cancel_order", order_id="#W6067464", reason="no longer needed")
    assert faults(10, cancel) == []
    assert faults(8, cancel, "request_for_info") == ["write_without_confirmation"]
    assert faults(8, cancel, "request_for_info", CONDUCT._replace(confirm=False)) == []


@pytest.mark.parametrize(("question", "answer", "confirmed"), [
    ("Do you confirm (yes/no)?", "Yes, that's right.", True), ("Shall I go ahead?", "Sure, go ahead", True),
    ("Please reply yes to confirm.", "yes", True), ("Do you confirm?", "Confirmed. Thanks!", True),
    ("Do you confirm (yes/no)?", "No.", False), ("Do you confirm?", "Yes, but actually use the gift card", False),
    ("Do you confirm?", "Wait, which order?", False), ("Do you confirm?", "It is the blue one.", False),
    ("Here is your order.", "yes please cancel it", False),
])  # fmt: skip
def test_a_confirmation_is_a_yes_to_a_question(question: str, answer: str, confirmed: bool) -> None:
    messages = [{"role": "user", "content": "Cancel it."}, {"role": "assistant", "content": question}]
    assert is_confirmed([*messages, {"role": "user", "content": answer}]) is confirmed


def test_a_first_message_that_agrees_confirms_nothing() -> None:
    assert not is_confirmed([{"role": "user", "content": "Yes, cancel #W1."}])
    assert not is_confirmed([])


@pytest.mark.parametrize(("text", "expected"), [
    ("Your order #W6067464 was cancelled.", ["dropped_lookup"]),
    ("I will cancel #W9999999. Do you confirm (yes/no)?", ["dropped_lookup"]),
    ("Which order do you mean?", []), ("Sorry, I cannot do that.", []),
    (written("get_order", order_id="#W6067464"), []),
    (written("get_order", order_id="#W1111111"), ["ungrounded_value", "dropped_lookup"]),
    (written("cancel_order", order_id="#W6067464"), ["write_without_confirmation", "dropped_lookup"]),
])  # fmt: skip
def test_an_answer_that_needs_a_look_up_which_was_not_made_has_dropped_it(text: str, expected: list[str]) -> None:
    assert faults(6, text) == expected


def test_faults_come_in_their_order_and_beside_any_error_kind() -> None:
    judged = judge_step(step(4), written("cancel_order", order_id="#W1"), CONDUCT)
    assert judged["error_kind"] == "wrong_tool"
    assert judged["faults"] == list(FAULTS)


def test_a_gold_call_that_is_no_json_is_a_clear_error() -> None:
    call = {"id": "1", "function": {"name": "get_order", "arguments": '{"order_id": '}}
    with pytest.raises(DataError, match=r"gold call of 'get_order'.*correct them"):
        gold_calls({"role": "assistant", "tool_calls": [call]})


def test_an_answer_that_cannot_be_read_is_judged_all_the_same() -> None:
    judged = judge_step(step(6), '<tool_call>{"name": "get_ord', CONDUCT)
    assert judged["error_kind"] == "unparseable_call"
    assert judged["verdict"] == dict.fromkeys(("ok", "valid_call", "right_tool", "right_arguments", "strict"), False) | {
        "right_behaviour": True, "forgiven": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    "content", ["My id:\nsara_doe_496", "id\tsara_doe_496", json.dumps({"note": "id:\nsara_doe_496"})]
)
def test_a_value_that_begins_a_line_was_said(content: str) -> None:
    call = {"name": "get_order", "arguments": {"order_id": "sara_doe_496"}}
    assert ungrounded_values(call, what_was_said([{"role": "user", "content": content}]), TOOLS) == []
