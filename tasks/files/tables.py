"""Parquet and Arrow files: each row as the JSON line that it would be.

A struct's column has every field that any row has: {"city": "Graz"} comes back as {"city": "Graz", "people": null}, in a
call's arguments and in a tool's properties alike. So a null within a struct, or of a column, means that nothing is there.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ipc

from rightcall.errors import DataError

ENDINGS = (".parquet", ".arrow", ".feather")
BATCH_ROWS = 500
_PARQUET, _ARROW_FILE = b"PAR1", b"ARROW1"  # how they begin; what datasets caches is Arrow's stream, without a mark


def is_table(path: Path, head: bytes) -> bool:
    return path.suffix.lower() in ENDINGS or head.startswith((_PARQUET, _ARROW_FILE))


def rows_of(path: Path) -> Iterator[bytes | DataError]:
    """JSON text of every row, a batch in memory at a time; an error in place of one that JSON has no words for.

    Raises:
        DataError: ``broken_table`` when the file is no parquet and no Arrow, or ends in the middle.
    """
    with _named(path):
        for batch in _batches(path):
            for row in batch.to_pylist(maps_as_pydicts="lossy"):
                yield _json(row)


def without_padding(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_padding(each) for name, each in value.items() if each is not None}
    return [without_padding(each) for each in value] if isinstance(value, list) else value


def _batches(path: Path) -> Iterator[pa.RecordBatch]:
    with path.open("rb") as stream:
        head = stream.read(len(_ARROW_FILE))
        stream.seek(0)
        if head.startswith(_PARQUET):
            yield from pq.ParquetFile(stream).iter_batches(batch_size=BATCH_ROWS)
        elif head == _ARROW_FILE:
            file = ipc.open_file(stream)
            for number in range(file.num_record_batches):
                yield from _slices(file.get_batch(number))
        else:
            for batch in ipc.open_stream(stream):
                yield from _slices(batch)


def _slices(batch: pa.RecordBatch) -> Iterator[pa.RecordBatch]:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)


@contextmanager
def _named(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as err:
        if isinstance(err, OSError) and err.errno is not None:  # the disk's, not the format's
            raise
        raise DataError(
            f"{path.name!r} cannot be read as parquet or Arrow ({err}); fetch or write the file again",
            reason="broken_table",
        ) from err


def _json(row: dict[str, Any]) -> bytes | DataError:
    try:
        return orjson.dumps(without_padding(row), default=_as_text, option=orjson.OPT_NON_STR_KEYS)
    except orjson.JSONEncodeError as err:
        return DataError(
            f"a value of the row is no text, number or list of them: {err}; drop the column", reason="not_json"
        )


def _as_text(value: Any) -> str:
    """Bytes are text without its mark, or no text at all; dates and decimals as they are written."""
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError as err:
            raise TypeError(f"{len(value)} bytes that are not UTF-8") from err
    return str(value)
