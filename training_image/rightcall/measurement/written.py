"""Numbers about what a model writes: written.jsonl, a line per step, and the metrics it gives.

    {"id": "c1/3", "conversation": "c1", "group": "u7", "behaviour": "tool_call", "text": "<tool_call>…",
     "verdict": {"ok": true, "valid_call": true, "right_tool": true, "right_arguments": true, "right_behaviour": true,
                 "strict": true, "forgiven": []},
     "error_kind": null, "faults": [], "grammar": {"text": …, "verdict": …, "error_kind": …, "faults": […]} | null}

A metric is a share of the steps that it asks about; a step that it does not ask about has the flag None. The metrics named
*_grammar ask the same of the answer that was decoded under the tools' schemas. `right_strict` is `right` to a reader that
forgives nothing: a right call also stands in exactly the dialect of the model's template, alone, closed, as JSON where that is JSON.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rightcall.errors import ScoringError
from rightcall.measurement.clusters import Clustered, Floats, differences, shares
from rightcall.measurement.intervals import Difference, Metric

Line = Mapping[str, Any]

BEHAVIOUR_OF = {
    "right_call": "tool_call",
    "right_ask": "request_for_info",
    "right_decline": "cannot_answer",
    "right_talk": "direct",
}
FREE = ("right", "right_strict", *BEHAVIOUR_OF, "overcall", "valid_call", "right_tool", "right_arguments")
GRAMMAR = tuple(f"{name}_grammar" for name in FREE)
WRITTEN_METRICS = (*FREE, *GRAMMAR)
# Intervals of few hits take the design effect of the first metric that varies: that of how calls look says nothing of the others.
_STRICT = ("right_strict", "right_strict_grammar")
_TOGETHER = (tuple(name for name in WRITTEN_METRICS if name not in _STRICT), _STRICT)


def flag(line: Line, metric: str) -> bool | None:
    """What one line says about one metric of WRITTEN_METRICS; None = the metric does not ask about this step."""
    name = metric.removesuffix("_grammar")
    answer = line if name == metric else line["grammar"]
    if answer is None:
        return None
    verdict, gold = answer["verdict"], line["behaviour"]
    if name == "right":
        return bool(verdict["ok"])
    if name == "right_strict":  # answers that were judged before it was kept do not say
        return bool(verdict["ok"] and verdict["strict"]) if "strict" in verdict else None
    if name in BEHAVIOUR_OF:
        return bool(verdict["ok"]) if gold == BEHAVIOUR_OF[name] else None
    if name == "overcall":
        return verdict["valid_call"] is not None if gold != "tool_call" else None
    found = verdict[name]
    return None if found is None else bool(found)


def summarise(lines: Sequence[Line], *, confidence: float, bootstrap_samples: int, seed: int) -> dict[str, Metric]:
    """Every metric of WRITTEN_METRICS that these lines can measure, with intervals over conversations; no lines = none."""
    if not lines:
        return {}
    conversations = [line["conversation"] for line in lines]
    found: dict[str, Metric] = {}
    for names in _TOGETHER:
        data = Clustered.count(conversations, _flags(lines, names))
        found |= shares(names, data, confidence=confidence, samples=bootstrap_samples, seed=seed)
    return {name: found[name] for name in WRITTEN_METRICS if name in found}


def plain_values(lines: Sequence[Line]) -> dict[str, dict[str, float]]:
    """{"right": {"value": 0.5, "n": 12}, …}: without intervals and so without their settings."""
    if not lines:
        return {}
    flags = _flags(lines, WRITTEN_METRICS)
    counts = (~np.isnan(flags)).sum(0)
    return {
        name: {"value": float(np.nansum(flags[:, index]) / counts[index]), "n": int(counts[index])}
        for index, name in enumerate(WRITTEN_METRICS)
        if counts[index]
    }


def paired_written(
    first_lines: Sequence[Line], second_lines: Sequence[Line], *, confidence: float, bootstrap_samples: int, seed: int
) -> dict[str, Difference]:
    """first - second on the same steps; a step that a metric asks of one model only (who called) is left out of it.

    Raises:
        ScoringError: the two lists are not the same steps.
    """
    by_id = {line["id"]: line for line in second_lines}
    ids = {line["id"] for line in first_lines}
    if ids != by_id.keys() or len(ids) != len(first_lines) or len(by_id) != len(second_lines):
        example = sorted(map(str, ids ^ by_id.keys()))[:3]
        raise ScoringError(
            f"cannot pair {len(first_lines)} written answers with {len(second_lines)}: {len(ids ^ by_id.keys())} steps "
            f"stand in one of them only, e.g. {example!r}; score both models on the same steps, each once"
        )
    if not first_lines:
        return {}
    others = [by_id[line["id"]] for line in first_lines]
    conversations = [line["conversation"] for line in first_lines]
    found: dict[str, Difference] = {}
    for names in _TOGETHER:
        data = Clustered.count(conversations, _flags(first_lines, names) - _flags(others, names))
        found |= differences(names, data, confidence=confidence, samples=bootstrap_samples, seed=seed)
    return {name: found[name] for name in WRITTEN_METRICS if name in found}


def fault_table(lines: Sequence[Line]) -> dict[str, dict[str, int]]:
    """{"wrong_value": {"free": 12, "grammar": 9}, …}, the most frequent first: in how many answers each error kind or fault occurs."""
    counts: dict[str, Counter[str]] = {"free": Counter(), "grammar": Counter()}
    for line in lines:
        for mode, answer in (("free", line), ("grammar", line["grammar"])):
            if answer is not None:
                counts[mode].update({kind for kind in (answer["error_kind"], *answer["faults"]) if kind})
    kinds = sorted(
        {*counts["free"], *counts["grammar"]}, key=lambda kind: (-counts["free"][kind], -counts["grammar"][kind], kind)
    )
    return {kind: {mode: found[kind] for mode, found in counts.items()} for kind in kinds}


def _flags(lines: Sequence[Line], metrics: Sequence[str]) -> Floats:
    """(lines, metrics): 1, 0, or NaN where a metric does not ask."""
    rows = [[flag(line, metric) for metric in metrics] for line in lines]
    return np.array([[np.nan if value is None else float(value) for value in row] for row in rows])
