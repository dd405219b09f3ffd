"""The values of a call, read from JSON: only what can be written back, and why a call cannot be read."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal

Call = dict[str, Any]  # {"name": str, "arguments": dict}

MAX_DEPTH = 32

CallProblem = Literal[
    "unterminated_json", "invalid_json", "not_a_call", "not_a_literal", "too_long", "too_deep", "too_many_calls"
]

_CUT_LITERAL = re.compile(r"-|t|tr|tru|f|fa|fal|fals|n|nu|nul|\\?u[0-9a-fA-F]{0,4}|\\|\.|[eE][+-]?")
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


class CallError(Exception):
    """A text attempts a call that cannot be read."""

    def __init__(self, reason: CallProblem, detail: str, read: int = 0) -> None:
        super().__init__(reason, detail, read)
        self.reason = reason
        self.detail = detail
        self.read = read  # characters that were read in vain, where they may be read again

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


def decode(text: str, position: int) -> tuple[Any, int]:
    """The JSON value at `position` and where it ends.

    Raises:
        CallError: there is none, a key of a call stands twice in an object, or the value is one that `check_value` refuses.
    """
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as err:
        reason: CallProblem = "unterminated_json" if _cut_off(err) else "invalid_json"
        raise CallError(reason, f"{err.msg} at character {err.pos}") from err
    except RecursionError as err:
        raise CallError("too_deep", "the JSON is nested too deeply") from err
    except ValueError as err:
        raise CallError("invalid_json", str(err)[:80]) from err
    check_value(value)
    return value, end


def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of these pairs; of a key that stands twice, readers take different values.

    Raises:
        ValueError: a key stands twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key stands twice in an object")
    return found


_OF_A_CALL = {"name", "tool_name", "function", "arguments", "parameters", "tool_calls"}


def _one_call(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs) and len([key for key, _ in pairs if key in _OF_A_CALL]) > len(found.keys() & _OF_A_CALL):
        raise ValueError("a key of a call stands twice in an object")
    return found


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_one_call)


def _cut_off(err: json.JSONDecodeError) -> bool:
    if err.msg.startswith("Unterminated string"):
        return True
    rest = err.doc[err.pos : err.pos + 1000]
    return not rest.strip(' \t\n\r,:"') or _CUT_LITERAL.fullmatch(rest) is not None


def check_value(value: Any, depth: int = 0) -> None:
    """Refuse what cannot be written back as JSON in UTF-8.

    Raises:
        CallError: it is nested too deeply, or holds such a number or text.
    """
    if depth > MAX_DEPTH:
        raise CallError("too_deep", f"nested more than {MAX_DEPTH} levels")
    if isinstance(value, (int, float)) and not _is_finite(value):
        raise CallError("invalid_json", "a number is too large")
    if isinstance(value, str) and _LONE_SURROGATE.search(value):
        raise CallError("invalid_json", f"{shortened(value)} holds half of a surrogate pair")
    if isinstance(value, (dict, list)):
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            check_value(item, depth + 1)


def _is_finite(number: float) -> bool:
    """Of an integer too: one that no double holds is JSON that hardly anything reads, or Python writes, back."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


def shortened(value: Any) -> str:
    return repr(value)[:80]
