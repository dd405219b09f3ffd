"""What scoring left in the store, read back: per-item lines, free answers, and the numbers they give."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from rightcall.measurement.generations import compare_generations, summarise_generations
from rightcall.measurement.intervals import Difference, Metric
from rightcall.measurement.metrics import paired, summarise
from rightcall.recipe.sections import EvaluationSection
from tasks.results.files import GENERATIONS, read_items, read_json_lines
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

KEPT = 32  # models, and pairs of models: a run has four of the one and six of the other


@dataclass(frozen=True, eq=False)
class Scores:
    """One model on one evaluation set; equal to itself alone, so that what was computed of it can be kept."""

    items: list[dict[str, Any]]
    generations: list[dict[str, Any]]  # empty: the recipe asks for none
    metrics: dict[str, Metric]


@lru_cache(maxsize=KEPT)
def read_scores(store: Store, ref: ArtifactRef, evaluation: EvaluationSection) -> Scores:
    """The scores behind a ref, read and bootstrapped once a process: table, report and MLflow show the same object.

    Raises:
        ScoringError: the ref holds no per-item scores.
        StoreError: the store does not have the ref.
    """
    folder = store.path(ref)
    items, generations = read_items(folder), read_json_lines(folder / GENERATIONS)
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    metrics = summarise(items, **settings, seed=evaluation.seed)  # type: ignore[arg-type]
    metrics |= summarise_generations(generations, confidence=evaluation.confidence)
    return Scores(items, generations, metrics)


@lru_cache(maxsize=KEPT)
def compare(first: Scores, second: Scores, evaluation: EvaluationSection) -> dict[str, Difference]:
    """first - second on the items that both have scored, for every metric of both.

    Raises:
        ScoringError: the two were scored on different items.
    """
    by_id = {item["id"]: item for item in second.items}
    order = [by_id[item["id"]] for item in first.items if item["id"] in by_id]
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    found = paired(first.items, order, **settings, seed=evaluation.seed)  # type: ignore[arg-type]
    return found | compare_generations(first.generations, second.generations, evaluation)
