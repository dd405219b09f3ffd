"""The container's first process: starts the training processes, turns SIGTERM into a checkpoint, explains every death.

    one process     python train.py
    several         python -m torch.distributed.run … train.py, the same on every host (rightcall/job/launch.py)

On every host of a job it runs by itself, with that host's resourceconfig.json. The hosts meet at the first one's name,
which must resolve, as algo-1 does on SageMaker; elsewhere RIGHTCALL_MASTER_ADDR (and RIGHTCALL_MASTER_PORT) say where.
A stop asked of one host stops all: the processes tell each other after every step.

RIGHTCALL_SECRET_<NAME>, the ARN of a secret, is resolved here; the values go to the training processes only.

Exit codes: 0 the model is written · 1 failed, `output/failure` says why · 143 stopped on request after a checkpoint.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # this folder travels alone, uninstalled

from rightcall.errors import BackendError
from rightcall.job import failures, folders, launch
from rightcall.job.launch import Launch
from rightcall.job.parent_death import die_with_parent

HERE = Path(__file__).resolve().parent
REAP_SECONDS = 0.1
GRACE_SECONDS = 110  # SageMaker kills a container 120 seconds after SIGTERM


def description(where: folders.Folders) -> dict[str, Any]:
    """job.json; empty where it cannot be read, which the training process then explains."""
    try:
        content = json.loads((where.channel("job") / "job.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def secrets() -> dict[str, str]:
    """Values of the secrets that the job names.

    Raises:
        BackendError: a secret cannot be fetched.
    """
    from secrets_from_aws import fetch_secrets

    return fetch_secrets(os.environ)


def wait_for(child: int) -> int:
    """Reaps every process that ends (as PID 1 must) until `child` does; minus the signal, or its exit status.

    It never blocks in waitpid: a SIGTERM that comes just before such a call would be handled only when a child ends.
    """
    while True:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == child:
            return os.waitstatus_to_exitcode(status)
        if not pid:
            time.sleep(REAP_SECONDS)


def write_failure(where: folders.Folders, text: str) -> None:
    where.failure.parent.mkdir(parents=True, exist_ok=True)
    where.failure.write_text(text + "\n", encoding="utf-8")
    sys.stderr.write(text + "\n")


def explain(status: int, *, torchrun: bool = False) -> str:
    if status >= 0 and torchrun:
        return (
            f"BackendError: torchrun ended with status {status} before a training process began; see its log: "
            "every host must reach the first one by its name"
        )
    if status >= 0:
        return f"BackendError: the training process ended with status {status} and left no reason; see its log"
    name = signal.Signals(-status).name if -status in signal.valid_signals() else "unknown"
    hint = "see its log"
    if status == -signal.SIGKILL:
        hint = "usually the machine ran out of memory: lower the batch size or max_length"
    what = f"the training process was killed by signal {-status} ({name})"
    return f"BackendError: {what}; {hint}; a rerun resumes from the last checkpoint"


def clean(where: folders.Folders) -> None:
    """Deletes what an earlier attempt left."""
    for stale in (where.failure, where.stop_flag, where.stop_flag.with_name(launch.STOPPED_FILE)):
        stale.unlink(missing_ok=True)
    failures.clear(where)
    where.stop_flag.parent.mkdir(parents=True, exist_ok=True)


def prepare(where: folders.Folders) -> Launch | None:
    """What to start on this host, None where there is nothing to do.

    Raises:
        BackendError: the hosts or processes do not fit, or a secret cannot be fetched.
    """
    resources = folders.resource_config(where)
    start = launch.plan(resources, description(where), launch.gpu_count(os.environ), os.environ, HERE / "train.py")
    if start:
        start.environment.update(secrets(), RIGHTCALL_HOST=str(resources["current_host"]))
    return start


def main() -> int:
    where = folders.folders()
    clean(where)
    child = 0
    asked_to_stop = False
    start: Launch | None = None

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal asked_to_stop
        asked_to_stop = True
        where.stop_flag.touch()
        signal.alarm(GRACE_SECONDS)
        if child and start and not start.torchrun:
            os.kill(child, signal.SIGUSR1)  # ends it, or once it has something to save: rightcall/job/stopping.py

    def too_slow(number: int, frame: FrameType | None) -> None:
        if child:
            os.kill(child, signal.SIGKILL)

    signal.signal(signal.SIGALRM, too_slow)
    signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # a child inherits that it is ignored
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        start = prepare(where)
    except BackendError as err:
        write_failure(where, f"BackendError: {err}")
        return 1
    if start is None:
        sys.stdout.write("nothing to do on this host: the first one works alone in this stage\n")
        return 0
    # A session of its own: the terminal's Ctrl-C and a killpg reach this process, which then stops the child in order.
    child = subprocess.Popen(
        start.argv, env=os.environ | start.environment, start_new_session=True,
        preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509 (no threads)
    ).pid  # fmt: skip
    if asked_to_stop and not start.torchrun:  # between the handler's installation and the child's start
        os.kill(child, signal.SIGUSR1)
    return outcome(where, wait_for(child), asked_to_stop, torchrun=start.torchrun)


def outcome(where: folders.Folders, status: int, asked_to_stop: bool, *, torchrun: bool) -> int:
    """The exit code, and the failure file where there must be one."""
    if status == 0:
        return folders.STOPPED if where.stop_flag.with_name(launch.STOPPED_FILE).exists() else 0
    if asked_to_stop and status in (folders.STOPPED, -signal.SIGKILL, -signal.SIGUSR1):
        return folders.STOPPED
    if not where.failure.exists():
        write_failure(where, failures.collect(where) or explain(status, torchrun=torchrun))
    return 1


if __name__ == "__main__":
    sys.exit(main())
