"""Child processes that leave no orphans: they die with their parent, and their whole family is ended with them."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PR_SET_PDEATHSIG = 1
# Loaded here and not in the child: between fork and exec nothing may take a lock that another thread held.
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


def die_with_parent(parent: int) -> Callable[[], None]:
    """``preexec_fn``: SIGKILL for the child when the parent *thread* that started it ends, so wait in that thread."""

    def ask_kernel() -> None:
        if _libc is not None:
            _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it died before we asked
                os.kill(os.getpid(), signal.SIGKILL)

    return ask_kernel


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
    """Kills whatever still runs with ``SM_ML_ROOT=root``: workers whose leader was killed. Without /proc: nothing."""
    deadline = time.monotonic() + timeout_seconds
    while (pids := marked(root)) and time.monotonic() < deadline:
        for pid in pids:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def marked(root: str) -> list[int]:
    """Living processes, other than this one, that were started for the job folder ``root``."""
    mark = f"SM_ML_ROOT={root}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it ended meanwhile, or is another user's
            if mark in (folder / "environ").read_bytes().split(b"\0") and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found
