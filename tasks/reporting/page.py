"""The report of a run: one HTML file with everything in it, to be mailed, archived, or opened without a network."""

from __future__ import annotations

from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Any

import jinja2
from ruamel.yaml import YAML

from rightcall.job.stage_table import STAGES
from rightcall.measurement.metrics import METRICS as CHOICE_METRICS
from rightcall.measurement.metrics import confusion
from rightcall.measurement.written import WRITTEN_METRICS
from rightcall.recipe.schema import Recipe
from tasks.costs.bills import read_bills, total
from tasks.machine.checkout import git_commit
from tasks.reporting import examples, page_data, plots, written_data
from tasks.results.files import METRICS, SUMMARY, numbers_of, read_checks, read_json_lines, read_summary, read_verdict
from tasks.results.scores import Scores, read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.redaction import redact

TEMPLATE = Path(__file__).with_name("templates") / "report.html.jinja"
WORST_REASONS = 10
GRAMMAR_HEADLINE = tuple(f"{name}_grammar" for name in page_data.HEADLINE)
PARTS = tuple(name for name in WRITTEN_METRICS if name not in (*page_data.HEADLINE, *GRAMMAR_HEADLINE))


def render(values: Mapping[str, Any]) -> str:
    """Everything is escaped but the pictures, which matplotlib made and escaped."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["signed"] = page_data.signed
    return environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(values)


def gather(
    recipe: Recipe,
    store: Store,
    *,
    snapshot: ArtifactRef,
    models: Mapping[str, ArtifactRef],
    scores: Mapping[str, ArtifactRef],
    verdict: ArtifactRef,
) -> dict[str, Any]:
    """What the template fills in."""
    found = {label: read_scores(store, ref, recipe.evaluation) for label, ref in scores.items()}
    names = page_data.display_names(recipe, list(found))
    steps = examples.read_steps(store.path(snapshot))
    items = [step for step in steps if "answers" in step] if any(scored.items for scored in found.values()) else []
    rule = page_data.rule_scores(items, recipe.evaluation) if items else {}
    errors, faults = written_data.error_tables(found, names, recipe.evaluation)
    refs = {
        "snapshot": snapshot,
        **models,
        **{f"{label} scores": ref for label, ref in scores.items()},
        "verdict": verdict,
    }
    return {
        "recipe": recipe,
        "recipe_yaml": _as_yaml(redact(recipe.model_dump(mode="json", by_alias=True))),
        "verdict": read_verdict(store, verdict),
        "names": names,
        "headline": written_data.headline(found, names),
        "scripted": written_data.scripted(recipe),
        "candidate": page_data.candidate_of(list(found)),
        "free": page_data.score_table(found, recipe.evaluation, names, page_data.HEADLINE),
        "judge": page_data.judge_sentence(),
        "grammar": page_data.score_table(found, recipe.evaluation, names, GRAMMAR_HEADLINE),
        "parts": page_data.score_table(found, recipe.evaluation, names, PARTS),
        "choices": page_data.score_table(found, recipe.evaluation, names, CHOICE_METRICS),
        "errors": errors,
        "faults": faults,
        "situations": written_data.by_situation(found, names, recipe.evaluation),
        "rule": rule,
        "rule_name": page_data.RULE,
        "steps": page_data.stage_sentences(found, names, recipe.evaluation),
        "pictures": _pictures(found, names, rule),
        "training": _training(store, models, names),
        "checks": _checks(store, snapshot),
        "examples": examples.differing_steps(steps, found, names),
        "timings": _timings(store, refs),
        "bills": (bills := read_bills(store, refs)),
        "billed": total(bills),
        "lineage": {label: ref.model_dump() | _origin(store, ref) for label, ref in refs.items()},
        "git_commit": git_commit(),
    }


def _as_yaml(values: dict[str, Any]) -> str:
    text = StringIO()
    YAML().dump(values, text)
    return text.getvalue()


def _pictures(scores: Mapping[str, Scores], names: Mapping[str, str], rule: Mapping[str, Any]) -> dict[str, Any]:
    metrics = {names[label]: scored.metrics for label, scored in scores.items() if scored.items}
    errors = written_data.error_counts(scores, names)
    return {
        "recall": _picture(plots.recall_bars(metrics, {page_data.RULE: rule} if rule else {})) if metrics else "",
        "confusion": [
            _picture(plots.confusion(names[label], confusion(scored.items)))
            for label, scored in scores.items()
            if scored.items
        ],
        "errors": _picture(plots.stacked_bars(errors)) if errors else "",
    }


def _training(store: Store, models: Mapping[str, ArtifactRef], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Curves, numbers and warnings of every model that was trained; a skipped stage's ref is its input's."""
    found = []
    for place, (label, ref) in enumerate(models.items()):
        if not ref.uri.startswith(f"{label}/") or not STAGES[label].curves:
            continue
        folder = store.path(ref, (METRICS, SUMMARY))
        lines, summary = read_json_lines(folder / METRICS), read_summary(folder)
        found.append(
            {
                "name": names.get(label, label),
                "pictures": [
                    _picture(picture)
                    for picture in plots.curves(names.get(label, label), lines, _panels(label), plots.COLOURS[place])
                ],
                "numbers": numbers_of(summary),
                "warnings": list(dict.fromkeys(summary.get("warnings", []))),
            }
        )
    return found


def _panels(stage: str) -> dict[str, tuple[str, ...]]:
    """The stage's curves, the probes of what it writes first."""
    curves = dict(STAGES[stage].curves)
    known = any("probe_right" in names for names in curves.values())
    return curves if known else {"right when writing freely": ("probe_right",), **curves}


def _checks(store: Store, snapshot: ArtifactRef) -> dict[str, Any]:
    checks = read_checks(store, snapshot)
    reasons = checks["reasons"]
    return {
        **checks,
        "reasons": dict(list(reasons.items())[:WORST_REASONS]),
        "reasons_left_out": max(0, len(reasons) - WORST_REASONS),
    }


def _timings(store: Store, refs: Mapping[str, ArtifactRef]) -> list[dict[str, Any]]:
    rows, seen = [], set()
    for label, ref in refs.items():
        if ref.uri in seen:
            continue
        seen.add(ref.uri)
        summary = read_summary(store.path(ref, SUMMARY))
        seconds = store.manifest(ref).get("seconds")
        memory = summary.get("peak_memory_bytes")
        rows.append({"label": label, "seconds": seconds, "tokens": summary.get("tokens"), "memory": memory,
                     "tokens_per_second": summary.get("tokens_per_second")})  # fmt: skip
    return rows


def _origin(store: Store, ref: ArtifactRef) -> dict[str, Any]:
    manifest = store.manifest(ref)
    return {"created": manifest.get("created", ""), "versions": manifest.get("versions", {})}


def _picture(svg: str) -> Any:
    return jinja2.filters.do_mark_safe(svg)
