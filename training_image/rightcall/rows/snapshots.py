"""Rows in a snapshot's parquet files: what is a column, written and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightcall.errors import DataError

if TYPE_CHECKING:
    import pyarrow
from rightcall.rows.vocabulary import Row, RowKind

COLUMNS: dict[RowKind, tuple[str, ...]] = {
    "sft": ("id", "source", "behaviour", "messages", "tools"),
    "preference": ("id", "source", "behaviour", "rejected_kind", "prompt", "tools", "chosen", "rejected"),
    "choice": ("id", "source", "question", "tools", "answers", "correct_answer"),
}
# Unlike structs in one Arrow column are unified with null keys, which corrupts every tool schema: these are JSON text.
JSON_COLUMNS = frozenset({"messages", "tools", "prompt", "chosen", "rejected", "answers", "raw_tools"})
RAW_TOOLS = "raw_tools"  # of an item: the one column that may be empty, or missing
BATCH_ROWS = 1000  # of a snapshot, decoded at once


def to_columns(row: Row, kind: RowKind) -> dict[str, str]:
    """The row as the strings that a snapshot's columns hold, without ``raw_tools``."""
    return {
        name: json.dumps(row[name], ensure_ascii=False) if name in JSON_COLUMNS else str(row[name])
        for name in COLUMNS[kind]
    }


def from_columns(columns: dict[str, Any], kind: RowKind) -> Row:
    """The inverse of ``to_columns``; further columns (n_tokens) stay as they are."""
    there = {name: value for name, value in columns.items() if name != RAW_TOOLS or value is not None}
    return {name: json.loads(value) if name in JSON_COLUMNS else value for name, value in there.items()}


def raw_tools_column(row: Row) -> str | None:
    """What stands in an item's column ``raw_tools``."""
    return json.dumps(row[RAW_TOOLS], ensure_ascii=False) if row.get(RAW_TOOLS) is not None else None


def arrow_schema(kind: RowKind) -> pyarrow.Schema:
    import pyarrow as pa

    names = (*COLUMNS[kind], RAW_TOOLS) if kind == "choice" else COLUMNS[kind]
    return pa.schema([(name, pa.string()) for name in names] + [("n_tokens", pa.int32())])


def write_rows(folder: Path, kind: RowKind, rows: Iterable[Row]) -> int:
    """``<folder>/<kind>.parquet`` from canonical rows (``n_tokens`` 0 where a row has none), 1,000 at a time; returns
    how many.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, written, batch = arrow_schema(kind), 0, []
    with pq.ParquetWriter(folder / f"{kind}.parquet", schema, compression="zstd") as writer:
        for row in rows:
            raw = {RAW_TOOLS: raw_tools_column(row)} if kind == "choice" else {}
            batch.append({**to_columns(row, kind), **raw, "n_tokens": int(row.get("n_tokens", 0))})
            written += 1
            if len(batch) == 1000:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                batch = []
        if batch:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
    return written


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
