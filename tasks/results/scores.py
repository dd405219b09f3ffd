"""What scoring left in the store, read back: per-item lines, free answers, and the numbers they give."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rightcall.measurement.generations import compare_generations, summarise_generations
from rightcall.measurement.intervals import Difference, Metric
from rightcall.measurement.metrics import paired, summarise
from rightcall.recipe.sections import EvaluationSection
from tasks.results.files import GENERATIONS, read_items, read_json_lines
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef


@dataclass(frozen=True)
class Scores:
    """One model on one evaluation set."""

    items: list[dict[str, Any]]
    generations: list[dict[str, Any]]  # empty: the recipe asks for none
    metrics: dict[str, Metric]


def read_scores(store: Store, ref: ArtifactRef, evaluation: EvaluationSection) -> Scores:
    """Raises:
    ScoringError: the ref holds no per-item scores.
    """
    folder = store.path(ref)
    items, generations = read_items(folder), read_json_lines(folder / GENERATIONS)
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    metrics = summarise(items, **settings, seed=evaluation.seed)  # type: ignore[arg-type]
    metrics |= summarise_generations(generations, confidence=evaluation.confidence)
    return Scores(items, generations, metrics)


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
