"""Which schema a record is in, told by its columns, and the record under OpenAI's names.

A column that the schema does not know is counted and stays out of the row; so is a message's field.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from rightcall.errors import DataError
from rightcall.records import pairs, turns
from rightcall.records.glaive import glaive
from rightcall.records.text_calls import Offer, called, offer_of, structured
from rightcall.rows.canonical import MESSAGE_FIELDS, REASONING
from rightcall.rows.texts import from_text
from rightcall.rows.vocabulary import Row, RowKind

# what says where a row is from and how it is labelled, in any schema
_ABOUT = {"id", "uuid", "source", "source_id", "group", "situation", "behaviour", "rejected_kind"}
OPTIONAL = "messages[].reasoning_content", "messages[].name"  # whether a model sees them, its chat template decides


class Schema(NamedTuple):
    needs: tuple[str, ...]
    columns: frozenset[str]
    reshape: Callable[[Row], Row]


def _schema(reshape: Callable[[Row], Row], needs: str, others: str = "tools") -> Schema:
    return Schema(tuple(needs.split()), frozenset((*needs.split(), *others.split(), *_ABOUT)), reshape)


_CONVERSATIONS = (
    _schema(turns.openai, "messages", "tools functions parallel_tool_calls system"),
    _schema(turns.sharegpt, "conversations", "tools functions system"),
    _schema(turns.completion, "prompt completion", "tools label"),
    _schema(turns.xlam, "query answers", "tools system"),
    _schema(glaive, "chat", "system"),
)
SCHEMAS: dict[RowKind, tuple[Schema, ...]] = {
    "sft": _CONVERSATIONS,
    "conversation": _CONVERSATIONS,
    "preference": (
        _schema(pairs.conversational, "chosen rejected", "prompt conversations tools functions system"),
        _schema(pairs.openai, "input preferred_output non_preferred_output"),
    ),
}


def as_openai(record: Row, kind: RowKind, unused: Counter[str] | None = None, tools: list[Row] | None = None) -> Row:
    """The record with messages (a pair: prompt, chosen, rejected) and tools; one of no known schema as it is.

    ``unused`` counts columns and fields of messages that no part of a row comes from; ``tools``: normalised, of the
    records that have none.

    Raises:
        DataError: it cannot be read as what its columns say it is.
    """
    schema = schema_of(record, kind)
    if schema is None:
        return record
    row = schema.reshape(record)
    row |= {"tools": from_text(row["tools"])} if isinstance(row.get("tools"), str) else {}
    if kind == "preference":
        said = _pair(row)
    else:
        row["messages"], own = structured(row["messages"], row.get("tools"), tools)
        row |= {"tools": own} if own is not None else {}
        said = row["messages"]
    if unused is not None:
        unused.update(_unknown(record, schema.columns))
        unused.update(_fields(said))
    return row


def schema_of(record: Row, kind: RowKind) -> Schema | None:
    """The first whose columns the record has; null is nothing."""
    schemas = SCHEMAS.get(kind, ())
    return next((each for each in schemas if all(record.get(name) is not None for name in each.needs)), None)


def _pair(row: Row) -> list[Any]:
    """Reads the texts of a pair's messages in place; all of them."""
    if "prompt" not in row:
        return []
    row["prompt"], row["tools"] = structured(row["prompt"], row.get("tools"))
    offer = offer_of(row["tools"])
    row["chosen"] = [called(message, offer) for message in turns.joined(row["chosen"])]
    row["rejected"] = [_as_written(message, offer) for message in turns.joined(row["rejected"])]
    return [*(row["prompt"] if isinstance(row["prompt"], list) else ()), *row["chosen"], *row["rejected"]]


def _as_written(message: Any, offer: Offer) -> Any:
    """What should not be written may be a call that cannot be read.

    Raises:
        DataError: ``bad_toolcall`` when calls stand beside one in the text.
    """
    try:
        return called(message, offer)
    except DataError:
        if message.get("tool_calls"):
            raise
        return message


def _unknown(record: Row, columns: frozenset[str]) -> Iterable[str]:
    yield from (name for name in record.keys() - columns if not _is_empty(record[name]))
    if "input" in columns and isinstance(asked := from_text(record["input"]), dict):
        yield from (f"input.{name}" for name in _unknown(asked, _CONVERSATIONS[0].columns))


def _fields(messages: Any) -> set[str]:
    """Those of messages that are left out, and the optional ones; a tool's name is part of its result."""
    found: set[str] = set()
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, dict) and (further := message.keys() - MESSAGE_FIELDS):
            of_tool = {"name"} if message.get("role") in ("tool", "function") else set()
            found.update(name for name in further - of_tool if not _is_empty(message[name]))
    return {f"messages[].{'reasoning_content' if name in REASONING else name}" for name in found}


def _is_empty(value: Any) -> bool:
    return value is None or value in ("", [], {})
