"""An answer that is long in an odd way is judged like any other; each of these once took minutes, or hours."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from rightcall.toolcalls.conduct import Conduct
from rightcall.toolcalls.grounding import ungrounded_values
from rightcall.toolcalls.judging import judge_step
from rightcall.toolcalls.schema import MAX_PROBLEMS, problems_of_arguments

PARAMETERS: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "each_once": {"type": "array", "uniqueItems": True},
        "numbers": {"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "number", "minimum": 0}]}},
    },
    "required": ["text"],
}
STEP = {
    "messages": [{"role": "user", "content": "Look up W6067464."}, {"role": "assistant", "content": "Which one?"}],
    "tools": [{"type": "function", "function": {"name": "look_up", "parameters": PARAMETERS}}],
    "behaviour": "request_for_info",
}


def judged(**arguments: Any) -> dict[str, Any]:
    text = f"<tool_call>{json.dumps({'name': 'look_up', 'arguments': arguments})}</tool_call>"
    return judge_step(STEP, text, Conduct(frozenset(), frozenset(), frozenset()))


@pytest.mark.parametrize("text", [
    "1." * 20_000 + "x", "1-" * 20_000 + "x", " ".join(f"W{number}" for number in range(10_000)),
    "-".join(f"w{number}" for number in range(15_000)), "a@" * 20_000, "w6067464 " * 10_000,
])  # fmt: skip
def test_a_long_value_is_looked_for_in_what_was_said(text: str) -> None:
    verdict = judged(text=text)
    assert verdict["verdict"]["valid_call"]
    assert verdict["faults"] == ([] if text.startswith("w6067464 ") else ["ungrounded_value"])


def test_ids_in_a_text_are_looked_for_one_by_one() -> None:
    call = {"name": "look_up", "arguments": {"text": "W6067464, then W6067465 and w-6067464"}}
    assert ungrounded_values(call, "look up W6067464.", STEP["tools"]) == ["W6067465"]  # type: ignore[arg-type]


def test_thousands_of_objects_are_looked_through_for_one_that_stands_twice() -> None:
    items: list[Any] = [{"id": number} for number in range(6_000)]
    assert judged(text="x", each_once=items)["verdict"]["valid_call"]
    assert not judged(text="x", each_once=[*items, {"id": 7.0}])["verdict"]["valid_call"]


def test_what_is_equal_is_what_json_schema_calls_equal() -> None:
    """As jsonschema says of small arrays: 1 is 1.0, and neither is true."""
    chance = random.Random(1)
    atoms = [
        0,
        1,
        1.0,
        True,
        False,
        None,
        "1",
        "",
        [],
        [1],
        [True],
        {"a": 1},
        {"a": 1.0},
        {"a": True},
        {"a": 1, "b": 2},
        {"b": 2, "a": 1},
    ]
    theirs = Draft202012Validator({"uniqueItems": True})
    schema = {"type": "object", "properties": {"each_once": {"uniqueItems": True}}}
    for _ in range(2_000):
        items = chance.sample(atoms, chance.randrange(4))
        assert (problems_of_arguments({"each_once": items}, schema) == []) == theirs.is_valid(items), items


def test_of_thousands_of_wrong_items_some_are_named() -> None:
    assert len(problems_of_arguments({"text": "x", "numbers": ["a"] * 20_000}, PARAMETERS)) == MAX_PROBLEMS
