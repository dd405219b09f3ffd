"""A lock that its holder renews, so that nobody waits for the dead: Prefect's LockManager over lease files.

Prefect's own FileSystemLockManager never expires: after kill -9 every later run hangs. A lease here is free again
- at once, when its holder was a process of this machine (boot id and pid namespace) that no longer runs (pid and start
  time, so that a reused pid is no trap);
- ``EXPIRY_SECONDS`` after its last renewal, when its holder runs on another machine.
A holder of this machine that runs is never robbed: it may be suspended, or the machine may have slept.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import socket
import threading
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import anyio
from prefect.exceptions import MissingContextError
from prefect.locking.protocol import LockManager
from prefect.logging import get_run_logger

from tasks.store import disk_errors

EXPIRY_SECONDS = 60.0
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


def run_logger(otherwise: str) -> logging.Logger | logging.LoggerAdapter:
    """Logger of the current Prefect run; outside of one, the logger named ``otherwise``."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(otherwise)


class LeaseLockManager(LockManager):
    """State: the leases this process holds, and the thread that renews them."""

    def __init__(self, folder: Path, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self.folder = folder
        self.expiry_seconds = expiry_seconds

    def __deepcopy__(self, memo: dict[int, Any]) -> LeaseLockManager:
        return self  # Prefect copies cache policies; two copies must not renew in two threads

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        give_up = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        said = False
        while not self._try_acquire(key, holder):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            if not said:
                self._say_who_holds(key)
                said = True
            time.sleep(POLL_SECONDS)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        give_up = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        while not self._try_acquire(key, holder):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            await anyio.sleep(POLL_SECONDS)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Gives the lease back; one that was lost meanwhile is left alone (the work is done, raising would undo it)."""
        path = self._path(key)
        _renewals.stop(path, holder)
        with self._guard():
            lease = _read(path)
            if lease is not None and lease["holder"] == holder:
                path.unlink(missing_ok=True)
            else:
                logger.warning("the lease %r of %r had been taken over; %r holds it now", key, holder, lease)

    def is_locked(self, key: str) -> bool:
        return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        return self._holder(key) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            await anyio.sleep(POLL_SECONDS)
        return True

    def _try_acquire(self, key: str, holder: str) -> bool:
        path = self._path(key)
        with self._guard():
            lease = _read(path)
            if lease is not None and lease["holder"] != holder and self._is_valid(path, lease):
                return False
            content = {"holder": holder, "host": socket.gethostname(), **_this_process()}
            temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, path)
        _renewals.start(self, path, holder)
        return True

    def _say_who_holds(self, key: str) -> None:
        """A run that waits for hours shall say for whom."""
        if (lease := _read(self._path(key))) is not None:
            holder = f"process {lease['pid']} on {lease.get('host')!r}"
            run_logger("tasks.leases").info("%s is being made by %s; this run waits for its result", key, holder)

    def _holder(self, key: str) -> str | None:
        path = self._path(key)
        if not path.exists():
            return None
        with self._guard():
            lease = _read(path)
            return lease["holder"] if lease is not None and self._is_valid(path, lease) else None

    def _is_valid(self, path: Path, lease: dict[str, Any]) -> bool:
        here = _this_process()
        if lease["machine"] == here["machine"]:
            return _start_time(lease["pid"]) == lease["started"]
        # Both times come from the file system's clock, so that two machines' clocks need not agree.
        guard = self.folder / ".guard"
        os.utime(guard)
        return guard.stat().st_mtime - path.stat().st_mtime < self.expiry_seconds

    def renew(self, path: Path, holder: str) -> bool:
        """False when the lease is no longer ours."""
        with self._guard():
            lease = _read(path)
            if lease is None or lease["holder"] != holder:
                return False
            os.utime(path)
            return True

    @contextmanager
    def _guard(self) -> Iterator[None]:
        """Reading a lease and replacing it is one step for everybody; the kernel lets go of the flock of the killed."""
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.folder / ".guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with disk_errors(self.folder):
                yield
        finally:
            os.close(handle)

    def _path(self, key: str) -> Path:
        return self.folder / f"{urllib.parse.quote(key, safe='')}.lease"


class _Renewals:
    """One daemon thread a process; it ends when nothing is held."""

    def __init__(self) -> None:
        self._held: dict[tuple[Path, str], LeaseLockManager] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self, manager: LeaseLockManager, path: Path, holder: str) -> None:
        with self._change:
            self._held[(path, holder)] = manager
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._renew_until_nothing_is_held, name="lease-renewal", daemon=True
                )
                self._thread.start()
            self._change.notify()

    def stop(self, path: Path, holder: str) -> None:
        with self._change:
            self._held.pop((path, holder), None)
            self._change.notify()

    def _renew_until_nothing_is_held(self) -> None:
        while True:
            with self._change:
                if not self._held:
                    self._thread = None
                    return
                held = dict(self._held)
                self._change.wait(min(manager.expiry_seconds for manager in held.values()) / 4)
                held = {key: manager for key, manager in held.items() if key in self._held}
            for (path, holder), manager in held.items():
                with suppress(OSError):  # a network file system that hiccups; the next renewal is soon enough
                    if not manager.renew(path, holder):
                        logger.warning("the lease %r was lost; another run works on the same stage", path.name)
                        self.stop(path, holder)


_renewals = _Renewals()


def _read(path: Path) -> dict[str, Any] | None:
    """None also for a file that is no lease: whoever wrote it was not us, and nobody can renew it."""
    try:
        lease = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return lease if isinstance(lease, dict) and {"holder", "machine", "pid", "started"} <= lease.keys() else None


def _this_process() -> dict[str, Any]:
    return {"machine": _machine(), "pid": os.getpid(), "started": _start_time(os.getpid())}


@cache
def _machine() -> str:
    """Within one boot and one pid namespace a pid means the same; containers on one store differ in the latter."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # no /proc (macOS): only expiry frees a lease
        return f"{socket.gethostname()} {os.getpid()}"


def _start_time(pid: int) -> int | None:
    """Clock ticks between boot and the start of a living process; None for a dead one or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])
