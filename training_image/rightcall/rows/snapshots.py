"""Rows in a snapshot's parquet files: what is a column, written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row, RowKind

COLUMNS: dict[RowKind, tuple[str, ...]] = {
    "sft": ("id", "source", "behaviour", "messages", "tools", "trained"),
    "preference": ("id", "source", "behaviour", "rejected_kind", "prompt", "tools", "chosen", "rejected"),
    "choice": ("id", "source", "question", "tools", "answers", "correct_answer", "accepted", "string_rule"),
    "step": ("id", "source", "behaviour", "conversation", "group", "situation", "messages", "tools"),
    "conversation": ("id", "source", "group", "situation", "side", "messages", "tools", "trained"),
}
# Unlike structs in one Arrow column are unified with null keys, which corrupts every tool schema: these are JSON text.
JSON_COLUMNS = frozenset(
    {"messages", "tools", "prompt", "chosen", "rejected", "answers", "raw_tools", "trained", "accepted"}
)
# of a row, and what its column then holds
MAY_BE_MISSING = {"trained": None, "situation": "", "accepted": None, "string_rule": ""}
RAW_TOOLS = "raw_tools"  # of an item: the one column that may be empty, or missing
BATCH_ROWS = 1000  # of a snapshot, decoded at once


def to_columns(row: Row, kind: RowKind) -> dict[str, str]:
    """The row as the strings that a snapshot's columns hold, without ``raw_tools``."""
    whole = MAY_BE_MISSING | row
    return {
        name: json.dumps(whole[name], ensure_ascii=False) if name in JSON_COLUMNS else str(whole[name])
        for name in COLUMNS[kind]
    }


def from_columns(columns: dict[str, Any], kind: RowKind) -> Row:
    """The inverse of ``to_columns``; further columns (n_tokens) stay as they are."""
    there = {name: value for name, value in columns.items() if name != RAW_TOOLS or value is not None}
    return {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in there.items()}


def raw_tools_column(row: Row) -> str | None:
    """What stands in an item's column ``raw_tools``."""
    return json.dumps(row[RAW_TOOLS], ensure_ascii=False) if row.get(RAW_TOOLS) is not None else None


def read_snapshot(folder: Path, kind: RowKind) -> list[Row]:
    """All rows of one kind of a snapshot folder, as canonical dicts with ``n_tokens``; about 20 KB of memory a row.

    Raises:
        DataError: the folder is no snapshot, or its columns are not ours.
    """
    return list(iter_snapshot(folder, kind))


def iter_snapshot(folder: Path, kind: RowKind, columns: Sequence[str] | None = None) -> Iterator[Row]:
    """The same, a batch in memory at a time; ``columns`` reads and decodes these alone."""
    import pyarrow.parquet as pq

    path = folder / f"{kind}.parquet"
    if not path.is_file():
        raise DataError(f"{str(path)!r} is not there; run the ingest flow first", reason="missing_snapshot")
    file = pq.ParquetFile(path)
    missing = [name for name in COLUMNS[kind] if name not in file.schema_arrow.names]
    if missing:
        raise DataError(
            f"{str(path)!r} has no column {missing[0]!r}; ingest the data again", reason=f"missing_field:{missing[0]}"
        )
    for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=columns):
        for values in batch.to_pylist():
            yield from_columns(values, kind)
