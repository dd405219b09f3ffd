"""Rows as a snapshot's parquet file, as the ingest stage leaves it."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rightcall.rows.snapshots import BATCH_ROWS, COLUMNS, RAW_TOOLS, raw_tools_column, to_columns
from rightcall.rows.vocabulary import Row, RowKind


def write_rows(folder: Path, kind: RowKind, rows: Iterable[Row]) -> int:
    """``<folder>/<kind>.parquet`` from canonical rows (``n_tokens`` 0 where a row has none); returns how many."""
    names = (*COLUMNS[kind], RAW_TOOLS) if kind == "choice" else COLUMNS[kind]
    schema, written = pa.schema([(name, pa.string()) for name in names] + [("n_tokens", pa.int32())]), 0
    waiting = iter(rows)
    with pq.ParquetWriter(folder / f"{kind}.parquet", schema, compression="zstd") as writer:
        while batch := list(islice(waiting, BATCH_ROWS)):
            writer.write_table(pa.Table.from_pylist([_line(row, kind) for row in batch], schema=schema))
            written += len(batch)
    return written


def _line(row: Row, kind: RowKind) -> Row:
    raw = {RAW_TOOLS: raw_tools_column(row)} if kind == "choice" else {}
    return {**to_columns({"trained": None, **row}, kind), **raw, "n_tokens": int(row.get("n_tokens", 0))}
