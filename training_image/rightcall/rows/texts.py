"""Values that stand as text: a column as JSON, or as Python's way of writing it."""

from __future__ import annotations

import ast
import json
import re
from typing import Any

from rightcall.rows.lines import reject_constant

_MAX_PYTHON_CHARACTERS = 200_000  # Python's parser works recursively


def from_text(value: Any) -> Any:
    """What a text spells, where that is a list or an object; anything else as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        found = json.loads(value, parse_constant=reject_constant)
    except (ValueError, RecursionError):
        found = _python_value(value)
    return found if isinstance(found, (list, dict)) else value


def messages_from_text(value: Any) -> Any:
    """The same for a column that may also hold plain text: an answer that is JSON stays an answer; messages may be text each."""
    found = from_text(value)
    if isinstance(found, list) and any(isinstance(each, str) for each in found):
        found = [from_text(each) for each in found]
    turns = found if isinstance(found, list) else [found]
    if (
        found is value
        or not turns
        or not all(isinstance(each, dict) and {"role", "from"} & each.keys() for each in turns)
    ):
        return value
    return found


def values_in(text: str) -> list[Any]:
    """JSON values one after another, or one list as Python writes it; [] = it is neither."""
    values, position = [], 0
    while position < len(text):
        try:
            value, end = json.JSONDecoder(parse_constant=reject_constant).raw_decode(text, position)
        except (ValueError, RecursionError):
            value = _python_value(text)
            return value if isinstance(value, list) else [] if value is None else [value]
        values.append(value)
        position = _behind_blanks(text, end)
    return values[0] if len(values) == 1 and isinstance(values[0], list) else values


def _behind_blanks(text: str, position: int) -> int:
    match = re.compile(r"[\s,]*").match(text, position)
    return match.end() if match else position


def _python_value(text: str) -> Any:
    """None = there is none."""
    if len(text) > _MAX_PYTHON_CHARACTERS:
        return None
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False)  # bytes, sets and complex numbers are no values of ours
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return None
    return value
