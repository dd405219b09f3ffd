"""Which store an address means."""

from __future__ import annotations

from pathlib import Path

from tasks.machine.environment import store_root
from tasks.store.folder_store import Store


def open_store(root: str | Path | None = None) -> Store:
    """The store in a folder or at s3://bucket/prefix; None = where RIGHTCALL_STORE says.

    Raises:
        StoreError: the address is none.
    """
    place = store_root() if root is None else str(root)
    if place.startswith("s3://"):
        from tasks.store.s3_store import S3Store  # a run on a folder does not need it

        return S3Store.at(place)
    return Store(Path(place).expanduser().absolute())
