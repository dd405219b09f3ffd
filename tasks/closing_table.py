"""The last thing a run prints: every metric of every model, what changed, the verdict, and where to look next."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from rightcall.gate import Verdict
from rightcall.metrics import Metric
from rightcall.recipe import Recipe
from tasks.billing import read_bills, sentence, with_models
from tasks.gate import read_verdict
from tasks.report_data import Cell, TableRow, display_names, score_table
from tasks.results import read_scores
from tasks.store import ArtifactRef, Store

NAME_WIDTH, N_WIDTH, CELL_WIDTH, WIDTH = 23, 5, 23, 100
REPORT_ONLY = ("macro_f1_acc", "tool_hallucination_acc")  # the same again under acc's rule
MARKS = {"better": " +", "worse": " !", "unclear": "", None: ""}


def closing_table(
    recipe: Recipe,
    scores: Mapping[str, ArtifactRef],
    verdict: ArtifactRef,
    *,
    store: Store,
    report: Path | None = None,
    commands: Mapping[str, str] | None = None,
) -> str:
    """Plain text of at most 100 columns for three models; commands is {what it opens: what to type}."""
    found = {label: read_scores(store, ref, recipe.evaluation) for label, ref in scores.items()}
    names = display_names(recipe, list(scores))
    head = "".join(name.ljust(CELL_WIDTH) for name in names.values())
    lines = [f"{'':{NAME_WIDTH}}{'n':>{N_WIDTH}}  {head}".rstrip()]
    for row in score_table(found, recipe.evaluation):
        lines += [] if row.name in REPORT_ONLY else _lines(row)
    first = next(iter(names.values()))
    percent = f"{recipe.evaluation.confidence:.0%}"
    lines += [
        "",
        f"[low, high]: {percent} intervals; differences to {first} are paired; + better, ! worse, else unclear",
    ]
    lines += ["", *_verdict(read_verdict(store, verdict))]
    if bills := read_bills(store, with_models(store, scores)):
        lines += ["", textwrap.fill(sentence(bills), WIDTH)]
    if report is not None:
        lines += ["", f"report: {report}"]
    width = max(map(len, commands or {}), default=0)
    lines += [f"{title:{width}}  {command}" for title, command in (commands or {}).items()]
    return "\n".join(lines)


def _lines(row: TableRow) -> list[str]:
    """The values, and below them the differences where there are any."""
    n = next(cell.metric.n for cell in row.cells.values() if cell.metric)
    values = "".join(_value(cell.metric, n).ljust(CELL_WIDTH) for cell in row.cells.values())
    lines = [f"{row.name:{NAME_WIDTH}}{n:>{N_WIDTH}}  {values}".rstrip()]
    if any(cell.difference for cell in row.cells.values()):
        gaps = "".join(_difference(cell).ljust(CELL_WIDTH) for cell in row.cells.values())
        lines.append((" " * (NAME_WIDTH + N_WIDTH + 2) + gaps).rstrip())
    return lines


def _value(metric: Metric | None, n: int) -> str:
    """A model that was asked about fewer or more items says so itself."""
    if metric is None:
        return "–"
    own = f" n={metric.n}" if metric.n != n else ""
    return f" {_short(f'{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}]')}{own}"


def _difference(cell: Cell) -> str:
    if cell.difference is None:
        return ""
    gap = cell.difference
    return _short(f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]") + MARKS[cell.change]


def _short(text: str) -> str:
    """.527 instead of 0.527: three models then fit a terminal."""
    return re.sub(r"(?<!\d)0\.", ".", text)


def _verdict(verdict: Verdict) -> list[str]:
    bullets = {"initial_indent": "  - ", "subsequent_indent": "    "}
    reasons = [textwrap.fill(reason, WIDTH, **bullets) for reason in verdict.reasons]  # type: ignore[arg-type]
    return [f"verdict: {verdict.verdict}", *reasons]
