"""Decide whether a candidate may replace what is in use: GO, NO-GO or INCONCLUSIVE, each with its reasons in numbers.

Every comparison is paired, on the same items, and judged by its whole confidence interval:

    must_improve   against the baseline   GO needs low > 0          high < 0 is a NO-GO
    must_not_drop  against the baseline   GO needs nothing more     high < -margin is a NO-GO
    must_improve   against the champion   GO needs nothing more     high < 0 is a NO-GO

Anything between GO and NO-GO is INCONCLUSIVE: more items, or a better model, would settle it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rightcall.errors import RecipeError, ScoringError
from rightcall.measurement.metrics import METRICS, paired
from rightcall.recipe.sections import GateSection

Outcome = Literal["GO", "NO-GO", "INCONCLUSIVE"]
Items = Sequence[Mapping[str, Any]]

# A rise in these is a loss, so the gate looks at the difference with its sign turned.
LOWER_IS_BETTER = frozenset({"tool_hallucination", "tool_hallucination_acc"})


class Comparison(BaseModel):
    """Candidate minus other on one metric, as measured (the sign of a lower-is-better metric is not turned)."""

    model_config = ConfigDict(frozen=True)

    value: float
    n: int
    low: float
    high: float
    mcnemar_p: float | None = None

    def improvement(self, metric: str) -> tuple[float, float, float]:
        """(value, low, high) where above 0 is better, whatever the metric's direction."""
        if metric in LOWER_IS_BETTER:
            return -self.value, -self.high, -self.low
        return self.value, self.low, self.high


class Verdict(BaseModel):
    """What the gate decided; `differences` is {"baseline" | "champion": {metric: Comparison}}."""

    model_config = ConfigDict(frozen=True)

    verdict: Outcome
    reasons: tuple[str, ...]
    differences: dict[str, dict[str, Comparison]]
    confidence: float

    @property
    def sentence(self) -> str:
        return f"{self.verdict}: {self.reasons[0]}"


def decide(
    policy: GateSection,
    candidate: Items,
    baseline: Items,
    champion: Items | None = None,
    *,
    confidence: float,
    bootstrap_samples: int,
    seed: int,
) -> Verdict:
    """Judge the candidate's per-item scores under the recipe's policy.

    Raises:
        RecipeError: the policy names a metric that does not exist.
        ScoringError: the models were not scored on the same items.
    """
    _require_known_metrics(policy)
    others = {"baseline": baseline} if champion is None else {"baseline": baseline, "champion": champion}
    differences = {
        name: _compare(name, candidate, items, confidence=confidence, bootstrap_samples=bootstrap_samples, seed=seed)
        for name, items in others.items()
    }
    gaps, champion_gaps = differences["baseline"], differences.get("champion")
    findings = [_must_improve(metric, gaps.get(metric)) for metric in policy.must_improve]
    findings += [_must_not_drop(metric, margin, gaps.get(metric)) for metric, margin in policy.must_not_drop.items()]
    if champion_gaps is not None:
        findings += [_not_below_champion(metric, champion_gaps.get(metric)) for metric in policy.must_improve]
    verdict = _worst(findings)
    ordered = sorted(findings, key=lambda finding: finding[0] != verdict)
    return Verdict(
        verdict=verdict,
        reasons=tuple(reason for _, reason in ordered),
        differences=differences,
        confidence=confidence,
    )


def _worst(findings: Sequence[tuple[Outcome, str]]) -> Outcome:
    severity: tuple[Outcome, ...] = ("GO", "INCONCLUSIVE", "NO-GO")
    return max((outcome for outcome, _ in findings), key=severity.index)


def _require_known_metrics(policy: GateSection) -> None:
    if not policy.must_improve:
        raise RecipeError("gate.must_improve is empty (), so any model would pass; name a metric, for example acc_norm")
    unknown = sorted({*policy.must_improve, *policy.must_not_drop} - set(METRICS))
    if unknown:
        raise RecipeError(f"gate names metrics that do not exist: {unknown!r}; choose from {', '.join(METRICS)}")
    negative = {metric: margin for metric, margin in policy.must_not_drop.items() if margin < 0}
    if negative:
        raise RecipeError(f"gate.must_not_drop has negative margins {negative!r}; a margin is a size: write 0 or more")


def _compare(name: str, candidate: Items, other: Items, **settings: Any) -> dict[str, Comparison]:
    by_id = {item["id"]: item for item in other}
    ids = [item["id"] for item in candidate]
    if not ids:
        raise ScoringError("the candidate has no scored items (0); score it before the gate")
    only_candidate, only_other = set(ids) - by_id.keys(), by_id.keys() - set(ids)
    if only_candidate or only_other or len(by_id) != len(other) or len(set(ids)) != len(ids):
        example = sorted(map(str, only_candidate | only_other))[:3]
        raise ScoringError(
            f"candidate and {name} were not scored on the same items: {len(only_candidate)} only in the candidate's, "
            f"{len(only_other)} only in the {name}'s, {len(ids)} and {len(other)} rows, e.g. {example!r}; "
            "score both on the same evaluation set, each item once"
        )
    found = paired(list(candidate), [by_id[key] for key in ids], **settings)
    return {
        metric: Comparison(value=gap.value, n=gap.n, low=gap.low, high=gap.high, mcnemar_p=gap.mcnemar_p)
        for metric, gap in found.items()
    }


def _must_improve(metric: str, gap: Comparison | None) -> tuple[Outcome, str]:
    if gap is None or gap.n == 0:
        return "INCONCLUSIVE", f"{metric} must improve on the baseline, but no item of this evaluation set measures it"
    _, low, high = gap.improvement(metric)
    if low > 0:
        return "GO", f"{metric} improves on the baseline by {_numbers(metric, gap)}, the whole interval is above 0"
    if high < 0:
        return "NO-GO", f"{metric} is worse than the baseline by {_numbers(metric, gap)}, the whole interval is below 0"
    return "INCONCLUSIVE", f"{metric} must improve on the baseline, but its difference {_numbers(metric, gap)} covers 0"


def _must_not_drop(metric: str, margin: float, gap: Comparison | None) -> tuple[Outcome, str]:
    if gap is None or gap.n == 0:
        return "INCONCLUSIVE", f"{metric} must not drop, but no item of this evaluation set measures it"
    if gap.improvement(metric)[2] < -margin:
        what = f"{metric} drops from the baseline by {_numbers(metric, gap)}"
        return "NO-GO", f"{what}, the whole interval is below {_limit(margin)}"
    what = f"{metric} holds: its difference to the baseline {_numbers(metric, gap)}"
    return "GO", f"{what} is not wholly below {_limit(margin)}"


def _not_below_champion(metric: str, gap: Comparison | None) -> tuple[Outcome, str]:
    if gap is None or gap.n == 0:
        return (
            "INCONCLUSIVE",
            f"{metric} must hold against the champion, but no item of this evaluation set measures it",
        )
    if gap.improvement(metric)[2] < 0:
        return "NO-GO", f"{metric} is worse than the champion by {_numbers(metric, gap)}, the whole interval is below 0"
    return "GO", f"{metric} is not significantly worse than the champion: difference {_numbers(metric, gap)}"


def _limit(margin: float) -> str:
    return "0" if margin == 0 else f"-{margin:g}"


def _numbers(metric: str, gap: Comparison) -> str:
    value, low, high = gap.improvement(metric)
    turned = ", counted as lower is better" if metric in LOWER_IS_BETTER else ""
    return f"{value:+.3f} [{low:+.3f}, {high:+.3f}] (n={gap.n}{turned})"
