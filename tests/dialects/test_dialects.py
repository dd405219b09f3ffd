"""Every dialect's calls are read as they were meant, strictly in their own dialect and tolerantly beside it."""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest
from written_calls import EVERY_WAY, HIDDEN, TEMPLATES, TOLERATED, Call

from rightcall.dialects.reading import dialect_of
from rightcall.toolcalls.judging import judge_step
from rightcall.toolcalls.verifier import compare, parse


def tool(name: str, **types: str) -> dict[str, Any]:
    properties = {key.rstrip("_"): {"type": kind} for key, kind in types.items()}
    return {"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": properties}}}


TOOLS = [
    tool("plan_trip", trip="object", note="string", days="integer", flat="string", near="array"),
    tool("town-weather", town="string", from_="string", class_="string"),
    tool("mcp.rail.find", class_="string", to="string"),
    tool("now"),
]
TRIP = {"stops": [{"city": "Zürich", "zip": 8001, "near": None}, {"city": "東京 😀"}], "direct": True, "weight": 2.5}
PLAN: Call = {"name": "plan_trip", "arguments": {
    "trip": TRIP, "note": 'It\'s "5 < 6" & <b>\nnew</b>', "days": 3, "flat": "7", "near": [1, "a", []],
}}  # fmt: skip
KEBAB: Call = {"name": "town-weather", "arguments": {"from": "Graz", "class": "2"}}
DOTTED: Call = {"name": "mcp.rail.find", "arguments": {"class": "2", "to": "Linz"}}
NOW: Call = {"name": "now", "arguments": {}}


def as_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("calls", [[PLAN], [KEBAB], [DOTTED], [NOW], [KEBAB, DOTTED], [PLAN, NOW, KEBAB]])
@pytest.mark.parametrize("way", TEMPLATES)
def test_what_a_template_writes_is_read_back_strictly_in_its_own_dialect(way: str, calls: list[Call]) -> None:
    text = TEMPLATES[way](calls)
    dialect = dialect_of(text, TOOLS)
    assert dialect is not None, text
    parsed = parse(text, dialect, TOOLS)
    assert as_json(parsed.calls) == as_json(calls), text
    assert (parsed.strict, parsed.forgiven) == (True, ())


@pytest.mark.parametrize("way", TOLERATED)
def test_what_had_to_be_forgiven_is_named(way: str) -> None:
    write, forgiven = TOLERATED[way]
    for calls in ([KEBAB], [KEBAB, DOTTED]):
        parsed = parse(write(calls), None, TOOLS)
        assert as_json(parsed.calls) == as_json(calls), write(calls)
        assert (set(parsed.forgiven), parsed.strict) == (forgiven, False)


def test_a_call_in_another_dialect_than_the_expected_one_is_read_and_is_not_strict() -> None:
    hermes = dialect_of(TEMPLATES["Hermes, Qwen2.5, Qwen3"]([KEBAB]))
    for way in ("Mistral v3", "Llama 3.1", "LFM2", "Granite 3.1"):
        parsed = parse(TEMPLATES[way]([KEBAB]), hermes)
        assert (parsed.calls, parsed.strict, parsed.forgiven) == ([KEBAB], False, ("other_dialect",)), way


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if way != "no closing tag"])
def test_a_call_between_prose_is_read(way: str) -> None:
    """Python in a sentence is none: there it must begin a line, and its tool must be offered."""
    text = f"Let me look that up.\n{EVERY_WAY[way]([KEBAB])}\nI have asked for it."
    parsed = parse(text, None, TOOLS)
    assert parsed.calls == [KEBAB], (text, parsed.error)
    assert "prose_around" in parsed.forgiven


def test_prose_in_front_of_a_mark_is_part_of_the_dialect() -> None:
    for way in ("Hermes, Qwen2.5, Qwen3", "Mistral v3", "GLM-4.5", "Gemma 4"):
        assert parse(f"Let me look.\n{TEMPLATES[way]([KEBAB])}").strict, way
    assert not parse(f"Let me look.\n{TEMPLATES['Llama 3.1']([KEBAB])}").strict


@pytest.mark.parametrize("between", ["\n", "\n\nThen I also do this:\n", "\n; \n"])
def test_a_second_call_of_any_dialect_behind_one_of_any_dialect_never_passes_unseen(between: str) -> None:
    for first, second in product(EVERY_WAY, EVERY_WAY):
        text = EVERY_WAY[first]([KEBAB]) + between + EVERY_WAY[second]([DOTTED])
        for tools in (None, TOOLS):
            parsed = parse(text, None, tools)
            assert parsed.error or [call["name"] for call in parsed.calls] in ([], ["town-weather", "mcp.rail.find"]), (
                text
            )
            assert not compare(parsed, KEBAB, TOOLS).ok, text


@pytest.mark.parametrize("hidden", HIDDEN)
def test_no_second_call_is_hidden_in_a_sentence_or_a_rare_form(hidden: str) -> None:
    for way in EVERY_WAY:
        parsed = parse(f"{EVERY_WAY[way]([KEBAB])}\n{hidden}", None, TOOLS)
        assert parsed.error or len(parsed.calls) == 2, parsed
        assert not compare(parsed, KEBAB, TOOLS).ok


@pytest.mark.parametrize("prose", [
    'It is for {"name": "Rome"}.', "I called town-weather(from='Graz') for you.", "print(x=1) shows it.",
    "I wrapped it in <tool_call> tags.", "The token [TOOL_CALLS] comes first.", "`<function=f>` opens one.",
    'A tool: {"name": "f", "description": "d", "parameters": {"type": "object", "properties": {}}}', "See sorted(x, key=1).",
    "Action: none needed.", "to=Graz is a parameter.", "functools is a module of Python.", "result = 5", "<b>{x}</b>",
])  # fmt: skip
def test_what_only_looks_like_a_call_is_none(prose: str) -> None:
    assert parse(prose, None, TOOLS)[1:3] == ([], None)
    for way in ("Hermes, Qwen2.5, Qwen3", "Mistral v13", "GLM-4.5", "xLAM"):
        assert parse(f"{TEMPLATES[way]([KEBAB])}\n{prose}", None, TOOLS)[1:3] == ([KEBAB], None), way


@pytest.mark.parametrize(
    "prose", ["Well, (see) {x}:", 'I asked {"city": Rome} and {y}.', "It's {", "[{x}]", '{"a": 1, "a": 2}']
)
def test_braces_of_prose_in_front_of_a_call_are_no_call(prose: str) -> None:
    for way in ("Hermes, Qwen2.5, Qwen3", "Nemotron Nano, When2Call", "Llama 3.1"):
        assert parse(f"{prose}\n{TEMPLATES[way]([KEBAB])}", None, TOOLS)[1:3] == ([KEBAB], None), way


def test_a_bare_name_calls_only_where_such_a_tool_is_offered() -> None:
    assert parse('{"name": "now"}', None, TOOLS).calls == [NOW]
    assert parse('{"name": "now"}').calls == []
    assert parse('{"name": "Rome"}', None, TOOLS).calls == []


def test_the_schema_says_what_a_value_written_as_text_is() -> None:
    text = TEMPLATES["Qwen3-Coder, Qwen3.5, Nemotron 3"]([PLAN])
    assert parse(text, None, TOOLS).calls == [PLAN]
    assert parse(text).calls[0]["arguments"]["flat"] == 7  # without tools: what JSON reads
    schema = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    offered = {"name": "f", "parameters": {"type": "object", "properties": {"a": schema, "b": {"type": ["boolean"]}}}}
    written = "<function=f>\n<parameter=a>\nNone\n</parameter>\n<parameter=b>\nTrue\n</parameter>\n</function>"
    assert parse(written, None, [offered]).calls == [{"name": "f", "arguments": {"a": None, "b": True}}]


@pytest.mark.parametrize("text", [
    '<tool_call>{"name": "f", "name": "g", "arguments": {}}</tool_call>', "[f(a=1, a=2)]",
    '[TOOL_CALLS]f\n{"name": "g", "arguments": {}}', '<tool_call>f\n{"name": "g", "arguments": {}}',
    '{"name": "f", "arguments": {"a": 1}, "parameters": {"a": 2}}',
    "<function=f><parameter=a>1</parameter><parameter=a>2</parameter></function>",
    "<function=f><parameter=a>1</function></tool_call><tool_call><function=g></parameter></function>",
    "<tool_call>f<arg_key>a</arg_key><arg_value>1</tool_call><tool_call>g<arg_key>b</arg_key><arg_value>2</arg_value></tool_call>",
])  # fmt: skip
def test_what_readers_would_read_differently_is_an_error(text: str) -> None:
    assert parse(text).error is not None


@pytest.mark.parametrize("way", TEMPLATES)
def test_a_call_that_is_cut_off_in_its_arguments_is_never_another_call(way: str) -> None:
    text = TEMPLATES[way]([PLAN])
    for cut in range(text.index("Zürich"), text.index("東京")):
        parsed = parse(text[:cut], None, TOOLS)
        assert parsed.calls == [], text[:cut]


def test_an_argument_may_hold_a_tag_or_a_mark() -> None:
    call = {"name": "town-weather", "arguments": {"town": "</tool_call>[TOOL_CALLS]"}}
    for way in ("Hermes, Qwen2.5, Qwen3", "Mistral v13", "Llama 3.2, Gemma 3, pythonic", "Kimi K2", "LFM2"):
        assert parse(TEMPLATES[way]([call])).calls == [call], way
    assert parse('<|python_tag|>f(a="</tool_call>")').calls == [{"name": "f", "arguments": {"a": "</tool_call>"}}]


def test_an_answer_is_judged_by_its_tools_and_keeps_whether_it_is_strict() -> None:
    message = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": PLAN}]}
    step = {"messages": [{"role": "user", "content": "?"}, message], "tools": TOOLS, "behaviour": "tool_call"}
    written = TEMPLATES["Qwen3-Coder, Qwen3.5, Nemotron 3"]([PLAN])
    for dialect, strict in ((None, True), (dialect_of(written, TOOLS), True), ("{name,parameters}", False)):
        verdict = judge_step(step, written, None, dialect)["verdict"]
        assert (verdict["ok"], verdict["strict"]) == (True, strict)
    assert judge_step(step, f"```json\n{json.dumps(PLAN)}\n```")["verdict"]["forgiven"] == ["fence"]


@pytest.mark.parametrize("thoughts", [
    "They want Graz. <tool_call>no</tool_call>\n</think>\n\n", "<think>\nHm.\n</think>\n", "I am unable to see.\n</think>",
    "<|channel|>analysis<|message|>to=functions.now<|end|>",
])  # fmt: skip
def test_thoughts_are_no_part_of_the_answer(thoughts: str) -> None:
    for way in TEMPLATES:
        if way != "Gemini, tool_code" or thoughts.endswith("\n"):
            assert parse(thoughts + TEMPLATES[way]([KEBAB]), None, TOOLS)[1:3] == ([KEBAB], None), way
    assert (
        parse(thoughts + "<|start|>assistant<|channel|>final<|message|>Which town?").behaviour_guess
        == "request_for_info"
    )


@pytest.mark.parametrize(("written", "schema", "read"), [
    ("['a', 'it\\'s', None, True]", {"type": "array"}, ["a", "it's", None, True]),
    ("{'zip': 150, 'near': ['Ås']}", {"type": "object"}, {"zip": 150, "near": ["Ås"]}),
    ("['a'", {"type": "array"}, "['a'"),
    ("['a'] + ['b']", {"type": "array"}, "['a'] + ['b']"),
    ("[__import__('os')]", {"type": "array"}, "[__import__('os')]"),
    ("['a']", {"type": ["array", "string"]}, "['a']"),
    ("['a']", {"type": "string"}, "['a']"),
])  # fmt: skip
def test_a_list_or_object_may_be_written_as_python_shows_it(written: str, schema: dict[str, Any], read: Any) -> None:
    tools = [{"name": "f", "parameters": {"type": "object", "properties": {"a": schema}}}]
    text = f"<tool_call>\n<function=f>\n<parameter=a>\n{written}\n</parameter>\n</function>\n</tool_call>"
    assert parse(text, tools=tools).calls == [{"name": "f", "arguments": {"a": read}}]


@pytest.mark.parametrize("written", [
    "Sunny?",
    "<think>Do they mean Rome?</think>Sunny?",
    "<seed:think>I may call f(a=1).</seed:think>Sunny?",
    "[THINK]Do they?[/THINK]Sunny?",
    "They may.[/THINK]Sunny?",
    "<|START_THINKING|>Hm.<|END_THINKING|><|START_RESPONSE|>Sunny?<|END_RESPONSE|>",
    "<|channel>thought\nHm.<channel|>Sunny?",
    "<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant<|channel|>final<|message|>Sunny?",
    " to=user<|message|>Sunny?",
])  # fmt: skip
def test_what_is_said_is_the_answer_without_thoughts_and_marks(written: str) -> None:
    assert parse(written).said == "Sunny?"
