"""BFCL's rule on hand-made cases in BFCL's own format, beside what its checker says (bfcl-eval 2026.3.23).

bench/bfcl_agreement.py compares the two on all of BFCL's Python categories and on thousands of changed answers.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from rightcall.rows.tool_schemas import normalise_tools
from rightcall.toolcalls.verifier import compare, parse

TRIP = {"name": "trip.plan", "description": "Plans a trip.", "parameters": {"type": "dict", "required": ["to", "days"], "properties": {
    "to": {"type": "string"}, "days": {"type": "integer"}, "budget": {"type": "float"}, "unit": {"type": "string", "default": "EUR"},
    "stops": {"type": "array", "items": {"type": "string"}}, "car": {"type": "boolean"}, "who": {"type": "dict", "properties": {}},
    "note": {"type": "string", "default": None}, "kind": {"type": "string", "enum": ["city", "beach"]},
    "legs": {"type": "array", "items": {"type": "dict"}}, "rates": {"type": "array", "items": {"type": "float"}},
}}}  # fmt: skip
HOTEL = {"name": "hotel", "description": "Books.", "parameters": {"type": "dict", "required": ["city"], "properties": {
    "city": {"type": "string"}, "nights": {"type": "integer"},
}}}  # fmt: skip
TRUTH = {"trip.plan": {
    "to": ["St. Pölten, AT", "Sankt Poelten"], "days": [3], "budget": [100.0, ""], "unit": ["EUR", ""], "stops": [["Linz", "Wels"], ""],
    "car": [True, ""], "who": [{"name": ["Ann-Lee", "Ann"], "age": [30, ""]}, ""], "note": ["", None], "kind": ["city", ""],
    "legs": [[{"by": ["rail", "train"]}], ""], "rates": [[1.0, 2.0], ""],
}}  # fmt: skip
BOTH = [{"hotel": {"city": ["Linz", "Wels"], "nights": ["", 1]}}, {"hotel": {"city": ["Linz"], "nights": ["", 1]}}]


def trip(**more: Any) -> list[dict[str, Any]]:
    return [{"trip.plan": {"to": "Sankt Poelten", "days": 3, **more}}]


def hotel(*cities: str) -> list[dict[str, Any]]:
    return [{"hotel": {"city": city}} for city in cities]


# what both say is right, or wrong
AGREED: list[tuple[list[dict[str, Any]], bool]] = [
    (trip(), True), (trip(to="st pölten at"), True), (trip(to="ST-PÖLTEN/AT"), True),
    (trip(to="St. Pölten (AT)"), False), (trip(days=4), False),
    (trip(days="3"), False), (trip(days=True), False), (trip(budget=100), True), (trip(budget="100"), False), (trip(budget=None), False),
    (trip(unit="eur"), True), (trip(unit="USD"), False), (trip(stops=["linz", "W.e.l.s"]), True), (trip(stops=["Wels", "Linz"]), False),
    (trip(stops=["Linz"]), False), (trip(stops="Linz, Wels"), False),
    (trip(car=True), True), (trip(car=False), False), (trip(car="True"), False),
    (trip(who={"name": "ann lee"}), True), (trip(who={"name": "Ann", "age": 30}), True), (trip(who={"name": "Ann", "age": 31}), False),
    (trip(who={"age": 30}), False), (trip(who={"name": "Ann", "mail": "x"}), False), (trip(note=None), True),
    (trip(legs=[{"by": "Train"}]), True),
    (trip(legs=[{"by": "car"}]), False), (trip(rates=[1.0, 2.0]), True), (trip(rates=[1, 2]), True), (trip(rates=[2.0, 1.0]), False),
    (trip(invented=1), False), ([{"trip.plan": {"to": "Sankt Poelten"}}], False),
    ([{"trip_plan": {"to": "Sankt Poelten", "days": 3}}], False),
    (trip() * 2, False), ([], False),
]  # fmt: skip
# where we differ, and why the tool is with us
UNLIKE: list[tuple[list[dict[str, Any]], bool]] = [
    (trip(days=3.0), True),  # a whole number in JSON, whatever Python makes of it
    (trip(unit=""), False), (trip(unit="."), False),  # "" says that it may be left out, the tool would get an empty text
    (trip(kind="City"), False),  # the tool's enum does not hold it
    (trip(legs=[]), False),  # no leg is not one leg; BFCL's checker takes an empty list for "", which is as long
]  # fmt: skip


def right(calls: list[dict[str, Any]], truth: list[dict[str, Any]]) -> bool:
    golds = [
        {"name": name, "accepted": fields, "string_rule": "bfcl"} for call in truth for name, fields in call.items()
    ]
    written = [{"name": name, "arguments": given} for call in calls for name, given in call.items()]
    return compare(parse(json.dumps(written)), golds, normalise_tools([TRIP, HOTEL]), "tool_call").ok


@pytest.mark.parametrize(("calls", "ok"), AGREED)
def test_an_answer_is_right_where_bfcls_checker_says_so(calls: list[dict[str, Any]], ok: bool) -> None:
    assert right(calls, [TRUTH]) is ok


@pytest.mark.parametrize(("calls", "ok"), UNLIKE)
def test_where_bfcls_checker_says_something_else_the_tool_decides(calls: list[dict[str, Any]], ok: bool) -> None:
    assert right(calls, [TRUTH]) is ok


def test_parallel_calls_of_bfcl_come_in_any_order() -> None:
    assert right(hotel("Wels", "Linz"), BOTH)
    assert right(
        hotel("Linz", "Wels"), BOTH
    )  # BFCL's checker gives the first gold call the first that fits, and refuses this
    assert not right(hotel("Wels", "Wels"), BOTH)
    assert not right(hotel("Linz"), BOTH)
    assert not right(hotel("Linz", "Wels", "Linz"), BOTH)
