"""What every backend makes of a finished job: its summary, and the program's own error as the type it had there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rightcall import errors
from rightcall.errors import BackendError, RightcallError

RESULTS = {"score": "output/data/items.jsonl"}  # what a finished job must have left; any other stage a model
MODEL_RESULT = "model/config.json"


@dataclass(frozen=True)
class JobResult:
    summary: dict[str, Any]  # output/data/summary.json: the program's final numbers
    seconds: float


def expected_result(stage: str) -> str:
    """The file, below the job's root, without which it has not done its work."""
    return RESULTS.get(stage, MODEL_RESULT)


def program_error(failure: str, where: str) -> RightcallError | None:
    """The error in a failure file ("TrainingError: the loss is nan…") as its own type; None when it is not one of ours.

    ``where`` says which job it was and where its log is.
    """
    name, _, message = failure.partition(":")
    kind = getattr(errors, name.strip().rpartition(".")[2], None)
    if not (isinstance(kind, type) and issubclass(kind, RightcallError)) or issubclass(kind, BackendError):
        return None
    reason = re.split(r"\nTraceback|\n\n  File ", message)[0].strip()
    return kind(f"{reason} ({where})")
