"""A number with its 95% interval, and the difference of two."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

Item = Mapping[str, Any]
Counts = NDArray[np.float64]  # (..., tools offered 0/1, gold, predicted)
CHUNK_DRAWS = 2_000  # resamples held at once: 2,000 × at most 128 cells × 8 bytes = 2 MiB


@dataclass(frozen=True)
class Metric:
    """`value` over `n` items with its interval [low, high]."""

    value: float
    n: int
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Difference:
    """First model minus second on the same n items; `mcnemar_p` is None for metrics that are not a share of items."""

    value: float
    n: int
    low: float
    high: float
    mcnemar_p: float | None
    standard_error: float | None = None  # of the resamples
    won: int | None = None  # items whose flag is true for the first model only
    lost: int | None = None  # for the second only

    def as_dict(self) -> dict[str, float | None]:
        return asdict(self)


def wilson(successes: float, n: float, confidence: float) -> tuple[float, float]:
    """Wilson's score interval for a share (1927)."""
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = share + z * z / (2 * n)
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return (0.0 if successes == 0 else low), (1.0 if successes == n else high)


def mcnemar(only_first: int, only_second: int) -> float:
    """Exact two-sided p of McNemar's test: how odd is this split of the items on which exactly one model is right?"""
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, 2 * tail / 2**n)


def resamples(cells: NDArray[np.int64], size: int, samples: int, seed: int) -> Iterator[Counts]:
    """Cell counts (≤ CHUNK_DRAWS, size) of bootstrap resamples.

    Drawing n items with replacement and counting them per cell *is* a multinomial draw over the cells, so no resample
    of items is ever held in memory.
    """
    shares = count_cells(cells, size) / len(cells)
    occupied = np.flatnonzero(shares)
    generator = np.random.default_rng(seed)
    for start in range(0, samples, CHUNK_DRAWS):
        counts = np.zeros((min(CHUNK_DRAWS, samples - start), size))
        counts[:, occupied] = generator.multinomial(len(cells), shares[occupied], size=len(counts))
        yield counts


def percentiles(draws: NDArray[np.float64], confidence: float) -> tuple[float, float]:
    low, high = np.nanquantile(draws, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def count_cells(cells: NDArray[np.int64], size: int) -> Counts:
    return np.bincount(cells, minlength=size).astype(np.float64)
