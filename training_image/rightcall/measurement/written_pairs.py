"""Two models' written turns compared, resampling whole conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightcall.measurement.intervals import Difference, mcnemar, percentiles
from rightcall.measurement.written import WRITTEN_METRICS, flag

Lines = Sequence[Mapping[str, Any]]


def paired_written(
    first: Lines, second: Lines, *, confidence: float, bootstrap_samples: int, seed: int
) -> dict[str, Difference]:
    """first - second on the same steps in the same order, for every metric that asks about one of them."""
    names: dict[str, int] = {}
    clusters = np.array([names.setdefault(str(line["conversation"]), len(names)) for line in first])
    found = {}
    for metric in WRITTEN_METRICS:
        pairs = [(flag(ours, metric), flag(theirs, metric)) for ours, theirs in zip(first, second, strict=True)]
        asked = np.array([None not in pair for pair in pairs], dtype=bool)
        if not asked.any():
            continue
        gaps = np.array([float(bool(a)) - float(bool(b)) for a, b in pairs])[asked]
        sums = np.bincount(clusters[asked], gaps, len(names))
        sizes = np.bincount(clusters[asked], minlength=len(names)).astype(float)
        sums, sizes = sums[sizes > 0], sizes[sizes > 0]
        generator = np.random.default_rng(seed)
        weights = generator.multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=bootstrap_samples)
        draws = (weights @ sums) / (weights @ sizes)
        low, high = percentiles(draws, confidence)
        won, lost = int((gaps > 0).sum()), int((gaps < 0).sum())
        found[metric] = Difference(
            float(gaps.mean()), len(gaps), low, high, mcnemar(won, lost), float(draws.std(ddof=1)), won, lost
        )
    return found
