"""Texts written as Python writes them are what Python reads in them; ast is asked here, where the texts are our own."""

from __future__ import annotations

import ast
import warnings

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rightcall.dialects.literals import Literals
from rightcall.dialects.values import CallError

ESCAPES = [
    "\\n", "\\t", "\\\\", "\\'", "\\\"", "\\x41", "\\x4", "\\u00e9", "\\u00", "\\U0001F600", "\\U00110000", "\\N{BULLET}",
    "\\N{no such}", "\\N", "\\0", "\\101", "\\8", "\\d", "\\/", "\\ü", "\\\n", "a", "ü", "😀", " ", "#", "'", '"', "{", "\n", "1",
]  # fmt: skip


def python_reads(token: str) -> str | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return str(ast.literal_eval(token))
        except SyntaxError:
            return None


def is_read(token: str) -> str | None:
    literals = Literals(token, 0)
    try:
        value = literals.value()
    except CallError:
        return None
    return str(value) if literals.position == len(token) else None


@given(
    st.sampled_from(["", "r", "u", "R"]),
    st.sampled_from(["'", "'''", '"""']),
    st.lists(st.sampled_from(ESCAPES), max_size=8),
)
@example("", "'", ["\\U00110000"])
@example("", "'''", ["\\\n", "a"])
def test_a_text_is_what_python_reads(prefix: str, mark: str, parts: list[str]) -> None:
    token = f"{prefix}{mark}{''.join(parts)}{mark}"
    assert python_reads(token) in (None, is_read(token))


@pytest.mark.parametrize("token", [r"'\x4'", r"'\u00'", r"'\N{no such}'", r"'\U00110000'", "'open", "'''open''"])
def test_a_text_that_python_does_not_read_is_none(token: str) -> None:
    assert is_read(token) is python_reads(token) is None


@pytest.mark.parametrize(
    ("token", "value"), [("'a\nb'", "a\nb"), ("'a\rb'", "a\rb"), ("'a\x001'", "a\x001"), ("r'a\nb'", "a\nb")]
)
def test_a_text_may_hold_what_python_would_not_take_raw(token: str, value: str) -> None:
    assert is_read(token) == value


def test_a_text_between_double_marks_is_read_as_json_first() -> None:
    assert is_read(r'"a\/b\ud83d\ude00"') == "a/b😀"
    assert is_read(r'"\d\x41"') == r"\dA"
