"""Free answers, judged: their metrics, and two models' answers compared."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from rightcall.measurement.intervals import Difference, Item, Metric, mcnemar, wilson
from rightcall.recipe.sections import EvaluationSection

GENERATION_METRICS = ("gen_valid_call", "gen_right_tool", "gen_right_arguments", "gen_right_behaviour")


def summarise_generations(lines: Sequence[Item], *, confidence: float) -> dict[str, Metric]:
    """Shares of verdicts that hold."""
    found = {}
    for name in GENERATION_METRICS:
        asked = verdict_flags(lines, name)
        if asked:
            low, high = wilson(sum(asked), len(asked), confidence)
            found[name] = Metric(sum(asked) / len(asked), len(asked), low, high)
    return found


def verdict_flags(lines: Sequence[Item], name: str) -> list[bool]:
    """One metric's verdicts, True or False.

    None means that the question does not arise (there is no call whose arguments could be right): the item is left out.
    """
    flags = [line["verdict"].get(name.removeprefix("gen_")) for line in lines]
    return [bool(flag) for flag in flags if flag is not None]


def compare_generations(
    first: list[dict[str, Any]], second: list[dict[str, Any]], evaluation: EvaluationSection
) -> dict[str, Difference]:
    """First model minus second on the same items; one whose verdict is None for either model is left out."""
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
