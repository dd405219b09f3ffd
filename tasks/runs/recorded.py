"""The pipeline's run in MLflow: a parent with one child per result, closed as FINISHED or FAILED whatever happens."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prefect.context import FlowRunContext

from rightcall.recipe.schema import Recipe
from tasks.costs.bills import read_bills, total
from tasks.results.files import report_path
from tasks.runtime.cancellation import FlowRunWatch
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.mlflow_runs import end_pipeline_run, log_costs, record_stage, start_pipeline_run


@dataclass
class RecordedRun:
    """What the run is closed with; ``close_with`` fills it in."""

    id: str
    store: Store
    verdict: str | None = None
    report: Path | None = None

    def close_with(self, verdict: str, report: ArtifactRef) -> None:
        self.verdict, self.report = verdict, report_path(self.store, report)


@contextmanager
def recorded_run(store: Store, recipe: Recipe, results: Mapping[str, ArtifactRef]) -> Iterator[RecordedRun]:
    """Opens the run and mirrors ``results`` (label → ref) into it.

    Raises:
        RegistryError: MLflow does not answer.
    """
    run = RecordedRun(start_pipeline_run(recipe, flow_run=FlowRunWatch().root_id, begun=_begun()), store)
    ended = False
    try:
        for label, ref in results.items():
            record_stage(recipe, ref, run.id, store=store, label=label)
        if sums := total(read_bills(store, results)):
            log_costs(run.id, sums)
        yield run
        ended = True
    finally:
        end_pipeline_run(run.id, status="FINISHED" if ended else "FAILED", verdict=run.verdict, report=run.report)


def _begun() -> datetime | None:
    """When the flow run began, long before its results are mirrored; None = there is none."""
    context = FlowRunContext.get()
    return None if context is None else context.start_time
