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
from tasks.aws import s3, transfers
from tasks.aws.s3 import Address, Listed
from tasks.machine.environment import mirror_root
from tasks.machine.full_disk import disk_errors
from tasks.machine.hashing import hash_files
from tasks.machine.run_logger import run_logger
from tasks.store.folder_store import Store, checked
from tasks.store.leases import Leases
from tasks.store.manifests import (
    MANIFEST,
    ArtifactRef,
    Kind,
    Parts,
    changed_files,
    digest_in_record,
    files_of,
    parse_manifest,
    read_manifest,
    ref_of,
    seal,
    split,
)
from tasks.store.s3_leases import S3Leases

MANIFESTS_AT_ONCE = 8
REPLACEMENT = ".again-"  # in the name of a folder of objects, after the key


@dataclass(frozen=True)
class S3Store(Store):
    remote: Address

    @classmethod
    def at(cls, text: str) -> S3Store:
        """The store at an s3:// address, with its mirror on this machine.

        Raises:
            StoreError: ``text`` is no s3:// address.
        """
        remote = s3.parse_address(text)
        return cls(mirror_root() / remote.bucket / remote.prefix, remote)

    @property
    def address(self) -> str:
        return str(self.remote)

    def url(self, ref: ArtifactRef, part: str = "") -> str:
        return f"{self.remote}/{self.relative(ref, part)}"

    def path(self, ref: ArtifactRef, parts: Parts = "") -> Path:
        """Folder in the mirror, downloaded first where it, or one of ``parts``, is not there as it was made.

        Raises:
            StoreError: it is not in S3, or is not what its manifest says.
        """
        manifest = self.manifest(ref)
        stage, key = split(ref)
        if not self._has_copy(stage, key, manifest, parts):
            self._download(ref, manifest, parts)
        return self._folder(stage, key)

    def check(self, ref: ArtifactRef, parts: Parts = "") -> None:
        """The objects, as a job in the cloud reads them; ``path`` looks at the copy on this machine.

        Raises:
            StoreError: as ``path``.
        """
        manifest = self.manifest(ref)
        files = files_of(manifest, parts)
        if changed := transfers.changed_objects(self.remote, _below(ref, manifest), files, read=False):
            raise StoreError(self._changed(ref, changed))

    def verify(self, ref: ArtifactRef) -> None:
        """Reads every object again and hashes it; a copy in the mirror that was changed is thrown away.

        Raises:
            StoreError: an object changed after it was committed.
        """
        manifest = self.manifest(ref)
        stage, key = split(ref)
        if changed := transfers.changed_objects(self.remote, _below(ref, manifest), manifest["files"], read=True):
            raise StoreError(self._changed(ref, changed))
        folder, copy = self._folder(stage, key), super()._find_manifest(stage, key)
        if copy is not None and (copy != manifest or hash_files(folder, list(copy["files"])) != copy["files"]):
            shutil.rmtree(folder)

    def relative(self, ref: ArtifactRef, part: str = "") -> str:
        return f"{_below(ref, self.manifest(ref))}{part}"

    def _has_copy(self, stage: str, key: str, manifest: Mapping[str, Any], parts: Parts) -> bool:
        copy = super()._find_manifest(stage, key)
        return copy == manifest and not changed_files(self._folder(stage, key), manifest, parts)

    def _deletion(self, ref: ArtifactRef) -> str:
        return f"delete it (aws s3 rm --recursive {self.remote}/{ref.uri}/)"

    def refs(self, stage: str) -> list[ArtifactRef]:
        objects: dict[str, dict[str, Listed]] = {}
        for path, listed in s3.list_objects(self.remote, f"{checked(stage)}/").items():
            key, _, relative = path.partition("/")
            objects.setdefault(key, {})[relative] = listed
        finished = {key: found for key, found in objects.items() if MANIFEST in found and REPLACEMENT not in key}
        newest_first = sorted(finished, key=lambda key: finished[key][MANIFEST].modified, reverse=True)
        with ThreadPoolExecutor(MANIFESTS_AT_ONCE) as pool:
            manifests = list(pool.map(lambda key: self._manifest_if_whole(stage, key, finished[key]), newest_first))
        return [ref_of(stage, key, found) for key, found in zip(newest_first, manifests, strict=True) if found]

    def commit(
        self, stage: str, key: str, kind: Kind, work: Path, manifest: Mapping[str, Any], *, replace: bool = False
    ) -> ArtifactRef:
        """Sends ``work`` to S3, its manifest last, and keeps it in the mirror.

        What replaces a result lies beside it, as <key>.again-1a2b3c4d/, until one write of the manifest makes it the
        result; only then is the old one deleted.

        Raises:
            StoreError: S3 refused (the work is kept: the next run sends the rest of it), the disk is full, or the
                folder holds something that cannot be moved (a link).
        """
        with disk_errors(work):
            found = self.find(stage, key)
            beside = {"folder": f"{key}{REPLACEMENT}{uuid.uuid4().hex[:8]}"} if replace and found else {}
            ref = seal(stage, key, kind, work, {**manifest, **beside})
            if found is not None and not replace:
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
        if "folder" not in manifest and self.find(stage, key) is not None:
            self.forget_work(stage, key)  # it is stored already, here or by another machine
            return None
        try:
            unchanged = hash_files(sealed, list(manifest["files"])) == manifest["files"]
        except FileNotFoundError:
            unchanged = False
        return self._send(stage, key, ref_of(stage, key, manifest)) if unchanged else None

    def locks(self) -> Leases:
        return S3Leases(self.remote)

    def results(self) -> WritableFileSystem:
        from tasks.store.s3_records import (
            saved_block,  # it needs Prefect's server, which a stage without Prefect does not have
        )

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
        if "folder" in manifest:
            present = s3.list_objects(self.remote, f"{stage}/{checked(manifest['folder'])}/")
        whole = all(path in present and present[path].size_bytes == entry["size_bytes"] for path, entry in files)
        return manifest if whole else None

    def _send(self, stage: str, key: str, ref: ArtifactRef) -> ArtifactRef:
        """Under a lease of its own: two runs that both missed the stage's lease must not mix their files."""
        lock, name, holder = self.locks(), f"commit-{stage}-{key}", str(uuid.uuid4())
        lock.acquire_lock(name, holder)
        try:
            replacing = "folder" in (read_manifest(self._sealed(stage, key)) or {})
            found = None if replacing else self.find(stage, key)
            if found is None:
                sent = self._upload(stage, key)
                run_logger(__name__).info("%s: %.1f MB sent to %s", ref.uri, sent / 1e6, self.address)
                with self._mirroring(stage, key), disk_errors(self.root):
                    target = self._folder(stage, key)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    # Only a copy: an exchange that is killed halfway would leave the old result as the sealed one.
                    self._move_aside(target)
                    self._move_in(self._sealed(stage, key), target)
        finally:
            lock.release_lock(name, holder)
        self.forget_work(stage, key)
        return found or ref

    def _upload(self, stage: str, key: str) -> int:
        """Files first, the manifest last and only where none is; gives the bytes that were sent."""
        sealed, place = self._sealed(stage, key), f"{stage}/{key}/{MANIFEST}"
        text = (sealed / MANIFEST).read_bytes()
        manifest = json.loads(text)
        folder = manifest.get("folder", key)
        old = s3.get(self.remote, place) if folder != key else None
        sent = transfers.upload(sealed, self.remote, f"{stage}/{folder}/", manifest["files"])
        if s3.put(self.remote, place, text, new=old is None, replaces=old.etag if old else None) is None:
            # There is one: ours, when the answer to the first try was lost, or of somebody who took the lease.
            there = s3.get(self.remote, place)
            if there is None or there.body != text:
                raise StoreError(
                    f"{f'{stage}/{key}'!r} in {self.address!r} was written by another run at the same time; run the "
                    "same command again, it repairs what is mixed"
                )
        self._delete_others(stage, key, folder)
        return sent

    def _delete_others(self, stage: str, key: str, folder: str) -> None:
        """What the result replaced, and what a killed replacement left."""
        for path in s3.list_objects(self.remote, f"{stage}/{key}"):
            place = f"{key}{path}"
            of_this_key = path.startswith(("/", REPLACEMENT))
            if of_this_key and place != f"{key}/{MANIFEST}" and not place.startswith(f"{folder}/"):
                s3.delete(self.remote, f"{stage}/{place}")

    def _download(self, ref: ArtifactRef, manifest: Mapping[str, Any], parts: Parts) -> None:
        """One process downloads, others wait for it; a killed one's finished files are used by the next."""
        stage, key = split(ref)
        partial = self.root / ".downloads" / stage / key
        with self._mirroring(stage, key), disk_errors(self.root, sum_bytes(manifest)):
            if self._has_copy(stage, key, manifest, parts):
                return
            fetched = transfers.download(self.remote, _below(ref, manifest), manifest["files"], self._make(partial))
            found = s3.get(self.remote, f"{stage}/{key}/{MANIFEST}")
            if found is None or parse_manifest(found.body) != manifest:
                raise StoreError(f"{stage}/{key} was made anew in {self.address!r} meanwhile; run the command again")
            transfers.remove_others(partial, manifest["files"])
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


def _below(ref: ArtifactRef, manifest: Mapping[str, Any]) -> str:
    """Where the objects lie; the manifest itself is always in <stage>/<key>/."""
    stage, key = split(ref)
    return f"{checked(stage)}/{checked(manifest.get('folder', key))}/"


def sum_bytes(manifest: Mapping[str, Any]) -> int:
    return sum(entry["size_bytes"] for entry in manifest["files"].values())
