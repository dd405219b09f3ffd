"""MLflow runs: one parent per pipeline run, one child per stage result, mirrored from what the stages left behind.

A child belongs to its result (tag ``rightcall.ref`` = "sft/1a2b…"), not to the run that made it: a rerun whose stages
are cached finds the children and points at them instead of logging the same numbers again.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightcall.errors import RegistryError
from rightcall.measurement.intervals import Metric
from rightcall.recipe.schema import Recipe
from tasks.machine.checkout import git_commit
from tasks.results.files import METRICS, read_json_lines
from tasks.results.scores import read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.connection import connect, exclusive, experiment_id, mlflow_errors
from tasks.tracking.redaction import flatten, redact

if TYPE_CHECKING:
    from mlflow import MlflowClient

FLOW_RUN = "prefect.flow_run"
REF, DIGEST, RECORDED = "rightcall.ref", "rightcall.digest", "rightcall.recorded"
PARENT = "mlflow.parentRunId"
PARAMS_PER_BATCH, METRICS_PER_BATCH = 100, 1000  # MLflow's own limits
MIRROR_SECONDS = 5.0  # between two writes while a stage runs
DATASET_DIGEST_LENGTH = 36  # MLflow's limit; the whole digest is a tag
logger = logging.getLogger(__name__)


def start_pipeline_run(recipe: Recipe, *, flow_run: str | None = None, begun: datetime | None = None) -> str:
    """Opens the parent run and gives its id; begun: when its first stage was started, None = now.

    A run of Prefect's that begins anew, because it was suspended for an approval or retried, goes on with the one it had.
    """
    client = connect()
    with mlflow_errors():
        with exclusive():
            experiment = experiment_id(client, recipe.register_.experiment)
        tags = {"rightcall.kind": "pipeline", "rightcall.recipe_digest": recipe.digest}
        if flow_run is not None:
            tags[FLOW_RUN] = flow_run
            if known := _find_run(client, experiment, tags):
                client.update_run(known, status="RUNNING")
                return known
        tags |= {"rightcall.recipe": recipe.name, "rightcall.git_commit": git_commit()}
        start_ms = None if begun is None else int(begun.timestamp() * 1000)
        name = f"pipeline-{recipe.name}-{recipe.digest}"
        run = client.create_run(experiment, run_name=name, tags=tags, start_time=start_ms)
        values = recipe.model_dump(mode="json", by_alias=True)
        _log_params(client, run.info.run_id, flatten(values))
        client.log_dict(run.info.run_id, redact(values), "recipe.yaml")
        return str(run.info.run_id)


def record_stage(recipe: Recipe, ref: ArtifactRef, parent: str, *, store: Store, label: str | None = None) -> str:
    """Mirrors a finished stage into its child run, once, and gives the child's id; `label` names it in the parent."""
    client = connect()
    stage, _, key = ref.uri.partition("/")
    name = f"{label or stage}-{key[:8]}"
    with mlflow_errors():
        child = _child_run(client, recipe.register_.experiment, ref.uri, name)
        with exclusive():  # another pipeline run with the same result may be here at the same moment
            tags = client.get_run(child).data.tags
            if tags.get(RECORDED) != ref.digest:
                _record(client, child, recipe, ref, store)
            if PARENT not in tags:
                client.set_tag(child, PARENT, parent)
        client.set_tag(parent, f"rightcall.{label or stage}", ref.uri)
        client.set_tag(parent, f"rightcall.{label or stage}.run", child)
        if ref.kind == "scores":
            _log_scores(client, parent, read_scores(store, ref, recipe.evaluation).metrics, prefix=f"{label or stage}.")
    return child


def log_costs(run: str, sums: Mapping[str, float]) -> None:
    """What the results of a run were billed, in all; each child has its own part from its manifest."""
    client = connect()
    with mlflow_errors():
        _log_values(client, run, sums, step=0, timestamp_ms=int(time.time() * 1000))


def end_pipeline_run(
    run: str, *, status: str = "FINISHED", verdict: str | None = None, report: Path | None = None
) -> None:
    """Closes the parent run; status is FINISHED, FAILED or KILLED."""
    client = connect()
    with mlflow_errors():
        if verdict is not None:
            client.set_tag(run, "rightcall.verdict", verdict)
        if report is not None:
            client.log_artifact(run, str(report))
        client.set_terminated(run, status)


class MetricsMirror:
    """Sends lines of metrics.jsonl to the stage's child run while it grows, each step once, a few seconds apart.

    Training goes on when MLflow does not answer: the mirror says so once and stops; `record_stage` sends all later.
    """

    def __init__(self, recipe: Recipe, uri: str) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._sent = time.monotonic()
        self._client: MlflowClient | None = None
        try:
            self._client = connect()
            stage, _, key = uri.partition("/")
            with mlflow_errors():
                self._run = _child_run(self._client, recipe.register_.experiment, uri, f"{stage}-{key[:8]}")
                self._last_step = _last_step(self._client, self._run)
        except RegistryError as err:
            self._stop(err)

    def __call__(self, line: Mapping[str, Any]) -> None:
        self._waiting.append(dict(line))
        if time.monotonic() - self._sent >= MIRROR_SECONDS:
            self.flush()

    def flush(self) -> None:
        lines, self._waiting, self._sent = self._waiting, [], time.monotonic()
        if self._client is None or not lines:
            return
        try:
            with mlflow_errors():
                self._last_step = _log_lines(self._client, self._run, lines, self._last_step, int(time.time() * 1000))
        except RegistryError as err:
            self._stop(err)

    def _stop(self, err: RegistryError) -> None:
        logger.warning("metrics are not mirrored into MLflow while this stage runs: %s", err)
        self._client = None


def _child_run(client: MlflowClient, experiment: str, uri: str, name: str) -> str:
    with exclusive():
        number = experiment_id(client, experiment)
        if known := _find_run(client, number, {REF: uri}):
            return known
        tags = {REF: uri, "rightcall.kind": "stage"}
        return str(client.create_run(number, run_name=name, tags=tags).info.run_id)


def _find_run(client: MlflowClient, experiment: str, tags: Mapping[str, str]) -> str | None:
    """Id of a run with all these tags."""
    same = " and ".join(f"tags.`{name}` = '{value}'" for name, value in tags.items())
    found = client.search_runs([experiment], filter_string=same, max_results=1)
    return str(found[0].info.run_id) if found else None


def _record(client: MlflowClient, run: str, recipe: Recipe, ref: ArtifactRef, store: Store) -> None:
    manifest = store.manifest(ref)
    _log_params(client, run, flatten({"recipe": manifest.get("slice") or {}}))
    result = {name: value for name, value in manifest.get("result", {}).items() if _is_number(value)}
    end_ms = int(datetime.fromisoformat(manifest["created"]).timestamp() * 1000)
    start_ms = end_ms - int(manifest["seconds"] * 1000)
    _log_values(client, run, {**result, "stage_seconds": manifest["seconds"]}, step=0, timestamp_ms=end_ms)
    _log_lines(client, run, read_json_lines(store.path(ref, METRICS) / METRICS), _last_step(client, run), start_ms)
    if ref.kind == "scores":
        _log_scores(client, run, read_scores(store, ref, recipe.evaluation).metrics)
    _log_inputs(client, run, manifest.get("inputs", {}), store)
    texts = {name: str(value) for name, value in manifest.get("result", {}).items() if isinstance(value, str)}
    tags = {
        DIGEST: ref.digest,
        "rightcall.store": store.address,
        **{f"rightcall.{name}": text for name, text in texts.items()},
    }
    for name, text in {**tags, RECORDED: ref.digest}.items():
        client.set_tag(run, name, text)
    client.set_terminated(run, "FINISHED", end_time=end_ms)


def _log_inputs(client: MlflowClient, run: str, inputs: Mapping[str, Any], store: Store) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    datasets = []
    for name, entry in inputs.items():
        if not isinstance(entry, Mapping) or "digest" not in entry:
            continue
        client.set_tag(run, f"rightcall.input.{name}", f"{entry['uri']} {entry['digest']}")
        if entry["kind"] == "snapshot":
            source = json.dumps({"uri": f"{store.address}/{entry['uri']}"})
            dataset = Dataset(entry["uri"], entry["digest"][:DATASET_DIGEST_LENGTH], "local", source)
            datasets.append(DatasetInput(dataset, [InputTag("mlflow.data.context", name)]))
    if datasets:
        client.log_inputs(run, datasets)


def _log_params(client: MlflowClient, run: str, params: Mapping[str, str]) -> None:
    from mlflow.entities import Param

    known = client.get_run(run).data.params
    new = [Param(name, value) for name, value in params.items() if name not in known]
    for batch in _batches(new, PARAMS_PER_BATCH):
        client.log_batch(run, params=batch)


def _log_scores(client: MlflowClient, run: str, metrics: Mapping[str, Metric], prefix: str = "") -> None:
    values: dict[str, float] = {}
    for name, metric in metrics.items():
        values |= {
            f"{prefix}{name}": metric.value,
            f"{prefix}{name}.low": metric.low,
            f"{prefix}{name}.high": metric.high,
        }
        values[f"{prefix}{name}.n"] = metric.n
    _log_values(client, run, values, step=0, timestamp_ms=int(time.time() * 1000))


def _log_values(client: MlflowClient, run: str, values: Mapping[str, float], *, step: int, timestamp_ms: int) -> None:
    from mlflow.entities import Metric as Point

    points = [Point(name, float(value), timestamp_ms, step) for name, value in values.items()]
    for batch in _batches(points, METRICS_PER_BATCH):
        client.log_batch(run, metrics=batch)


def _log_lines(
    client: MlflowClient, run: str, lines: Iterable[Mapping[str, Any]], after_step: int, start_ms: int
) -> int:
    """Sends the lines of steps that MLflow does not have yet; gives the last step it has then."""
    from mlflow.entities import Metric as Point

    points, last = [], after_step
    for line in lines:
        step = int(line.get("step", 0))
        if step <= after_step:
            continue
        last = max(last, step)
        moment = start_ms + int(float(line.get("seconds", 0)) * 1000)
        numbers = {
            name: value for name, value in line.items() if _is_number(value) and name not in ("step", "total_steps")
        }
        points += [Point(name, float(value), moment, step) for name, value in numbers.items()]
    for batch in _batches(points, METRICS_PER_BATCH):
        client.log_batch(run, metrics=batch)
    return last


def _last_step(client: MlflowClient, run: str) -> int:
    """-1 = nothing of metrics.jsonl is there; "seconds" stands in every line of it."""
    return max((point.step for point in client.get_metric_history(run, "seconds")), default=-1)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and not (isinstance(value, float) and math.isnan(value))
    )


def _batches(entries: list[Any], size: int) -> Iterator[list[Any]]:
    for start in range(0, len(entries), size):
        yield entries[start : start + size]
