"""What scoring left in the store, read back: written turns, choices, and the numbers they give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rightcall.measurement.intervals import Difference, Metric
from rightcall.measurement.metrics import paired, summarise
from rightcall.measurement.written import paired_written
from rightcall.measurement.written import summarise as summarise_written
from rightcall.recipe.sections import EvaluationSection
from tasks.results.files import read_items, read_written
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

KEPT = 32  # models, and pairs of models: a run has four of the one and six of the other


@dataclass(frozen=True, eq=False)
class Scores:
    """One model on one evaluation set; equal to itself alone, so that what was computed of it can be kept."""

    items: list[dict[str, Any]]  # choices among given answers; empty: the recipe has none
    written: list[dict[str, Any]]  # turns that the model wrote; empty: the recipe has no steps
    metrics: dict[str, Metric]  # the written ones first


@lru_cache(maxsize=KEPT)
def read_scores(store: Store, ref: ArtifactRef, evaluation: EvaluationSection) -> Scores:
    """The scores behind a ref, read and bootstrapped once a process: table, report and MLflow show the same object.

    Raises:
        ScoringError: the ref holds no scores.
        StoreError: the store does not have the ref.
    """
    folder = store.path(ref)
    items, written = read_items(folder), read_written(folder)
    metrics = summarise_written(written, **_settings(evaluation))
    metrics |= summarise(items, **_settings(evaluation)) if items else {}
    return Scores(items, written, metrics)


@lru_cache(maxsize=KEPT)
def compare(first: Scores, second: Scores, evaluation: EvaluationSection) -> dict[str, Difference]:
    """first - second for every metric of both, on the same steps and items.

    Raises:
        ScoringError: the two were scored on different ones.
    """
    found = paired_written(first.written, second.written, **_settings(evaluation))
    if first.items or second.items:
        by_id = {item["id"]: item for item in second.items}
        order = [by_id[item["id"]] for item in first.items if item["id"] in by_id]
        found |= paired(first.items, order, **_settings(evaluation))
    return found


def _settings(evaluation: EvaluationSection) -> dict[str, Any]:
    return evaluation.model_dump(include={"confidence", "bootstrap_samples", "seed"})
