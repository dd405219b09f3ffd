"""What scoring left in the store, read back: per-item lines, free answers, and the numbers they give."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rightcall.errors import ScoringError
from rightcall.metrics import (
    GENERATION_METRICS,
    Difference,
    Metric,
    mcnemar,
    paired,
    summarise,
    summarise_generations,
)
from rightcall.recipe import EvaluationSection
from tasks.store import ArtifactRef, Store

ITEMS = "output/items.jsonl"
GENERATIONS = "output/generations.jsonl"
METRICS = "output/metrics.jsonl"
SUMMARY = "output/summary.json"


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
    items, generations = read_items(folder), read_lines(folder / GENERATIONS)
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    metrics = summarise(items, **settings, seed=evaluation.seed)  # type: ignore[arg-type]
    metrics |= summarise_generations(generations, confidence=evaluation.confidence)
    return Scores(items, generations, metrics)


def read_items(folder: Path) -> list[dict[str, Any]]:
    """Per-item scores of a scores ref's folder.

    Raises:
        ScoringError: there are none, or a line is not JSON.
    """
    path = folder / ITEMS
    if not path.is_file():
        raise ScoringError(f"{str(folder)!r} has no per-item scores {ITEMS!r}; pass a ref that flows.score made")
    return read_lines(path)


def read_lines(path: Path) -> list[dict[str, Any]]:
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


def compare(first: Scores, second: Scores, evaluation: EvaluationSection) -> dict[str, Difference]:
    """first - second on the items that both have scored, for every metric of both.

    Raises:
        ScoringError: the two were scored on different items.
    """
    by_id = {item["id"]: item for item in second.items}
    order = [by_id[item["id"]] for item in first.items if item["id"] in by_id]
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    found = paired(first.items, order, **settings, seed=evaluation.seed)  # type: ignore[arg-type]
    return found | _compare_generations(first.generations, second.generations, evaluation)


def _compare_generations(
    first: list[dict[str, Any]], second: list[dict[str, Any]], evaluation: EvaluationSection
) -> dict[str, Difference]:
    """A verdict's None leaves the item out, as in `summarise_generations`; here when either model's is None."""
    verdicts = {line["id"]: line["verdict"] for line in second}
    generator = np.random.default_rng(evaluation.seed)
    tail = (1 - evaluation.confidence) / 2
    found = {}
    for name in GENERATION_METRICS:
        flag = name.removeprefix("gen_")
        pairs = [(line["verdict"].get(flag), verdicts.get(line["id"], {}).get(flag)) for line in first]
        gaps = np.array([float(ours) - float(theirs) for ours, theirs in pairs if None not in (ours, theirs)])
        if not len(gaps):
            continue
        draws = gaps[generator.integers(0, len(gaps), (evaluation.bootstrap_samples, len(gaps)))].mean(axis=1)
        low, high = np.quantile(draws, [tail, 1 - tail])
        p = mcnemar(int((gaps > 0).sum()), int((gaps < 0).sum()))
        found[name] = Difference(float(gaps.mean()), len(gaps), float(low), float(high), p)
    return found
