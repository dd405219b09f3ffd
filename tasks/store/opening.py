"""Which store an address means."""

from __future__ import annotations

import os
from pathlib import Path

from tasks.machine.full_disk import require_writable
from tasks.store.folder_store import Store


def open_store(root: str | Path | None = None) -> Store:
    """The store in a folder or at s3://bucket/prefix; None = where RIGHTCALL_STORE says.

    A flow opens it once and hands it on: nothing below reads the variable.

    Raises:
        StoreError: the address is none, or a folder that cannot be made or written.
    """
    place = str(root or os.environ["RIGHTCALL_STORE"])
    if place.startswith("s3://"):
        from tasks.store.s3_store import S3Store  # a run on a folder does not need it

        return S3Store.at(place)
    folder = Path(place).expanduser().absolute()
    require_writable(folder, "name another one with --store or RIGHTCALL_STORE")
    return Store(folder)
