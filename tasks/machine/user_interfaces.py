"""Prefect's server and MLflow's as child processes, on the databases that the runs left."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rightcall.errors import BackendError
from rightcall.job.parent_death import die_with_parent
from tasks.machine.child_processes import end_group

STOP_SECONDS = 10.0


@contextmanager
def user_interfaces(prefect_port: int, mlflow_port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Both servers, until the block ends; they listen on this machine only."""
    # On another port than 4200 the page would ask the wrong address for its data.
    # The address may hold a password, which would stand in the list of processes and in the error below.
    environment = os.environ | {
        "PREFECT_SERVER_UI_API_URL": "/api",
        "MLFLOW_BACKEND_STORE_URI": os.environ["MLFLOW_TRACKING_URI"],
    }
    commands = [
        [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(prefect_port)],
        [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(mlflow_port)],
    ]  # fmt: skip
    children: list[subprocess.Popen[bytes]] = []
    try:
        for command in commands:
            die = die_with_parent(parent=os.getpid())
            child = subprocess.Popen(command, env=environment, start_new_session=True, preexec_fn=die)  # noqa: PLW1509
            children.append(child)
        yield children
    finally:
        for child in children:
            end_group(child, STOP_SECONDS)


def wait_for_one_to_end(children: list[subprocess.Popen[bytes]]) -> None:
    """Returns on Ctrl-C and on SIGTERM.

    Raises:
        BackendError: a server ended by itself, as it does when its port is taken.
    """
    try:
        while all(child.poll() is None for child in children):
            for child in children:
                try:
                    child.wait(1.0)
                except subprocess.TimeoutExpired:
                    continue
    except KeyboardInterrupt:
        return
    ended = next(child for child in children if child.returncode is not None)
    raise BackendError(
        f"a server ended with exit code {ended.returncode}; its lines above say why. Usually its port is taken: choose "
        f"others with --prefect-port and --mlflow-port. The command was {ended.args!r}"
    )
