"""A right call is one that the tool takes as it takes gold: which values, what may be left out, which call is which."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from rightcall.evaluation.score import write_lines
from rightcall.toolcalls.gold import best_pairs
from rightcall.toolcalls.judging import judge_step
from rightcall.toolcalls.schema import same_value, validate_call
from rightcall.toolcalls.verifier import ERROR_KINDS, Judgement, compare, parse
from tasks.results.files import read_json_lines


def tool(properties: dict[str, Any], *required: str, name: str = "f") -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


def verdict(gold: Any, written: Any, tools: list[dict[str, Any]]) -> Judgement:
    return compare(parse(json.dumps(written)), gold, tools)


def call(name: str = "f", **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(("gold", "written"), [
    ("1/15/2026", "11/5/2026"), ("2026-01-15", "20260115"), ("03.04.2026", "3.04.2026"), ("14:30", "1430"), ("09:05", "9:05"),
    ("-12.50", "1250"), ("-12.50", "12.50"), ("1,000", "1000"), ("1.000", "1,000"), ("12, 13", "12 13"), ("+43 1 234", "43 1 234"),
    ("10.1.11.1", "10.11.1.1"), ("1.10", "11.0"), ("v1.2-rc.1", "v1.2-rc1"), ("Python 3.1", "Python 31"), ("3.10", "3.1"),
    ("/srv/data/a", "/srv/dataa"), ("/srv/Data", "/srv/data"), (".env", "env"), ("data.csv.", "data.csv"), ("C:\\a", "C:a"),
    ("anna.berg@example.com", "annaberg@example.com"), ("Anna@example.com", "anna@example.com"),
    ("https://example.com/a-b", "https://example.com/ab"), ("https://example.com/A", "https://example.com/a"),
    ("ORD-12-3", "ORD-123"), ("ord-12", "ORD-12"), ("#W606", "W606"), ("user_id", "userid"), ("left-pad", "leftpad"),
    ("x^2 - 1", "x*2*1"), ("x^2-1", "x2-1"), ("a * b", "a b"), ("x = X", "x = x"), ("C++", "C"), ("-", "*"), ("", "a"), ("m", "M"),
    ("red,green", "redgreen"), ("Linz-Urfahr", "Linz Urfahr"), ("if x:\n  y", "if x: y"), ("Is it open?", "Is it open"),
    ("order a1b is late", "order A1B is late"), ("at 1.5 km", "at 15 km"), ("\ttab", "tab"), ("don't", "dont"),
])  # fmt: skip
def test_a_string_whose_punctuation_carries_meaning_is_compared_exactly(gold: str, written: str) -> None:
    offered = [tool({"x": {"type": "string"}})]
    for nested in (lambda text: text, lambda text: [text], lambda text: {"k": [text]}):
        for right, other in ((gold, written), (written, gold)):
            assert not same_value(nested(right), nested(other))
    assert verdict(call(x=gold), call(x=written), offered).error_kind == "wrong_value"
    assert verdict(call(x=gold), call(x=gold), offered).ok


@pytest.mark.parametrize(("gold", "written"), [
    ("Linz, Upper Austria", "linz upper austria"), ("New York, NY", "new york ny"), ("ROME", "Rome"), ("  Rome ", "Rome"),
    ("St. Louis", "St Louis"), ("Dinner with Anna.", "dinner with Anna"), ("March 3, 2026", "march 3 2026"),
    ("12 Main St., Apt 4B", "12 main st apt 4B"), ("the  long   road", "The Long Road"), ("Is it open?", "is it open?"),
    ("Kärnten, Straße", "KÄRNTEN, STRASSE"), ("Cafe\u0301 Central", "Café Central"), ("Anna’s party", "anna's Party"),
    ("Wien, Österreich", "wien österreich"), ("Москва, Россия", "москва россия"), ("COVID-19 Vaccine", "COVID-19 vaccine"),
])  # fmt: skip
def test_a_text_of_words_is_compared_as_a_reader_would(gold: str, written: str) -> None:
    assert same_value(gold, written)
    assert same_value([{"k": gold}], [{"k": written}])


def test_other_values_are_compared_by_what_they_are() -> None:
    assert all(
        same_value(*pair) for pair in ((5, 5.0), ([1, ["Rome"]], [1.0, ["rome"]]), ({"a": 1}, {"a": 1.0}), (None, None))
    )
    unlike = (
        (True, 1),
        ("5", 5),
        ([1, 2], [2, 1]),
        ({"a": 1}, {"a": 1, "b": 2}),
        (None, False),
        (0, False),
        ("", None),
        ([], {}),
    )
    assert not any(same_value(*pair) for pair in unlike)


def test_bfcls_rule_holds_where_the_item_asks_for_it_and_nowhere_else() -> None:
    offered = [tool({"day": {"type": "string"}, "l": {"type": "array"}})]
    plain, loose = call(day="April 1-2024", l=["A-B"]), {**call(day="April 1-2024", l=["A-B"]), "string_rule": "bfcl"}
    for written in (call(day="april 12024", l=["ab"]), call(day="April 1/2024", l=["A B"])):
        assert verdict(plain, written, offered).error_kind == "wrong_value"
        assert verdict(loose, written, offered).ok
    assert same_value("it's", 'it"s', "bfcl")
    assert not same_value("-", "*", "bfcl")
    assert not same_value("a\nb", "ab", "bfcl")


OFFERED = [tool({
    "x": {"type": "integer"}, "u": {"type": "string"}, "n": {"type": "integer", "default": 1},
    "t": {"type": "string", "default": None},
    "o": {"type": "object", "properties": {"k": {"type": "string"}, "z": {"type": "integer", "default": 3}}},
    "e": {"type": "string", "enum": ["km", "mile"], "default": "km"},
}, "x")]  # fmt: skip


@pytest.mark.parametrize(("gold", "right", "wrong"), [
    ({"accepted": {"x": [5], "u": ["km", "mile", ""]}}, [call(x=5), call(x=5.0, u="mile")],
     [(call(x=5, u=""), "wrong_value"), (call(u="km"), "missing_argument"), (call(x=5, u="m"), "wrong_value")]),
    # "" does not make a required argument optional
    ({"accepted": {"x": [5, ""]}}, [call(x=5)], [(call(), "missing_argument")]),
    ({"arguments": {"x": 5}, "accepted": {"x": [6, ""], "u": ["km"]}}, [call(x=5), call(x=6), call(x=6, u="km")],
     [(call(), "missing_argument"), (call(x=7), "wrong_value"), (call(x=5, u="m"), "wrong_value")]),
    ({"arguments": {"x": 5, "u": ""}}, [call(x=5, u="")], [(call(x=5), "missing_argument"), (call(x=5, u="a"), "wrong_value")]),
    ({"arguments": {"x": 5}}, [call(x=5, n=1), call(x=5, t=None), call(x=5, n=1, t=None, e="km")],
     [(call(x=5, n=2), "extra_argument"), (call(x=5, u=None), "wrong_type"), (call(x=5, t="None"), "extra_argument"),
      (call(x=5, n=None), "wrong_type"), (call(x=5, n=True), "wrong_type"), (call(x=5, e="KM"), "wrong_value")]),
    ({"arguments": {"x": 5, "n": 1}}, [call(x=5), call(x=5, n=1)], [(call(x=5, n=2), "wrong_value")]),
    ({"arguments": {"x": 5, "n": 2}}, [call(x=5, n=2)], [(call(x=5, n=1), "wrong_value"), (call(x=5), "missing_argument")]),
    ({"accepted": {"x": [5], "n": [2, ""]}}, [call(x=5), call(x=5, n=1), call(x=5, n=2)], [(call(x=5, n=3), "wrong_value")]),
    ({"arguments": {"x": 5, "o": {"k": "a"}}}, [call(x=5, o={"k": "a", "z": 3})], [(call(x=5, o={"k": "a", "z": 4}), "wrong_value")]),
    ({"arguments": {"x": 5}, "accepted": {"o": [{"k": ["a b", "c", ""], "z": [1, 2]}]}},
     [call(x=5), call(x=5, o={"k": "c", "z": 2}), call(x=5, o={"z": 1})],
     [(call(x=5, o={"k": "", "z": 1}), "wrong_value"), (call(x=5, o={"k": "c"}), "wrong_value"),
      (call(x=5, o={"z": 1, "y": 1}), "wrong_value")]),
])  # fmt: skip
def test_what_gold_accepts_and_what_may_be_left_out(
    gold: dict[str, Any], right: list[dict[str, Any]], wrong: list[tuple[dict[str, Any], str]]
) -> None:
    for written in right:
        assert verdict({"name": "f", **gold}, written, OFFERED) == Judgement(True, True, True, True, True, None), (
            written
        )
    for written, kind in wrong:
        assert verdict({"name": "f", **gold}, written, OFFERED).error_kind == kind, written


def test_an_answer_that_its_tool_refuses_is_never_right_even_where_gold_says_so() -> None:
    gold = call(x="four")
    assert verdict(gold, gold, OFFERED) == Judgement(False, False, True, False, True, "wrong_type")
    nowhere = call("g", x=1)
    assert verdict(nowhere, nowhere, OFFERED).error_kind == "hallucinated_tool"
    assert not verdict(nowhere, nowhere, OFFERED).ok


def test_a_declared_default_is_valid_even_where_its_own_schema_refuses_it() -> None:
    assert validate_call(call(x=1, t=None), OFFERED) == []
    assert [problem.code for problem in validate_call(call(x=1, u=None), OFFERED)] == ["wrong_type"]


PAIR = [tool({"x": {"type": "integer"}, "y": {"type": "integer"}}), tool({"x": {"type": "integer"}}, name="g")]


def test_parallel_calls_are_paired_so_that_most_are_right() -> None:
    either, one = {"name": "f", "accepted": {"x": [1, 2]}}, {"name": "f", "accepted": {"x": [1]}}
    for golds in ([either, one], [one, either]):
        for written in ([call(x=1), call(x=2)], [call(x=2), call(x=1)]):
            assert verdict(golds, written, PAIR).ok
        assert verdict(golds, [call(x=2), call(x=2)], PAIR).error_kind == "wrong_value"


@pytest.mark.parametrize(("golds", "written", "kind"), [
    ([call(x=1, y=1), call("g", x=1)], [call("g", x=1), call(x=1)], "missing_argument"),
    ([call(x=1, y=1), call(x=2, y=2)], [call(x=2, y=2), call(x=1, y=3)], "wrong_value"),
    ([call(x=1, y=1), call(x=2, y=2)], [call(x=3), call(x=2, y=2)], "missing_argument"),
    ([call(x=1), call("g", x=1)], [call("g", x=1), call("h", x=1)], "hallucinated_tool"),
    ([call(x=1), call("g", x=1)], [call("g", x=1), call("g", x=2)], "wrong_tool"),
    ([call(x=1), call("g", x=1)], [call("g", x=1)], "missing_call"),
    ([call(x=1), call("g", x=1)], [call("g", x=2)], "wrong_value"),
    ([call(x=1)], [call(x=2), call(x=1)], "extra_call"),
    ([call(x=1)], [call(x=1), call("h")], "extra_call"),
    ([call(x=1), call(x=1)], [call(x=1), call(x=1)], None),
    ([call(x=1), call(x=1)], [call(x=1)], "missing_call"),
])  # fmt: skip
def test_the_error_of_parallel_calls_is_that_of_the_best_pairing(
    golds: list[dict[str, Any]], written: list[dict[str, Any]], kind: str | None
) -> None:
    for order in itertools.permutations(written):
        found = verdict(golds, list(order), PAIR)
        assert (found.error_kind, found.ok) == (kind, kind is None)


def test_pairs_have_the_smallest_sum_of_all() -> None:
    rng = random.Random(7)
    for _ in range(300):
        rows, columns = rng.randint(1, 4), rng.randint(1, 4)
        costs = [[rng.choice((0, 1, 2, 10**9)) for _ in range(columns)] for _ in range(rows)]
        pairs = best_pairs(costs)
        few = min(rows, columns)
        assert len(pairs) == few == len({row for row, _ in pairs}) == len({column for _, column in pairs})
        choices = itertools.product(
            itertools.permutations(range(rows), few), itertools.permutations(range(columns), few)
        )
        best = min(sum(costs[row][column] for row, column in zip(*choice, strict=True)) for choice in choices)
        assert sum(costs[row][column] for row, column in pairs) == best
    assert (best_pairs([]), best_pairs([[], []])) == ([], [])


HOSTILE = (
    "9" * 4000, "-" + "9" * 4000, "9" * 5000, "9" * 308, "1e308", "-1e308", "1e-320", "1e999", "NaN", "-Infinity", "0.1",
    "18446744073709551617",
    '"\ud800"', '"\\ud800"', '"\\udfff\\ud800"', '{"\\ud800": 1}', '"\\u0000"', '"' + "a" * 20_000 + '!"', '"' + "a, " * 10_000 + '"',
    "[" * 31 + "]" * 31, "[" * 40 + "]" * 40, "[" * 5000, '{"k": ' * 31 + "1" + "}" * 31, "[" + "[1], " * 500 + "[1]]",
    "null", "true", '""', "{}",
)  # fmt: skip
SCHEMAS = (
    {}, {"type": "integer", "multipleOf": 7}, {"type": "number", "multipleOf": 0.01}, {"minimum": 0.5, "exclusiveMaximum": 10**30},
    {"enum": [1, "a", None, [1]]}, {"const": True}, {"type": "string", "default": None, "pattern": "^[a-z]+$", "maxLength": 3},
    {"type": "array", "uniqueItems": True, "items": {"type": "integer", "default": 1}}, {"contains": {"type": "null"}}, {"pattern": "("},
    {"type": "object", "properties": {"k": {"default": 10**400}}, "patternProperties": {"(": {}}}, {"$ref": "#/properties/x"},
)  # fmt: skip


@pytest.mark.parametrize("schema", SCHEMAS, ids=json.dumps)
def test_no_value_that_a_model_writes_ends_a_run(schema: dict[str, Any], tmp_path: Path) -> None:
    golds = (
        {"tool_calls": [{"function": call(x=1)}]},
        {"tool_calls": [{"function": call(x=1)}] * 2, "accepted": [{"x": ["a", [1], {"k": [1, ""]}, 0.1, ""]}, {}], "string_rule": "bfcl"},
    )  # fmt: skip
    lines = []
    for gold, value in itertools.product(golds, HOSTILE):
        messages = [{"role": "user", "content": "?"}, {"role": "assistant", "content": "", **gold}]
        step = {"messages": messages, "tools": [tool({"x": schema})], "behaviour": "tool_call"}
        for text in (f'{{"name": "f", "arguments": {{"x": {value}}}}}', f"[f(x={value}), f(x={value})]"):
            lines.append(judge_step(step, text))
    write_lines(tmp_path / "written.jsonl", lines)
    assert list(read_json_lines(tmp_path / "written.jsonl")) == json.loads(json.dumps(lines))
    assert {line["error_kind"] for line in lines} <= {None, *ERROR_KINDS}
    assert all(line["verdict"]["valid_call"] for line in lines if line["verdict"]["ok"])
