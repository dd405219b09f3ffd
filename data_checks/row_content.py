"""What of a row is content: a key that ids do not change, the class it is balanced by, the words that make it alike."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

import orjson

from data_checks.duplicates import Hashes, normalise, shingles
from rightcall.rows import Row, RowKind

# fields that are not content, or say again what another says
IDENTITY = ("id", "uuid", "source_id", "source", "group", "raw_tools")
NO_TOOLS = "no tools"


def content_key(record: Row) -> int:
    """8 bytes of a hash over everything but the ids; at a million rows two unlike ones meet with probability 3e-8."""
    content = {name: value for name, value in record.items() if name not in IDENTITY}
    try:
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a whole number beyond 64 bits
        text = json.dumps(content, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def class_of(row: Row, kind: RowKind) -> tuple[str, ...]:
    if kind == "choice":
        return (row["correct_answer"], "tools" if row["tools"] else NO_TOOLS)
    return (row["behaviour"], row["rejected_kind"]) if kind == "preference" else (row["behaviour"],)


def row_shingles(row: Row, kind: RowKind) -> Hashes:
    if kind == "choice":
        text = row["question"]
    else:
        messages = row["messages"] if kind == "sft" else [*row["prompt"], row["chosen"], row["rejected"]]
        text = "\n".join(part for message in messages for part in _spoken(message))
    return shingles(normalise(text), [tool["function"]["name"] for tool in row["tools"]])


def _spoken(message: Row) -> Iterable[str]:
    yield message.get("content") or ""
    for call in message.get("tool_calls") or ():
        yield f"{call['function']['name']} {json.dumps(call['function']['arguments'], ensure_ascii=False)}"
