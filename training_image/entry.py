"""The container's first process: starts train.py, turns SIGTERM into a checkpoint, and explains every death.

Exit codes: 0 the model is written · 1 failed, `output/failure` says why · 143 stopped on request after a checkpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this folder travels alone, uninstalled

from rightcall import paths
from rightcall.errors import BackendError

HERE = Path(__file__).resolve().parent
STOPPED = 128 + signal.SIGTERM
GRACE_SECONDS = 110  # SageMaker kills a container 120 seconds after SIGTERM
PR_SET_PDEATHSIG = 1


def command(resources: dict[str, object]) -> list[str]:
    """The command line of the training processes on this host.  Raises: BackendError for more than one host."""
    hosts = resources["hosts"]
    if not isinstance(hosts, list) or len(hosts) != 1:
        raise BackendError(f"this version trains on one host, resourceconfig.json names {hosts!r}; use one instance")
    return [sys.executable, "-u", str(HERE / "train.py")]


def die_with_parent() -> Callable[[], None]:
    """A preexec_fn: the kernel kills the child when this process ends in any way, kill -9 included."""
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: nothing may be imported after it
    parent = os.getpid()

    def bind() -> None:
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)

    return bind


def wait_for(child: int) -> int:
    """Reaps every process that ends (as PID 1 must) until `child` does; minus the signal, or its exit status."""
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            return os.waitstatus_to_exitcode(status)


def write_failure(where: paths.Folders, text: str) -> None:
    where.failure.parent.mkdir(parents=True, exist_ok=True)
    where.failure.write_text(text + "\n", encoding="utf-8")
    sys.stderr.write(text + "\n")


def explain(status: int) -> str:
    if status >= 0:
        return f"BackendError: the training process ended with status {status} and left no reason; see its log"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else "unknown"
    hint = "see its log"
    if status == -signal.SIGKILL:
        hint = "usually the machine ran out of memory: lower the batch size or max_length"
    what = f"the training process was killed by signal {-status} ({name})"
    return f"BackendError: {what}; {hint}; a rerun resumes from the last checkpoint"


def main() -> int:
    where = paths.folders()
    for stale in (where.failure, where.stop_flag):
        stale.unlink(missing_ok=True)
    where.stop_flag.parent.mkdir(parents=True, exist_ok=True)
    try:
        argv = command(paths.resource_config(where))
    except BackendError as err:
        write_failure(where, f"BackendError: {err}")
        return 1
    child = 0
    asked_to_stop = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        where.stop_flag.touch()
        signal.alarm(GRACE_SECONDS)
        if child:
            os.kill(child, signal.SIGUSR1)  # stages without checkpoints end at once, the others look at the flag

    def too_slow(number: int, frame: FrameType | None) -> None:
        if child:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, too_slow)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    # A session of its own: the terminal's Ctrl-C and a killpg reach this process, which then stops the child in order.
    child = subprocess.Popen(argv, preexec_fn=die_with_parent(), start_new_session=True).pid  # noqa: PLW1509 (no threads)
    if asked_to_stop:  # between the handler's installation and the child's start
        os.kill(child, signal.SIGUSR1)
    status = wait_for(child)
    if status == 0 or (asked_to_stop and status in (STOPPED, -signal.SIGKILL, -signal.SIGUSR1)):
        return 0 if status == 0 else STOPPED
    if not where.failure.exists():
        write_failure(where, explain(status))
    return 1


if __name__ == "__main__":
    sys.exit(main())
