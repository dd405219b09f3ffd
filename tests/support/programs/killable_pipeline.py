"""Runs of the pipeline, one after another, each in a fork of one process that has imported everything.

Reads a line of JSON each, {"what": "pipeline", "recipe": …, "log": …, "environment": {…}}, and answers with two lines: the
run's pid when it has started, and its exit code when it has ended (minus the signal that ended it).
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import threading
from typing import Any

# Seconds each, and otherwise imported by every run where they are used.
PRELOADED = (
    "great_expectations", "matplotlib.figure", "matplotlib.backends.backend_svg", "alembic.command", "mlflow.genai",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "flows.pipeline",
)  # fmt: skip


def preload() -> None:
    for name in PRELOADED:
        importlib.import_module(name)
    from tasks.runtime.keys import module_digest
    from tasks.stages.gate import decide_verdict
    from tasks.stages.ingest import ingest_snapshot
    from tasks.stages.mine import mine_pairs
    from tasks.stages.report import write_report
    from tasks.stages.score import score_model
    from tasks.stages.training import prepare_base, train_dpo, train_sft

    models = (prepare_base, train_sft, mine_pairs, train_dpo)
    for stage in (*models, ingest_snapshot, score_model, decide_verdict, write_report):
        module_digest(stage.modules)  # keeps what it has parsed


def main() -> None:
    preload()
    if threading.active_count() > 1:  # they would be missing in a fork
        sys.exit(f"the imports have started threads: {threading.enumerate()!r}")
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            run(json.loads(line))
            return
        answer(pid)
        answer(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def run(command: dict[str, Any]) -> None:
    """Ends as `python -m flows.pipeline` does."""
    from flows import command_line, pipeline
    from tasks.tracking.connection import connect

    log = os.open(command["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for number in (1, 2):
        os.dup2(log, number)
    os.environ.update(command["environment"])
    if command["what"] == "database":
        connect()
    else:
        command_line.run(pipeline.run_pipeline, recipe=command["recipe"], overrides=[], store=None)


if __name__ == "__main__":
    main()
