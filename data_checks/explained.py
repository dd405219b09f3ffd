"""What exactly is wrong with a row that a rule refused, for people: the first call that cannot be made, and why."""

from __future__ import annotations

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.schema import validate_call

OF_CALLS = frozenset({"tool_not_offered", "required_argument_missing", "arguments_break_schema"})


def wrong_call(row: Row) -> str | None:
    """As in: call of 'fly': 'fly' is not one of ['walk']. None = every call can be made."""
    said = [
        *(row.get("messages") or row.get("prompt") or ()),
        *(row[side] for side in ("chosen", "rejected") if side in row),
    ]
    for message in said:
        for call in message.get("tool_calls") or ():
            try:
                problems = validate_call(call["function"], row["tools"])
            except DataError as err:
                return f"call of {call['function']['name']!r}: {err.detail}"
            if problems:
                return f"call of {call['function']['name']!r}: {problems[0].detail}"
    return None
