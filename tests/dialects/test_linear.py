"""Work grows with a text's length, whatever stands in it: counted in calls of functions, so that no clock decides."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest
from mutated_calls import PIECES, TOOLS

from rightcall.toolcalls.verifier import parse

MOST_CALLS_PER_CHARACTER = 40  # 9 are usual; a text that is read 20 times over costs 200
CALL = '<tool_call>{"name": "find_trains", "arguments": {"town": "Rome"}}</tool_call>\n'
# Each beginning in them could be read up to the end, only to be no call.
NESTED = {
    "a text behind a text in a sentence": ("x ", "f(a=''''\"", "</function>f(a='="),
    "a name and arguments, cut off": ("x " + '{"name":"f","arguments":' * 20 + '{"a":[', "1,", ""),
    "the same in Python's words": ("x " + "{'name':'f','arguments':" * 20 + "{'a':[", "'a',", ""),
    "the same with escapes": ("x " + "{'name':'f','arguments':" * 20 + "{'a':[", r"'\d',", ""),
    "a link that holds texts": ("x\n", "[f(a='')](''", "\n" + CALL),
    "a positional dict": ("x ", "f({'{'", ""),
    "a mention behind a call": (CALL, "f(a='f(a='", ""),
    "arguments in a text": ("x ", "{'name':'f','arguments':\"{'name':", ""),
}


def work(text: str) -> int:
    """Calls of Python's and of C's functions while it is parsed."""
    count = 0

    def counts(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(counts)
    try:
        parse(text, None, TOOLS)
    finally:
        sys.setprofile(before)
    return count


def assert_linear(head: str, unit: str, tail: str) -> None:
    for size in (1_000, 4_000):
        text = head + unit * (size // len(unit)) + tail
        assert work(text) <= MOST_CALLS_PER_CHARACTER * len(text), (size, text[:100])


@pytest.mark.parametrize("parts", NESTED.values(), ids=NESTED)
def test_what_is_no_call_is_not_read_again_and_again(parts: tuple[str, str, str]) -> None:
    assert_linear(*parts)


@pytest.mark.parametrize("head", ["", "x ", CALL])
def test_a_run_of_any_sign_costs_its_length(head: str) -> None:
    for piece in PIECES:
        assert_linear(head, piece, "")
