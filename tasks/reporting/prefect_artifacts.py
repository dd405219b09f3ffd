"""What a run shows in the Prefect UI: numbers as markdown and tables, curves as images, the report as a link.

Called by flows after a stage, cached or not, so that every run page is complete. Nothing here can fail a run: when
Prefect's server does not take an artifact, the log says so.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from rightcall.job.stage_table import STAGES
from rightcall.measurement.gate import Verdict
from rightcall.measurement.intervals import Metric
from rightcall.recipe.schema import Recipe
from tasks.costs.estimates import Estimate, clock
from tasks.results.files import (
    METRICS,
    SUMMARY,
    numbers_of,
    read_checks,
    read_json_lines,
    read_summary,
    read_verdict,
    report_path,
)
from tasks.results.scores import read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

MAX_ROWS = 100  # of a table
MAX_BYTES = 200_000  # of one artifact; the UI loads all of a page's at once
SHOWN_METRICS = (
    "acc_norm", "acc", "macro_f1", "macro_f1_3", "recall_tool_call", "recall_request_for_info", "recall_cannot_answer",
    "tool_hallucination", "gen_valid_call", "gen_right_tool", "gen_right_arguments", "gen_right_behaviour",
)  # fmt: skip
Row = Mapping[str, Any]


def show_checks(store: Store, ref: ArtifactRef) -> str:
    """Rows in, kept and quarantined; classes; reasons; what the keyword rule scores. Gives the counts as text."""
    checks = read_checks(store, ref)
    counts = [{"rows": kind, **numbers} for kind, numbers in checks["rows"].items()]
    behaviours = sorted({name for classes in checks["classes"].values() for name in classes})
    classes = [
        {"rows": kind, **{name: found.get(name, 0) for name in behaviours}} for kind, found in checks["classes"].items()
    ]
    reasons = [{"reason": reason, **_flat(found)} for reason, found in checks["reasons"].items()]
    rule, leakage = checks["baseline_rule"], checks["leakage"]
    notes = [
        f"Keyword-and-length rule on the evaluation: accuracy {rule['accuracy']} (n={rule['n']}).",
        f"Leakage: {leakage['found']} training rows asked what the evaluation asks and were quarantined; "
        f"{leakage['remaining']} remain of {leakage['proved_rows']} (looked at again after writing).",
        *(f"> **Warning** {text}" for text in checks["warnings"]),
    ]
    _show(
        create_markdown_artifact,
        key="ingest-summary",
        markdown="\n\n".join([f"## Snapshot `{ref.uri[:16]}`", _table(counts), *notes]),
        description="Rows in = rows kept + quarantined + sampled out",
    )
    _show(create_table_artifact, key="ingest-classes", table=classes, description="Rows kept by behaviour")
    if reasons:
        _show(
            create_table_artifact,
            key="ingest-reasons",
            table=reasons[:MAX_ROWS],
            description="Why rows were quarantined",
        )
    return _text(counts)


def show_text(key: str, markdown: str, description: str) -> None:
    """Anything else that a run has to say on its page."""
    _show(create_markdown_artifact, key=key, markdown=markdown, description=description)


def show_estimate(estimates: Mapping[str, Estimate], summary: str) -> None:
    """What a run's jobs will cost, and what the numbers rest on."""
    rows = [
        {
            "job": label,
            "instance": estimate.instance,
            "time": "–" if estimate.cached else clock(estimate.seconds),
            "USD": "no price" if estimate.usd is None else f"{estimate.usd:,.2f}",
            "basis": estimate.basis,
        }
        for label, estimate in estimates.items()
    ]
    _show(
        create_markdown_artifact,
        key="cost-estimate",
        markdown=f"## Cost before the start, estimated\n\n{_table(rows)}\n\nIn all, {summary}.",
        description=summary[:200],
    )


def show_training(store: Store, stage: str, ref: ArtifactRef) -> None:
    """Steps, tokens, speed, memory and warnings of SFT or DPO, and its curves."""
    folder = store.path(ref, (METRICS, SUMMARY))
    summary, lines = read_summary(folder), read_json_lines(folder / METRICS)
    warnings = [f"\n> **Warning** {text}" for text in summary.get("warnings", [])]
    numbers = [{"": name.replace("_", " "), stage: _as_text(value)} for name, value in numbers_of(summary).items()]
    _show(
        create_markdown_artifact,
        key=f"{stage}-summary",
        markdown="\n".join([f"## {stage.upper()}: `{ref.uri[:16]}`\n", _table(numbers), *warnings]),
        description=f"{stage.upper()}: {len(lines)} steps logged",
    )
    if len(lines) > 1:
        _show_image(
            f"{stage}-curves",
            _curves(lines, chain(*STAGES[stage].curves.values())),
            folder / "output",
            f"{stage.upper()} by optimiser step",
        )


def show_scores(store: Store, recipe: Recipe, scores: Mapping[str, ArtifactRef]) -> str:
    """One row per metric, one column per model, every number with n and its interval; the same as text."""
    metrics = {label: read_scores(store, ref, recipe.evaluation).metrics for label, ref in scores.items()}
    rows = [
        {
            "metric": name,
            **{label: _interval(found[name]) if name in found else "–" for label, found in metrics.items()},
        }
        for name in SHOWN_METRICS
        if any(name in found for found in metrics.values())
    ]
    percent = f"{recipe.evaluation.confidence:.0%}"
    _show(create_table_artifact, key="scores", table=rows, description=f"Scores with n and {percent} intervals")
    return _text(rows)


def show_verdict(store: Store, ref: ArtifactRef) -> None:
    """The gate's decision with its reasons, and the paired differences it rests on."""
    verdict = read_verdict(store, ref)
    reasons = "\n".join(f"- {reason}" for reason in verdict.reasons)
    _show(
        create_markdown_artifact,
        key="verdict",
        markdown=f"# {verdict.verdict}\n\n{reasons}\n\n{_table(_differences(verdict))}",
        description=verdict.sentence[:200],
    )


def show_report(store: Store, ref: ArtifactRef) -> None:
    path = report_path(store, ref)
    _show(create_link_artifact, key="report", link=path.absolute().as_uri(), description=f"The whole report: {path}")


def _flat(reason: Row) -> Row:
    """A reason's count, severity, rows by kind and example as cells of a table."""
    kinds = ", ".join(f"{kind} {count:,}" for kind, count in reason["kinds"].items())
    return {
        "count": reason["count"],
        "severity": reason["severity"],
        "rows": kinds,
        "example": str(reason["example"])[:300],
    }


def _differences(verdict: Verdict) -> list[Row]:
    return [
        {
            "candidate minus": other,
            "metric": name,
            "difference": f"{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]",
            "n": found.n,
            "McNemar p": "–" if found.mcnemar_p is None else f"{found.mcnemar_p:.3g}",
        }
        for other, differences in verdict.differences.items()
        for name, found in differences.items()
    ]


def _interval(metric: Metric) -> str:
    return f"{metric.value:.3f} [{metric.low:.3f}, {metric.high:.3f}] n={metric.n}"


def _table(rows: Sequence[Row]) -> str:
    """A markdown table; no rows = no text."""
    if not rows:
        return ""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def _text(rows: Sequence[Row]) -> str:
    """The same in columns of equal width, for a terminal."""
    if not rows:
        return ""
    lines = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _as_text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _curves(lines: Sequence[Row], names: Iterable[str]) -> bytes:
    """A PNG with one small plot per name that was logged."""
    from matplotlib.figure import Figure

    found = [name for name in names if any(isinstance(line.get(name), int | float) for line in lines)]
    figure = Figure(figsize=(3.2 * max(len(found), 1), 2.2), dpi=100, layout="constrained")
    for axes, name in zip(figure.subplots(1, max(len(found), 1), squeeze=False)[0], found, strict=False):
        points = [(line["step"], line[name]) for line in lines if isinstance(line.get(name), int | float)]
        axes.plot(*zip(*points, strict=True), linewidth=1.2)
        axes.set_title(name.replace("_", " "), fontsize=9)
        axes.tick_params(labelsize=7)
        axes.grid(visible=True, alpha=0.3)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _show_image(key: str, png: bytes, folder: Path, description: str) -> None:
    """As a data URI: the UI needs no file server. Too large: a link to the folder with the numbers."""
    uri = "data:image/png;base64," + base64.b64encode(png).decode()
    if len(uri) <= MAX_BYTES:
        _show(create_image_artifact, key=key, image_url=uri, description=description)
    else:
        _show(
            create_link_artifact,
            key=key,
            link=folder.absolute().as_uri(),
            description=f"{description} (too large to show)",
        )


def _show(create: Callable[..., Any], **arguments: Any) -> None:
    try:
        create(**arguments)
    except (httpx.HTTPError, PrefectException) as err:
        get_run_logger().warning("artifact %r is not shown, Prefect's server refused it: %s", arguments["key"], err)
