"""The gate's conditions: what each asks of one metric, what the numbers say of it, and how many more would settle it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict

from rightcall.measurement.proof import MOST_ITEMS, POWER, holm, items_needed, p_above, rounded_up, spread_of, tail_of

Outcome = Literal["GO", "NO-GO", "INCONCLUSIVE"]
Other = Literal["baseline", "champion"]

# A rise in these is a loss, so the gate looks at the difference with its sign turned.
LOWER_IS_BETTER = frozenset({"tool_hallucination", "tool_hallucination_acc", "overcall", "overcall_grammar"})
SMALL = 0.05  # an improvement worth finding, where none was measured on few items
LIKELY_HARM = 0.05  # one-sided p of "worse than allowed" below which nobody should collect more items in hope
NAMES: Mapping[Other, str] = {"baseline": "the base model", "champion": "the champion"}


class Comparison(BaseModel):
    """Candidate minus other on one metric, as measured (the sign of a lower-is-better metric is not turned).

    The interval is never narrower than what few differing items allow, see proof.widened.
    """

    model_config = ConfigDict(frozen=True)

    value: float
    n: int
    low: float
    high: float
    mcnemar_p: float | None = None
    conversations: int | None = None  # that the n steps stand in; None = multiple-choice items, each for itself

    def improvement(self, metric: str) -> tuple[float, float, float]:
        """(value, low, high) where above 0 is better, whatever the metric's direction."""
        if metric in LOWER_IS_BETTER:
            return -self.value + 0.0, -self.high + 0.0, -self.low + 0.0  # no -0.0
        return self.value, self.low, self.high


@dataclass(frozen=True)
class Ask:
    """One condition of the policy. margin None = must improve; else must not be worse by more than that."""

    metric: str
    other: Other
    margin: float | None

    @property
    def threshold(self) -> float:
        return -(self.margin or 0.0)


class Condition(BaseModel):
    """What became of one condition."""

    model_config = ConfigDict(frozen=True)

    metric: str
    other: Other
    margin: float | None  # None = must improve
    outcome: Outcome
    reason: str
    p: float | None = None  # one-sided, of "it does not hold"; None = nothing measures it
    holm_p: float | None = None  # the same, corrected by Holm for all conditions
    needed: int | None = None  # n that would settle it; None = proven, or no n would
    conversations_needed: int | None = None  # in the whole evaluation, then


def judge(
    asks: Sequence[Ask],
    differences: Mapping[str, Mapping[str, Comparison]],
    *,
    confidence: float,
    conversations: int,
) -> list[Condition]:
    """Every condition's outcome, by the corrections that gate.py tells; `conversations` of the whole evaluation."""
    level = tail_of(confidence)
    measured = [(ask, gap) for ask in asks if (gap := differences[ask.other].get(ask.metric)) is not None and gap.n]
    ps = [p_above(*gap.improvement(ask.metric)[:2], ask.threshold, confidence) for ask, gap in measured]
    harms = []
    for ask, gap in measured:
        value, _, high = gap.improvement(ask.metric)
        harms.append(p_above(-value, -high, -ask.threshold, confidence))
    corrected, harms_corrected = holm(ps), holm(harms)
    claims = iter(holm([p for (ask, _), p in zip(measured, ps, strict=True) if ask.margin is None]))
    decisive = [next(claims) if ask.margin is None else p for (ask, _), p in zip(measured, ps, strict=True)]
    outcomes: list[Outcome] = [
        "NO-GO" if harm <= level else "GO" if p <= level else "INCONCLUSIVE"
        for p, harm in zip(decisive, harms_corrected, strict=True)
    ]
    open_ = [
        (ask, gap, _hoped_for(ask, gap, harm))
        for (ask, gap), outcome, harm in zip(measured, outcomes, harms, strict=True)
        if outcome == "INCONCLUSIVE"
    ]
    needs = _needs(open_, confidence)
    found = [_unmeasured(ask) for ask in asks if ask not in [known for known, _ in measured]]
    for (ask, gap), outcome, p, decides, holm_p in zip(measured, outcomes, ps, decisive, corrected, strict=True):
        needed = needs.get(ask)
        many = None
        if needed is not None and gap.conversations is not None:
            many = rounded_up(conversations * needed / gap.n)
        said = _reason(ask, gap, outcome, alone=p <= level, ps=(p, decides, level))
        if outcome == "INCONCLUSIVE":
            said = f"{_verdict_on_size(ask, gap, needed, many, conversations)}: {said}"
        condition = Condition(metric=ask.metric, other=ask.other, margin=ask.margin, outcome=outcome, reason=said, p=p,
                              holm_p=holm_p, needed=needed, conversations_needed=many)  # fmt: skip
        found.append(condition)
    return found


def _needs(open_: Sequence[tuple[Ask, Comparison, float]], confidence: float) -> dict[Ask, int | None]:
    """n per open condition at which all of them together pass with POWER, if the differences hoped for are the true ones.

    In Holm's step-down the hardest of what must improve is tested at the whole level, the next at half of it, and so on;
    and each condition may miss a k-th of what all together may miss.
    """
    power = 1 - (1 - POWER) / max(1, len(open_))
    level = tail_of(confidence)

    def need(ask: Ask, gap: Comparison, hoped: float, rank: int) -> float:
        _, low, high = gap.improvement(ask.metric)
        spread = spread_of(low, high, confidence)
        return items_needed(gap.n, hoped - ask.threshold, spread, level=level / rank, power=power)

    order = sorted(open_, key=lambda one: -need(one[0], one[1], one[2], 1) / one[1].n)
    found: dict[Ask, int | None] = {}
    rank = 0
    for ask, gap, hoped in order:
        rank += ask.margin is None
        needed = need(ask, gap, hoped, rank if ask.margin is None else 1)
        found[ask] = None if needed <= gap.n or needed > MOST_ITEMS else rounded_up(needed)
    return found


def _hoped_for(ask: Ask, gap: Comparison, harm: float) -> float:
    """The true improvement that the n to ask for rests on; at or below the threshold = no n would do.

    An improvement as measured; a margin as if the models were equal, or worse if so measured. A bad measurement on few
    items says little: unless it is already likely to be true, the hope is SMALL, or equality.
    """
    value, threshold = gap.improvement(ask.metric)[0], ask.threshold
    hope = min(value, 0.0) if ask.margin else value
    if hope > threshold or harm <= LIKELY_HARM:
        return hope
    return threshold + (ask.margin or SMALL)


def _verdict_on_size(ask: Ask, gap: Comparison, needed: int | None, many: int | None, conversations: int) -> str:
    unit = "item" if gap.conversations is None else "step"
    if needed is None:
        return f"not proven, and with the difference as measured more {unit}s will not settle it"
    few = f"{gap.n:,} {unit}s are" if gap.n > 1 else f"{gap.n} {unit} is"
    instead = "" if many is None else f" ({many:,} conversations instead of {conversations:,})"
    value = gap.improvement(ask.metric)[0]
    hope = f" to see an improvement of {SMALL:g}" if not ask.margin and value <= 0 else ""
    return f"not proven: {few} too few, about {needed:,} needed{instead}{hope}"


def _reason(ask: Ask, gap: Comparison, outcome: Outcome, *, alone: bool, ps: tuple[float, float, float]) -> str:
    other, numbers = NAMES[ask.other], _numbers(ask.metric, gap)
    limit = "0" if not ask.margin else f"-{ask.margin:g}, the margin"
    if outcome == "NO-GO":
        return f"{ask.metric} is worse than {other} by {numbers}: the whole interval is below {limit}"
    if outcome == "GO" and ask.margin is None:
        return f"{ask.metric} improves on {other} by {numbers}: the whole interval is above {limit}"
    if outcome == "GO":
        return f"{ask.metric} holds against {other}: the whole interval of its difference {numbers} is above {limit}"
    must = "improve on" if ask.margin is None else "hold against"
    ends = f"reaches below {limit}" if ask.margin else "does not lie above 0"
    if alone:
        ends = f"is above {limit} only by itself: p {ps[0]:.3f}, among all that must improve by Holm {ps[1]:.3f} > {ps[2]:g}"
    return f"{ask.metric} must {must} {other}, but the interval of its difference {numbers} {ends}"


def _unmeasured(ask: Ask) -> Condition:
    must = "improve on" if ask.margin is None else "hold against"
    said = f"{ask.metric} must {must} {NAMES[ask.other]}, but nothing in this evaluation set measures it"
    return Condition(metric=ask.metric, other=ask.other, margin=ask.margin, outcome="INCONCLUSIVE", reason=said)


def _numbers(metric: str, gap: Comparison) -> str:
    """No parenthesis follows a bracket: markdown would make a link of it."""
    value, low, high = gap.improvement(metric)
    of = "" if gap.conversations is None else f" of {gap.conversations} conversations"
    turned = ", lower is better, so its sign is turned" if metric in LOWER_IS_BETTER else ""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}], n={gap.n}{of}{turned}"
