"""Prefect's temporary server for an ad hoc run, started so that it neither outlives the run nor dies of its Ctrl-C.

Prefect 3.8.8 starts it in the run's own process group and ends it at exit only: after a SIGTERM or kill -9 it stays, and a
Ctrl-C in the terminal stops it before the run's last state is written.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import prefect
from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import PREFECT_API_URL, get_current_settings

from rightcall.job.parent_death import die_with_parent

SETTINGS = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}


def start_temporary_server() -> None:
    """Starts it in this thread, which has to be the main one; nothing where PREFECT_API_URL names a server."""
    if PREFECT_API_URL.value():
        return
    SubprocessASGIServer._run_uvicorn_command = _start  # type: ignore[assignment, method-assign]
    SubprocessASGIServer().start()


def _start(server: SubprocessASGIServer) -> subprocess.Popen[bytes]:
    """Prefect's own command, in a session of its own, and bound to this process."""
    command = [
        sys.executable, "-m", "uvicorn", "--app-dir", str(Path(prefect.__file__).parents[1]),
        "--factory", "prefect.server.api.server:create_app", "--host", "127.0.0.1", "--port", str(server.port),
        "--log-level", "error", "--lifespan", "on",
    ]  # fmt: skip
    settings = get_current_settings().to_environment_variables(exclude_unset=True)
    die = die_with_parent(parent=os.getpid())
    return subprocess.Popen(command, env={**os.environ, **SETTINGS, **settings}, start_new_session=True, preexec_fn=die)  # noqa: PLW1509
