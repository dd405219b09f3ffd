"""The word-matching rule reads question, tools and answers only, and gets the easy items right."""

import json

import pytest

from rightcall.measurement import baseline
from rightcall.rows import tool_schemas, vocabulary

TOOLS = tool_schemas.normalise_tools(
    [
        {
            "name": "find_bus",
            "description": "Find a bus to a town",
            "parameters": {"properties": {"town": {"type": "str"}}},
        }
    ]
)


def item(question: str, town: str, tools: list | None = None, name: str = "find_bus") -> dict:
    answers = {"direct": "At 9.", "request_for_info": "Which town?", "cannot_answer": "No."}
    return {
        "question": question,
        "tools": TOOLS if tools is None else tools,
        "answers": answers | {"tool_call": json.dumps({"name": name, "arguments": {"town": town}})},
    }


@pytest.mark.parametrize(
    ("row", "behaviour"),
    [
        (item("Find me a bus to Ghent.", "Ghent"), "tool_call"),
        (item("Find me a bus to some town.", "Ghent"), "request_for_info"),
        (item("Bake a cake.", "Ghent"), "cannot_answer"),
        (item("Find me a bus to Ghent.", "Ghent", tools=[]), "cannot_answer"),
        (item("Find me a bus to Ghent.", "Ghent", name="find_train"), "cannot_answer"),
    ],
)
def test_the_rule_matches_words(row: dict, behaviour: str) -> None:
    assert baseline.predict(row) == behaviour


def test_the_gold_answer_is_not_read() -> None:
    row = item("Find me a bus to Ghent.", "Ghent")
    assert {baseline.predict(row | {"correct_answer": gold}) for gold in vocabulary.BEHAVIOURS} == {"tool_call"}


@pytest.mark.parametrize(
    "text", ["find_bus(Ghent)", "[]", '{"name": "find_bus"}', '{"name": "find_bus", "arguments": "Ghent"}']
)
def test_a_call_that_is_no_json_object_does_not_stop_it(text: str) -> None:
    row = item("Find me a bus to Ghent.", "Ghent")
    assert baseline.predict(row | {"answers": row["answers"] | {"tool_call": text}}) in vocabulary.BEHAVIOURS
