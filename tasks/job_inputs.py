"""What a job reads, before it is known where the job runs."""

from __future__ import annotations

from dataclasses import dataclass

from tasks.store import ArtifactRef


@dataclass(frozen=True)
class Input:
    """A result in the store, or the folder ``part`` ("model/") of it."""

    ref: ArtifactRef
    part: str = ""
