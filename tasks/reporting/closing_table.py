"""The last thing a run prints: every metric of every model, what changed, the verdict, and where to look next."""

from __future__ import annotations

import os
import re
import shlex
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from rightcall.measurement.gate import Verdict
from rightcall.measurement.intervals import Metric
from rightcall.measurement.written import GRAMMAR, WRITTEN_METRICS
from rightcall.recipe.schema import Recipe
from tasks.costs.bills import read_bills, sentence, with_models
from tasks.machine.checkout import CHECKOUT
from tasks.machine.environment import DEFAULTS
from tasks.reporting.page_data import Cell, TableRow, display_names, score_table
from tasks.results.files import read_verdict, report_path
from tasks.results.scores import read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.registry import Registration

NAME_WIDTH, N_WIDTH, CELL_WIDTH, WIDTH = 23, 5, 23, 100
# What the terminal leaves to the report: the same again under acc's rule or read strictly, parts of a call, most of the grammar's.
REPORT_ONLY = frozenset(
    {"macro_f1_acc", "tool_hallucination_acc", "right_strict", "right_tool", "right_arguments", *GRAMMAR}
)
REPORT_ONLY -= {"right_grammar", "right_call_grammar", "overcall_grammar", "valid_call_grammar"}
MARKS = {"better": " +", "worse": " !", "unclear": ""}


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
    rows = [row for row in score_table(found, recipe.evaluation) if row.name not in REPORT_ONLY]
    written = [row for row in rows if row.name in WRITTEN_METRICS]
    choices = [row for row in rows if row.name not in WRITTEN_METRICS]
    lines += [line for row in written for line in _lines(row)]
    lines += ["", "choosing among given answers, by likelihood"] if written and choices else []
    lines += [line for row in choices for line in _lines(row)]
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
    if any(cell.gaps for cell in row.cells.values()):
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
    if cell.first_gap is None:
        return ""
    gap = cell.first_gap.difference
    return _short(f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]") + MARKS[cell.first_gap.change]


def _short(text: str) -> str:
    """.527 instead of 0.527, and 1.0: three models then fit a terminal."""
    return re.sub(r"(?<!\d)0\.", ".", text.replace("1.000", "1.0"))


def _verdict(verdict: Verdict) -> list[str]:
    bullets = {"initial_indent": "  - ", "subsequent_indent": "    "}
    reasons = [textwrap.fill(reason, WIDTH, **bullets) for reason in verdict.reasons]  # type: ignore[arg-type]
    return [f"verdict: {verdict.verdict}", *reasons]


# Where a run keeps its results, and the next command looks for them.
PLACES = ("RIGHTCALL_HOME", "RIGHTCALL_MIRROR", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
QUESTION = "[{'messages': [{'role': 'user', 'content': 'What is the weather in Rome?'}], 'tools': []}]"


def closing_text(
    store: Store,
    recipe: Recipe,
    scores: Mapping[str, ArtifactRef],
    *,
    verdict: ArtifactRef,
    report: ArtifactRef,
    registration: Registration,
) -> str:
    """Scores, verdict, the report's path, and how to open Prefect, MLflow and the registered model."""
    commands = next_commands(store, recipe, registration)
    return closing_table(recipe, scores, verdict, store=store, report=report_path(store, report), commands=commands)


def next_commands(store: Store, recipe: Recipe, registration: Registration) -> dict[str, str]:
    """What it opens: what to type, from the folder that this process runs in."""
    python, settings = shlex.quote(_from_here(sys.executable)), _settings(store)
    alias = f"models:/{registration.name}@{registration.alias}"
    ask = f"import flows, mlflow; model = mlflow.pyfunc.load_model('{alias}'); print(model.predict({QUESTION}))"
    found = {
        "Prefect and MLflow": f"{settings}{python} -m tasks.operations.ui",
        f"{registration.alias}, version {registration.version}": f'{settings}{python} -c "{ask}"',
    }
    if registration.pending_approval:
        approve = f"-m flows.publish --set register.name={recipe.register_.name} --approve {registration.version}"
        found["approve it"] = f"{settings}{python} {approve}"
    return found


def _from_here(path: str) -> str:
    """.venv/bin/python where that is short, and right; an address in S3 is none of this folder's."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path


def _settings(store: Store) -> str:
    """What this process was told and the next has to be told as well; away from the checkout also where the code is."""
    own = {name: value for name in PLACES if (value := os.environ.get(name)) and value != DEFAULTS.get(name)}
    named = [f"{name}={_shown(name, value)} " for name, value in own.items()]
    if store.address != DEFAULTS["RIGHTCALL_STORE"]:
        named.append(f"RIGHTCALL_STORE={shlex.quote(_from_here(store.address))} ")
    if Path.cwd() != CHECKOUT:
        named.append(f"PYTHONPATH={shlex.quote(os.pathsep.join([str(CHECKOUT), str(CHECKOUT / 'training_image')]))} ")
    return "".join(named)


def _shown(name: str, value: str) -> str:
    """The value; where it may hold a password the shell's variable instead, which says so when it is not set."""
    parts = urlsplit(value)
    return f'"${{{name}:?}}"' if "@" in parts.netloc or parts.query else shlex.quote(value)
