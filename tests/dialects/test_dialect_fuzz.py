"""A small run of tests/generators/dialect_fuzz.py: no text raises, misleads, or hides a call."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from dialect_fuzz import run
from mutated_calls import TOOLS, long_texts

from rightcall.toolcalls.verifier import compare, parse


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_mutated_output_of_any_dialect_raises_or_hides_a_call(seed: int) -> None:
    counts, found = run(1_000, seed, timed=False)
    assert found == []
    assert counts == {"fine": 1_000}


def test_long_runs_of_any_sign_are_parsed_compared_and_kept() -> None:
    for text in islice(long_texts(7), 40):
        parsed = parse(text, None, TOOLS)
        compare(parsed, None, TOOLS, "tool_call")
        assert json.dumps(parsed, ensure_ascii=False).encode()


WHOLE = '{"name": "town_weather", "arguments": {"town": "Graz"}}'


@pytest.mark.parametrize("broken", [
    '<|channel|>commentary to=functions.find_trains <|constrain|>jso n<|message|>{"town": "Oslo", "days": 3}<|call|>',
    " to=functions.find_trains<|channel|>commentary jstary json and json again, json json<|message|>{}<|call|>",
    "<toool_call>find_trains\n<arg_key>town</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
    '{"name": "find_trains", "argumentstown": "Oslo"}',
    '{"name": "find_trains", "argument<|channel|><|channel|><|channel|><|channel|>s": {"town": "Oslo"}}',
    "[xfunctions.find_trains(town='Oslo', days=0\"arguments\": {]",
    "Action: find_trains\nAction of this: it is now put in here, Input: {'town': 'Oslo'}",
    "<seed:tool_cal'unction=find_trains>\n<parameteeter=town>\nOslo\n</parameter>\n</function>",
    "find_trains " + '"name":' * 200 + ' "by": {}',
    "find_trains with these: town='Oslo'", 'find_trains, and <pararameter name="town">Oslo</pararameter>',
    "find_trains <|constrain|>json<|age|>{<tool_call|>\"town\": \"Oslo\"}<|call|>",
])  # fmt: skip
def test_a_call_in_a_broken_dialect_beside_a_whole_one_is_an_error(broken: str) -> None:
    for text in (f"{WHOLE}\n{broken}", f"{broken}\n{WHOLE}"):
        assert parse(text, None, TOOLS).error, text


@pytest.mark.parametrize("prose", [
    "I asked town_weather for Graz, and find_trains may come next.", "I called town_weather with town='Graz'.",
    'With find_trains one would ask for the way there, and be told {"price": 3}.',
    "It says <message> and [ARGS]; x = 5.", "town='Oslo' is another.",
    "town_weather({\"town\": \"Graz\"}) it was.", "find_trains (the other tool) takes a town and days; it = nothing.",
])  # fmt: skip
def test_a_sentence_that_names_a_tool_beside_a_call_is_none(prose: str) -> None:
    parsed = parse(f"{WHOLE}\n{prose}", None, TOOLS)
    assert (parsed.error, len(parsed.calls)) == (None, 1)


def test_a_call_is_not_the_arguments_of_the_broken_one_before_it() -> None:
    assert parse(f"Action: find_trains\nAction Input: \n{WHOLE}", None, TOOLS).error
