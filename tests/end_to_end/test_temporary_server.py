"""Prefect's temporary server ends with the run that started it, however that run ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import is_running

ROOT = Path(__file__).parents[2]
CODE = """
import flows, signal, sys, time
from prefect.server.api.server import SubprocessASGIServer
from tasks.machine.prefect_server import start_temporary_server
start_temporary_server()
print(SubprocessASGIServer().server_process.pid, flush=True)
time.sleep(300)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_the_temporary_server_dies_with_a_killed_run_and_not_of_its_ctrl_c(tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT), str(ROOT / "training_image")])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": path, "RIGHTCALL_HOME": str(tmp_path)}
    with subprocess.Popen([sys.executable, "-c", CODE], env=environment, stdout=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            server = int(run.stdout.readline())
            assert os.getsid(server) == server, (
                "a Ctrl-C in the terminal would reach it before the run has noted its end"
            )
            assert is_running(server)
        finally:
            run.send_signal(signal.SIGKILL)
            run.wait()
    deadline = time.monotonic() + 20
    while is_running(server) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not is_running(server)
