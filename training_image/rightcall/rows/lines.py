"""Reads a JSONL file's line: JSON only, UTF-8, and not nested too deeply for what comes later."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row

_MAX_DEPTH = 100  # far above any real schema, far below the recursion limit of what walks the row later


@contextmanager
def naming_the_line(number: int, source: str) -> Iterator[None]:
    """What is wrong with a record is said with its place; one that is too deep to walk is wrong in that."""
    try:
        yield
    except DataError as err:
        raise type(err)(f"{err.detail} (line {number} of {source!r})", reason=err.reason) from err
    except RecursionError as err:
        raise DataError(
            f"nested beyond the limit; flatten the row (line {number} of {source!r})", reason="too_deep"
        ) from err


def parse_line(line: bytes, max_bytes: int = 10_000_000) -> Row:
    """One line of a JSONL file as an object.

    Raises:
        DataError: its reason is line_too_long, not_utf8, not_json, not_an_object or too_deep.
    """
    if len(line) > max_bytes:
        raise DataError(f"{len(line)} bytes, the limit is {max_bytes}; split or drop the row", reason="line_too_long")
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError as err:
        raise DataError(
            f"byte {err.start} is {line[err.start : err.start + 1]!r}; save the file as UTF-8", reason="not_utf8"
        ) from err
    try:
        record = json.loads(text, parse_constant=reject_constant)
    except RecursionError as err:
        raise DataError(f"nested beyond the limit of {_MAX_DEPTH} levels; flatten the row", reason="too_deep") from err
    except ValueError as err:
        raise DataError(f"{err} in {text[:80]!r}; one JSON object a line", reason="not_json") from err
    if not isinstance(record, dict):
        raise DataError(
            f"the line is a {type(record).__name__}, {text[:80]!r}; one JSON object a line", reason="not_an_object"
        )
    refuse_deep(record, text.count("[") + text.count("{"))
    if ("\\ud" in text or "\\uD" in text) and _has_lone_surrogate(record):
        raise DataError(
            "half of a surrogate pair (\\ud800…\\udfff) in a string; write the character itself", reason="not_utf8"
        )
    return record


def refuse_deep(record: Row, brackets: int) -> None:
    """brackets: how many its text opens; where they are few, none of them can lie deep.

    Raises:
        DataError: its reason is too_deep.
    """
    if brackets > _MAX_DEPTH and _deeper_than(record, _MAX_DEPTH):
        raise DataError(f"nested beyond the limit of {_MAX_DEPTH} levels; flatten the row", reason="too_deep")


def reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _deeper_than(value: Any, limit: int) -> bool:
    level: list[Any] = [value]
    for _ in range(limit):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return False
    return True


def _has_lone_surrogate(record: Row) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False
