"""What every backend makes of a finished job: its summary, and the program's own error as the type it had there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from rightcall import errors
from rightcall.errors import BackendError, RightcallError
from tasks.store.manifests import ArtifactRef


@dataclass(frozen=True)
class JobResult:
    summary: dict[str, Any]  # output/data/summary.json: the program's final numbers
    seconds: float


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


@dataclass(frozen=True)
class Input:
    """A result in the store, or the folder ``part`` ("model/") of it."""

    ref: ArtifactRef
    part: str = ""
