"""The closing table with the commands that fit this machine: what a person types next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from rightcall.recipe import Recipe
from tasks.closing_table import closing_table
from tasks.environment import CHECKOUT, DEFAULTS
from tasks.registry import Registration
from tasks.report import report_path
from tasks.store import ArtifactRef, open_store

# Where a run keeps its results, and the next command looks for them.
PLACES = ("RIGHTCALL_HOME", "RIGHTCALL_STORE", "RIGHTCALL_MIRROR", "PREFECT_HOME", "MLFLOW_TRACKING_URI")
QUESTION = "[{'messages': [{'role': 'user', 'content': 'What is the weather in Rome?'}], 'tools': []}]"


def closing_text(
    recipe: Recipe,
    scores: Mapping[str, ArtifactRef],
    verdict: ArtifactRef,
    report: ArtifactRef,
    registration: Registration,
) -> str:
    """Scores, verdict, the report's path, and how to open Prefect, MLflow and the registered model."""
    store = open_store()
    commands = next_commands(recipe, registration)
    return closing_table(recipe, scores, verdict, store=store, report=report_path(store, report), commands=commands)


def next_commands(recipe: Recipe, registration: Registration) -> dict[str, str]:
    """What it opens: what to type, from the folder that this process runs in."""
    python = shlex.quote(_python())
    alias = f"models:/{registration.name}@{registration.alias}"
    ask = f"import flows, mlflow; model = mlflow.pyfunc.load_model('{alias}'); print(model.predict({QUESTION}))"
    found = {
        "Prefect and MLflow": f"{_settings()}{python} -m flows.ui",
        f"{registration.alias}, version {registration.version}": f'{_settings()}{python} -c "{ask}"',
    }
    if registration.pending_approval:
        approve = f"-m flows.publish --set register.name={recipe.register_.name} --approve {registration.version}"
        found["approve it"] = f"{_settings()}{python} {approve}"
    return found


def _python() -> str:
    """.venv/bin/python where that is short, and right."""
    executable = Path(sys.executable)
    return str(executable.relative_to(Path.cwd())) if executable.is_relative_to(Path.cwd()) else str(executable)


def _settings() -> str:
    """What this process was told and the next has to be told as well; away from the checkout also where the code is."""
    own = {name: value for name in PLACES if (value := os.environ.get(name)) and value != DEFAULTS.get(name)}
    named = [f"{name}={_shown(name, value)} " for name, value in own.items()]
    if Path.cwd() != CHECKOUT:
        named.append(f"PYTHONPATH={shlex.quote(os.pathsep.join([str(CHECKOUT), str(CHECKOUT / 'training_image')]))} ")
    return "".join(named)


def _shown(name: str, value: str) -> str:
    """The value; where it may hold a password the shell's variable instead, which says so when it is not set."""
    parts = urlsplit(value)
    return f'"${{{name}:?}}"' if "@" in parts.netloc or parts.query else shlex.quote(value)
