"""Locks that their holders renew, so that no run waits for a dead one: Prefect's LockManager over leases.

``Leases`` is what every kind has in common; ``FileLeases`` keeps them as files, tasks/store/s3_leases.py in S3.

Prefect's own FileSystemLockManager never expires: after kill -9 every later run hangs. A lease here is free again
- at once, when its holder was a process of this machine (boot id and pid namespace) that no longer runs (pid and start
  time, so that a reused pid is no trap);
- ``EXPIRY_SECONDS`` after its last renewal, when its holder runs on another machine.
No lease is taken from a process that runs on this machine: it may be suspended, or the machine may have slept.
"""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from typing import Any

import anyio
from prefect.locking.protocol import LockManager

from rightcall.errors import StoreError
from tasks.machine.run_logger import run_logger

EXPIRY_SECONDS = 60.0
POLL_SECONDS = 0.1

logger = logging.getLogger(__name__)


class Leases(LockManager):
    """Waiting and renewing; how a lease is read and written is the subclass's."""

    expiry_seconds: float
    poll_seconds: float = POLL_SECONDS

    def __deepcopy__(self, memo: dict[int, Any]) -> Leases:
        return self  # Prefect copies cache policies; two copies must not renew in two threads

    @abstractmethod
    def place(self, key: str) -> str:
        """Where the lease lies: the same for every manager of the same leases."""

    @abstractmethod
    def _try_acquire(self, key: str, holder: str) -> bool:
        """Takes the lease if it is free or ours already."""

    @abstractmethod
    def _give_back(self, key: str, holder: str) -> dict[str, Any] | None:
        """Deletes the lease if it is ours; otherwise leaves it, and gives what it says ({} = there is none)."""

    @abstractmethod
    def renew(self, key: str, holder: str) -> bool:
        """False when the lease is no longer ours."""

    @abstractmethod
    def _lease(self, key: str) -> dict[str, Any] | None:
        """What is written there, valid or not."""

    @abstractmethod
    def _holder(self, key: str) -> str | None:
        """Who holds a valid lease."""

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
            time.sleep(self.poll_seconds)
        _renewals.start(self, key, holder)
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        give_up = None if acquire_timeout is None else time.monotonic() + acquire_timeout
        while not self._try_acquire(key, holder):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            await anyio.sleep(self.poll_seconds)
        _renewals.start(self, key, holder)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """Gives the lease back; one that was lost meanwhile is left alone (the work is done, raising would undo it)."""
        _renewals.stop(self.place(key), holder)
        try:
            self.give_back(key, holder)
        except (OSError, StoreError) as err:
            logger.warning("the lease %r could not be given back yet: %s", key, err)
            _renewals.start(self, key, holder, done=True)

    def give_back(self, key: str, holder: str) -> None:
        if (lease := self._give_back(key, holder)) is not None:
            logger.warning("the lease %r of %r had been taken over; %r holds it now", key, holder, lease or None)

    def is_locked(self, key: str) -> bool:
        return self._holder(key) is not None

    def is_lock_holder(self, key: str, holder: str) -> bool:
        return self._holder(key) == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            time.sleep(self.poll_seconds)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        give_up = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if give_up is not None and time.monotonic() >= give_up:
                return False
            await anyio.sleep(self.poll_seconds)
        return True

    def _say_who_holds(self, key: str) -> None:
        """A run may wait for hours: its log says for which process."""
        if (lease := self._lease(key)) is not None:
            holder = f"process {lease['pid']} on {lease.get('host')!r}"
            run_logger(__name__).info("%s is being made by %s; this run waits for its result", key, holder)


class _Renewals:
    """Renews all held leases in one daemon thread, which ends when nothing is held.

    A lease is known by its place, because Prefect makes several managers for the same leases.
    """

    def __init__(self) -> None:
        # (place, holder) → manager, key, and whether the work is done: then the lease is given back, not renewed
        self._held: dict[tuple[str, str], tuple[Leases, str, bool]] = {}
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self, manager: Leases, key: str, holder: str, *, done: bool = False) -> None:
        with self._change:
            self._held[(manager.place(key), holder)] = (manager, key, done)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(
                    target=self._renew_until_nothing_is_held, name="lease-renewal", daemon=True
                )
                self._thread.start()
            self._change.notify()

    def stop(self, place: str, holder: str) -> None:
        with self._change:
            self._held.pop((place, holder), None)
            self._change.notify()

    def _renew_until_nothing_is_held(self) -> None:
        while True:
            with self._change:
                if not self._held:
                    self._thread = None
                    return
                held = dict(self._held)
                self._change.wait(min(manager.expiry_seconds for manager, _, _ in held.values()) / 4)
                held = {lease: found for lease, found in held.items() if lease in self._held}
            for (place, holder), (manager, key, done) in held.items():
                try:
                    if done:
                        manager.give_back(key, holder)
                        self.stop(place, holder)
                    elif not manager.renew(key, holder):
                        logger.warning("the lease %r was lost; another run works on the same stage", key)
                        self.stop(place, holder)
                except (OSError, StoreError) as err:  # a file system or S3 that hiccups: the next time is soon enough
                    logger.warning("the lease %r could not be renewed yet: %s", key, err)


_renewals = _Renewals()
