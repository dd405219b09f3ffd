"""The bootstrap over conversations: steps of one conversation are not independent, so conversations are drawn, not steps.

    conversation   a  b  c     a metric is sum(hits) / sum(asked); a resample of the conversations is a vector of counts
    hits           3  0  2     (how often each was drawn), so all resamples of all metrics are two products of matrices:
    asked          4  1  2     draws = counts @ hits / counts @ asked

With one step a conversation this is the ordinary bootstrap. The percentile bootstrap fails where hardly anything varies (0 of
40 gives [0, 0]); with fewer than FEW_HITS hits, or misses, a share has Wilson's interval instead, and a difference with fewer than
FEW_DISCORDANT steps on which the models differ Agresti and Min's (2005: half a step more on either side). Both count n / design effect
steps: the design effect, variance by conversations over variance by steps, is that of the first metric that varies enough,
and where none does, conversations count instead of steps. Resamples of a few conversations say nothing (two equal ones give no width at
all): a share over fewer than FEW_CONVERSATIONS has Wilson's interval over that many.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from rightcall.measurement.intervals import CHUNK_DRAWS, Difference, Metric, mcnemar, percentiles, wilson

Floats = NDArray[np.float64]
FEW_HITS = 5
FEW_DISCORDANT = 10
FEW_CONVERSATIONS = 10


@dataclass(frozen=True)
class Clustered:
    """Per conversation and metric: sums of values, of their squares, and how many steps were asked; each (conversations, metrics)."""

    sums: Floats
    squares: Floats
    asked: Floats

    @classmethod
    def count(cls, conversations: Sequence[Hashable], values: Floats) -> Clustered:
        """`values` (steps, metrics) holds NaN where a metric does not ask about a step."""
        numbers = {name: number for number, name in enumerate(dict.fromkeys(conversations))}
        of_step = np.array([numbers[name] for name in conversations])
        present = ~np.isnan(values)
        filled = np.where(present, values, 0.0)
        sums = [np.zeros((len(numbers), values.shape[1])) for _ in range(3)]
        for total, part in zip(sums, (filled, filled**2, present.astype(float)), strict=True):
            np.add.at(total, of_step, part)
        return cls(*sums)

    @property
    def n(self) -> Floats:
        return self.asked.sum(0)

    @property
    def values(self) -> Floats:
        with np.errstate(invalid="ignore"):
            return np.asarray(self.sums.sum(0) / self.n)

    @property
    def conversations(self) -> Floats:
        """Per metric, those with a step that it asks about."""
        return np.asarray((self.asked > 0).sum(0), float)

    def draws(self, samples: int, seed: int) -> Floats:
        """(samples, metrics): each metric on as many conversations drawn with replacement; NaN where none of them is asked."""
        size = len(self.sums)
        generator = np.random.default_rng(seed)
        found = np.empty((samples, self.sums.shape[1]))
        with np.errstate(invalid="ignore", divide="ignore"):
            for start in range(0, samples, CHUNK_DRAWS):
                counts = generator.multinomial(size, np.full(size, 1 / size), size=min(CHUNK_DRAWS, samples - start))
                found[start : start + len(counts)] = (counts @ self.sums) / (counts @ self.asked)
        return found

    def effective_n(self, draws: Floats, varied: NDArray[np.bool_]) -> Floats:
        """Steps that count, per metric: n / design effect, never more than n, never fewer than the conversations asked."""
        n, conversations = self.n, self.conversations
        if not varied.any():
            return conversations
        first = int(np.flatnonzero(varied)[0])
        by_steps = (self.squares[:, first].sum() / n[first] - self.values[first] ** 2) / n[first]
        if by_steps <= 0:  # every step has the same value
            return conversations
        effect = np.nanvar(draws[:, first]) / by_steps
        return np.clip(n / max(1.0, float(effect)), conversations, n)


def shares(names: Sequence[str], data: Clustered, *, confidence: float, samples: int, seed: int) -> dict[str, Metric]:
    """A share of the steps with its interval, for every metric that asks about any step."""
    hits, n = data.sums.sum(0), data.n
    few = data.conversations < FEW_CONVERSATIONS
    varied = (np.minimum(hits, n - hits) >= FEW_HITS) & ~few
    draws = data.draws(samples, seed)
    effective = np.where(few, data.conversations, data.effective_n(draws, varied))
    found = {}
    for index, name in enumerate(names):
        if not n[index]:
            continue
        value = float(hits[index] / n[index])
        if varied[index]:
            low, high = percentiles(draws[:, index], confidence)
        else:
            low, high = wilson(value * effective[index], effective[index], confidence)
        found[name] = Metric(value, int(n[index]), min(low, value), max(high, value))
    return found


def differences(
    names: Sequence[str], data: Clustered, *, confidence: float, samples: int, seed: int
) -> dict[str, Difference]:
    """Mean of gaps that are -1, 0 or 1 for each step, with interval, the draws' standard error and McNemar's p over the steps."""
    gaps, discordant, n = data.sums.sum(0), data.squares.sum(0), data.n
    varied = discordant >= FEW_DISCORDANT
    draws = data.draws(samples, seed)
    effective = data.effective_n(draws, varied)
    found = {}
    for index, name in enumerate(names):
        if not n[index]:
            continue
        value = float(gaps[index] / n[index])
        won, lost = round((discordant[index] + gaps[index]) / 2), round((discordant[index] - gaps[index]) / 2)
        if varied[index]:
            low, high = percentiles(draws[:, index], confidence)
        else:
            scale = effective[index] / n[index]
            low, high = agresti_min(won * scale, lost * scale, effective[index], confidence)
        error, p = float(np.nanstd(draws[:, index])), mcnemar(won, lost)
        found[name] = Difference(value, int(n[index]), min(low, value), max(high, value), p, error, won, lost)
    return found


def agresti_min(won: float, lost: float, n: float, confidence: float) -> tuple[float, float]:
    """(low, high) of a paired difference of shares: half a step more on either side, two in all.

    Agresti and Min, Simple improved confidence intervals for comparing matched proportions (2005). It has a width where the
    models differ on no step at all: 0 of 300 gives ±.0065, 0 of 6 ±.24.
    """
    total, gap = n + 2, won - lost
    error = math.sqrt(won + lost + 1 - gap**2 / total) / total
    z = NormalDist().inv_cdf(0.5 + confidence / 2)
    return max(-1.0, gap / total - z * error), min(1.0, gap / total + z * error)
