"""What a run shows in the Prefect UI: numbers as markdown and tables, curves as lines of blocks, the report as a link.

Called by flows after a stage, cached or not, so that every run page is complete. Nothing here can fail a run: when
Prefect's server does not take an artifact, the log says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any

import httpx
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, ArtifactFilterKey
from prefect.exceptions import PrefectException
from prefect.logging import get_run_logger

from rightcall.job.stage_table import STAGES
from rightcall.measurement.gate import Verdict
from rightcall.measurement.intervals import Metric
from rightcall.recipe.schema import Recipe
from tasks.costs.estimates import Estimate, clock
from tasks.reporting.page_data import HEADLINE
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
SHOWN_METRICS = (
    *HEADLINE, *(f"{name}_grammar" for name in HEADLINE), "acc_norm", "acc", "macro_f1", "macro_f1_3", "recall_tool_call",
    "recall_request_for_info", "recall_cannot_answer", "tool_hallucination",
)  # fmt: skip
BLOCKS = "▁▂▃▄▅▆▇█"
BLOCKS_PER_CURVE = 24
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
        _show(
            create_markdown_artifact,
            key=f"{stage}-curves",
            markdown=_table(_curves(lines, ["probe_right", *chain(*STAGES[stage].curves.values())])),
            description=f"{stage.upper()} by optimiser step; the report has the curves as pictures",
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


def _curves(lines: Sequence[Row], names: Iterable[str]) -> list[Row]:
    """A row per value that was logged: first, last, and its course in blocks, each the mean of as many steps.

    No image: Prefect's page writes an image's whole address, and so its base64, across the sidebar.
    """
    rows: list[Row] = []
    for name in dict.fromkeys(names):
        values = [float(line[name]) for line in lines if isinstance(line.get(name), int | float)]
        if not values:
            continue
        size = -(-len(values) // BLOCKS_PER_CURVE)
        means = [sum(part) / len(part) for part in (values[at : at + size] for at in range(0, len(values), size))]
        low, high = min(means), max(means)
        course = [BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1)) if high > low else 0] for mean in means]
        rows.append({
            "by step": name.replace("_", " "), "course": "".join(course), "first": _as_text(values[0]),
            "last": _as_text(values[-1]), "lowest": _as_text(min(values)), "highest": _as_text(max(values)),
        })  # fmt: skip
    return rows


def _show(create: Callable[..., Any], **arguments: Any) -> None:
    try:
        create(**arguments)
    except (httpx.HTTPError, PrefectException) as err:
        get_run_logger().warning("artifact %r is not shown, Prefect's server refused it: %s", arguments["key"], err)


def remove_unnamed(flow: Any, flow_run: Any, state: Any) -> None:
    """The flows' on_failure hook: Prefect's server keeps where a failed run's exception would lie as an artifact without
    key or type, which its page shows as "Artifact: Unknown" with nothing to read."""
    unnamed = ArtifactFilter(
        flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run.id]), key=ArtifactFilterKey(exists_=False)
    )
    with get_client(sync_client=True) as client:
        for artifact in client.read_artifacts(artifact_filter=unnamed):
            client.delete_artifact(artifact.id)
