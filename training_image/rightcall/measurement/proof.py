"""What it takes to prove a difference: p, Holm's step-down, intervals that a handful of items cannot close, the n that would do.

Everything here is about an improvement (above 0 is better) and its whole interval; thresholds are 0, or minus a margin.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import NormalDist

from rightcall.measurement.intervals import Difference, wilson

POWER = 0.8  # chance that the n which is asked for proves a difference as large as the measured one
MOST_ITEMS = 1_000_000  # beyond it nobody would collect them: more items are then not the advice
FEWEST = 3  # conversations; of so few nothing is known about how much they vary
SPARSE = 10  # items that differ; with fewer the resamples do not know how much items of one conversation share
SPARSE_CORRELATION = 0.2  # between two steps of one conversation, taken where it cannot be measured


def tail_of(confidence: float) -> float:
    """Level of the one-sided claim "the whole interval lies above": 0.025 for a two-sided interval of 95%."""
    return (1 - confidence) / 2


def p_above(value: float, low: float, threshold: float, confidence: float) -> float:
    """One-sided p of "the true improvement is at most `threshold`", from the interval's own lower half.

    The bootstrap's lower bound says how wide that side is; its tail beyond the bound is taken as normal. So p is below
    tail_of(confidence) exactly when the whole interval lies above the threshold.
    """
    spread = (value - low) / _z(1 - tail_of(confidence))
    if spread <= 0:
        return 0.0 if value > threshold else 1.0
    return NormalDist().cdf(-(value - threshold) / spread)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values (1979), in the given order: all claims with one below a level hold at that level together."""
    adjusted, largest = [0.0] * len(ps), 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda place: ps[place])):
        largest = max(largest, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = largest
    return adjusted


def widened(gap: Difference, clusters: int, confidence: float) -> Difference:
    """The interval, made as wide as few conversations and few differing items ask for.

    A bootstrap of few clusters is too narrow: with k of them both halves are stretched by what Student's t with k - 1
    degrees of freedom and the divisor k - 1 add. And it knows only what it has seen: 6 items without a difference give
    [0, 0], as if nothing could ever differ. So each bound is held at least as far out as the difference of two Wilson
    intervals, of the shares won and lost (Newcombe's square-and-add, 1998): with nothing seen on 6 items [-0.39, +0.39].
    """
    if gap.won is None or gap.lost is None or not gap.n:
        return gap
    if clusters <= FEWEST:
        return replace(gap, low=-1.0, high=1.0)
    independent = gap.n / _design_effect(gap, gap.won, gap.lost, clusters)
    won, lost = gap.won / gap.n, gap.lost / gap.n
    won_low, won_high = wilson(won * independent, independent, confidence)
    lost_low, lost_high = wilson(lost * independent, independent, confidence)
    stretch = _student(clusters, confidence)
    below = max(stretch * (gap.value - gap.low), math.hypot(won - won_low, lost_high - lost))
    above = max(stretch * (gap.high - gap.value), math.hypot(won_high - won, lost - lost_low))
    return replace(gap, low=max(-1.0, gap.value - below), high=min(1.0, gap.value + above))


def items_needed(n: int, distance: float, spread: float, *, level: float, power: float) -> float:
    """n at which a true improvement of `distance` above the threshold is proven at `level` with this power.

    `spread` is the standard error at today's n, clusters included: it shrinks with the root of n when more conversations
    like these are added.
    """
    return n * ((_z(1 - level) + _z(power)) * spread / distance) ** 2 if distance > 0 else math.inf


def spread_of(low: float, high: float, confidence: float) -> float:
    """Standard error behind an interval."""
    return (high - low) / (2 * _z(1 - tail_of(confidence)))


def rounded_up(n: float) -> int:
    """To two digits: it is an estimate."""
    step = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return math.ceil(n / step) * step


def _design_effect(gap: Difference, won: int, lost: int, clusters: int) -> float:
    """How many dependent items are worth one independent one; 1 where every item stands for itself."""
    differing = won + lost
    measured = 1.0
    if gap.standard_error and differing:
        simple = (differing / gap.n - ((won - lost) / gap.n) ** 2) / gap.n
        measured = max(1.0, gap.standard_error**2 / simple) if simple > 0 else 1.0
    assumed = 1 + (gap.n / clusters - 1) * SPARSE_CORRELATION if differing < SPARSE else 1.0
    return max(measured, assumed)


def _student(clusters: int, confidence: float) -> float:
    """How much wider a t interval of k clusters is than a normal one; its quantile by Cornish and Fisher's expansion."""
    z, freedom = _z(1 - tail_of(confidence)), clusters - 1
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    t = z + sum(term / freedom**power for power, term in enumerate(terms, start=1))
    return t / z * math.sqrt(clusters / freedom)


def _z(probability: float) -> float:
    return NormalDist().inv_cdf(probability)
