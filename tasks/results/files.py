"""The files that a stage leaves in its folder, and how they are read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rightcall.errors import ScoringError
from rightcall.measurement.gate import Verdict
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

ITEMS = "output/items.jsonl"
WRITTEN = "output/written.jsonl"
METRICS = "output/metrics.jsonl"
SUMMARY = "output/summary.json"


def read_items(folder: Path) -> list[dict[str, Any]]:
    """Per-item scores of a scores ref's folder; none = the recipe has no multiple-choice items.

    Raises:
        ScoringError: nothing was scored there, or a line is not JSON.
    """
    if not any((folder / name).is_file() for name in (ITEMS, WRITTEN)):
        raise ScoringError(
            f"{str(folder)!r} has no per-item scores {ITEMS!r} and no written turns {WRITTEN!r}; pass a ref that "
            "flows.score made"
        )
    return read_json_lines(folder / ITEMS)


def read_written(folder: Path) -> list[dict[str, Any]]:
    """The turns that a model wrote, judged, a line per step, from a scores ref's folder; none = the recipe has no steps.

    Raises:
        ScoringError: a line is not JSON.
    """
    return read_json_lines(folder / WRITTEN)


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """A .jsonl file; no file = no lines.

    Raises:
        ScoringError: a line is not JSON.
    """
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except ValueError as err:
        raise ScoringError(f"{str(path)!r} cannot be read: {err}; delete its folder and run the flow again") from err


def read_summary(folder: Path) -> dict[str, Any]:
    """The training program's final numbers, from a result's folder."""
    path = folder / SUMMARY
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def numbers_of(summary: Mapping[str, Any]) -> dict[str, Any]:
    """What of it is shown to people: single values, neither lists nor flags."""
    return {
        name: value
        for name, value in summary.items()
        if isinstance(value, int | float | str) and not isinstance(value, bool)
    }


CHECKS = "checks.json"
VERDICT = "verdict.json"
REPORT = "report.html"


def report_path(store: Store, ref: ArtifactRef) -> Path:
    return store.path(ref) / REPORT


def read_checks(store: Store, ref: ArtifactRef) -> dict[str, Any]:
    """What the checks found in a snapshot's rows."""
    return dict(json.loads((store.path(ref, CHECKS) / CHECKS).read_text(encoding="utf-8")))


def read_verdict(store: Store, ref: ArtifactRef) -> Verdict:
    return Verdict.model_validate_json((store.path(ref) / VERDICT).read_text(encoding="utf-8"))
