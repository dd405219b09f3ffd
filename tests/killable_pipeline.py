"""Runs of the pipeline, one after another, each in a fork of one process that has imported everything.

Reads a line of JSON each, {"what": "pipeline", "recipe": …, "log": …, "environment": {…}}, and answers with two lines: the
run's pid when it has started, and its exit code when it has ended (minus the signal that ended it).
"""

from __future__ import annotations

import json
import os
import sys
import threading
from typing import Any


def main() -> None:
    import great_expectations  # noqa: F401  seconds each, and imported where they are used
    import mlflow  # noqa: F401

    import flows.pipeline  # noqa: F401

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
    from tasks.tracking_connection import connect

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
