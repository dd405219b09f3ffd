"""NVIDIA's four file schemas come out canonical; the records here are made up in their form."""

import json

import pytest

from rightcall.errors import DataError
from rightcall.records import reading as canonical
from rightcall.rows import snapshots, vocabulary, when2call

TOOL = json.dumps(
    {
        "name": "find_bus",
        "description": "Find a bus",
        "parameters": {"type": "dict", "properties": {"to": {"type": "str"}}},
    }
)
QUESTION = {"role": "user", "content": "Is there a bus to Ghent?"}
CALLED = {"role": "assistant", "content": '<TOOLCALL>[{"name": "find_bus", "arguments": {"to": "Ghent"}}]</TOOLCALL>'}
STRUCTURED = {
    "role": "assistant",
    "content": "",
    "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "find_bus", "arguments": {"to": "Ghent"}}}
    ],
}


def test_train_sft_text_calls_become_structured_calls() -> None:
    row = canonical.to_canonical({"tools": [TOOL], "messages": [QUESTION, CALLED]}, "sft", "w2c", 1)
    assert row["messages"] == [QUESTION, STRUCTURED]
    assert row["behaviour"] == "tool_call"
    assert row["tools"][0]["function"]["parameters"]["properties"] == {"to": {"type": "string"}}


def test_train_pref_responses_become_chosen_and_rejected() -> None:
    asked = {"role": "assistant", "content": "Where do you start?"}
    record = {"tools": [TOOL], "messages": [QUESTION], "chosen_response": asked, "rejected_response": CALLED}
    row = canonical.to_canonical(record, "preference", "w2c", 1)
    assert (row["chosen"], row["rejected"]) == (asked, STRUCTURED)
    assert (row["behaviour"], row["rejected_kind"]) == ("request_for_info", "tool_call")


def test_class_fields_win_over_the_guess() -> None:
    record = {
        "tools": [],
        "messages": [QUESTION],
        "chosen_response": {"role": "assistant", "content": "Where?"},
        "rejected_response": {"role": "assistant", "content": "No."},
        "class": "cannot_answer",
        "rejected_class": "direct",
    }
    row = canonical.to_canonical(record, "preference", "w2c", 1)
    assert (row["behaviour"], row["rejected_kind"]) == ("cannot_answer", "direct")


@pytest.mark.parametrize("extra", [{}, {"source_id": "x", "orig_tools": [TOOL], "target_tool": "find_bus"}])
def test_mcq_and_llm_judge_items_keep_their_uuid_and_four_answers(extra: dict) -> None:
    answers = {
        "direct": "At 9.",
        "tool_call": '{"name": "find_bus"}',
        "request_for_info": "When?",
        "cannot_answer": "I can't.",
    }
    record = {
        "uuid": "u1",
        "question": "Bus?",
        "tools": [TOOL],
        "answers": answers,
        "correct_answer": "tool_call",
        **extra,
    }
    row = canonical.to_canonical(record, "choice", "w2c", 1)
    assert (row["id"], row["answers"], row["correct_answer"]) == ("u1", answers, "tool_call")
    assert set(row) == {*snapshots.COLUMNS["choice"], "raw_tools"} - set(snapshots.MAY_BE_MISSING)
    assert row["raw_tools"] == [TOOL]
    assert list(row["answers"]) == list(vocabulary.BEHAVIOURS)


def test_the_text_of_tools_is_kept_only_where_the_canonical_form_would_change_it() -> None:
    written = {"name": "find_bus", "description": "Sök", "parameters": {"type": "object", "properties": {}}}
    answers = dict.fromkeys(vocabulary.BEHAVIOURS, "x")
    item = {"question": "Bus?", "answers": answers, "correct_answer": "direct"}
    for tools in ([written], [json.dumps(written, ensure_ascii=False)], [], None):
        assert "raw_tools" not in canonical.to_canonical(item | {"tools": tools}, "choice", "w2c", 1), tools
    spaced = json.dumps(written, indent=1)
    row = canonical.to_canonical(item | {"tools": [spaced]}, "choice", "w2c", 1)
    assert row["raw_tools"] == [spaced]
    assert canonical.to_canonical(row, "choice", "w2c", 1)["raw_tools"] == [spaced]
    sft = {"tools": [spaced], "messages": [QUESTION, CALLED]}
    assert "raw_tools" not in canonical.to_canonical(sft, "sft", "w2c", 1)


def test_text_around_the_call_stays_as_content_and_a_lone_call_is_a_list_of_one() -> None:
    message = {"role": "assistant", "content": 'Looking. <TOOLCALL>{"name": "find_bus"}</TOOLCALL>'}
    made = when2call.structured(message)
    assert made["content"] == "Looking."
    assert made["tool_calls"][0]["function"] == {"name": "find_bus", "arguments": {}}


@pytest.mark.parametrize("text", ["[{", '["find_bus"]', '[{"arguments": {}}]', ""])
def test_a_broken_text_call_is_named_not_dropped(text: str) -> None:
    record = {"tools": [TOOL], "messages": [QUESTION, {"role": "assistant", "content": f"<TOOLCALL>{text}</TOOLCALL>"}]}
    with pytest.raises(DataError, match=r"^bad_toolcall: .*line 3 of 'w2c'"):
        canonical.to_canonical(record, "sft", "w2c", 3)


def test_the_users_text_is_never_read_as_a_call() -> None:
    quoted = {"role": "user", "content": "What does <TOOLCALL>[x]</TOOLCALL> mean?"}
    record = {"messages": [quoted, {"role": "assistant", "content": "It marks a call."}], "class": "direct"}
    assert canonical.to_canonical(record, "sft", "w2c", 1)["messages"][0] == quoted


@pytest.mark.parametrize(
    ("text", "behaviour"),
    [
        ("Which city do you leave from?", "request_for_info"),
        ("I'll need the date.", "request_for_info"),
        ("I'm unable to book buses.", "cannot_answer"),
        ("None of the functions can do this.", "cannot_answer"),
        ("The bus leaves at nine.", "direct"),
    ],
)
def test_an_unlabelled_answer_is_classed_by_its_wording(text: str, behaviour: str) -> None:
    assert when2call.infer_behaviour({"role": "assistant", "content": text}) == behaviour
