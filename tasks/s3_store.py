"""The store at s3://bucket/prefix: the same layout as the folder's, so a job in the cloud reads a stage as its channel.

A stage works in this machine's mirror (a folder store below RIGHTCALL_MIRROR). ``commit`` seals the result there, sends
the files in parallel and the manifest last; a commit that was interrupted goes on with ``finish_commit`` instead of
doing the work again. What is read is downloaded into the mirror once, verified, and kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect.filesystems import WritableFileSystem

from rightcall.errors import StoreError
from tasks import s3, s3_transfer
from tasks.disk import disk_errors
from tasks.environment import mirror_root
from tasks.leases import Leases, run_logger
from tasks.manifests import (
    MANIFEST,
    ArtifactRef,
    Kind,
    digest_in_record,
    hash_files,
    parse_manifest,
    read_manifest,
    ref_of,
    seal,
    split,
)
from tasks.s3 import Address, Listed
from tasks.s3_leases import S3Leases
from tasks.store import Store, checked

MANIFESTS_AT_ONCE = 8


@dataclass(frozen=True)
class S3Store(Store):
    remote: Address

    @classmethod
    def at(cls, text: str) -> S3Store:
        """Raises:
        StoreError: ``text`` is no s3:// address.
        """
        remote = s3.parse_address(text)
        return cls(mirror_root() / remote.bucket / remote.prefix, remote)

    @property
    def address(self) -> str:
        return str(self.remote)

    def url(self, ref: ArtifactRef, part: str = "") -> str:
        stage, key = split(ref)
        return f"{self.remote}/{checked(stage)}/{checked(key)}/{part}"

    def path(self, ref: ArtifactRef) -> Path:
        """Folder in the mirror, downloaded first where it is not there yet.

        Raises:
            StoreError: it is not in S3, or is not what its manifest says.
        """
        manifest = self.manifest(ref)
        stage, key = split(ref)
        if super()._find_manifest(stage, key) != manifest:
            self._download(stage, key, manifest)
        return self._folder(stage, key)

    def verify(self, ref: ArtifactRef) -> None:
        """Reads every object again and hashes it; a copy in the mirror that was changed is thrown away.

        Raises:
            StoreError: an object changed after it was committed.
        """
        manifest = self.manifest(ref)
        stage, key = split(ref)
        s3_transfer.verify(self.remote, f"{stage}/{key}/", manifest["files"])
        folder, copy = self._folder(stage, key), super()._find_manifest(stage, key)
        if copy is not None and (copy != manifest or hash_files(folder, list(copy["files"])) != copy["files"]):
            shutil.rmtree(folder)

    def refs(self, stage: str) -> list[ArtifactRef]:
        objects: dict[str, dict[str, Listed]] = {}
        for path, listed in s3.list_objects(self.remote, f"{checked(stage)}/").items():
            key, _, relative = path.partition("/")
            objects.setdefault(key, {})[relative] = listed
        finished = {key: found for key, found in objects.items() if MANIFEST in found}
        newest_first = sorted(finished, key=lambda key: finished[key][MANIFEST].modified, reverse=True)
        with ThreadPoolExecutor(MANIFESTS_AT_ONCE) as pool:
            manifests = list(pool.map(lambda key: self._manifest_if_whole(stage, key, finished[key]), newest_first))
        return [ref_of(stage, key, found) for key, found in zip(newest_first, manifests, strict=True) if found]

    def commit(self, stage: str, key: str, kind: Kind, work: Path, manifest: Mapping[str, Any]) -> ArtifactRef:
        """Sends ``work`` to S3, its manifest last, and keeps it in the mirror.

        Raises:
            StoreError: S3 refused (the work is kept: the next run sends the rest of it), the disk is full, or the
                folder holds something that cannot be moved (a link).
        """
        with disk_errors(work):
            ref = seal(stage, key, kind, work, manifest)
            if (found := self.find(stage, key)) is not None:
                self.forget_work(stage, key)
                return found
            sealed = self._sealed(stage, key)
            shutil.rmtree(sealed, ignore_errors=True)
            os.rename(work, sealed)
        return self._send(stage, key, ref)

    def finish_commit(self, stage: str, key: str) -> ArtifactRef | None:
        sealed = self._sealed(stage, key)
        manifest = read_manifest(sealed)
        if manifest is None:
            return None
        try:
            unchanged = hash_files(sealed, list(manifest["files"])) == manifest["files"]
        except FileNotFoundError:
            unchanged = False
        return self._send(stage, key, ref_of(stage, key, manifest)) if unchanged else None

    def locks(self) -> Leases:
        return S3Leases(self.remote)

    def results(self) -> WritableFileSystem:
        from tasks.s3_results import saved_block  # Prefect's server, which a stage without Prefect lacks

        return saved_block(self.remote)

    def recorded_digest(self, cache_key: str) -> str | None:
        record = s3.get(self.remote, f".results/{cache_key}")
        return None if record is None else digest_in_record(record.body)

    def _find_manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        below = f"{checked(stage)}/{checked(key)}/"
        return self._manifest_if_whole(stage, key, s3.list_objects(self.remote, below))

    def _manifest_if_whole(self, stage: str, key: str, present: Mapping[str, Listed]) -> dict[str, Any] | None:
        found = s3.get(self.remote, f"{stage}/{key}/{MANIFEST}") if MANIFEST in present else None
        manifest = parse_manifest(found.body) if found is not None else None
        if manifest is None:
            return None
        files = manifest["files"].items()
        whole = all(path in present and present[path].size_bytes == entry["size_bytes"] for path, entry in files)
        return manifest if whole else None

    def _send(self, stage: str, key: str, ref: ArtifactRef) -> ArtifactRef:
        """Under a lease of its own: two runs that both missed the stage's lease must not mix their files."""
        lock, name, holder = self.locks(), f"commit-{stage}-{key}", str(uuid.uuid4())
        lock.acquire_lock(name, holder)
        try:
            if (found := self.find(stage, key)) is None:
                sent = self._upload(stage, key)
                run_logger(__name__).info("%s: %.1f MB sent to %s", ref.uri, sent / 1e6, self.address)
                with self._mirroring(stage, key), disk_errors(self.root):
                    target = self._folder(stage, key)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    self._move_in(self._sealed(stage, key), target)
        finally:
            lock.release_lock(name, holder)
        self.forget_work(stage, key)
        return found or ref

    def _upload(self, stage: str, key: str) -> int:
        """Files first, the manifest last and only where none is; gives the bytes that were sent."""
        sealed, below = self._sealed(stage, key), f"{stage}/{key}/"
        text = (sealed / MANIFEST).read_bytes()
        sent = s3_transfer.upload(sealed, self.remote, below, json.loads(text)["files"])
        if s3.put(self.remote, below + MANIFEST, text, new=True) is None:
            # There is one: ours, when the answer to the first try was lost, or of somebody who took the lease.
            there = s3.get(self.remote, below + MANIFEST)
            if there is None or there.body != text:
                raise StoreError(
                    f"{f'{stage}/{key}'!r} in {self.address!r} was written by another run at the same time; run the "
                    "same command again, it repairs what is mixed"
                )
        return sent

    def _download(self, stage: str, key: str, manifest: Mapping[str, Any]) -> None:
        """One process downloads, others wait for it; a killed one's finished files are used by the next."""
        partial = self.root / ".downloads" / stage / key
        with self._mirroring(stage, key), disk_errors(self.root, sum_bytes(manifest)):
            if super()._find_manifest(stage, key) == manifest:
                return
            fetched = s3_transfer.download(self.remote, f"{stage}/{key}/", manifest["files"], self._make(partial))
            found = s3.get(self.remote, f"{stage}/{key}/{MANIFEST}")
            if found is None or parse_manifest(found.body) != manifest:
                raise StoreError(f"{stage}/{key} was made anew in {self.address!r} meanwhile; run the command again")
            s3_transfer.remove_others(partial, manifest["files"])
            (partial / MANIFEST).write_bytes(found.body)
            target = self._folder(stage, key)
            target.parent.mkdir(parents=True, exist_ok=True)
            self._move_in(partial, target)
        run_logger(__name__).info("%s/%s: %.1f MB fetched from %s", stage, key, fetched / 1e6, self.address)

    @contextmanager
    def _mirroring(self, stage: str, key: str) -> Iterator[None]:
        """One process at a time changes a folder of the mirror; the kernel lets go of the flock of the killed."""
        folder = self._make(self.root / ".downloads" / checked(stage))
        handle = os.open(folder / f".{checked(key)}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)

    def _sealed(self, stage: str, key: str) -> Path:
        """A result that is made and not yet, or not wholly, in S3."""
        return self.root / ".work" / checked(stage) / checked(key) / "sealed"


def sum_bytes(manifest: Mapping[str, Any]) -> int:
    return sum(entry["size_bytes"] for entry in manifest["files"].values())
