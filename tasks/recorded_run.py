"""The pipeline's run in MLflow: a parent with one child per result, closed as FINISHED or FAILED whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rightcall.recipe import Recipe
from tasks.environment import store_root
from tasks.report import report_path
from tasks.store import ArtifactRef, Store
from tasks.tracking import end_pipeline_run, record_stage, start_pipeline_run


@dataclass
class RecordedRun:
    """What the run is closed with; ``close_with`` fills it in."""

    id: str
    verdict: str | None = None
    report: Path | None = None

    def close_with(self, verdict: str, report: ArtifactRef) -> None:
        self.verdict, self.report = verdict, report_path(Store(store_root()), report)


@contextmanager
def recorded_run(recipe: Recipe, results: Mapping[str, ArtifactRef]) -> Iterator[RecordedRun]:
    """Opens the run and mirrors ``results`` (label → ref) into it.

    Raises:
        RegistryError: MLflow does not answer.
    """
    run = RecordedRun(start_pipeline_run(recipe))
    ended = False
    try:
        store = Store(store_root())
        for label, ref in results.items():
            record_stage(recipe, ref, run.id, store=store, label=label)
        yield run
        ended = True
    finally:
        end_pipeline_run(run.id, status="FINISHED" if ended else "FAILED", verdict=run.verdict, report=run.report)
