"""The verifier reads every way of writing a call, runs nothing, never raises, and names what is wrong."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tiny import TOOLS, call_message

from rightcall.bfcl.phrases import EVALUATION, TRAINING
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.toolcalls.schema import validate_call
from rightcall.toolcalls.verifier import ERROR_KINDS, Judgement, compare, parse
from rightcall.toolcalls.words import guess_behaviour

CALL = {"name": "get_weather", "arguments": {"city": "Rome", "unit": "celsius"}}
TEXT = json.dumps(CALL)
OTHER = {"name": "book_table", "arguments": {"city": "Rome", "people": 4}}


def called(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def tool(name: str, properties: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "",
            "parameters": {"type": "object", "properties": properties, **more},
        },
    }


@pytest.mark.parametrize("text", [
    f"<tool_call>\n{TEXT}\n</tool_call>",
    f"<tool_call>{TEXT}",  # the closing tag may be the stop text
    f"<think>\nLet me see.\n</think>\n\n<tool_call>{TEXT}</tool_call>",
    f"Let me look that up.\n<tool_call>{TEXT}</tool_call>",
    f"<TOOLCALL>[{TEXT}]</TOOLCALL>",
    f"<TOOLCALL>{TEXT}</TOOLCALL>",
    TEXT, f"[{TEXT}]", f"  {TEXT}\nI have called it.",
    TEXT.replace("arguments", "parameters"),
    json.dumps({"type": "function", "function": {"name": CALL["name"], "arguments": json.dumps(CALL["arguments"])}}),
    json.dumps({"type": "function", "id": "x", **CALL}),
    f"<|python_tag|>{TEXT}",
    '<|python_tag|>get_weather(city="Rome", unit="celsius")',
    '[get_weather(city="Rome", unit=\'celsius\')]', 'get_weather(city="Rome", unit="celsius")',
    f"```json\n{TEXT}\n```", f"Here you are:\n```json\n{TEXT}\n```\nDone.", f"```\n{TEXT}",
    f"<tool_call>\n```json\n{TEXT}\n```\n</tool_call>",
])  # fmt: skip
def test_every_way_of_writing_a_call_reads_the_same(text: str) -> None:
    assert parse(text)[:4] == ("tool_call", [CALL], None, text)


@pytest.mark.parametrize("text", [
    f"<tool_call>{TEXT}</tool_call>\n<tool_call>{json.dumps(OTHER)}</tool_call>",
    f"<tool_call>{TEXT}\n<tool_call>{json.dumps(OTHER)}",
    f"<TOOLCALL>[{TEXT}, {json.dumps(OTHER)}]</TOOLCALL>", f"{TEXT}; {json.dumps(OTHER)}",
    f"<|python_tag|>{TEXT};{json.dumps(OTHER)}",
    '[get_weather(city="Rome", unit="celsius"), book_table(city="Rome", people=4)]',
])  # fmt: skip
def test_parallel_calls_keep_their_order(text: str) -> None:
    assert parse(text).calls == [CALL, OTHER]


def test_pythonic_literals_become_their_json_values() -> None:
    text = "[a.b(x=-1.5, y=True, z=null, w=[1, (2,)], v={'k': None}, u='it\\'s')]"
    assert parse(text).calls == [called("a.b", x=-1.5, y=True, z=None, w=[1, [2]], v={"k": None}, u="it's")]


@pytest.mark.parametrize(("text", "code"), [
    ('<tool_call>\n{"name": "f", "argu', "unterminated_json"), ("<tool_call>", "unterminated_json"),
    ('{"name": "f", "arguments": {"a": "b', "unterminated_json"),
    ('[f(a=1, b="x', "unterminated_json"), ("<tool_call>{name: 'f'}</tool_call>", "invalid_json"),
    ('<tool_call>{"name": "f", "arguments": {}} oops</tool_call>', "invalid_json"),
    ('{"name": "f", "arguments": {"a": NaN}}', "invalid_json"),
    ('{"name": "f", "arguments": {"a": 1e999}}', "invalid_json"), ("[f(a=1e999)]", "invalid_json"),
    ('<tool_call>{"arguments": {}}</tool_call>', "not_a_call"),
    ('<tool_call>{"name": "f", "arguments": [1]}</tool_call>', "not_a_call"),
    ('<TOOLCALL>["f"]</TOOLCALL>', "not_a_call"), ("[f(1)]", "not_a_call"), ("[f(**{'a': 1})]", "not_a_call"),
    ("[f(a=__import__('os').system('true'))]", "not_a_literal"), ("[f(a=b'x')]", "not_a_literal"),
    ("[f(a=1+1)]", "not_a_literal"), ("[f(a=x)]", "not_a_literal"),
    ('{"name": "f", "arguments": {"a": ' + "[" * 40 + "]" * 40 + "}}", "too_deep"),
    ('{"name": "f", "arguments": ' + '{"a": ' * 5000, "too_deep"),
    ('{"name": "' + "x" * 100_000, "too_long"), (f"[{', '.join([TEXT] * 65)}]", "too_many_calls"),
])  # fmt: skip
def test_a_call_that_cannot_be_read_is_an_attempted_call_with_its_error(text: str, code: str) -> None:
    parsed = parse(text)
    assert (parsed.behaviour_guess, parsed.calls) == ("tool_call", [])
    assert parsed.error is not None
    assert parsed.error.code == code
    assert compare(parsed, CALL, TOOLS).error_kind == "unparseable_call"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "It is sunny.",
        '{"name": "Ada", "age": 36}',
        "[1, 2, 3]",
        "f(x) is the function",
        "See [docs](https://x.y)",
        "{}",
        "print('hi')",
    ],
)
def test_an_answer_that_only_looks_like_a_call_is_none(text: str) -> None:
    assert (parse(text).calls, parse(text).error) == ([], None)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
names = st.from_regex(r"[A-Za-z_][A-Za-z0-9_.\-]{0,20}", fullmatch=True)
calls = st.builds(
    lambda name, arguments: {"name": name, "arguments": arguments},
    names,
    st.dictionaries(st.text(max_size=8), json_values, max_size=4),
)


@settings(max_examples=150, deadline=None)
@given(call=calls)
@example(call=called("f", a="</tool_call>"))
@example(call=called("f", a="```json\n{}\n```"))
@example(call=called("f", a="<tool_call>{}"))
def test_what_the_template_writes_is_what_the_verifier_reads(template: ChatTemplate, call: dict[str, Any]) -> None:
    assert parse(template.answer_text(call_message(call["name"], call["arguments"]))).calls == [call]


@settings(max_examples=100, deadline=None)
@given(call=calls, data=st.data())
def test_every_cut_off_call_is_an_unterminated_call(call: dict[str, Any], data: st.DataObject) -> None:
    text = json.dumps(call, ensure_ascii=data.draw(st.booleans()))
    cut = data.draw(st.integers(len('{"name":'), len(text) - 1))
    error = parse(f"<tool_call>\n{text[:cut]}").error
    assert error is not None, text[:cut]
    assert error.code == "unterminated_json", text[:cut]


fragments = st.sampled_from(
    ["<tool_call>", "</tool_call>", "<TOOLCALL>", "<|python_tag|>", "```json\n", "```", '{"name": "f"', '"arguments":',
     "{", "}", "[", "]", "f(", ")", "a=1",
     "<think>", "</think>", "could you ", "cannot ", "?", "\\", '"', "\x00", "\ud800", "9" * 5000, "-" * 300]
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(text=st.lists(fragments | st.text(max_size=10), max_size=12).map("".join))
@example(text="[" * 90_000)
@example(text="[f(a=" + "(" * 15_000)
@example(text="[f(a=" + "-" * 15_000 + "1)]")
@example(text="f(" * 5_000 + ")" * 5_000)
@example(text="could you " * 9_000)
@example(text="```json\n" * 10_000)
@example(text='{"name": ' * 9_000)
def test_parsing_and_comparing_never_raise(text: str) -> None:
    parsed = parse(text)
    assert (parsed.behaviour_guess == "tool_call") == bool(parsed.calls or parsed.error)
    assert compare(parsed, CALL, TOOLS).error_kind in {None, *ERROR_KINDS}


@pytest.mark.parametrize(("text", "behaviour"), [
    ("Could you please specify the city?", "request_for_info"),
    ("In which city should I book the table?", "request_for_info"),
    ("To proceed, I need to know the date.", "request_for_info"),
    ("I can't book that without a date. Which date would you like?", "request_for_info"),
    ("I'm sorry, I can't perform web searches.", "cannot_answer"),
    ("No available function lets me buy tickets.", "cannot_answer"),
    ("I'm unable to do that. Is there anything else I can help you with?", "cannot_answer"),
    ("Apologies, that is outside what I can do here.", "cannot_answer"),
    ("It is 21 degrees in Rome.", "direct"),
    ("The French for 'What is your name?' is \"Comment vous appelez-vous ?\".", "direct"), ("", "direct"),
])  # fmt: skip
def test_words_decide_what_a_text_does(text: str, behaviour: str) -> None:
    assert guess_behaviour(text) == behaviour


@pytest.mark.parametrize("behaviour", ["request_for_info", "cannot_answer"])
def test_every_phrase_that_the_quickstart_teaches_or_asks_for_is_understood(behaviour: str) -> None:
    filled = {"name": "location", "what": "the city", "topic": "the weather in Rome", "ability": "play a song"}
    phrases = [*getattr(TRAINING, behaviour), *getattr(EVALUATION, behaviour)]
    assert {text: guess_behaviour(text) for text in (phrase.format(**filled) for phrase in phrases)} == {
        phrase.format(**filled): behaviour for phrase in phrases
    }


@pytest.mark.parametrize(("call", "kind"), [
    (CALL, None), (called("get_weather", city=" rome.", unit="Celsius"), "wrong_value"),
    (called("get_weather", city="ROME", unit="celsius"), None),
    (called("fly", city="Rome"), "hallucinated_tool"), (called("book_table", city="Rome", people=4), "wrong_tool"),
    (called("get_weather", unit="celsius"), "missing_argument"),
    (called("get_weather", city="Rome"), "missing_argument"),
    (called("get_weather", city="Rome", unit="celsius", when="now"), "invented_argument"),
    (called("get_weather", city=7, unit="celsius"), "wrong_type"),
    (called("get_weather", city="Oslo", unit="celsius"), "wrong_value"),
])  # fmt: skip
def test_the_error_of_a_call_is_named(call: dict[str, Any], kind: str | None) -> None:
    verdict = compare(parse(json.dumps(call)), CALL, TOOLS)
    assert (verdict.error_kind, verdict.ok, verdict.right_arguments) == (kind, kind is None, kind is None)
    assert verdict.right_tool is (call["name"] == "get_weather")
    assert verdict.right_behaviour


TEXTS = {
    "tool_call": TEXT,
    "request_for_info": "Which city?",
    "cannot_answer": "Sorry, I cannot.",
    "direct": "It is sunny.",
}


@pytest.mark.parametrize(("gold", "kinds"), [
    ("tool_call", (None, "asked_when_should_call", "refused_when_should_call", "did_not_call")),
    ("request_for_info", ("called_when_should_ask", None, "refused_when_should_ask", "answered_when_should_ask")),
    ("cannot_answer", ("called_when_nothing_fits", "asked_when_nothing_fits", None, "answered_when_nothing_fits")),
    ("direct", ("called_when_should_answer", "asked_when_should_answer", "refused_when_should_answer", None)),
])  # fmt: skip
def test_doing_another_thing_than_gold_is_named(gold: Any, kinds: tuple[str | None, ...]) -> None:
    for (behaviour, text), kind in zip(TEXTS.items(), kinds, strict=True):
        verdict = compare(parse(text), CALL if gold == "tool_call" else None, TOOLS, gold)
        right_call = (kind is None) if gold == "tool_call" else None
        assert verdict == Judgement(
            kind is None, True if behaviour == "tool_call" else None, right_call, right_call, kind is None, kind
        )


@pytest.mark.parametrize("text", ["", " \n", "<think>Hm, sunny.</think>\n"])
def test_an_answer_that_says_nothing_is_never_right(text: str) -> None:
    kinds = {gold: compare(parse(text), None, TOOLS, gold).error_kind for gold in TEXTS}
    assert kinds == {
        "tool_call": "did_not_call", "request_for_info": "answered_when_should_ask",
        "cannot_answer": "answered_when_nothing_fits", "direct": "said_nothing",
    }  # fmt: skip
    verdict = compare(parse(text), None, TOOLS, "direct")
    assert (verdict.ok, verdict.right_behaviour) == (False, False)


def test_parallel_calls_match_in_any_order_and_count() -> None:
    both = f"<TOOLCALL>[{TEXT}, {json.dumps(OTHER)}]</TOOLCALL>"
    assert compare(parse(both), [OTHER, CALL], TOOLS).ok
    assert compare(parse(both), [CALL], TOOLS).error_kind == "extra_call"
    assert compare(parse(TEXT), [OTHER, CALL], TOOLS).error_kind == "missing_call"
    assert compare(parse(both), [CALL, called("book_table", city="Rome", people=5)], TOOLS).error_kind == "wrong_value"


def test_accepted_values_of_bfcl_allow_each_of_them_and_leaving_out() -> None:
    offered = [
        tool(
            "f",
            {"x": {"type": "integer"}, "u": {"type": "string"}, "o": {"type": "object"}, "l": {"type": "array"}},
            required=["x"],
        )
    ]
    gold = {
        "name": "f",
        "string_rule": "bfcl",
        "accepted": {
            "x": [5],
            "u": ["km", "kilometer", ""],
            "o": [{"k": ["a", "b"], "z": [1, ""]}, ""],
            "l": [["p", "q"], ""],
        },
    }
    for call in (
        called("f", x=5),
        called("f", x=5.0, u="KM"),
        called("f", x=5, o={"k": "b"}),
        called("f", x=5, o={"k": "a", "z": 1}, l=["P", "q"]),
    ):
        assert compare(parse(json.dumps(call)), gold, offered).ok, call
    for call in (
        called("f", x=5, u="mile"),
        called("f", x=5, o={"k": "c"}),
        called("f", x=5, o={}),
        called("f", x=5, l=["q", "p"]),
    ):
        assert compare(parse(json.dumps(call)), gold, offered).error_kind == "wrong_value", call


def test_an_optional_argument_may_stand_at_its_default_or_be_left_out() -> None:
    offered = [
        tool(
            "f",
            {"x": {"type": "integer"}, "n": {"type": "integer", "default": 1}, "s": {"type": "string"}},
            required=["x"],
        )
    ]
    assert compare(parse(json.dumps(called("f", x=1, n=1))), called("f", x=1), offered).ok
    assert compare(parse(json.dumps(called("f", x=1))), called("f", x=1, n=1), offered).ok
    assert compare(parse(json.dumps(called("f", x=1, n=2))), called("f", x=1), offered).error_kind == "extra_argument"
    assert compare(parse(json.dumps(called("f", x=1, s="a"))), called("f", x=1), offered).error_kind == "extra_argument"


def test_without_gold_call_a_valid_call_will_do() -> None:
    assert compare(parse(TEXT), None, TOOLS, "tool_call").ok
    assert (
        compare(parse('{"name": "fly", "arguments": {}}'), None, TOOLS, "tool_call").error_kind == "hallucinated_tool"
    )
    with pytest.raises(DataError, match="neither a gold call nor a gold behaviour"):
        compare(parse(TEXT), None, TOOLS)


@pytest.mark.parametrize(("call", "codes"), [
    (OTHER, []), (called("book_table", city="Rome", people=4.0), []), (called("fly"), ["hallucinated_tool"]),
    (called("book_table"), ["missing_argument"] * 2),
    (called("book_table", city="Rome", people="4"), ["wrong_type"]),
    (called("book_table", city="Rome", people=True), ["wrong_type"]),
    (called("get_weather", city="Rome", unit="kelvin"), ["wrong_value"]),
    (called("get_weather", city="Rome", at=1), ["invented_argument"]),
    (called("book_table", people="x", at=1), ["missing_argument", "invented_argument", "wrong_type"]),
    ({"name": "get_weather", "arguments": None}, ["missing_argument"]),
    ({"name": "get_weather", "arguments": "{}"}, ["wrong_type"]),
    ({"id": "call_0", "type": "function", "function": OTHER}, []),
])  # fmt: skip
def test_problems_of_a_call_come_worst_first(call: dict[str, Any], codes: list[str]) -> None:
    assert [problem.code for problem in validate_call(call, TOOLS)] == codes


def test_a_problem_reads_as_its_code_and_detail() -> None:
    assert str(validate_call(called("fly"), TOOLS)[0]).startswith("hallucinated_tool: 'fly' is not one of ['")
    assert str(parse("<tool_call>").error) == "unterminated_json: nothing follows the tag"


def test_unknown_arguments_pass_where_the_schema_lets_them() -> None:
    assert validate_call(called("f", y=1), [tool("f", {"x": {}}, additionalProperties=True)]) == []
    assert (
        validate_call(called("f", y_1=1), [tool("f", {"x": {}}, patternProperties={"^y_": {"type": "integer"}})]) == []
    )
    assert validate_call(called("f", y=1), [{"name": "f", "parameters": {"type": "object"}}]) == []


def test_a_schema_that_is_none_is_a_data_error_and_never_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was reached for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    for schema in ({"type": "dict"}, {"$ref": "http://127.0.0.1:9/schema.json"}, {"$ref": "#/nowhere"}):
        with pytest.raises(DataError, match="bad_tool: the parameters are no JSON Schema"):
            validate_call(called("f", x=1), [tool("f", {"x": schema})])


def test_a_number_too_large_to_divide_is_a_problem_and_no_crash() -> None:
    assert [
        problem.code for problem in validate_call(called("f", x=10**400), [tool("f", {"x": {"multipleOf": 0.5}})])
    ] == ["wrong_value"]
