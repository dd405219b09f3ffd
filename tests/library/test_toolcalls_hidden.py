"""A second call, in whatever form, is read or is an error; and nothing a model writes can end a run or not be kept."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import TOOLS, tiny_choice_rows

from rightcall.evaluation.score import write_lines
from rightcall.evaluation.steps import step_of_item
from rightcall.toolcalls.judging import judge_step
from rightcall.toolcalls.verifier import ERROR_KINDS, compare, parse
from tasks.results.files import read_json_lines

CALL = {"name": "get_weather", "arguments": {"city": "Rome", "unit": "celsius"}}
OTHER = {"name": "book_table", "arguments": {"city": "Oslo", "people": 4}}
A, B = json.dumps(CALL), json.dumps(OTHER)
PYTHON_A, PYTHON_B = "get_weather(city='Rome', unit='celsius')", 'book_table(city="Oslo", people=4)'

ALONE = (
    "{json}", "[{json}]", "<tool_call>{json}</tool_call>", "<tool_call>{python}</tool_call>", "<TOOLCALL>[{json}]</TOOLCALL>",
    "<|python_tag|>{json}", "```json\n{json}\n```", "```\n{python}\n```", "{python}", "[{python}]",
    "<tool_call>```json\n{json}\n```</tool_call>", "[ {json} ]",
)  # fmt: skip
SECOND = (*ALONE, "```json {json} ```", "- {json}", "> {json}", "`{json}`", "{single}", "{arguments_first}",
          "<tool_call> {json}", "{with_id}", "{in_a_list_with_data}", "{inside_data}")  # fmt: skip
BETWEEN = (
    "\n",
    "\n\nThen I also do this.\n",
    " ; ",
    "\nSee {x} and [1, 2], or f(x), it's done:\n",
    '\n{"city": "Rome"}\n',
)


def code_of(text: str) -> str | None:
    error = parse(text).error
    return None if error is None else error.code


def written(form: str, call: dict[str, Any], python: str) -> str:
    text = json.dumps(call)
    wire = {"id": "call_1", "type": "function", "function": {**call, "arguments": json.dumps(call["arguments"])}}
    forms = {
        "json": text,
        "python": python,
        "single": repr(call),
        "arguments_first": json.dumps({"arguments": call["arguments"], "name": call["name"]}),
        "with_id": json.dumps(wire),
        "in_a_list_with_data": json.dumps([call, {"city": "Rome"}]),
        "inside_data": json.dumps({"id": 3, "steps": [call]}),
    }
    for name, value in forms.items():
        form = form.replace(f"{{{name}}}", value)
    return form


@pytest.mark.parametrize("between", BETWEEN)
def test_a_second_call_in_any_form_never_passes_unseen(between: str) -> None:
    """A tag refuses prose in it: an error, and seen. A Python call with prose on its line is prose: it is not right."""
    for first, second in product(ALONE, SECOND):
        text = written(first, CALL, PYTHON_A) + between + written(second, OTHER, PYTHON_B)
        parsed = parse(text)
        assert parsed.error or parsed.calls in ([], [CALL, OTHER]), text
        assert not compare(parsed, CALL, TOOLS).ok, text


@pytest.mark.parametrize("text", [
    f"{A}\nAnd now the table.\n{B}", f"{A} {B}", f"{A}<tool_call>{B}</tool_call>", f"```json\n{A}\n```\nthen\n```json\n{B}\n```",
    f"<tool_call>{A}</tool_call>\nAnd the table:\n{B}", f"<|python_tag|>{A}<tool_call>{B}</tool_call>",
    f"```json\n{A}\n```\n{B}", f"{PYTHON_A}\n{PYTHON_B}", f"{PYTHON_A}; {PYTHON_B}", f"{PYTHON_A}, {PYTHON_B}",
    f"[{PYTHON_A}]\n{B}", f"[{PYTHON_A}] [{PYTHON_B}]", f"```python\n{PYTHON_A}\n{PYTHON_B}\n```",
    f"{PYTHON_A} {B}", f"`{A}` `{B}`".lstrip("`"), f"```json\n{A}\n``` ; {PYTHON_B}",
    f"I do two things: {A} and\n<tool_call>{B}</tool_call>", f"First {A}\n```json\n{B}\n```", f"{A}\n{PYTHON_B}",
])  # fmt: skip
def test_calls_in_mixed_forms_are_read_in_their_order(text: str) -> None:
    assert parse(text)[1:3] == ([CALL, OTHER], None)


@pytest.mark.parametrize("second", [
    '{"name": "book_table", "argum', '{"name": "book_table", "arguments": {city: 1}}', "<tool_call>", "<tool_call>{",
    'book_table(city="Os', "book_table(city=Oslo)", "[book_table(1)]",
    '{"tool": "book_table", "arguments": {}}', "{name: 'book_table', arguments: {}}",
    '{"name": "book_table", "arguments": [1]}', '{"name": "book_table", "arguments": "{} {}"}',
])  # fmt: skip
def test_a_second_call_that_cannot_be_read_is_an_error(second: str) -> None:
    assert compare(parse(f"{A}\n{second}"), CALL, TOOLS).error_kind == "unparseable_call"
    assert compare(parse(f"<tool_call>{A}</tool_call>\nThen:\n{second}"), CALL, TOOLS).error_kind == "unparseable_call"


@pytest.mark.parametrize("prose", [
    'It is for {"name": "Rome"}.', "I called get_weather(city='Rome') for you.", "print(x=1) shows it.", "print('hi')",
    "I wrapped it in <tool_call> tags.", "I used `<tool_call>` and `</tool_call>`.", 'See {"name": ...} and {x}.',
    '```json\n{"temperature": 21}\n```', '[{"name": "Ada", "age": 36}]', '{"type": "city", "name": "Rome"}',
    "```python\nprint(x, sep='')\n```", "[docs](https://x.y/f(x))", "It's 21 degrees; isn't it (roughly) warm?", "</tool_call>",
    "It holds <tool_call> and </tool_call>.",
])  # fmt: skip
def test_what_only_looks_like_a_call_is_none_alone_and_behind_one(prose: str) -> None:
    assert parse(prose)[1:3] == ([], None)
    for form in ("{json}", "<tool_call>{json}</tool_call>", "```json\n{json}\n```", "[{python}]", "{python}"):
        text = written(form, CALL, PYTHON_A) + "\n" + prose
        assert parse(text)[1:3] == ([CALL], None), text


@pytest.mark.parametrize("data", [
    '{"tool": "lamp", "parameters": {"watt": 5}}', '{"name": "fit", "parameters": [0.5, 2]}', '{"type": "function", "of": "x"}',
    f'[{A}, {{"city": "Rome"}}]', '{"id": "call", "name": "Rome"}',
])  # fmt: skip
def test_data_alone_is_an_answer(data: str) -> None:
    assert parse(data)[1:3] == ([], None)


@pytest.mark.parametrize("second", ["book-table(city='Oslo')", 'book_table(from="Oslo")'])
def test_a_second_call_whose_names_are_not_pythons_is_read(second: str) -> None:
    assert compare(parse(f"{A}\n{second}"), CALL, TOOLS).error_kind == "extra_call"


def test_an_object_that_calls_is_read_inside_prose_too_and_the_prose_is_forgiven() -> None:
    for text in (f"I do this: {A} now.", f"Let me see.\n{A}", f"{A}\nDone."):
        parsed = parse(text)
        assert (parsed.calls, parsed.strict, parsed.forgiven) == ([CALL], False, ("prose_around",)), text
    assert parse(f"I do this: {A} and\n<tool_call>{B}</tool_call>").calls == [CALL, OTHER]


@pytest.mark.parametrize("form", ["<tool_call>{}</tool_call>", "{}", "```json\n{}\n```"])
@pytest.mark.parametrize("value", [r'"\ud800"', r'{"\udc00": 1}', "1" * 400, "-" + "9" * 5000, "1e999", '"\ud800"'])
def test_a_value_that_cannot_be_kept_is_an_error_of_the_answer(form: str, value: str) -> None:
    text = form.format(f'{{"name": "f", "arguments": {{"a": {value}}}}}')
    assert code_of(text) == "invalid_json"


@pytest.mark.parametrize(
    "value", ["0x" + "f" * 4000, "-0x" + "f" * 4000, r"'\ud800'", "1" * 400, "{'\\udc00': 1}", "1e999"]
)
def test_a_python_value_that_cannot_be_kept_is_an_error_too(value: str) -> None:
    for text in (f"[f(a={value})]", f"<tool_call>f(a={value})</tool_call>", f"{A}\nf(a={value})"):
        assert code_of(text) == "invalid_json", text


def test_answers_of_any_text_are_written_and_read_back(tmp_path: Path) -> None:
    row = next(row for row in tiny_choice_rows(8) if row["correct_answer"] == "tool_call")
    texts = [r'<tool_call>{"name": "f", "arguments": {"a": "\ud800"}}</tool_call>', f"[f(a=0x{'f' * 4000})]",
             "half \ud800 a pair, \x00 \u2028 \r\n é", f'{{"name": "f", "arguments": {{"a": {2**70}}}}}']  # fmt: skip
    lines = [judge_step(step_of_item(row), text) for text in texts]
    write_lines(tmp_path / "written.jsonl", [*lines, {"id": "\ud800"}])
    *read, last = read_json_lines(tmp_path / "written.jsonl")
    assert read == json.loads(json.dumps(lines))
    assert last == {"id": "\ud800"}
    assert all(line["text"].encode() for line in read)  # a report, a mirror and a server can write it


def test_a_tool_whose_schema_cannot_be_followed_does_not_end_the_run() -> None:
    for schema in ({"$ref": "#/nowhere"}, {"$ref": "#/properties/a"}):
        offered = [{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}]
        parsed = parse('{"name": "f", "arguments": {"a": 1}}')
        assert compare(parsed, {"name": "f", "arguments": {"a": 1}}, offered).ok
        assert compare(parsed, {"name": "f", "arguments": {"a": 2}}, offered).error_kind == "wrong_value"
        assert compare(parsed, None, offered, "tool_call").ok


pieces = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<TOOLCALL>", "<|python_tag|>", "```json\n", "```", '{"name": "f", "arguments": ', '{"a": ',
     "{", "}", "[", "]", "f(", "f(a=", ")", "a=1", ", ", "; ", "\n", "<think>", "</think>", r'"\ud800"', r'"\udfff\ud800"',
     '"\ud800"', "'\\ud83d'", "\udfff", "0x" + "f" * 4000, "9" * 400, "9" * 5000, "1e999", "NaN", "-Infinity", "1_0", "0b1",
     "\u0661\u0662", "\uff11", "\x00", "\\", '"', "'", "true", "None", "[" * 40, "]" * 40, "(" * 200, A, B, PYTHON_A, "is it?"]
)  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(text=st.lists(pieces | st.text(max_size=8), max_size=14).map("".join))
@example(text="f(a=" * 20_000)
@example(text="f(a=\n" * 15_000 + A)
@example(text=A + '[f(a="' + '\\"' * 40_000)
@example(text=A + '{"id": "' * 10_000)
@example(text=A + '{"id": [' * 10_000)
@example(text=A + "{'" * 30_000 + "[ " * 10_000)
@example(text=A + " \n" * 45_000)
@example(text="see " + A + '{"id": 1, "name": ' * 5_000)
def test_any_text_is_parsed_compared_and_kept(text: str) -> None:
    parsed = parse(text)
    assert (parsed.behaviour_guess == "tool_call") == bool(parsed.calls or parsed.error)
    assert json.loads(json.dumps(parsed, ensure_ascii=False).encode()) == json.loads(json.dumps(parsed))
    for gold in (CALL, [CALL, OTHER], None):
        assert compare(parsed, gold, TOOLS, "tool_call").error_kind in {None, *ERROR_KINDS}


@pytest.mark.parametrize("mark", ["- ", "* ", "> ", "1. ", "2) "])
def test_a_call_behind_a_list_mark_counts(mark: str) -> None:
    assert [call["name"] for call in parse(f"f(a=1)\n{mark}g(b=2)").calls] == ["f", "g"]


@pytest.mark.parametrize("text", ["[file(s)](http://x)", "see [page(s)](https://a.b/c)"])
def test_a_link_behind_a_call_is_no_call(text: str) -> None:
    parsed = parse(f'<tool_call>{{"name": "f", "arguments": {{"a": 1}}}}</tool_call>\n{text}')
    assert (parsed.error, [call["name"] for call in parsed.calls]) == (None, ["f"])


@pytest.mark.parametrize("text", ['f(code="""it\'s 5" wide""")', "f(a=1, # it's\n b=2)"])
def test_python_with_quotes_in_longer_quotes_or_comments_is_read(text: str) -> None:
    assert [call["name"] for call in parse(text).calls] == ["f"]
