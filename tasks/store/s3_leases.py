"""Leases as objects in S3, taken, renewed and given back by conditional writes: of two writers exactly one succeeds.

Expiry is measured on the service's clock (an answer's Date against the object's Last-Modified).
"""

from __future__ import annotations

import json
import urllib.parse
import uuid
from typing import Any

from tasks.aws import s3
from tasks.aws.s3 import Address, Object
from tasks.store.lease_holders import is_alive_here, new_lease, parse_lease
from tasks.store.leases import Leases

EXPIRY_SECONDS = 180.0  # longer than a network that goes away for a minute
POLL_SECONDS = 2.0  # 0.07 cents of GETs for an hour of waiting


class S3Leases(Leases):
    def __init__(
        self, address: Address, expiry_seconds: float = EXPIRY_SECONDS, poll_seconds: float = POLL_SECONDS
    ) -> None:
        self.address = address
        self.expiry_seconds = expiry_seconds
        self.poll_seconds = poll_seconds

    def place(self, key: str) -> str:
        return f"{self.address}/{self._name(key)}"

    def _try_acquire(self, key: str, holder: str) -> bool:
        there = s3.get(self.address, self._name(key))
        if there is None:
            return self._write(key, holder, new=True) or self._holder(key) == holder
        lease = parse_lease(there.body)
        if lease is not None and lease["holder"] != holder and self._is_valid(there, lease):
            return False
        return self._write(key, holder, replaces=there.etag) or self._holder(key) == holder

    def _give_back(self, key: str, holder: str) -> dict[str, Any] | None:
        """Tried twice: our last renewal may just be under way."""
        for _ in range(2):
            there = s3.get(self.address, self._name(key))
            lease = parse_lease(there.body) if there is not None else None
            if there is None or lease is None or lease["holder"] != holder:
                return lease or {}
            if s3.delete(self.address, self._name(key), only=there.etag):
                return None
        return self._lease(key)

    def renew(self, key: str, holder: str) -> bool:
        there = s3.get(self.address, self._name(key))
        lease = parse_lease(there.body) if there is not None else None
        if there is None or lease is None or lease["holder"] != holder:
            return False
        return self._write(key, holder, replaces=there.etag) or self._holder(key) == holder

    def _lease(self, key: str) -> dict[str, Any] | None:
        there = s3.get(self.address, self._name(key))
        return parse_lease(there.body) if there is not None else None

    def _holder(self, key: str) -> str | None:
        there = s3.get(self.address, self._name(key))
        lease = parse_lease(there.body) if there is not None else None
        return lease["holder"] if there is not None and lease is not None and self._is_valid(there, lease) else None

    def _is_valid(self, there: Object, lease: dict[str, Any]) -> bool:
        if (alive := is_alive_here(lease)) is not None:
            return alive
        return (there.answered - there.modified).total_seconds() < self.expiry_seconds

    def _write(self, key: str, holder: str, *, replaces: str | None = None, new: bool = False) -> bool:
        """False also when the answer to a write that succeeded was lost and botocore's retry met our own lease."""
        # Equal bytes would have an equal ETag: whoever saw the lease before its renewal could still replace it.
        content = {**new_lease(holder), "written": uuid.uuid4().hex}
        body = json.dumps(content).encode()
        return s3.put(self.address, self._name(key), body, replaces=replaces, new=new) is not None

    def _name(self, key: str) -> str:
        return f".leases/{urllib.parse.quote(key, safe='')}.lease"
