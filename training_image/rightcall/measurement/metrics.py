"""Numbers about multiple-choice results, each with n and a confidence interval. Needs numpy only.

Two decision rules, as in lm-eval: `acc` takes the answer with the highest log-likelihood, `acc_norm` the one with the
highest log-likelihood per character of its text. Everything without a suffix (macro_f1, recall_*, tool_hallucination,
the confusion matrix) follows acc_norm's rule, the headline of When2Call and of the AWS sample. NVIDIA's harness feeds
its macro_f1 and its hallucination rate from one (gold, prediction) pair; the patch that makes the pair is not
published, but the published numbers (Llama-3.2-3B: acc_norm 46.5, F1 17.9) only fit predictions by plain
log-likelihood, so those two are also given under that rule as macro_f1_acc and tool_hallucination_acc.

Intervals: Wilson's for one model's shares (it holds at 0 of n and n of n too), the percentile bootstrap for F1 and
for every difference between two models on the same items.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rightcall.errors import ScoringError
from rightcall.measurement.intervals import (
    Counts,
    Difference,
    Item,
    Metric,
    count_cells,
    mcnemar,
    percentiles,
    resamples,
    wilson,
)
from rightcall.rows.vocabulary import BEHAVIOURS

METRICS = (
    "acc",
    "acc_norm",
    "macro_f1",
    "macro_f1_3",
    "macro_f1_acc",
    *(f"recall_{name}" for name in BEHAVIOURS),
    "tool_hallucination",
    "tool_hallucination_acc",
)
TOOL_CALL = BEHAVIOURS.index("tool_call")
RULES = ("prediction", "prediction_norm")


def summarise(items: Sequence[Item], *, confidence: float, bootstrap_samples: int, seed: int) -> dict[str, Metric]:
    """Every metric of METRICS that these items can measure: no recall for a class without gold items.

    Raises:
        ScoringError: no items, or an item names an unknown behaviour.
    """
    golds, tools = _golds(items), _tools(items)
    found: dict[str, Metric] = {}
    for rule in RULES:
        cells = tools * 16 + golds * 4 + _codes(items, rule)
        observed = count_cells(cells, 32).reshape(2, 4, 4)
        values = _measure(observed, rule)
        denominators = _denominators(observed, rule)
        for name in _shares(values):
            n = denominators[name]
            low, high = wilson(round(values[name].item() * n), n, confidence)
            found[name] = Metric(values[name].item(), n, low, high)
        draws = [
            _measure(counts.reshape(-1, 2, 4, 4), rule, occurring=_occurring(observed))
            for counts in resamples(cells, 32, bootstrap_samples, seed)
        ]
        for name in values.keys() - set(_shares(values)):
            low, high = percentiles(np.concatenate([draw[name] for draw in draws]), confidence)
            found[name] = Metric(values[name].item(), len(items), low, high)
    return {name: found[name] for name in METRICS if name in found}


def plain_values(items: Sequence[Item]) -> dict[str, dict[str, float]]:
    """{"acc_norm": {"value": 0.5, "n": 12}, …}: what the items say, without intervals and so without their settings.

    Raises:
        ScoringError: no items, or an item names an unknown behaviour.
    """
    golds, tools = _golds(items), _tools(items)
    found: dict[str, dict[str, float]] = {}
    for rule in RULES:
        observed = count_cells(tools * 16 + golds * 4 + _codes(items, rule), 32).reshape(2, 4, 4)
        denominators = _denominators(observed, rule)
        for name, value in _measure(observed, rule).items():
            found[name] = {"value": value.item(), "n": denominators.get(name, len(items))}
    return {name: found[name] for name in METRICS if name in found}


def paired(
    first: Sequence[Item], second: Sequence[Item], *, confidence: float, bootstrap_samples: int, seed: int
) -> dict[str, Difference]:
    """first - second for every metric, resampling whole items so that what the two share cancels.

    Raises:
        ScoringError: no items, or the two lists are not the same items in the same order.
    """
    golds, tools = _golds(first), _tools(first)
    _require_same_items(first, second)
    found: dict[str, Difference] = {}
    for rule in RULES:
        ours, theirs = _codes(first, rule), _codes(second, rule)
        cells = tools * 64 + golds * 16 + ours * 4 + theirs
        observed = count_cells(cells, 128).reshape(2, 4, 4, 4)
        occurring, denominators = _occurring(observed.sum(-1)), _denominators(observed.sum(-1), rule)
        values = _gaps(observed, rule, occurring)
        draws = [
            _gaps(counts.reshape(-1, 2, 4, 4, 4), rule, occurring)
            for counts in resamples(cells, 128, bootstrap_samples, seed)
        ]
        for name, value in values.items():
            low, high = percentiles(np.concatenate([draw[name] for draw in draws]), confidence)
            n = denominators.get(name, len(first))
            won, lost = _discordant(name, golds, tools, ours, theirs)
            p = None if name.startswith("macro_f1") else mcnemar(won, lost)
            found[name] = Difference(value.item(), n, low, high, p, None, won, lost)
    return {name: found[name] for name in METRICS if name in found}


def confusion(items: Sequence[Item], rule: str = "prediction_norm") -> dict[str, dict[str, int]]:
    """{gold: {predicted: items}} over all four behaviours."""
    counts = count_cells(_golds(items) * 4 + _codes(items, rule), 16).reshape(4, 4).astype(int)
    return {
        gold: dict(zip(BEHAVIOURS, row.tolist(), strict=True)) for gold, row in zip(BEHAVIOURS, counts, strict=True)
    }


def _measure(counts: Counts, rule: str, occurring: list[int] | None = None) -> dict[str, NDArray[np.float64]]:
    """Every metric of one decision rule from counts (…, 2, 4, 4); NaN where a resample holds no item to measure."""
    occurring = _occurring(counts) if occurring is None else occurring
    matrix = counts.sum(-3)
    hits, gold, predicted = np.einsum("...ii->...i", matrix), matrix.sum(-1), matrix.sum(-2)
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = np.nan_to_num(2 * hits / (gold + predicted))
        recall = hits / gold
        toolless = counts[..., 0, :, :]
        hallucination = toolless[..., TOOL_CALL].sum(-1) / toolless.sum((-1, -2))
    accuracy = hits.sum(-1) / matrix.sum((-1, -2))
    if rule == "prediction":
        found = {"acc": accuracy, "macro_f1_acc": f1.mean(-1), "tool_hallucination_acc": hallucination}
    else:
        found = {"acc_norm": accuracy, "macro_f1": f1.mean(-1), "macro_f1_3": f1[..., occurring].mean(-1)}
        found |= {f"recall_{BEHAVIOURS[index]}": recall[..., index] for index in occurring}
        found |= {"tool_hallucination": hallucination}
    return {name: value for name, value in found.items() if not np.isnan(value).all()}


def _gaps(counts: Counts, rule: str, occurring: list[int]) -> dict[str, NDArray[np.float64]]:
    """first - second from joint counts (…, tools, gold, first's prediction, second's prediction)."""
    ours, theirs = _measure(counts.sum(-1), rule, occurring), _measure(counts.sum(-2), rule, occurring)
    return {name: ours[name] - theirs[name] for name in ours}


def _shares(values: Mapping[str, Any]) -> list[str]:
    return [name for name in values if not name.startswith("macro_f1")]


def _denominators(counts: Counts, rule: str) -> dict[str, int]:
    """n of every metric that is a share of items, from counts (2, 4, 4)."""
    total, toolless, gold = int(counts.sum()), int(counts[0].sum()), counts.sum((0, 2)).astype(int)
    if rule == "prediction":
        return {"acc": total, "tool_hallucination_acc": toolless}
    recalls = {f"recall_{name}": int(n) for name, n in zip(BEHAVIOURS, gold, strict=True)}
    return {"acc_norm": total, "tool_hallucination": toolless, **recalls}


def _discordant(
    name: str, golds: NDArray[np.int64], tools: NDArray[np.int64], ours: NDArray[np.int64], theirs: NDArray[np.int64]
) -> tuple[int, int]:
    """Items that count for the first model only, and for the second only; of an F1 those that are answered rightly."""
    if name.startswith("tool_hallucination"):
        among, right, other = tools == 0, ours == TOOL_CALL, theirs == TOOL_CALL
    else:
        among, right, other = np.ones_like(golds, dtype=bool), ours == golds, theirs == golds
    if name.startswith("recall_"):
        among = golds == BEHAVIOURS.index(name.removeprefix("recall_"))
    return int((among & right & ~other).sum()), int((among & ~right & other).sum())


def _occurring(counts: Counts) -> list[int]:
    """Classes that are gold at least once."""
    return np.flatnonzero(counts.reshape(-1, 4, 4).sum((0, 2))).tolist()


def _golds(items: Sequence[Item]) -> NDArray[np.int64]:
    if not items:
        raise ScoringError("no items were scored (n = 0), so nothing can be measured; check the evaluation rows")
    return _codes(items, "gold")


def _tools(items: Sequence[Item]) -> NDArray[np.int64]:
    return np.array([int(item["has_tools"]) for item in items])


def _codes(items: Sequence[Item], field: str) -> NDArray[np.int64]:
    unknown = {item[field] for item in items} - set(BEHAVIOURS)
    if unknown:
        raise ScoringError(f"items.jsonl has {field} {sorted(unknown)!r}; expected one of {', '.join(BEHAVIOURS)}")
    return np.array([BEHAVIOURS.index(item[field]) for item in items])


def _require_same_items(first: Sequence[Item], second: Sequence[Item]) -> None:
    if len(first) != len(second):
        raise ScoringError(f"cannot pair {len(first)} items with {len(second)}; score both models on the same set")
    for ours, theirs in zip(first, second, strict=True):
        if (ours["id"], ours["gold"]) != (theirs["id"], theirs["gold"]):
            raise ScoringError(
                f"items do not pair: {ours['id']!r} (gold {ours['gold']!r}) stands beside {theirs['id']!r} "
                f"(gold {theirs['gold']!r}); score both models on the same set and keep its order"
            )
