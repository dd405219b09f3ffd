"""Pictures of the report as SVG text, drawn without a display, in colours that read on a light and on a dark page."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rightcall.measurement.intervals import Metric
from rightcall.rows.vocabulary import BEHAVIOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ("#8b949e", "#3b82f6", "#10b981", "#f59e0b", "#a855f7")  # models in the order they were made
RULE_COLOUR = "#d6d3d1"
INK = "#010203"  # stands for the page's own text colour, which the SVG inherits
SHORT = {"direct": "direct", "tool_call": "call", "request_for_info": "ask", "cannot_answer": "refuse"}
# Same input, same bytes; letters stay letters.
STYLE: Any = {
    "svg.hashsalt": "rightcall", "svg.fonttype": "none", "font.size": 9, "font.family": "sans-serif", "text.color": INK,
    "axes.edgecolor": INK, "axes.labelcolor": INK, "xtick.color": INK, "ytick.color": INK, "axes.linewidth": 0.6,
    "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 9, "legend.frameon": False,
}  # fmt: skip
Lines = Sequence[Mapping[str, Any]]


def recall_bars(models: Mapping[str, Mapping[str, Metric]], rule: Mapping[str, Mapping[str, Metric]]) -> str:
    """Recall per gold behaviour, one bar per model, the rule's (none or one) in front, with intervals."""
    metrics = {**rule, **models}
    colours = [*[RULE_COLOUR] * len(rule), *(_colour(place) for place in range(len(models)))]
    golds = [name for name in BEHAVIOURS if any(f"recall_{name}" in found for found in metrics.values())]
    with _drawing(6.2, 2.6) as figure:
        axes = figure.subplots()
        width = 0.8 / len(metrics)
        for place, (label, found) in enumerate(metrics.items()):
            for number, gold in enumerate(golds):
                metric = found.get(f"recall_{gold}")
                if metric is None:
                    continue
                x = number + (place - (len(metrics) - 1) / 2) * width
                around = [[metric.value - metric.low], [metric.high - metric.value]]
                axes.bar(x, metric.value, width * 0.9, color=colours[place], label=label if not number else None)
                axes.errorbar(x, metric.value, yerr=around, color=INK, capsize=2, linewidth=0.9)
        axes.set_xticks(range(len(golds)), [name.replace("_", " ") for name in golds])
        axes.set_ylim(0, 1.02)
        axes.set_ylabel("recall")
        axes.grid(axis="y", alpha=0.15, color=INK)
        axes.set_axisbelow(True)
        axes.legend(ncols=len(metrics), loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _svg(figure, "Recall per behaviour and model, with intervals")


def confusion(label: str, matrix: Mapping[str, Mapping[str, int]]) -> str:
    """One model's matrix: rows are gold, columns what was chosen, shades the share of the row."""
    with _drawing(2.6, 2.4) as figure:
        axes = figure.subplots()
        golds = [gold for gold in BEHAVIOURS if sum(matrix[gold].values())]
        for row, gold in enumerate(golds):
            for column, chosen in enumerate(BEHAVIOURS):
                share = matrix[gold][chosen] / sum(matrix[gold].values())
                axes.add_patch(_square(column, row, "#10b981" if gold == chosen else "#ef4444", share))
                axes.text(column, row, str(matrix[gold][chosen]), ha="center", va="center")
        axes.set_xlim(-0.5, len(BEHAVIOURS) - 0.5)
        axes.set_ylim(len(golds) - 0.5, -0.5)
        axes.set_xticks(range(len(BEHAVIOURS)), [SHORT[name] for name in BEHAVIOURS])
        axes.set_yticks(range(len(golds)), [SHORT[name] for name in golds])
        axes.set_title(label)
        axes.tick_params(length=0)
        for spine in axes.spines.values():
            spine.set_visible(False)
        return _svg(figure, f"Confusion matrix of {label}: rows are gold, columns are chosen")


def curves(model: str, lines: Lines, panels: Mapping[str, Sequence[str]], colour: str) -> list[str]:
    """A picture per title with the named values of metrics.jsonl by optimiser step; none for what was not logged."""
    pictures = []
    for title, names in panels.items():
        found = [name for name in names if _points(lines, name)]
        if not found:
            continue
        with _drawing(3.1, 2.1) as figure:
            axes = figure.subplots()
            for place, name in enumerate(found):
                label = name.replace("_", " ") if len(found) > 1 else None
                _curve(axes, _points(lines, name), colour if not place else "#ef4444", label)
            axes.set_title(title)
            axes.set_xlabel("step")
            axes.grid(alpha=0.15, color=INK)
            if len(found) > 1:
                axes.legend(fontsize=7, loc="best", labelcolor=INK)
            pictures.append(_svg(figure, f"{model}: {title} by step"))
    return pictures


def stacked_bars(counts: Mapping[str, Mapping[str, int]]) -> str:
    """One horizontal bar per label, its parts by name: what went wrong per model."""
    names = list(dict.fromkeys(name for parts in counts.values() for name in parts))
    with _drawing(6.2, 0.62 + 0.34 * len(counts) + 0.17 * (len(names) // 3 + 1)) as figure:
        axes = figure.subplots()
        for number, name in enumerate(names):
            left = [sum(parts.get(other, 0) for other in names[:number]) for parts in counts.values()]
            values = [parts.get(name, 0) for parts in counts.values()]
            colour = "#10b981" if name == "right" else _WRONG[number % len(_WRONG)]
            axes.barh(list(counts), values, left=left, height=0.7, color=colour, label=name.replace("_", " "))
        axes.invert_yaxis()
        axes.set_xlabel("answers")
        axes.legend(ncols=3, fontsize=7, loc="lower center", bbox_to_anchor=(0.5, 1.0))
        return _svg(figure, "Kinds of error per model")


_WRONG = ("#ef4444", "#f59e0b", "#a855f7", "#ec4899", "#0ea5e9", "#84cc16", "#f97316", "#6366f1", "#14b8a6", "#78716c")


def _colour(place: int) -> str:
    return COLOURS[place % len(COLOURS)]


def _square(column: int, row: int, colour: str, share: float) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.47, row - 0.47), 0.94, 0.94, facecolor=colour, alpha=0.06 + 0.74 * share, linewidth=0)


def _points(lines: Lines, name: str) -> list[tuple[float, float]]:
    return [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]


def _curve(axes: Axes, points: Sequence[tuple[float, float]], colour: str, label: str | None) -> None:
    """The values pale, their running mean over a tenth of the steps strong."""
    steps, values = [point[0] for point in points], [point[1] for point in points]
    window = max(1, len(values) // 10)
    recent = [values[max(0, end - window) : end] for end in range(1, len(values) + 1)]
    means = [sum(part) / len(part) for part in recent]
    axes.plot(steps, values, color=colour, linewidth=0.8, alpha=0.35)
    axes.plot(steps, means, color=colour, linewidth=1.6, label=label, marker="o" if len(values) == 1 else None)


@contextmanager
def _drawing(width_inches: float, height_inches: float) -> Iterator[Figure]:
    """A figure in our style; Figure itself needs no display and no global state."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        yield Figure(figsize=(width_inches, height_inches), layout="constrained")


def _svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    # the page gives the width; ids are unique per figure only, and a page holds several
    text = re.sub(r'<svg height="[^"]*"', f'<svg role="img" aria-label="{title}"', text, count=1)
    text = re.sub(
        r'(<svg[^>]*?) width="([\d.]+)pt"', r'\1 style="width:100%;max-width:\2pt;height:auto"', text, count=1
    )
    prefix = re.sub(r"\W+", "-", title.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    return re.sub(r"(url\(#|href=\"#)", rf"\1{prefix}-", text)
