"""Records of JSON lines, a JSON array, parquet or Arrow as a stream: an unreadable one is reported, not raised or held whole."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rightcall.errors import DataError, SourceError
from tasks.files import tables

MAX_LINE_BYTES = 10_000_000
SKIP_BYTES = 2**20  # what is held of a line that is over the limit while its end is looked for
TEXT_CHARACTERS = 2000
MAX_ARRAY_BYTES = 512 * 2**20  # a .json file that is one array has to be read as a whole
ENDINGS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".ndjson", *tables.ENDINGS)
FLAT = (".csv", ".tsv", ".csv.gz", ".tsv.gz")


@dataclass(frozen=True)
class Line:
    number: int  # from 1
    content: bytes  # the whole line, or the beginning of one that cannot be used
    size_bytes: int
    problem: DataError | None = None

    @property
    def text(self) -> str:
        return self.content[: 4 * TEXT_CHARACTERS].decode("utf-8", errors="replace")[:TEXT_CHARACTERS]


def files_of(path: Path) -> list[Path]:
    """The file itself, or a folder's files with rows, by name.

    Raises:
        SourceError: a folder without any, or a table of flat cells.
    """
    if path.is_file():
        _refuse_flat(path)
        return [path]
    files = sorted(child for child in path.rglob("*") if child.is_file())
    found = [child for child in files if child.name.lower().endswith(ENDINGS)]
    if not found:
        for child in files:
            _refuse_flat(child)
        raise SourceError(f"folder {str(path)!r} holds no rows; name one with files that end in {', '.join(ENDINGS)}")
    return found


def _refuse_flat(path: Path) -> None:
    if path.name.lower().endswith(FLAT):
        raise SourceError(
            f"{str(path)!r} is CSV, whose cells cannot say what is a message and what a call; write the rows as JSON lines "
            "(.jsonl: one object with messages and tools a line) or as parquet"
        )


def read_lines(path: Path, max_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Every line that is not blank; a truncated gzip file ends with one that says so, after all that was readable."""
    with path.open("rb") as raw:
        head = raw.read(8)
    if tables.is_table(path, head):
        yield from _rows(path)
        return
    compressed = head.startswith(b"\x1f\x8b")
    if path.suffix == ".gz" and not compressed:
        yield Line(
            1,
            b"",
            path.stat().st_size,
            DataError(f"{path.name!r} is not gzip; compress it again or drop the ending .gz", reason="broken_gzip"),
        )
        return
    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        if _is_array(path, compressed):
            yield from _array(stream, path)  # type: ignore[arg-type]
        else:
            yield from _lines(stream, path, max_bytes)  # type: ignore[arg-type]


def _rows(path: Path) -> Iterator[Line]:
    """Numbers are positions in the table."""
    number = 0
    try:
        for number, row in enumerate(tables.rows_of(path), 1):
            if isinstance(row, DataError):
                yield Line(number, b"", 0, row)
            else:
                yield Line(number, row, len(row))
    except DataError as err:
        yield Line(number + 1, b"", path.stat().st_size, err)


def _lines(stream: BinaryIO, path: Path, max_bytes: int) -> Iterator[Line]:
    number = 0
    while True:
        number += 1
        line = b""
        try:
            line = stream.readline(max_bytes + 1)
            if len(line) > max_bytes and not line.endswith(b"\n"):
                yield _too_long(stream, number, line, max_bytes)
                continue
        except (EOFError, OSError, zlib.error) as err:
            if isinstance(err, OSError) and not isinstance(err, gzip.BadGzipFile):
                raise
            problem = DataError(
                f"{path.name!r} ends in the middle ({err}); the {number - 1} lines before it are used, fetch the file again",
                reason="broken_gzip",
            )
            yield Line(number, line, len(line), problem)
            return
        if not line:
            return
        if line.strip():
            yield Line(number, line, len(line))


def _too_long(stream: BinaryIO, number: int, head: bytes, max_bytes: int) -> Line:
    size = len(head)
    head = head[: 4 * TEXT_CHARACTERS]
    while part := stream.readline(SKIP_BYTES):
        size += len(part)
        if part.endswith(b"\n"):
            break
    problem = DataError(f"{size:,} bytes, the limit is {max_bytes:,}; split or drop the row", reason="line_too_long")
    return Line(number, head, size, problem)


def _is_array(path: Path, compressed: bool) -> bool:
    """BFCL calls JSON lines .json, other tools write one array: the first character tells."""
    if ".json" not in path.suffixes:
        return False
    with gzip.open(path, "rb") if compressed else path.open("rb") as stream:
        try:
            return stream.read(4096).lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"[")
        except (EOFError, OSError, zlib.error):
            return False


def _array(stream: BinaryIO, path: Path) -> Iterator[Line]:
    """Numbers are positions in the array."""
    content = stream.read(MAX_ARRAY_BYTES + 1)
    if len(content) > MAX_ARRAY_BYTES:
        raise SourceError(
            f"{str(path)!r} is one JSON array of more than {MAX_ARRAY_BYTES:,} bytes; write one object a line (.jsonl)"
        )
    try:
        records = json.loads(content)
    except ValueError as err:
        problem = DataError(f"{err}; write one object a line (.jsonl)", reason="not_json")
        yield Line(1, content[: 4 * TEXT_CHARACTERS], len(content), problem)
        return
    for number, record in enumerate(records, 1):
        line = json.dumps(record, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
        yield Line(number, line, len(line))
