"""sha256 of files and folders."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

HASHING_THREADS = 4  # hashlib releases the GIL


def hash_files(folder: Path, relatives: list[str], *, durable: bool = False) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file, in threads; ``durable``: the files then survive a power cut."""
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = pool.map(lambda relative: hash_file(folder / relative, durable=durable), relatives)
        return dict(zip(relatives, found, strict=True))


def hash_file(path: Path, *, durable: bool = False) -> dict[str, Any]:
    with path.open("rb") as stream:
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if durable:
            os.fsync(stream.fileno())
        return {"sha256": sha256, "size_bytes": os.fstat(stream.fileno()).st_size}


def content_digest(path: Path) -> str:
    """sha256 of a file's bytes, or of a folder's ``path\\0sha256`` lines in path order (hidden files left out)."""
    if path.is_file():
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    total = hashlib.sha256()
    for relative in sorted(files_below(path)):
        total.update(f"{relative}\0{content_digest(path / relative)}\n".encode())
    return total.hexdigest()


def files_below(folder: Path) -> Iterator[str]:
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            yield relative.as_posix()
