"""The store: one folder per finished stage, ``<root>/<stage>/<key>/``, complete when its manifest.json is there.

``open_store`` gives this one for a folder, and tasks/store/s3_store.py's, with the same methods, for s3://bucket/prefix.

A stage works in ``<root>/.work/<stage>/<key>/`` (same file system), which survives kills. ``commit`` hashes every file,
writes the manifest last, and renames the folder into place in one step: there is never half a result to be found.
"""

from __future__ import annotations

import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightcall.errors import StoreError
from tasks.machine.full_disk import disk_errors, exchange, full_disk_message
from tasks.machine.hashing import hash_files
from tasks.store.manifests import (
    MANIFEST,
    ArtifactRef,
    Kind,
    Parts,
    changed_files,
    digest_files,
    digest_in_record,
    files_of,
    is_consistent,
    read_manifest,
    ref_of,
    seal,
    split,
)

if TYPE_CHECKING:
    from prefect.filesystems import WritableFileSystem

    from tasks.store.leases import Leases


@dataclass(frozen=True)
class Store:
    root: Path  # where work, scratch and what was downloaded lie; for a store in S3 its mirror on this machine

    @property
    def address(self) -> str:
        """Where the results are, for people."""
        return str(self.root)

    @property
    def cache(self) -> Path:
        """Folder of downloaded sources and the like, on this machine."""
        return self.root / ".cache"

    def url(self, ref: ArtifactRef, part: str = "") -> str:
        """Address of a result, or of a part of it, that other machines can read: "s3://bucket/prefix/sft/1a2b/model/".

        Raises:
            StoreError: this store is a folder.
        """
        raise StoreError(
            f"the store {self.address!r} is a folder, which a job on another machine cannot read; use a bucket: "
            f"--store s3://bucket/prefix (asked for {ref.uri!r})"
        )

    def relative(self, ref: ArtifactRef, part: str = "") -> str:
        """Where the files lie below the store's address: "sft/1a2b/model"."""
        return f"{ref.uri}/{part}"

    def path(self, ref: ArtifactRef, parts: Parts = "") -> Path:
        """Folder of a finished stage, after a look whether ``parts``, what is about to be read, are as they were made.

        Raises:
            StoreError: the folder is gone or incomplete, holds another result than the ref says, or was changed.
        """
        self.check(ref, parts)
        return self._folder(*split(ref))

    def check(self, ref: ArtifactRef, parts: Parts = "") -> None:
        """Compares the content of ``parts`` with the manifest; cheap where this process has done so before.

        Raises:
            StoreError: as ``path``.
        """
        folder = self._folder(*split(ref))
        if changed := changed_files(folder, self.manifest(ref), parts):
            raise StoreError(self._changed(ref, changed))

    def _changed(self, ref: ArtifactRef, changed: list[str]) -> str:
        return (
            f"{ref.uri!r} in {self.address!r} was changed after it was made: {changed!r}; {self._deletion(ref)} and run "
            "the same command, it will be made again"
        )

    def _deletion(self, ref: ArtifactRef) -> str:
        return f"delete {str(self._folder(*split(ref)))!r}"

    def find(self, stage: str, key: str) -> ArtifactRef | None:
        """The finished stage's ref, None if there is none; cheap: manifest readable, every file there with its size."""
        manifest = self._find_manifest(stage, key)
        return None if manifest is None else ref_of(stage, key, manifest)

    def _find_manifest(self, stage: str, key: str) -> dict[str, Any] | None:
        folder = self._folder(stage, key)
        manifest = read_manifest(folder)
        if manifest is None:
            return None
        for relative, entry in manifest["files"].items():
            try:
                if (folder / relative).stat().st_size != entry["size_bytes"]:
                    return None
            except OSError:
                return None
        return manifest

    def holds(self, ref: ArtifactRef) -> bool:
        """Whether this very result is here: not in another store, not replaced since."""
        return self.find(*split(ref)) == ref

    def verify(self, ref: ArtifactRef) -> None:
        """Hashes every file again.

        Raises:
            StoreError: a file changed after it was committed.
        """
        recorded, folder = self.manifest(ref)["files"], self._folder(*split(ref))
        found = hash_files(folder, sorted(recorded))
        changed = [path for path in recorded if recorded[path]["sha256"] != found[path]["sha256"]]
        if changed:
            raise StoreError(self._changed(ref, changed))

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        """The manifest of a finished stage.

        Raises:
            StoreError: as ``path``.
        """
        found = self._find_manifest(*split(ref))
        if found is None:
            raise StoreError(
                f"{ref.uri!r} is not in the store {self.address!r}, or files of it are missing; run the flow that "
                "made it again (it makes only what is missing), or point RIGHTCALL_STORE at the store that has it"
            )
        if found["digest"] != ref.digest:
            raise StoreError(
                f"{ref.uri!r} in the store {self.address!r} has digest {found['digest']!r}, not {ref.digest!r}; "
                "this ref comes from another store, or the result was made again meanwhile: run the flow here, or use the "
                "store it came from"
            )
        if not is_consistent(found):
            raise StoreError(self._changed(ref, [MANIFEST]))
        return found

    def digest(self, ref: ArtifactRef, part: Parts = "") -> str:
        """Digest of the files below ``part`` ("model/") or of the one file ``part``; of all without it.

        Several parts: of those that are there.

        Raises:
            StoreError: the result has no such file.
        """
        if not part:
            return ref.digest
        manifest = self.manifest(ref)
        chosen = files_of(manifest, part)
        if not chosen:
            raise StoreError(
                f"{ref.uri!r} (kind {ref.kind!r}) has no {part!r}, only {sorted(manifest['files'])[:10]!r}; pass another ref"
            )
        return digest_files({path: entry["sha256"] for path, entry in chosen.items()})

    def size_bytes(self, ref: ArtifactRef, part: str = "") -> int:
        files = self.manifest(ref)["files"]
        return sum(entry["size_bytes"] for path, entry in files.items() if path.startswith(part))

    def resolve(self, text: str) -> ArtifactRef:
        """The ref that a person names on the command line: "sft/1a2b3c4d", a unique beginning of its key.

        Raises:
            StoreError: there is none, or several.
        """
        stage, _, beginning = text.strip("/").partition("/")
        refs = [ref for ref in self.refs(stage) if beginning and ref.uri.startswith(f"{stage}/{beginning}")]
        if len(refs) == 1:
            return refs[0]
        offered = [ref.uri for ref in refs or self.refs(stage)][:10]
        raise StoreError(
            f"{text!r} names {len(refs)} results in the store {self.address!r}; write <stage>/<first characters of "
            f"its key>, for example one of {offered!r}"
        )

    def refs(self, stage: str) -> list[ArtifactRef]:
        """All finished results of a stage, newest first."""
        folder = self.root / checked(stage)
        keys = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True)
        found = (self.find(stage, path.parent.name) for path in keys)
        return [ref for ref in found if ref is not None]

    def workdir(self, stage: str, key: str, *, empty: bool = False) -> Path:
        """Folder whose content will be committed; it persists over kills and is on the store's file system."""
        folder = self.root / ".work" / checked(stage) / checked(key) / "result"
        if empty:
            shutil.rmtree(folder, ignore_errors=True)
        return self._make(folder)

    def scratch(self, stage: str, key: str) -> Path:
        """Folder for checkpoints and the like, beside the work folder; deleted after the commit."""
        return self._make(self.root / ".work" / checked(stage) / checked(key) / "scratch")

    def require_space(self, needed_bytes: int) -> None:
        """Looks at the free space of the store's disk before an hour of training is spent.

        Raises:
            StoreError: less is free.
        """
        folder = self._make(self.root)
        if shutil.disk_usage(folder).free < needed_bytes:
            raise StoreError(full_disk_message(folder, needed_bytes))

    def commit(
        self, stage: str, key: str, kind: Kind, work: Path, manifest: Mapping[str, Any], *, replace: bool = False
    ) -> ArtifactRef:
        """Moves ``work`` into the store, with its manifest written last.

        replace: in one step in the place of what is there; otherwise what is there stays.

        Raises:
            StoreError: the disk is full, or the folder holds something that cannot be moved (a link).
        """
        target = self._folder(stage, key)
        with disk_errors(work):
            ref = seal(stage, key, kind, work, manifest)
            target.parent.mkdir(parents=True, exist_ok=True)
            # Someone whose lease we missed may have been faster; what is in the store stays.
            if not replace and (found := self.find(stage, key)) is not None:
                self.forget_work(stage, key)
                return found
            self._move_in(work, target)
        self.forget_work(stage, key)
        return ref

    def finish_commit(self, stage: str, key: str) -> ArtifactRef | None:
        """Goes on with a commit that was interrupted after the work was done; None = there is none.

        A folder is committed by one rename, which nothing interrupts.
        """
        return None

    def forget_work(self, stage: str, key: str) -> None:
        shutil.rmtree(self.root / ".work" / checked(stage) / checked(key), ignore_errors=True)

    def locks(self) -> Leases:
        """Who makes which stage right now."""
        from tasks.store.file_leases import FileLeases  # it loads Prefect, which reading a result does not need

        return FileLeases(self.root / ".leases")

    def results(self) -> Path | WritableFileSystem:
        """What Prefect's ``result_storage`` takes: where its records of finished tasks lie."""
        return self.root / ".results"

    def recorded_digest(self, cache_key: str) -> str | None:
        """Digest in Prefect's record of a result, "" in one that cannot be read, None where there is none."""
        try:
            return digest_in_record((self.root / ".results" / cache_key).read_bytes())
        except FileNotFoundError:
            return None
        except OSError:
            return ""

    def _move_in(self, work: Path, target: Path) -> None:
        if target.exists() and exchange(work, target):
            shutil.rmtree(work, ignore_errors=True)  # what was there
        else:
            self._move_aside(target)
            os.rename(work, target)
        _sync_folder(target.parent)

    def _move_aside(self, target: Path) -> None:
        """What is there makes room, where the file system cannot exchange two folders in one step."""
        if target.exists():
            trash = self._make(self.root / ".work" / ".trash") / uuid.uuid4().hex
            os.rename(target, trash)
            shutil.rmtree(trash, ignore_errors=True)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / checked(stage) / checked(key)

    def _make(self, folder: Path) -> Path:
        try:
            with disk_errors(self.root):
                folder.mkdir(parents=True, exist_ok=True)
        except (PermissionError, NotADirectoryError, FileExistsError) as err:
            raise StoreError(
                f"the store folder {str(folder)!r} cannot be made: {err}; set RIGHTCALL_HOME (or RIGHTCALL_STORE) to a "
                "folder that you may write"
            ) from err
        return folder


def checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise StoreError(f"{name!r} is no name of a stage or key; a ref looks like 'sft/1a2b3c4d'")
    return name


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
