"""Child processes that leave no orphans: their whole family is ended with them."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress

import psutil


def end_group(child: subprocess.Popen[bytes], patience_seconds: float) -> None:
    """Ends a child that leads its own session: SIGTERM to the leader alone, time for a checkpoint, SIGKILL to all.

    Only the leader is asked, as in a SageMaker container: its workers would die of a SIGTERM of their own.
    """
    try:
        if child.poll() is None:
            child.terminate()
            with suppress(subprocess.TimeoutExpired):
                child.wait(patience_seconds)
    finally:  # also when a second Ctrl-C ends the patience
        if child.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def end_marked(root: str, timeout_seconds: float = 10) -> None:
    """Kills whatever still runs with ``SM_ML_ROOT=root``: workers whose leader was killed."""
    deadline = time.monotonic() + timeout_seconds
    while (pids := marked(root)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(root: str) -> list[int]:
    """Living processes, other than this one, that were started for the job folder ``root``."""
    living = psutil.process_iter(["environ"])  # None: another user's
    return [
        each.pid
        for each in living
        if (each.info["environ"] or {}).get("SM_ML_ROOT") == root and each.pid != os.getpid()
    ]
