"""Who holds a lease: what is written into it, and whether that process still runs on this machine."""

from __future__ import annotations

import json
import os
import socket
from functools import cache
from pathlib import Path
from typing import Any


def new_lease(holder: str) -> dict[str, Any]:
    return {"holder": holder, "host": socket.gethostname(), **_this_process()}


def parse_lease(content: bytes | None) -> dict[str, Any] | None:
    """None also for content that is no lease: nobody renews it."""
    try:
        lease = json.loads(content or b"")
    except ValueError:
        return None
    return lease if isinstance(lease, dict) and {"holder", "machine", "pid", "started"} <= lease.keys() else None


def is_alive_here(lease: dict[str, Any]) -> bool | None:
    """Whether the holder still runs; None = it is a process of another machine, of which nothing is known here."""
    if lease["machine"] != _this_process()["machine"]:
        return None
    return _start_time(lease["pid"]) == lease["started"]


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _start_time(os.getpid())}


@cache
def _machine() -> str:
    """Boot and pid namespace: within them a pid means one process, and containers on one store differ in the second."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no /proc (macOS): only expiry frees a lease
        return f"{socket.gethostname()} {os.getpid()}"


def _start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of a living process; None for a dead one or a zombie.

    psutil's create_time counts from the system's clock: after a correction by NTP a living holder would seem dead.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
