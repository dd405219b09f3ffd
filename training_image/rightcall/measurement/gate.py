"""Decide whether a candidate may replace what is in use: GO, NO-GO or INCONCLUSIVE, each with its reasons in numbers.

Every comparison is paired, on the same steps and items, resampled by conversation, and judged by its whole interval:

    must_improve   against the base model   GO needs low > 0         high < 0 is a NO-GO
    must_not_drop  against the base model   GO needs low > -margin   high < -margin is a NO-GO (non-inferiority)
    both           against the champion     GO needs low > -margin   high < -margin is a NO-GO

A challenger need not beat the champion, only not be worse than it by more than the margin; a metric of must_improve that
has no margin of its own has CHAMPION_MARGIN there. Anything between GO and NO-GO is INCONCLUSIVE, with the n that would
settle it: a handful of items proves nothing.

Several conditions: what is corrected by Holm's step-down (1979), each family held at (1 - confidence) / 2, one-sided.

    NO-GO          one harm of many is enough for it, so by chance it would come the sooner the more conditions there are:
                   corrected over all conditions
    must_improve   each that is proven is shown as a claim of its own: corrected over all of must_improve
    must_not_drop  not corrected, and need not be: a wrong GO has to pass the very condition that does not hold, which has
                   a chance of at most (1 - confidence) / 2 however many others must hold beside it (an intersection-union
                   test, Berger 1982); a correction would only make GO rarer

The last reason says which conditions are proven when every single one is read as a claim: corrected over all of them. The
intervals that are shown are never corrected.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from rightcall.errors import RecipeError, ScoringError
from rightcall.measurement.conditions import LOWER_IS_BETTER, NAMES, Ask, Comparison, Condition, Other, Outcome, judge
from rightcall.measurement.intervals import Difference
from rightcall.measurement.metrics import METRICS, paired
from rightcall.measurement.proof import tail_of, widened
from rightcall.measurement.written import BEHAVIOUR_OF, WRITTEN_METRICS, flag, paired_written
from rightcall.recipe.sections import GateSection

__all__ = ["LOWER_IS_BETTER", "Answers", "Comparison", "Condition", "Outcome", "Verdict", "decide"]

CHAMPION_MARGIN = 0.05
Lines = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Answers:
    """What one model did on an evaluation: its choices among given answers, and the turns it wrote; either may be empty."""

    items: Lines = ()
    lines: Lines = ()


class Verdict(BaseModel):
    """What the gate decided; `differences` is {"baseline" | "champion": {metric: Comparison}}."""

    model_config = ConfigDict(frozen=True)

    verdict: Outcome
    reasons: tuple[str, ...]
    differences: dict[str, dict[str, Comparison]]
    confidence: float
    conditions: tuple[Condition, ...] = ()

    @property
    def sentence(self) -> str:
        return f"{self.verdict}: {self.reasons[0]}"


def decide(
    policy: GateSection,
    candidate: Answers,
    baseline: Answers,
    champion: Answers | None = None,
    *,
    confidence: float,
    bootstrap_samples: int,
    seed: int,
) -> Verdict:
    """Judge the candidate's answers under the recipe's policy.

    Raises:
        RecipeError: the policy names a metric that does not exist.
        ScoringError: the models were not scored on the same items and steps.
    """
    _require_known_metrics(policy)
    others: dict[Other, Answers] = {"baseline": baseline} if champion is None else {
        "baseline": baseline, "champion": champion,
    }  # fmt: skip
    differences: dict[str, dict[str, Comparison]] = {
        name: _compare(name, candidate, other, confidence=confidence, bootstrap_samples=bootstrap_samples, seed=seed)
        for name, other in others.items()
    }
    asks, left_out = _asks(policy, candidate.lines, tuple(others))
    conversations = len({line["conversation"] for line in candidate.lines})
    conditions = judge(asks, differences, confidence=confidence, conversations=conversations)
    outcomes: tuple[Outcome, ...] = ("GO", "INCONCLUSIVE", "NO-GO")
    verdict = max((condition.outcome for condition in conditions), key=outcomes.index)
    ordered = sorted(conditions, key=lambda condition: (condition.outcome != verdict, _urgency(condition, differences)))
    reasons = [condition.reason for condition in ordered] + left_out + _in_all(ordered, confidence)
    return Verdict(
        verdict=verdict,
        reasons=tuple(reasons),
        differences=differences,
        confidence=confidence,
        conditions=tuple(ordered),
    )


def _asks(policy: GateSection, lines: Lines, others: Sequence[Other]) -> tuple[list[Ask], list[str]]:
    """The policy's conditions, and a sentence for each that is left out.

    A behaviour that no held-out turn shows cannot drop there; a log without a single refusal can still be judged.
    """
    known = {line["behaviour"] for line in lines}
    behaviour = {metric: BEHAVIOUR_OF.get(metric.removesuffix("_grammar")) for metric in policy.must_not_drop}
    absent = [metric for metric, name in behaviour.items() if lines and name is not None and name not in known]
    margins = {metric: margin for metric, margin in policy.must_not_drop.items() if metric not in absent}
    asks = [Ask(metric, "baseline", None) for metric in policy.must_improve]
    asks += [Ask(metric, "baseline", margin) for metric, margin in margins.items()]
    if "champion" in others:
        wanted: dict[str, float] = dict.fromkeys(policy.must_improve, CHAMPION_MARGIN)
        asks += [Ask(metric, "champion", margin) for metric, margin in (wanted | margins).items()]
    return asks, [
        f"{metric} is not judged: no turn of this evaluation set is a {behaviour[metric]}, so this verdict says nothing "
        "about it"
        for metric in absent
    ]  # fmt: skip


def _urgency(condition: Condition, differences: Mapping[str, Mapping[str, Comparison]]) -> float:
    """Of what is open: first what no n settles, then what needs the most; all else in the policy's order."""
    if condition.outcome != "INCONCLUSIVE" or condition.p is None:
        return 0.0
    return (
        -math.inf if condition.needed is None else -condition.needed / differences[condition.other][condition.metric].n
    )


def _in_all(conditions: Sequence[Condition], confidence: float) -> list[str]:
    """Which conditions are proven together, corrected for how many there are."""
    tested = [condition for condition in conditions if condition.p is not None]
    if len(tested) < 2:
        return []
    names = [
        f"{condition.metric} against {NAMES[condition.other]}"
        for condition in tested
        if condition.holm_p is not None and condition.holm_p <= tail_of(confidence)
    ]
    return [
        f"each a claim by itself, these hold after Holm's correction for {len(tested)}: {', '.join(names) or 'none'}"
    ]


def _require_known_metrics(policy: GateSection) -> None:
    if not policy.must_improve:
        raise RecipeError("gate.must_improve is empty (), so any model would pass; name a metric, for example right")
    known = (*WRITTEN_METRICS, *METRICS)
    unknown = sorted({*policy.must_improve, *policy.must_not_drop} - set(known))
    if unknown:
        raise RecipeError(f"gate names metrics that do not exist: {unknown!r}; choose from {', '.join(known)}")
    negative = {metric: margin for metric, margin in policy.must_not_drop.items() if margin < 0}
    if negative:
        raise RecipeError(f"gate.must_not_drop has negative margins {negative!r}; a margin is a size: write 0 or more")


def _compare(
    name: str, candidate: Answers, other: Answers, *, confidence: float, bootstrap_samples: int, seed: int
) -> dict[str, Comparison]:
    if not candidate.items and not candidate.lines:
        raise ScoringError("the candidate has no scored items and no written steps (0); score it before the gate")
    found: dict[str, Comparison] = {}
    settings: dict[str, Any] = {"confidence": confidence, "bootstrap_samples": bootstrap_samples, "seed": seed}
    if lines := _in_order(name, "steps", candidate.lines, other.lines):
        for metric, gap in paired_written(candidate.lines, lines, **settings).items():
            kept = [
                ours["conversation"]
                for ours, theirs in zip(candidate.lines, lines, strict=True)
                if flag(ours, metric) is not None and flag(theirs, metric) is not None
            ]
            found[metric] = _comparison(gap, len(set(kept)), confidence, written=True)
    if items := _in_order(name, "items", candidate.items, other.items):
        for metric, gap in paired(candidate.items, items, **settings).items():
            found[metric] = _comparison(gap, gap.n, confidence, written=False)
    return found


def _comparison(gap: Difference, clusters: int, confidence: float, *, written: bool) -> Comparison:
    wide = widened(gap, clusters, confidence)
    return Comparison(
        value=wide.value, n=wide.n, low=wide.low, high=wide.high, mcnemar_p=wide.mcnemar_p,
        conversations=clusters if written else None,
    )  # fmt: skip


def _in_order(name: str, what: str, ours: Lines, theirs: Lines) -> list[Mapping[str, Any]]:
    """The other model's lines in the order of the candidate's."""
    by_id = {line["id"]: line for line in theirs}
    ids = [line["id"] for line in ours]
    only_ours, only_theirs = set(ids) - by_id.keys(), by_id.keys() - set(ids)
    if only_ours or only_theirs or len(by_id) != len(theirs) or len(set(ids)) != len(ids):
        example = sorted(map(str, only_ours | only_theirs))[:3]
        raise ScoringError(
            f"candidate and {name} were not scored on the same {what}: {len(only_ours)} only in the candidate's, "
            f"{len(only_theirs)} only in the {name}'s, {len(ids)} and {len(theirs)} rows, e.g. {example!r}; "
            "score both on the same evaluation set, each item once"
        )
    return [by_id[key] for key in ids]
