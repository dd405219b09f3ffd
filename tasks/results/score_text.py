"""One model's scores for a terminal: what it writes, what goes wrong there, then its choices among given answers.

             free                      n    under the grammar         n
right        .712 [.655, .766]       312    .731 [.676, .783]       312
…
in how many of the 312 written answers  free  grammar
wrong_value                               21       18
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from rightcall.measurement.intervals import Metric
from rightcall.measurement.metrics import METRICS
from rightcall.measurement.written import FREE, GRAMMAR, fault_table
from rightcall.recipe.schema import Recipe
from tasks.results.scores import Scores, read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

NAME, CELL = 24, 32
CUT = "cut"


def score_text(store: Store, recipe: Recipe, ref: ArtifactRef) -> str:
    """Every number with n and its interval."""
    scores = read_scores(store, ref, recipe.evaluation)
    parts = [_written(scores), _faults(scores), _chosen(scores.metrics)]
    percent = f"[low, high]: {recipe.evaluation.confidence:.0%} intervals"
    if scores.written:
        percent += (
            f"; those of written answers count {len({line['conversation'] for line in scores.written}):,} conversations"
        )
    return "\n\n".join([*filter(None, parts), percent])


def _written(scores: Scores) -> str:
    found = scores.metrics
    if not scores.written:
        return ""
    grammar = any(name in found for name in GRAMMAR)
    lines = [f"{'':{NAME}}{'free':{CELL}}{'under the grammar' if grammar else ''}"]
    for name in FREE:
        cells = [_cell(found.get(name)), _cell(found.get(f"{name}_grammar")) if grammar else ""]
        if name in found or f"{name}_grammar" in found:
            lines.append(f"{name:{NAME}}{cells[0]:{CELL}}{cells[1]}")
    return "\n".join(line.rstrip() for line in lines)


def _faults(scores: Scores) -> str:
    """Error kinds and faults; an answer may have one of the first and several of the second."""
    table = fault_table(scores.written)
    cut = sum(bool(line.get(CUT)) for line in scores.written)
    lines = [f"{kind:{NAME}}{counts['free']:>6}{counts['grammar']:>10}" for kind, counts in table.items()]
    if cut:
        lines.append(f"{cut:,} free answers are as long as evaluation.max_new_tokens allows, and cut")
    if not lines:
        return ""
    head = f"wrong in how many of {len(scores.written):,} written answers"
    return "\n".join([f"{head}\n{'':{NAME}}{'free':>6}{'grammar':>10}", *lines])


def _chosen(found: Mapping[str, Metric]) -> str:
    names = [name for name in METRICS if name in found]
    if not names:
        return ""
    return "\n".join(["chosen among given answers", *(f"{name:{NAME}}{_cell(found[name])}".rstrip() for name in names)])


def _cell(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    text = f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}] n={metric.n}"
    return re.sub(r"(?<!\d)0\.", ".", text)
