"""A small run of tests/generators/dialect_fuzz.py: no text raises, misleads, or hides a call."""

from __future__ import annotations

import json
from itertools import islice

import pytest
from dialect_fuzz import TOOLS, long_texts, run

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
