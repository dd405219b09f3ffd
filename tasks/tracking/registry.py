"""MLflow's model registry: a version by reference for every candidate, and the alias that says which one is in use.

champion    the version in use; a GO verdict moves it here, or `promote` after a person's approval
challenger  the newest version that did not get there: NO-GO, INCONCLUSIVE, or GO that waits for approval

The same candidate (by digest) never becomes a second version, unless the first no longer loads; a new verdict about it
changes its tags and its alias.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from prefect import task
from prefect.transactions import transaction
from pydantic import BaseModel, ConfigDict

from rightcall.errors import RegistryError
from rightcall.measurement.gate import Verdict
from rightcall.recipe.schema import Recipe
from tasks.costs.bills import read_bills, total
from tasks.machine.checkout import git_commit
from tasks.machine.run_logger import run_logger
from tasks.results.files import read_verdict
from tasks.results.scores import read_scores
from tasks.runtime import retries
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.connection import connect, exclusive, mlflow_errors, shown_uri
from tasks.tracking.mlflow_runs import DIGEST
from tasks.tracking.redaction import redact
from tasks.tracking.versions import (
    LAYOUT,
    LAYOUT_TAG,
    WEIGHTS,
    by_alias,
    by_number,
    create_version,
    point_alias,
    replace_tags,
    version_of,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

Alias = Literal["champion", "challenger"]


class Registration(BaseModel):
    """Which version a candidate became and under which alias it can be loaded."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: int
    alias: Alias
    digest: str
    verdict: str
    pending_approval: bool

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


@dataclass(frozen=True)
class Champion:
    """The version in use and what it was measured by."""

    name: str
    version: int
    weights: ArtifactRef
    scores: ArtifactRef | None
    snapshot_digest: str | None  # of the evaluation set behind `scores`
    approved_by: str | None


@dataclass(frozen=True)
class Candidate:
    """Everything that a version's tags say about where it comes from."""

    weights: ArtifactRef
    scores: ArtifactRef
    snapshot: ArtifactRef
    verdict: ArtifactRef
    others: Mapping[str, ArtifactRef]  # label → ref: the base model, the SFT model …


def champion(name: str) -> Champion | None:
    """The version under the alias ``champion``; None = no model of this name, or none was good enough yet.

    Raises:
        RegistryError: MLflow does not answer, or the version was not registered by rightcall.
    """
    client = connect()
    with mlflow_errors():
        version = by_alias(client, name, "champion")
    return None if version is None else _champion(version)


def find_registered(uri: str) -> ArtifactRef:
    """Weights of "models:/rightcall@champion" or "models:/rightcall/3".

    Raises:
        RegistryError: there is no such version, or it was not registered by rightcall.
    """
    name, at, alias = uri.removeprefix("models:/").partition("@")
    if not at:
        name, _, alias = name.partition("/")
    client = connect()
    with mlflow_errors():
        found = by_alias(client, name, alias) if at else by_number(client, name, alias)
    if found is None:
        raise RegistryError(
            f"{uri!r} is not in MLflow at {shown_uri()!r}; write models:/<name>@champion or models:/<name>/<version>, "
            "and see the names with `make ui`"
        )
    return _champion(found).weights


@task(
    name="register",
    tags=["rightcall"],
    task_run_name="register-{recipe.register_.name}",
    retries=retries.RETRIES,
    retry_delay_seconds=retries.RETRY_DELAYS_SECONDS,
    retry_jitter_factor=retries.RETRY_JITTER_FACTOR,
    retry_condition_fn=retries.retry_if_transient,
    persist_result=False,
)
def register_model(
    recipe: Recipe,
    *,
    model: ArtifactRef,
    scores: ArtifactRef,
    snapshot: ArtifactRef,
    verdict: ArtifactRef,
    store: Store,
    run: str | None = None,
    others: Mapping[str, ArtifactRef] | None = None,
) -> Registration:
    """Registers the candidate by reference and points the alias that its verdict earns; all of it or nothing.

    run: the pipeline's MLflow run, None = a run of its own. others: label → ref of what the candidate was made from.

    Raises:
        RegistryError: MLflow refused or does not answer; nothing of this call is left there.
        StoreError: the weights or scores were changed after they were made.
    """
    store.check(model, f"{WEIGHTS}/")
    client = connect()
    candidate = Candidate(model, scores, snapshot, verdict, others or {})
    judged = read_verdict(store, verdict)
    tags = _lineage(recipe, candidate, judged, store)
    name = recipe.register_.name
    with mlflow_errors(), exclusive(), transaction() as published:
        version = version_of(client, name, model.digest)
        if version is None:
            tags |= _approval(by_alias(client, name, "champion"), model.digest)
            version = create_version(client, published, recipe, model, tags=tags, store=store, run=run)
        else:
            replace_tags(client, published, version, tags)
        alias = _earned_alias(client, recipe, judged, version)
        point_alias(client, published, name, alias, int(version.version))
        published.logger.info("%s version %s is %s: %s", name, version.version, alias, judged.sentence)
    return _registration(client, name, int(version.version), alias)


def promote(name: str, version: int, *, approved_by: str = "someone") -> Registration:
    """Makes a version the champion after a person's approval.

    Raises:
        RegistryError: there is no such version, or it was not registered by rightcall.
    """
    client = connect()
    with mlflow_errors(), exclusive(), transaction() as published:
        found = by_number(client, name, str(version))
        if found is None:
            raise RegistryError(f"{name!r} has no version {version!r} in MLflow at {shown_uri()!r}; see `make ui`")
        _champion(found)  # refuses what is not ours, says when MLflow cannot load it
        replace_tags(client, published, found, {"rightcall.approved_by": approved_by, "rightcall.approval": "approved"})
        point_alias(client, published, name, "champion", version)
    return _registration(client, name, version, "champion")


def _earned_alias(client: MlflowClient, recipe: Recipe, verdict: Verdict, version: ModelVersion) -> Alias:
    """The champion, by digest, keeps its place when it is judged again: taking it away is a person's decision."""
    current = by_alias(client, recipe.register_.name, "champion")
    if current is not None and current.tags.get(DIGEST) == version.tags[DIGEST]:
        return "champion"
    return "champion" if verdict.verdict == "GO" and recipe.gate.approval == "automatic" else "challenger"


def _approval(champion: ModelVersion | None, digest: str) -> dict[str, str]:
    """A person's approval of the same weights, whose version no longer loads."""
    if champion is None or champion.tags.get(DIGEST) != digest or "rightcall.approved_by" not in champion.tags:
        return {}
    return {tag: champion.tags[tag] for tag in ("rightcall.approved_by", "rightcall.approval")}


def _lineage(recipe: Recipe, candidate: Candidate, verdict: Verdict, store: Store) -> dict[str, str]:
    """A version's tags: enough to make the model again and to say why it has its alias."""
    metrics = read_scores(store, candidate.scores, recipe.evaluation).metrics
    numbers = {
        name: {
            "value": round(metric.value, 4),
            "low": round(metric.low, 4),
            "high": round(metric.high, 4),
            "n": metric.n,
        }
        for name, metric in metrics.items()
    }
    refs = {"model": candidate.weights, "scores": candidate.scores, "snapshot": candidate.snapshot, **candidate.others}
    seconds = {label: store.manifest(ref).get("seconds") for label, ref in refs.items()}
    billed = total(read_bills(store, refs))
    pending = verdict.verdict == "GO" and recipe.gate.approval == "required"
    return {
        DIGEST: candidate.weights.digest,
        LAYOUT_TAG: LAYOUT,
        **{f"rightcall.{label}": ref.model_dump_json() for label, ref in refs.items()},
        "rightcall.recipe_name": recipe.name,
        "rightcall.recipe": json.dumps(redact(recipe.model_dump(mode="json", by_alias=True)), ensure_ascii=False),
        "rightcall.git_commit": git_commit(),
        "rightcall.metrics": json.dumps(numbers),
        "rightcall.seconds": json.dumps(seconds),
        **({"rightcall.billed": json.dumps(billed)} if billed else {}),
        "rightcall.verdict": verdict.verdict,
        "rightcall.reason": verdict.reasons[0],
        "rightcall.sentence": verdict.sentence,
        "rightcall.reasons": json.dumps(verdict.reasons, ensure_ascii=False),
        "rightcall.approval": "pending" if pending else "not needed",
    }


def _registration(client: MlflowClient, name: str, version: int, alias: Alias) -> Registration:
    tags = client.get_model_version(name, str(version)).tags
    return Registration(
        name=name,
        version=version,
        alias=alias,
        digest=tags[DIGEST],
        verdict=tags["rightcall.verdict"],
        pending_approval=tags.get("rightcall.approval") == "pending" and alias == "challenger",
    )


def _champion(version: ModelVersion) -> Champion:
    tags = version.tags
    if "rightcall.model" not in tags:
        raise RegistryError(
            f"version {version.version!r} of {version.name!r} in MLflow was not registered by rightcall (no tag "
            "rightcall.model); move the alias to one that was, or choose another name with --set register.name=NAME"
        )
    if tags.get(LAYOUT_TAG) != LAYOUT:
        run_logger("rightcall.registry").warning(
            "'models:/%s/%s' was registered by another rightcall, whose modules had other names: its weights can still "
            "be scored, but MLflow cannot load it; to register a version that loads, run its recipe %r again: "
            "python -m flows.pipeline RECIPE",
            version.name, version.version, tags.get("rightcall.recipe_name"),
        )  # fmt: skip
    scores = tags.get("rightcall.scores")
    snapshot = tags.get("rightcall.snapshot")
    return Champion(
        name=version.name,
        version=int(version.version),
        weights=ArtifactRef.model_validate_json(tags["rightcall.model"]),
        scores=None if scores is None else ArtifactRef.model_validate_json(scores),
        snapshot_digest=None if snapshot is None else ArtifactRef.model_validate_json(snapshot).digest,
        approved_by=tags.get("rightcall.approved_by"),
    )
