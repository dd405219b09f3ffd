"""Pieces of work that are done, on disk as they are done: a job that was stopped or killed goes on after them.

Their file lies among the checkpoints, all that a new container gets of an earlier one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class PartialResults:
    """The finished pieces of one plan, by number; ``plan`` is a digest of the work: other plans' are dropped."""

    def __init__(self, path: Path, plan: str) -> None:
        self.path, self._plan = path, plan
        self.pieces: dict[int, Any] = dict(self._read())
        temporary = path.with_suffix(".new")
        temporary.write_text("".join(map(self._line, self.pieces)), encoding="utf-8")
        os.replace(temporary, path)

    def add(self, number: int, piece: Any) -> None:
        self.pieces[number] = piece
        with self.path.open("a", encoding="utf-8") as file:
            file.write(self._line(number))

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)

    def _line(self, number: int) -> str:
        return json.dumps({"plan": self._plan, "number": number, "piece": self.pieces[number]}) + "\n"

    def _read(self) -> Iterator[tuple[int, Any]]:
        """A line that a kill has torn does not count."""
        if not self.path.is_file():
            return
        for line in self.path.read_bytes().split(b"\n")[:-1]:
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if entry["plan"] == self._plan:
                yield entry["number"], entry["piece"]
