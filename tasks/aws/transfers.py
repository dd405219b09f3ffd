"""Many files between a folder and S3 at once: in parts, in parallel, each with its sha256, none of them twice.

A file's sha256 goes along as the object's metadata, so a second upload knows what is there; the wire is checked by the
CRC that botocore sends with every part. A file that comes down is hashed before it gets its name.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from rightcall.errors import StoreError
from tasks.aws import clients, s3
from tasks.aws.errors import s3_errors
from tasks.aws.s3 import Address, Listed
from tasks.machine.hashing import hash_file

FILES_AT_ONCE = 16
REQUESTS_AT_ONCE = 16  # of clients.CONNECTIONS; the rest is for listing and leases
PART_BYTES = 16 * 2**20  # s3transfer takes larger ones where a file would have more than 10,000
IO_BYTES = 2**18
IO_CHUNKS = 64  # of 256 KiB that may wait for the disk: memory stays flat whatever the file's size
SHA256 = "sha256"

_sha256_of: dict[tuple[str, str], str] = {}  # of objects that were asked for, by address and ETag

Files = Mapping[str, Mapping[str, Any]]  # relative path → {"sha256", "size_bytes"}, as in a manifest


def upload(folder: Path, address: Address, below: str, files: Files) -> int:
    """Sends the files that are not there yet, gives the bytes it sent.

    What else lies there (an old manifest first of all) is deleted before: whoever finds a manifest finds its files.

    Raises:
        StoreError: S3 refused, or does not hold what was sent.
    """
    present = s3.list_objects(address, below)
    for relative in present.keys() - files.keys():
        s3.delete(address, below + relative)
    with _transfers(f"{address}/{below}") as transfers:

        def send(relative: str) -> int:
            entry = files[relative]
            if relative in present and _is_same(address, below + relative, present[relative], entry):
                return 0
            extra = {"Metadata": {SHA256: entry["sha256"]}}
            key = address.key(below + relative)
            transfers.wait_for(transfers.manager.upload(str(folder / relative), address.bucket, key, extra_args=extra))
            return int(entry["size_bytes"])

        sent = transfers.in_parallel(send, files)
    found = s3.list_objects(address, below)
    wrong = [path for path in files if path not in found or found[path].size_bytes != files[path]["size_bytes"]]
    if wrong:
        raise StoreError(
            f"{f'{address}/{below}'!r} does not hold what was sent: {wrong[:5]!r}; somebody else writes there, or a "
            "lifecycle rule deletes there; run the same command, it sends what is missing"
        )
    return sent


def download(address: Address, below: str, files: Files, folder: Path) -> int:
    """Fills ``folder`` with what it does not have yet; gives the bytes that it fetched.

    Raises:
        StoreError: S3 refused, an object is gone, or is not what the manifest says.
    """
    present = s3.list_objects(address, below)
    parts = folder.with_name(folder.name + ".parts")
    shutil.rmtree(parts, ignore_errors=True)  # a killed download's; files that it finished are in ``folder``
    parts.mkdir(parents=True)
    numbers = {relative: str(number) for number, relative in enumerate(files)}
    with _transfers(f"{address}/{below}") as transfers:

        def fetch(relative: str) -> int:
            entry, path = files[relative], folder / relative
            if path.exists() and hash_file(path) == dict(entry):
                return 0
            if relative not in present:
                raise StoreError(f"{f'{address}/{below}{relative}'!r} was deleted; run the flow that made it again")
            part = parts / numbers[relative]
            key = address.key(below + relative)
            known = [_known(present[relative])]
            transfers.wait_for(transfers.manager.download(address.bucket, key, str(part), subscribers=known))
            if (found := hash_file(part)) != dict(entry):
                raise StoreError(changed_message(f"{address}/{below}{relative}", entry, found))
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(part, path)
            return int(entry["size_bytes"])

        fetched = transfers.in_parallel(fetch, files)
    shutil.rmtree(parts)
    return fetched


def changed_objects(address: Address, below: str, files: Files, *, read: bool) -> list[str]:
    """Objects that are not what the manifest says.

    read: read and hash every one, keeping nothing; otherwise ask for the sha256 that each was sent with, once a process
    (whoever overwrites an object replaces that too), and read only those that came without it.
    """
    present = s3.list_objects(address, below)

    def changed(relative: str) -> bool:
        expected, listed = files[relative], present.get(relative)
        if listed is None or listed.size_bytes != expected["size_bytes"]:
            return True
        seen = (f"{address}/{below}{relative}", listed.etag)
        if read or seen not in _sha256_of:
            _sha256_of[seen] = (None if read else _sent_sha256(address, below + relative)) or _read_sha256(
                address, below + relative
            )
        return _sha256_of[seen] != expected[SHA256]

    with s3_errors(f"{address}/{below}"), ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        return [relative for relative, found in zip(files, pool.map(changed, files), strict=True) if found]


def remove_others(folder: Path, files: Files) -> None:
    """What an earlier download of another result left."""
    for path in folder.rglob("*"):
        if not path.is_dir() and path.relative_to(folder).as_posix() not in files:
            path.unlink()


def changed_message(what: str, expected: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    return (
        f"{what!r} was changed or cut after it was made: {found['size_bytes']:,} bytes with sha256 "
        f"{found['sha256'][:16]!r}… instead of {expected['size_bytes']:,} bytes with {expected['sha256'][:16]!r}…; "
        f"delete its folder (aws s3 rm --recursive {what.rsplit('/', 1)[0]!r}) and run the same command, it will be "
        "made again"
    )


def _is_same(address: Address, relative: str, listed: Listed, entry: Mapping[str, Any]) -> bool:
    if listed.size_bytes != entry["size_bytes"]:
        return False
    return _sent_sha256(address, relative) == entry["sha256"]


def _sent_sha256(address: Address, relative: str) -> str | None:
    head = clients.s3().head_object(Bucket=address.bucket, Key=address.key(relative))
    return cast(str | None, head["Metadata"].get(SHA256))


def _read_sha256(address: Address, relative: str) -> str:
    body = clients.s3().get_object(Bucket=address.bucket, Key=address.key(relative))["Body"]
    total = hashlib.sha256()
    for chunk in body.iter_chunks(IO_BYTES):
        total.update(chunk)
    return total.hexdigest()


@dataclass
class _Transfers:
    """s3transfer's manager, and what it has under way: its own shutdown(cancel=True) raises a TypeError."""

    manager: Any
    running: list[Any] = field(default_factory=list)
    stopped: bool = False

    def wait_for(self, transfer: Any) -> None:
        self.running.append(transfer)
        if self.stopped:
            transfer.cancel()
        transfer.result()

    def in_parallel(self, work: Callable[[str], int], paths: Iterable[str]) -> int:
        """The sum of what ``work`` gives. The first error (or Ctrl-C) cancels the rest, transfers under way included."""
        with ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="s3") as pool:
            futures = [pool.submit(work, path) for path in paths]
            try:
                return sum(future.result() for future in as_completed(futures))
            except BaseException:
                self.stopped = True
                pool.shutdown(wait=False, cancel_futures=True)
                for transfer in self.running:
                    transfer.cancel()
                raise


@contextmanager
def _transfers(what: str) -> Iterator[_Transfers]:
    from s3transfer.manager import TransferConfig, TransferManager

    config = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_request_concurrency=REQUESTS_AT_ONCE,
        max_io_queue_size=IO_CHUNKS,
    )
    with s3_errors(what), TransferManager(clients.s3(), config) as manager:
        yield _Transfers(manager)


def _known(listed: Listed) -> Any:
    """Tells s3transfer what the listing said already, which spares a HEAD per file."""
    from s3transfer.subscribers import BaseSubscriber

    class Known(BaseSubscriber):
        def on_queued(self, future: Any, **_: Any) -> None:
            future.meta.provide_transfer_size(listed.size_bytes)
            future.meta.provide_object_etag(listed.etag)

    return Known()
