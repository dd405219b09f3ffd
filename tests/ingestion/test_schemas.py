"""Files in the field's schemas: recognised by their columns, and nothing in them is lost without a word."""

from __future__ import annotations

import copy
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation, conversation_recipe, logged, result, user, write_log
from ingest_examples import TEMPLATE, ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import TOOLS, build_tiny_tokenizer, call_message, text_message, tiny_preference_rows, write_tiny_sources

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.records.conversation_records import Named, to_conversation
from rightcall.records.reading import to_canonical
from rightcall.rows.conversations import trained_turns
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import RowKind
from rightcall.toolcalls.words import guess_behaviour

Row = dict[str, Any]
WEATHER = TOOLS[0]
FUNCTION = WEATHER["function"]
ASKED = user("How warm is it in Oslo right now?")
CALL = {"name": "get_weather", "arguments": {"city": "Oslo"}}
WRITTEN = json.dumps(CALL)
CALLED = call_message("get_weather", {"city": "Oslo"})
HERMES = (
    "You are a function calling AI model. You are provided with function signatures within <tools> </tools> XML tags. "
    f"You may call one or more functions.\n<tools>\n{[WEATHER]!r}\n</tools>\nFor each function call return a JSON object "
    "with the schema {'title': 'FunctionCall'}\nEach function call should be enclosed within <tool_call> </tool_call> XML "
    "tags.\n<tool_call>\n{'arguments': <args-dict>, 'name': <function-name>}\n</tool_call>"
)
QWEN = (
    "Be brief.\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with "
    f"function signatures within <tools></tools> XML tags:\n<tools>\n{json.dumps(WEATHER)}\n{json.dumps(TOOLS[2])}\n</tools>"
    '\n\nFor each function call, return a json object within <tool_call></tool_call> XML tags:\n<tool_call>\n{"name": '
    '<function-name>, "arguments": <args-json-object>}\n</tool_call>'
)
STRANGE = {"name": "Market Trends API", "description": "Trends.", "parameters": {"type": "dict", "properties": {
    "country": {"type": "string"}, "trend": {"type": "string"}}, "required": ["country"]}}  # fmt: skip
TOOLACE = (
    "You are an expert in composing functions.\nHere is a list of functions in JSON format that you can invoke:\n"
    f"{json.dumps([FUNCTION, STRANGE])}. \nShould you decide to return the function call(s). \nPut it in the format of "
    "[func1(params_name=params_value), func2(params)]\n\nNO other text MUST be included. \n"
)


def shares(*turns: tuple[str, Any], **columns: Any) -> Row:
    return {"conversations": [{"from": name, "value": value} for name, value in turns], **columns}


def said(*messages: Row, **columns: Any) -> Row:
    return {"messages": [ASKED, *messages], "tools": [WEATHER], **columns}


def read(record: Row, kind: RowKind = "sft", unused: Counter[str] | None = None) -> Row:
    return to_canonical(record, kind, "file", 1, unused=unused)


def reason(record: Row, kind: RowKind = "sft") -> str | None:
    with pytest.raises(DataError) as caught:
        read(record, kind)
    assert str(caught.value).endswith("(line 1 of 'file')")
    return caught.value.reason


CALLING = {
    "openai": said({"role": "assistant", "content": None, "tool_calls": [{"id": "call_0", "type": "function", "function": {
        "name": "get_weather", "arguments": '{"city": "Oslo"}'}}], "refusal": None}, parallel_tool_calls=True),
    "functions": {"messages": [ASKED, {"role": "assistant", "content": None, "function_call": {
        "name": "get_weather", "arguments": '{"city": "Oslo"}'}}], "functions": [FUNCTION]},
    "JSON text": {"messages": json.dumps([ASKED, CALLED]), "tools": json.dumps([WEATHER])},
    "content parts": said({**CALLED, "content": []}) | {"messages": [
        {"role": "user", "content": [{"type": "text", "text": ASKED["content"]}]}, CALLED]},
    "sharegpt": shares(("human", ASKED["content"]), ("function_call", WRITTEN), tools=json.dumps([WEATHER])),
    "sharegpt, several": shares(("user", ASKED["content"]), ("function_call", f"[{WRITTEN}]"), tools=[FUNCTION]),
    "sharegpt, an object": shares(("human", ASKED["content"]), ("function_call", CALL), tools=[FUNCTION]),
    "sharegpt, JSON text": {"conversations": json.dumps([
        {"from": "human", "value": ASKED["content"]}, {"from": "function_call", "value": WRITTEN}]), "tools": [WEATHER]},
    "xlam": {"query": ASKED["content"], "tools": json.dumps([FUNCTION]), "answers": f"[{WRITTEN}]"},
    "xlam, objects": {"query": ASKED["content"], "tools": [FUNCTION], "answers": [CALL]},
    "prompt and completion": {"prompt": [ASKED], "completion": [CALLED], "tools": [WEATHER]},
    "prompt and completion, JSON text": {
        "prompt": json.dumps([ASKED]), "completion": json.dumps([CALLED]), "tools": json.dumps([WEATHER])},
    "hermes": said(text_message(f"<tool_call>\n{WRITTEN}\n</tool_call>")),
    "hermes, tools in the system text": {"messages": [
        {"role": "system", "content": HERMES}, ASKED, text_message(f"<tool_call>\n{CALL!r}\n</tool_call>".replace("'", '"'))]},
    "hermes, as ShareGPT": shares(
        ("system", HERMES), ("human", ASKED["content"]), ("gpt", f"<tool_call>{WRITTEN}</tool_call>"), category="Weather"),
    "a call and nothing else": said(text_message(WRITTEN)),
    "glaive": {
        "system": "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
        + json.dumps(FUNCTION, indent=1),
        "chat": f"USER: {ASKED['content']}\n\n\nASSISTANT: <functioncall> "
        """{"name": "get_weather", "arguments": '{"city": "Oslo"}'} <|endoftext|>"""},
}  # fmt: skip


@pytest.mark.parametrize("schema", CALLING)
@pytest.mark.parametrize("kind", ["sft", "conversation"])
def test_a_call_in_any_schema_is_the_same_row(schema: str, kind: RowKind) -> None:
    record = CALLING[schema]
    before = copy.deepcopy(record)
    if kind == "sft":
        row = read(record)
        assert row["behaviour"] == "tool_call"
    else:
        row = to_conversation(record, "file", 1, Named(), guess_behaviour)
        assert [behaviour for _, behaviour in row["trained"]] == ["tool_call"]
    head = [{"role": "system", "content": "You are a helpful assistant."}] if schema == "glaive" else []
    assert row["messages"] == [*head, ASKED, CALLED]
    assert row["tools"] == [WEATHER]
    assert record == before, "the quarantine shows the record as it was"


def test_results_and_answers_follow_the_call_in_every_schema_that_has_them() -> None:
    end = [{"role": "tool", "content": '{"c": 4}'}, text_message("4 degrees.")]
    asked, text = ASKED["content"], f"<tool_call>{WRITTEN}</tool_call>"
    turns = (("human", asked), ("function_call", WRITTEN), ("observation", '{"c": 4}'), ("gpt", "4 degrees."))
    for record in (
        shares(*turns, tools=[WEATHER]),
        said(text_message(text), {"role": "tool", "content": '<tool_response>\n{"c": 4}\n</tool_response>'}, end[1]),
        said(text_message(text), user('<tool_response>\n{"c": 4}\n</tool_response>'), end[1]),
        {"system": CALLING["glaive"]["system"], "chat": f"{CALLING['glaive']['chat']}\n\n\nFUNCTION RESPONSE: "
         '{"c": 4}\n\n\nASSISTANT: 4 degrees. <|endoftext|>'},
    ):  # fmt: skip
        assert read(record)["messages"][-4:] == [ASKED, CALLED, *end]
        row = to_conversation(record, "file", 1, Named(), guess_behaviour)
        assert [behaviour for _, behaviour in row["trained"]] == ["tool_call", "direct"]
    older = said(
        {"role": "assistant", "function_call": CALL},
        {"role": "function", "name": "get_weather", "content": "4"},
        end[1],
    )
    assert read(older)["messages"][2] == {"role": "tool", "name": "get_weather", "content": "4"}


def test_two_calls_and_two_results_in_one_text_are_two_of_each() -> None:
    both = f"I look.\n<tool_call>{WRITTEN}</tool_call>\n<tool_call>{WRITTEN.replace('Oslo', 'Rome')}</tool_call>"
    answers = "<tool_response>1</tool_response>\n<tool_response>2</tool_response>"
    row = read(said(text_message(both), {"role": "tool", "content": answers}, text_message("1 and 2.")))
    assert row["messages"][1]["content"] == "I look."
    assert [call["function"]["arguments"]["city"] for call in row["messages"][1]["tool_calls"]] == ["Oslo", "Rome"]
    assert [message["content"] for message in row["messages"][2:]] == ["1", "2", "1 and 2."]


def test_toolace_offers_tools_in_its_system_text_and_calls_them_by_names_with_blanks() -> None:
    record = shares(
        ("user", ASKED["content"]),
        ("assistant", '[Market Trends API(country="no", trend="a) , Market Trends API(b"), get_weather(city="Oslo")]'),
        ("tool", '[{"name": "Market Trends API", "results": {"up": true}}, {"name": "get_weather", "results": 4}]'),
        ("assistant", "Up, and 4 degrees."),
        system=TOOLACE,
    )
    row = to_conversation(record, "file", 1, Named(), guess_behaviour)
    assert row["messages"][0] == {"role": "system", "content": "You are an expert in composing functions."}
    assert [tool["function"]["name"] for tool in row["tools"]] == ["get_weather", "Market Trends API"]
    assert [call["function"] for call in row["messages"][2]["tool_calls"]] == [
        {"name": "Market Trends API", "arguments": {"country": "no", "trend": "a) , Market Trends API(b"}}, CALL,
    ]  # fmt: skip
    assert json.loads(row["messages"][3]["content"])["results"] == {"up": True}
    assert [message["role"] for message in row["messages"][3:]] == ["tool", "tool", "assistant"]


def test_qwens_own_prompt_gives_its_tools_and_keeps_what_the_user_wrote() -> None:
    row = read(
        {"messages": [{"role": "system", "content": QWEN}, ASKED, text_message(f"<tool_call>{WRITTEN}</tool_call>")]}
    )
    assert (row["messages"][0]["content"], row["tools"]) == ("Be brief.", [WEATHER, TOOLS[2]])
    assert reason({"messages": [{"role": "system", "content": QWEN}, ASKED, CALLED], "tools": [WEATHER]}) == "bad_tools"


@pytest.mark.parametrize(
    ("record", "wanted"),
    [
        (said(text_message('<tool_call>\n{"name": "get_weather", "arg')), "bad_toolcall"),
        (said(text_message(f"<tool_call>{WRITTEN}</tool_call> and </tool_call>")), "bad_toolcall"),
        (said({**CALLED, "content": f"<tool_call>{WRITTEN}</tool_call>"}), "bad_toolcall"),
        (shares(("human", "Weather?"), ("function_call", '{"town"'), tools=[WEATHER]), "bad_toolcall"),
        (shares(("human", "Weather?"), ("weatherman", "Warm.")), "bad_role"),
        (said(CALLED | {"tool_calls": CALLED["tool_calls"] * 2}, parallel_tool_calls=False), "parallel_calls"),
        (said(CALLED | {"function_call": CALL}), "bad_arguments"),
        (said(CALLED, functions=[TOOLS[1]["function"]]), "bad_tools"),
        (said(text_message("Warm.") | {"refusal": "No."}), "bad_content"),
        (said(text_message("Warm.") | {"weight": 0.5}), "bad_switch"),
        (said(text_message("Warm.") | {"weight": 0, "train": True}), "bad_switch"),
        (said(text_message("Warm.") | {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}), "bad_switch"),
        (said({**user("x"), "weight": 1}, text_message("Warm.")), "bad_switch"),
        (said(text_message("Warm.") | {"weight": 0}), "nothing_trained"),
        (said({**user("x"), "reasoning_content": "Hm."}, text_message("Warm.")), "bad_content"),
        ({"query": "Weather?", "tools": [WEATHER], "answers": "[]"}, "no_answer"),
        ({"prompt": "Weather?", "completion": "Warm.", "label": False}, "unpaired_preference"),
        ({"chat": "Hello."}, "bad_content"),
        (said(text_message("Warm."), system="Be brief.") | {"messages": [{"role": "system", "content": "Be long."}, ASKED]},
         "system_differs"),
        ({"instruction": "Weather?", "output": "Warm."}, "unknown_schema"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_with_its_reason(record: Row, wanted: str) -> None:
    assert reason(record) == wanted


def test_what_only_mentions_a_call_or_is_data_stays_text() -> None:
    for text in ("Put it in <tool_call> tags.", '{"city": "Oslo", "degrees": 4}', "[1, 2]", '{"name": "Oslo"}'):
        assert read(said(text_message(text)))["messages"][-1] == text_message(text)
    no_tools = {"messages": [ASKED, text_message(WRITTEN)]}
    assert read(no_tools)["messages"][-1] == text_message(WRITTEN)


def test_a_refusal_is_what_was_said_and_thoughts_are_kept() -> None:
    for answer in (
        {"role": "assistant", "content": None, "refusal": "That is against the rules of this house."},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "That is against the rules of this house."}]},
    ):
        row = read(said(answer))
        assert (row["messages"][-1], row["behaviour"]) == (
            text_message("That is against the rules of this house."), "cannot_answer",
        )  # fmt: skip
        assert to_conversation(said(answer), "f", 1, Named(), lambda _: "direct")["trained"] == [[1, "cannot_answer"]]
    for name in ("reasoning_content", "reasoning", "thinking"):
        assert read(said({**CALLED, name: "A town."}))["messages"][-1]["reasoning_content"] == "A town."


@pytest.mark.parametrize(
    ("off", "on"),
    [
        ({"weight": 0}, {"weight": 1}), ({"train": False}, {"train": True}), ({"loss_mask": 0}, {"loss_mask": 1}),
        ({"loss": False}, {}), ({"training": False}, {"training": None}), ({"masked": True}, {"masked": False}),
    ],
)  # fmt: skip
def test_a_turn_that_is_switched_off_is_context_and_no_more(off: Row, on: Row, tmp_path: Path) -> None:
    messages = [ASKED, call_message("get_weather", {"city": "Paris"}) | off, result("wrong town"), CALLED | on]
    late = [*messages, result("4"), text_message("So 4 degrees, I guess.") | off]
    template = ChatTemplate.load(build_tiny_tokenizer(tmp_path), TEMPLATE)
    for said_so in (messages, late):
        row = read({"messages": said_so, "tools": [WEATHER]})
        logged_row = to_conversation({"messages": said_so, "tools": [WEATHER]}, "f", 1, Named(), guess_behaviour)
        for each in (row, logged_row):
            assert each["trained"] == [[3, "tool_call"]]
            assert len(each["messages"]) == 4
            encoded = template.encode(each["messages"], each["tools"], dict(trained_turns(each)))
            assert template.encode(each["messages"], each["tools"]) == encoded, (
                "a message says for itself that it is off"
            )
            trained = template.decode([i for i, m in zip(encoded.input_ids, encoded.loss_mask, strict=True) if m])
            assert ("Oslo" in trained, "Paris" in trained) == (True, False)
    every = read({"messages": [each | {"weight": 1} if each["role"] == "assistant" else each for each in messages]
                  if "weight" in on else messages, "tools": [WEATHER]})  # fmt: skip
    assert every.get("trained") == (None if "weight" in on else [[3, "tool_call"]])


def test_what_stands_as_json_text_at_any_level_is_read() -> None:
    written = CALLED | {"tool_calls": json.dumps([{"type": "function", "function": json.dumps(CALL)}])}
    older = {"role": "assistant", "content": None, "function_call": json.dumps(CALL)}
    by_hand = CALLED | {"tool_calls": [{"type": "function", "function": json.dumps(CALL)}]}
    for answer in (written, older, by_hand):
        for messages in (
            [ASKED, answer],
            json.dumps([ASKED, answer]),
            [json.dumps(ASKED), json.dumps(answer)],
            str([ASKED, answer]),
        ):
            row = read({"messages": messages, "tools": str([WEATHER])})
            assert (row["messages"], row["tools"]) == ([ASKED, CALLED], [WEATHER])
    for text in (json.dumps([ASKED, CALLED])[:-4], "What is it?", ""):
        assert reason({"messages": text, "tools": [WEATHER]}) == "bad_content"
    assert read(shares(("Human", "A?"), ("GPT", "B."), tools=[WEATHER]))["messages"][-1] == text_message("B.")


def test_a_switch_works_in_sharegpt_and_what_a_prompt_holds_is_no_completion() -> None:
    record = shares(("human", "A?"), ("gpt", "B."), ("human", "C?"), ("gpt", "D."))
    record["conversations"][1]["loss"] = False
    assert read(record)["trained"] == [[3, "direct"]]
    turns = [user("A?"), text_message("B."), user("C?"), text_message("D.")]
    assert read({"prompt": turns[:3], "completion": turns[3:]})["trained"] == [[3, "direct"]]


CHOSEN, REJECTED = text_message("In which town?"), text_message("It is sunny.")
PAIRS = {
    "trl": {"prompt": [ASKED], "chosen": [CHOSEN], "rejected": [REJECTED], "tools": [WEATHER]},
    "trl, JSON text": {"prompt": json.dumps([ASKED]), "chosen": json.dumps([CHOSEN]), "rejected": json.dumps([REJECTED]),
                       "tools": json.dumps([WEATHER])},
    "trl, implicit prompt": {"chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED], "tools": [WEATHER]},
    "a prompt in words beside whole conversations": {
        "prompt": ASKED["content"], "chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED], "tools": [WEATHER]},
    "texts": {"prompt": ASKED["content"], "chosen": CHOSEN["content"], "rejected": REJECTED["content"], "tools": [WEATHER]},
    "openai": {"input": {"messages": [ASKED], "tools": [WEATHER], "parallel_tool_calls": True},
               "preferred_output": [CHOSEN], "non_preferred_output": [REJECTED]},
    "openai, functions": {"input": {"messages": [ASKED], "functions": [FUNCTION]},
                          "preferred_output": [CHOSEN], "non_preferred_output": [REJECTED]},
    "sharegpt": {"conversations": [{"from": "human", "value": ASKED["content"]}], "tools": json.dumps([WEATHER]),
                 "chosen": {"from": "gpt", "value": CHOSEN["content"]}, "rejected": {"from": "gpt", "value": REJECTED["content"]}},
}  # fmt: skip


@pytest.mark.parametrize("schema", PAIRS)
def test_a_pair_in_any_schema_is_the_same_row(schema: str) -> None:
    row = read(PAIRS[schema], "preference")
    assert row["prompt"] == [ASKED]
    assert (row["chosen"], row["rejected"], row["tools"]) == (CHOSEN, REJECTED, [WEATHER])
    assert (row["behaviour"], row["rejected_kind"]) == ("request_for_info", "direct")


def test_calls_as_text_are_calls_in_pairs_too_and_an_answer_that_is_json_stays_one() -> None:
    text = text_message(f"<tool_call>{WRITTEN}</tool_call>")
    row = read(PAIRS["trl"] | {"chosen": [text], "rejected": text["content"]}, "preference")
    assert row["chosen"] == row["rejected"] == CALLED
    row = read(PAIRS["trl"] | {"chosen": '{"degrees": 4}'}, "preference")
    assert row["chosen"] == text_message('{"degrees": 4}')


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"prompt": "Another?", "chosen": [ASKED, CHOSEN], "rejected": [ASKED, REJECTED]}, "bad_prompt"),
        ({"chosen": [CHOSEN, ASKED, CHOSEN]}, "bad_content"),
        ({"chosen": [CHOSEN | {"weight": 0}]}, "nothing_trained"),
    ],
)
def test_a_pair_that_is_none_is_refused(changes: Row, wanted: str) -> None:
    assert reason(PAIRS["trl"] | changes, "preference") == wanted


def test_what_openais_pairs_say_beside_their_messages_is_held_to_or_named() -> None:
    pair = PAIRS["openai"]
    unused: Counter[str] = Counter()
    to_canonical(
        pair | {"input": pair["input"] | {"temperature": 0.2}, "split": "train"}, "preference", "f", 1, unused=unused
    )
    assert unused == {"input.temperature": 1, "split": 1}
    twice = CALLED | {"tool_calls": CALLED["tool_calls"] * 2}
    single = pair | {"input": pair["input"] | {"parallel_tool_calls": False}}
    assert read(single, "preference")["chosen"] == CHOSEN
    assert reason(single | {"preferred_output": [twice]}, "preference") == "parallel_calls"
    assert read(single | {"non_preferred_output": [twice]}, "preference")["rejected"]["tool_calls"]


def test_a_column_that_no_row_is_made_of_is_named_once_with_its_number(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = [json.loads(line) for line in paths["sft"].read_text().splitlines()]
    for number, row in enumerate(rows):
        row |= {"quality": number, "empty": None}
        row["messages"][0] |= {"name": "ada", "annotations": []}
        row["messages"][1] |= {"audio": {"id": "x"}} if number < 3 else {"reasoning_content": "Hm."}
    write_lines(paths["sft"], rows)
    pairs = [{**pair, "score_chosen": 1.0} for pair in tiny_preference_rows(24)]
    write_lines(paths["preference"], pairs)
    folder, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert checks["not_used"] == {
        "sft": {"sft.jsonl": {
            "messages[].audio": 3, "messages[].name": 24, "messages[].reasoning_content": 21, "quality": 24}},
        "preference": {"preference.jsonl": {"score_chosen": 24}},
    }  # fmt: skip
    assert read_snapshot(folder, "sft")[5]["messages"][1]["reasoning_content"] == "Hm.", "another template may write it"
    again, _ = snapshot_of(
        conversation_recipe(write_log(tmp_path, [*logged(39), conversation(39, plan="gold")])), tmp_path, "log"
    )
    assert json.loads((again / "checks.json").read_text())["not_used"] == {"conversation": {"log.jsonl": {"plan": 1}}}


def test_files_in_several_schemas_go_in_and_what_is_wrong_in_them_is_quarantined(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = [json.loads(line) for line in paths["sft"].read_text().splitlines()]
    wrong = shares(("human", "Weather?"), ("gpt", "<tool_call>{"), tools=[WEATHER])
    unknown = said(text_message('<tool_call>{"name": "fly", "arguments": {}}</tool_call>'))
    write_lines(paths["sft"], [*rows, {"id": 7, **CALLING["xlam"]}, wrong, unknown])
    folder, checks = snapshot_of(ingest_recipe(paths, tolerance=0.2), tmp_path)
    assert [(entry["line"], entry["reasons"]) for entry in quarantined(folder)] == [
        (26, ["bad_toolcall"]), (27, ["tool_not_offered"]),
    ]  # fmt: skip
    assert read_snapshot(folder, "sft")[-1]["id"] == "7"
    assert checks["rows"]["sft"]["kept"] == 25
