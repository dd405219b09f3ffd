"""traces:mlflow:EXPERIMENT and traces:FILE, what an agent's telemetry recorded, as records of conversations.

They are held in memory, and no secret is in what is held: the first file that a conversation is written to is the snapshot.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rightcall.errors import DataError, SourceError
from rightcall.rows.lines import parse_line
from rightcall.rows.secrets import redact_record, redact_text, redact_texts
from rightcall.traces.conversations import Traces
from rightcall.traces.spans import spans_of
from tasks.files.lines import MAX_ARRAY_BYTES, Line, files_of, read_lines
from tasks.tracking.traces import read_experiment

SCHEME, MLFLOW = "traces:", "traces:mlflow:"


@dataclass(frozen=True)
class Recorded:
    lines: list[Line]  # a conversation each, or what is wrong with a trace
    left_out: Counter[str]
    redacted: Counter[str]


_last: dict[tuple[str, str | None], Recorded] = {}  # as they were when their digest was asked for


def names_traces(uri: str) -> bool:
    return uri.startswith(SCHEME)


def file_of(uri: str) -> Path | None:
    """None = the traces are MLflow's."""
    return None if uri.startswith(MLFLOW) else Path(uri.removeprefix(SCHEME)).expanduser()


def with_file(uri: str, place: Callable[[Path], str]) -> str:
    """The same traces, their file named as `place` names it; an experiment stays as it is."""
    path = file_of(uri)
    return f"{SCHEME}{place(path)}" if path else uri


def recorded(uri: str, filter_string: str | None = None) -> Recorded:
    """The conversations; those of the digest that was asked for last, so that a key and its rows agree.

    Raises:
        SourceError: whoever named the source: the file or the experiment is not there, or no trace calls a model.
        RegistryError: whoever runs MLflow: it cannot be reached.
    """
    key = (uri, filter_string)
    return _last[key] if key in _last else _read(uri, filter_string)


def recorded_digest(uri: str, filter_string: str | None = None) -> str:
    """Of the conversations as they are recorded now: other telemetry beside them changes nothing.

    Raises:
        SourceError: as in `recorded`.
        RegistryError: as in `recorded`.
    """
    found = _last[uri, filter_string] = _read(uri, filter_string)
    total = hashlib.sha256()
    for line in found.lines:
        total.update(line.content + b"\n")
    return total.hexdigest()


def _read(uri: str, filter_string: str | None) -> Recorded:
    traces, lines = Traces(), []
    redacted: Counter[str] = Counter()
    path = file_of(uri)
    if path is None:
        read_experiment(uri, uri.removeprefix(MLFLOW), filter_string, traces)
    else:
        lines += [_clean(line, redacted) for line in _read_file(uri, path, traces)]
    for found in traces.conversations():
        record = redact_record(found.record, redacted)
        if "tools" in record:
            record["tools"] = redact_texts(record["tools"], redacted)
        content = json.dumps(record, ensure_ascii=False).encode("utf-8", errors="surrogatepass")
        lines.append(_clean(Line(len(lines) + 1, content, len(content), found.problem), redacted))
    if not lines:
        kinds = ", ".join(f"{count:,} {name}" for name, count in traces.left_out.items()) or "nothing"
        raise SourceError(f"{uri!r} holds no conversation, but {kinds}; name traces in which a model is called")
    return Recorded(lines, +traces.left_out, redacted)


def _read_file(uri: str, path: Path, traces: Traces) -> Iterator[Line]:
    """Adds the file's spans; gives the lines that are none."""
    if not path.exists():
        raise SourceError(f"{uri!r} does not exist (looked for {str(path.absolute())!r}); correct the path")
    for file in files_of(path):
        for line in read_lines(file, max_bytes=MAX_ARRAY_BYTES):  # a batch of the collector's is one line
            try:
                if line.problem is not None:
                    raise line.problem
                for span in spans_of(parse_line(line.content, max_bytes=MAX_ARRAY_BYTES)):
                    traces.add(span)
            except DataError as err:
                yield Line(line.number, line.text.encode(), line.size_bytes, err)


def _clean(line: Line, redacted: Counter[str]) -> Line:
    """A problem shows what it is about, and an unreadable line may hold anything."""
    if line.problem is None:
        return line
    problem = DataError(redact_text(line.problem.detail, Counter()), reason=line.problem.reason)
    return Line(line.number, redact_text(line.text, redacted).encode(), line.size_bytes, problem)
