"""The error that ends a job, reported once: by the process that failed, not by those that lost their connection to it.

When one of many processes fails, the others fail a moment later, because a connection broke. Each leaves a report
(output/failures/rank-<n>.json); entry.py makes of them the one failure file of its host. The first process to fail also
tells its reason through the store where the processes met, so that other hosts can name it.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rightcall.job.folders import Folders

KEY, READ = "rightcall/failure", "rightcall/failure-read-by"
WAIT = datetime.timedelta(seconds=5)
FRAMES = 6
LOST = (
    "connection closed by peer", "connection reset by peer", "connection refused", "broken pipe", "socket timeout",
    "timed out waiting", "nccl communicator was aborted", "ncclremoteerror", "remote process exited",
    "failed to recv", "failed to send", "gloo",
)  # fmt: skip
KILLED = (
    "BackendError: a training process was killed without a word, usually because its machine ran out of memory: "
    "lower the batch size or max_length; a rerun resumes from the last checkpoint"
)


def text_of(err: BaseException, environ: Mapping[str, str]) -> str:
    """The error first (SageMaker shows 1,024 characters), then the innermost frames."""
    frames = "".join(traceback.format_tb(err.__traceback__)[-FRAMES:])
    rank, size = environ.get("RANK"), environ.get("WORLD_SIZE")
    where = f" [rank {rank} of {size}, {environ.get('RIGHTCALL_HOST', 'this host')}]" if rank else ""
    return f"{type(err).__name__}: {err}{where}\n\n{frames}"


def lost_neighbour(err: BaseException) -> bool:
    """Whether the error says that another process went away, and so is not the reason itself."""
    names = {kind.__name__ for kind in type(err).__mro__}
    if names & {"DistNetworkError", "DistStoreError", "DistBackendError"}:
        return True
    return "RuntimeError" in names and any(sign in str(err).lower() for sign in LOST)


def begin(where: Folders) -> None:
    """Leaves a mark, so that a process which ends without a report is known to have been killed."""
    path = _folder(where) / f"rank-{os.environ['RANK']}.started"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def report(err: BaseException, where: Folders) -> None:
    """Writes this process's report, or the failure file itself where it is the only process."""
    text = text_of(err, os.environ)
    rank = os.environ.get("RANK")
    if rank is None:
        where.failure.parent.mkdir(parents=True, exist_ok=True)
        where.failure.write_text(text, encoding="utf-8")
        return
    lost = lost_neighbour(err)
    reason = _exchange(None if lost else text)
    content = {"text": reason or text, "lost": lost and reason is None, "time": time.time()}
    path = _folder(where) / f"rank-{rank}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(content), encoding="utf-8")
    os.replace(temporary, path)


def collect(where: Folders) -> str | None:
    """The reason among the reports of this host's processes; None when none of them has begun."""
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in _folder(where).glob("rank-*.json")]
    reports.sort(key=lambda found: (found["lost"], found["time"]))
    if not reports:
        return KILLED if any(_folder(where).glob("rank-*.started")) else None
    first: dict[str, Any] = reports[0]
    return f"{KILLED}\n\n{first['text']}" if first["lost"] else str(first["text"])


def clear(where: Folders) -> None:
    for path in _folder(where).glob("rank-*"):
        path.unlink()


def _folder(where: Folders) -> Path:
    return where.failure.with_name("failures")


def _exchange(text: str | None) -> str | None:
    """Tells the others the reason, or asks them for it (text None); returns it, None when nobody gave one.

    Rank 0 keeps the store. It leaves its connections first, so that the others wake up and come to read.
    """
    torch = sys.modules.get("torch")
    if torch is None or not torch.distributed.is_available() or not torch.distributed.is_initialized():
        return text
    store = torch.distributed.distributed_c10d._get_default_store()
    first, others = torch.distributed.get_rank() == 0, torch.distributed.get_world_size() - 1
    gloo = torch.distributed.get_backend() == "gloo"
    try:
        if text is not None:
            store.set(KEY, text)
        if gloo:
            torch.distributed.destroy_process_group()
        if text is None:
            store.wait([KEY], WAIT)
            text = bytes(store.get(KEY)).decode(errors="replace")
    except RuntimeError:  # nobody said anything (killed), or the host that keeps the store is gone
        sys.stderr.write("no other process has said why it ended\n")
    try:
        store.add(READ, 1)
        deadline = time.monotonic() + WAIT.total_seconds()
        while first and gloo and store.add(READ, 0) <= others and time.monotonic() < deadline:
            time.sleep(0.05)
    except RuntimeError:
        sys.stderr.write("the other processes have ended already\n")
    return text
