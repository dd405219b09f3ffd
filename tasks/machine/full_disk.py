"""A full disk, or one that may not be written, becomes an error with advice; folders swap their names in one step."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rightcall.errors import StoreError

FULL_DISK = (errno.ENOSPC, errno.EDQUOT)
CANNOT = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP)
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # linux/fcntl.h, linux/fs.h


@contextmanager
def disk_errors(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns "no space left on device" into a StoreError that says what is missing and that nothing was lost."""
    try:
        yield
    except OSError as err:
        if err.errno not in FULL_DISK:
            raise
        raise StoreError(full_disk_message(folder, needed_bytes)) from err


def require_writable(folder: Path, advice: str) -> None:
    """Makes the folder where it is not there.

    Raises:
        StoreError: it cannot be made, or nothing can be written into it; ``advice`` ends the message.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise StoreError(f"the folder {str(folder)!r} cannot be made: {err.strerror}; {advice}") from err
    if not os.access(folder, os.W_OK | os.X_OK):
        raise StoreError(f"the folder {str(folder)!r} cannot be written to; {advice}")


def exchange(first: Path, second: Path) -> bool:
    """Swaps the names of two folders in one step, which a kill cannot halve.

    False = the system or this file system cannot do it, and nothing has happened.
    """
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    if renameat2(AT_FDCWD, os.fsencode(first), AT_FDCWD, os.fsencode(second), RENAME_EXCHANGE) == 0:
        return True
    if (number := ctypes.get_errno()) in CANNOT:
        return False
    raise OSError(number, os.strerror(number), str(first), None, str(second))


def full_disk_message(folder: Path, needed_bytes: int | None = None) -> str:
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    needed = "more than that" if needed_bytes is None else f"{needed_bytes:,} bytes"
    return (
        f"the disk of {str(folder)!r} is full: {free_bytes:,} bytes are free, {needed} needed. Nothing was lost: "
        "finished stages and all checkpoints are there; free some space and run the same command, it resumes from them"
    )
