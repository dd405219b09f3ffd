"""Leases as files of one folder."""

from __future__ import annotations

import fcntl
import json
import os
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tasks.machine.full_disk import disk_errors
from tasks.store.lease_holders import is_alive_here, new_lease, parse_lease
from tasks.store.leases import EXPIRY_SECONDS, Leases


class FileLeases(Leases):
    """Leases as files of one folder, under one flock."""

    def __init__(self, folder: Path, expiry_seconds: float = EXPIRY_SECONDS) -> None:
        self.folder = folder
        self.expiry_seconds = expiry_seconds

    def place(self, key: str) -> str:
        return str(self._path(key))

    def _give_back(self, key: str, holder: str) -> dict[str, Any] | None:
        path = self._path(key)
        with self._guard():
            lease = parse_lease(_read(path))
            if lease is None or lease["holder"] != holder:
                return lease or {}
            path.unlink(missing_ok=True)
        return None

    def _try_acquire(self, key: str, holder: str) -> bool:
        path = self._path(key)
        with self._guard():
            lease = parse_lease(_read(path))
            if lease is not None and lease["holder"] != holder and self._is_valid(path, lease):
                return False
            content = new_lease(holder)
            temporary = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}")
            temporary.write_text(json.dumps(content), encoding="utf-8")
            os.replace(temporary, path)
        return True

    def _lease(self, key: str) -> dict[str, Any] | None:
        return parse_lease(_read(self._path(key)))

    def _holder(self, key: str) -> str | None:
        path = self._path(key)
        if not path.exists():
            return None
        with self._guard():
            lease = parse_lease(_read(path))
            return lease["holder"] if lease is not None and self._is_valid(path, lease) else None

    def _is_valid(self, path: Path, lease: dict[str, Any]) -> bool:
        if (alive := is_alive_here(lease)) is not None:
            return alive
        # Both times come from the file system's clock, so that two machines' clocks need not agree.
        guard = self.folder / ".guard"
        os.utime(guard)
        return guard.stat().st_mtime - path.stat().st_mtime < self.expiry_seconds

    def renew(self, key: str, holder: str) -> bool:
        path = self._path(key)
        with self._guard():
            lease = parse_lease(_read(path))
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


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
