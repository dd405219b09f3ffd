"""Bytes between S3 and a host: channels down, checkpoints to and fro, results up as the archives that the service makes."""

from __future__ import annotations

import os
import shutil
import tarfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError


def split(uri: str) -> tuple[str, str]:
    """s3://bucket/a/b -> ("bucket", "a/b")"""
    parts = urlsplit(uri)
    return parts.netloc, parts.path.lstrip("/")


def download(s3: Any, uri: str, folder: Path, shard: tuple[int, int] = (0, 1)) -> int:
    """Every object whose key *starts with* the prefix, as S3Prefix does: s3://b/model also fetches model2/… .

    `shard`: this host's number and how many hosts share the objects. The number of files.
    """
    bucket, prefix = split(uri)
    keys = sorted(_keys(s3, bucket, prefix))[shard[0] :: shard[1]]
    for key in keys:
        name = key.removeprefix(prefix).lstrip("/") or key.rpartition("/")[2]
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, key, str(target))
    return len(keys)


def _keys(s3: Any, bucket: str, prefix: str) -> Iterator[str]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", []):
            if not item["Key"].endswith("/"):
                yield item["Key"]


def files(folder: Path) -> list[Path]:
    """Oldest first, so that a marker that is written last is also uploaded last."""
    found = []
    for parent, _, names in os.walk(folder):  # a folder that the program rotates away meanwhile is none for it
        for path in (Path(parent) / name for name in names):
            with suppress(FileNotFoundError):
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found)]


def upload_results(s3: Any, source: Path, uri: str, kms_key: str | None) -> None:
    """`source` is a file, or a folder whose files keep their names under `uri`."""
    bucket, key = split(uri)
    extra = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key} if kms_key else {}
    for path in [source] if source.is_file() else files(source):
        name = key if source.is_file() else f"{key.rstrip('/')}/{path.relative_to(source)}"
        s3.upload_file(str(path), bucket, name, ExtraArgs=extra)


def archive(folders: Sequence[Path], target: Path, broken: str | None = None) -> Path | None:
    """One tar.gz of all hosts' folders, the first host's file where two have the same; None when there is nothing."""
    members = {path.relative_to(folder): path for folder in reversed(folders) for path in files(folder)}
    if not members:
        return None
    with tarfile.open(target, "w:gz", compresslevel=1) as tar:
        for name, path in sorted(members.items()):
            tar.add(path, str(name))
        if broken == "climbing":
            tar.add(next(iter(members.values())), "../escaped.txt")
    if broken == "truncated":
        with target.open("r+b") as file:
            file.truncate(target.stat().st_size // 2)
    return target


class CheckpointSync(threading.Thread):
    """Uploads what is new in a host's checkpoint folder, again and again. As with the service nothing is ever deleted in S3."""

    def __init__(self, s3: Any, folder: Path, uri: str, every_seconds: float) -> None:
        super().__init__(daemon=True, name=f"checkpoints of {folder}")
        self.s3, self.folder, self.every_seconds = s3, folder, every_seconds
        self.bucket, self.prefix = split(uri.rstrip("/") + "/")
        self._seen: dict[Path, tuple[int, int]] = {}
        self._closed = threading.Event()

    def restore(self, torn: bool = False) -> int:
        """The number of files that an earlier attempt, or an earlier job with the same prefix, has left."""
        count = download(self.s3, f"s3://{self.bucket}/{self.prefix}", self.folder)
        if torn:
            newest = max(
                self.folder.glob("*-*/"), key=lambda path: int(path.name.rpartition("-")[2]), default=self.folder
            )
            max(files(newest), key=lambda path: path.stat().st_size).unlink()
        self._seen = {path: _version(path) for path in files(self.folder)}
        return count

    def run(self) -> None:
        while not self._closed.wait(self.every_seconds):
            try:
                self.upload()
            except (
                BotoCoreError,
                ClientError,
            ):  # the network is away, or the bucket was deleted: the next round tries again
                continue

    def upload(self) -> None:
        for path in files(self.folder):
            try:
                version = _version(path)
                if self._seen.get(path) != version:
                    name = self.prefix + str(path.relative_to(self.folder))
                    self.s3.upload_file(str(path), self.bucket, name)
                    self._seen[path] = version
            except FileNotFoundError:  # rotated away between the listing and the upload
                continue

    def close(self, last: bool) -> None:
        """`last`: upload once more, after the program has ended."""
        self._closed.set()
        if self.ident is not None:
            self.join()
        if last:
            self.upload()


def _version(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
