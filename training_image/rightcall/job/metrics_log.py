"""metrics.jsonl, the lines that a job writes while it runs.

In a container nobody sees the file before the job has ended: with RIGHTCALL_METRICS_TO_LOG=1 every line also goes to
stdout, as ``RIGHTCALL_METRICS {"step": 4, …}``, and so to the log that whoever started the job reads.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MARK = "RIGHTCALL_METRICS "
VARIABLE = "RIGHTCALL_METRICS_TO_LOG"


def append(path: Path, line: Mapping[str, Any]) -> None:
    """One more line, on disk and in the log when this returns."""
    text = json.dumps(line, ensure_ascii=False)
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
    if os.environ.get(VARIABLE) == "1":
        sys.stdout.write(f"{MARK}{text}\n")  # one write: other processes' lines do not get into it
        sys.stdout.flush()


def merge(path: Path, line: Mapping[str, Any]) -> None:
    """Adds these fields to the last line where it is of the same step, else appends a line of its own."""
    lines = path.read_bytes().splitlines() if path.is_file() else []
    last = json.loads(lines[-1]) if lines else {}
    if last.get("step") == line["step"]:
        cut(path, line["step"] - 1)
        line = {**last, **line}
    append(path, line)


def restore(path: Path, copy: Path) -> None:
    """Brings back the checkpoint's ``copy`` where the machine that wrote the lines is gone (a Spot interruption)."""
    if not path.is_file() and copy.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(copy, path)


def cut(path: Path, step: int) -> None:
    """Drops the lines behind ``step``, which a resumed run writes again, and a line that a kill has torn."""
    if not path.is_file():
        return
    kept = []
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            written = json.loads(line)["step"]
        except (ValueError, KeyError, TypeError):
            continue
        if written <= step:
            kept.append(line + b"\n")
    temporary = path.with_suffix(".cut")
    temporary.write_bytes(b"".join(kept))
    os.replace(temporary, path)
