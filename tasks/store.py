"""The store: one folder per finished stage, ``<root>/<stage>/<key>/``, complete when its manifest.json is there.

A stage works in ``<root>/.work/<stage>/<key>/`` (same file system), which survives kills. ``commit`` hashes every file,
writes the manifest last, and renames the folder into place in one step: there is never half a result to be found.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rightcall.errors import StoreError

Kind = Literal["model", "snapshot", "scores", "verdict", "registration", "report"]
MANIFEST = "manifest.json"
HASHING_THREADS = 4
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class ArtifactRef(BaseModel):
    """What moves between tasks instead of models and datasets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str  # "<stage>/<key>", relative to the store, so that the store can move
    digest: str  # sha256 over the non-volatile files
    kind: Kind


def is_volatile(relative: str) -> bool:
    """Whether a file holds timings and so does not count for the digest: equal work shall have equal digests."""
    path = PurePosixPath(relative)
    return path.name in ("metrics.jsonl", "summary.json") or path.suffix == ".log" or "data_docs" in path.parts[:-1]


def digest_files(hashes: Mapping[str, str]) -> str:
    """sha256 of the JSON object {relative path: sha256} of the non-volatile files, keys sorted."""
    counted = {path: value for path, value in hashes.items() if not is_volatile(path)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


@contextmanager
def disk_errors(folder: Path, needed_bytes: int | None = None) -> Iterator[None]:
    """Turns "no space left on device" into a StoreError that says what is missing and that nothing was lost."""
    try:
        yield
    except OSError as err:
        if err.errno not in FULL_DISK:
            raise
        raise StoreError(full_disk_message(folder, needed_bytes)) from err


def full_disk_message(folder: Path, needed_bytes: int | None = None) -> str:
    while not folder.exists():
        folder = folder.parent
    free_bytes = shutil.disk_usage(folder).free
    needed = "more than that" if needed_bytes is None else f"{needed_bytes:,} bytes"
    return (
        f"the disk of {str(folder)!r} is full: {free_bytes:,} bytes are free, {needed} needed. Nothing was lost: "
        "finished stages and all checkpoints are there; free some space and run the same command, it resumes from them"
    )


@dataclass(frozen=True)
class Store:
    root: Path

    def path(self, ref: ArtifactRef) -> Path:
        """Folder of a finished stage.

        Raises:
            StoreError: the folder is gone or incomplete, or holds another result than the ref says.
        """
        stage, _, key = ref.uri.partition("/")
        found = self.find(stage, key)
        if found is None:
            raise StoreError(
                f"{ref.uri!r} is not in the store {str(self.root)!r}, or files of it are missing; run the flow that "
                "made it again (it makes only what is missing), or point RIGHTCALL_STORE at the store that has it"
            )
        if found.digest != ref.digest:
            raise StoreError(
                f"{ref.uri!r} in the store {str(self.root)!r} has digest {found.digest!r}, not {ref.digest!r}; "
                "this ref comes from another store: run the flow here, or use the store it came from"
            )
        return self._folder(stage, key)

    def find(self, stage: str, key: str) -> ArtifactRef | None:
        """The finished stage's ref, None if there is none; cheap: manifest readable, every file there with its size."""
        folder = self._folder(stage, key)
        manifest = _read_manifest(folder)
        if manifest is None:
            return None
        for relative, entry in manifest["files"].items():
            try:
                if (folder / relative).stat().st_size != entry["size_bytes"]:
                    return None
            except OSError:
                return None
        return ArtifactRef(uri=f"{stage}/{key}", digest=manifest["digest"], kind=manifest["kind"])

    def verify(self, ref: ArtifactRef) -> None:
        """Hashes every file again.

        Raises:
            StoreError: a file changed after it was committed.
        """
        folder = self.path(ref)
        recorded = self.manifest(ref)["files"]
        found = _hash_files(folder, sorted(recorded))
        changed = [path for path in recorded if recorded[path]["sha256"] != found[path]["sha256"]]
        if changed:
            raise StoreError(
                f"{ref.uri!r} in {str(self.root)!r} was changed after it was made: {changed!r}; delete {str(folder)!r} "
                "and run the same command, it will be made again"
            )

    def manifest(self, ref: ArtifactRef) -> dict[str, Any]:
        folder = self.path(ref)
        return json.loads((folder / MANIFEST).read_text(encoding="utf-8"))

    def digest(self, ref: ArtifactRef, part: str = "") -> str:
        """Digest of the files below ``part`` ("model/") or of the one file ``part``; of all without it.

        Raises:
            StoreError: the result has no such file.
        """
        if not part:
            return ref.digest
        files = self.manifest(ref)["files"]
        chosen = {
            path: entry["sha256"]
            for path, entry in files.items()
            if path == part or (part.endswith("/") and path.startswith(part))
        }
        if not chosen:
            raise StoreError(
                f"{ref.uri!r} (kind {ref.kind!r}) has no {part!r}, only {sorted(files)[:10]!r}; pass another ref"
            )
        return digest_files(chosen)

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
            f"{text!r} names {len(refs)} results in the store {str(self.root)!r}; write <stage>/<first characters of "
            f"its key>, for example one of {offered!r}"
        )

    def refs(self, stage: str) -> list[ArtifactRef]:
        """All finished results of a stage, newest first."""
        folder = self.root / _checked(stage)
        keys = sorted(folder.glob(f"*/{MANIFEST}"), key=lambda path: path.stat().st_mtime, reverse=True)
        found = (self.find(stage, path.parent.name) for path in keys)
        return [ref for ref in found if ref is not None]

    def workdir(self, stage: str, key: str, *, empty: bool = False) -> Path:
        """Folder whose content will be committed; it persists over kills and is on the store's file system."""
        folder = self.root / ".work" / _checked(stage) / _checked(key) / "result"
        if empty:
            shutil.rmtree(folder, ignore_errors=True)
        return self._make(folder)

    def scratch(self, stage: str, key: str) -> Path:
        """Folder for checkpoints and the like, beside the work folder; deleted after the commit."""
        return self._make(self.root / ".work" / _checked(stage) / _checked(key) / "scratch")

    def require_space(self, needed_bytes: int) -> None:
        """Raises:
        StoreError: less is free; better said now than after an hour of training.
        """
        folder = self._make(self.root)
        if shutil.disk_usage(folder).free < needed_bytes:
            raise StoreError(full_disk_message(folder, needed_bytes))

    def commit(self, stage: str, key: str, kind: Kind, work: Path, manifest: Mapping[str, Any]) -> ArtifactRef:
        """Moves ``work`` into the store, with its manifest written last.

        Raises:
            StoreError: the disk is full, or the folder holds something that cannot be moved (a link).
        """
        target = self._folder(stage, key)
        with disk_errors(work):
            files = _hash_files(work, _list_files(work), durable=True)
            digest = digest_files({path: entry["sha256"] for path, entry in files.items()})
            content = {"stage": stage, "key": key, "kind": kind, "digest": digest, **manifest, "files": files}
            _write_durably(work / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
            target.parent.mkdir(parents=True, exist_ok=True)
            # Someone whose lease we missed may have been faster; what is in the store stays.
            if (found := self.find(stage, key)) is not None:
                self.forget_work(stage, key)
                return found
            self._move_aside(target)
            os.rename(work, target)
            _sync_folder(target.parent)
        self.forget_work(stage, key)
        return ArtifactRef(uri=f"{stage}/{key}", digest=digest, kind=kind)

    def forget_work(self, stage: str, key: str) -> None:
        shutil.rmtree(self.root / ".work" / _checked(stage) / _checked(key), ignore_errors=True)

    def _move_aside(self, target: Path) -> None:
        """A damaged result (no manifest, or files missing) makes room for the new one."""
        if target.exists():
            trash = self._make(self.root / ".work" / ".trash") / uuid.uuid4().hex
            os.rename(target, trash)
            shutil.rmtree(trash, ignore_errors=True)

    def _folder(self, stage: str, key: str) -> Path:
        return self.root / _checked(stage) / _checked(key)

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


def _checked(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise StoreError(f"{name!r} is no name of a stage or key; a ref looks like 'sft/1a2b3c4d'")
    return name


def _read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    complete = isinstance(manifest, dict) and {"files", "digest", "kind"} <= manifest.keys()
    return manifest if complete else None


def _list_files(folder: Path) -> list[str]:
    """Relative paths of the regular files; a link would dangle as soon as the store moves."""
    paths = sorted(path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink())
    links = [path.relative_to(folder).as_posix() for path in paths if path.is_symlink() or not path.is_file()]
    if links:
        raise StoreError(
            f"{str(folder)!r} holds links or special files, which cannot be stored: {links!r}; copy their content"
        )
    return [path.relative_to(folder).as_posix() for path in paths if path != folder / MANIFEST]


def _hash_files(folder: Path, relatives: list[str], *, durable: bool = False) -> dict[str, dict[str, Any]]:
    """sha256 and size of every file; ``durable``: and they survive a power cut. hashlib lets go of the GIL."""

    def hash_file(relative: str) -> dict[str, Any]:
        with (folder / relative).open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
            if durable:
                os.fsync(stream.fileno())
            return {"sha256": sha256, "size_bytes": os.fstat(stream.fileno()).st_size}

    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        return dict(zip(relatives, pool.map(hash_file, relatives), strict=True))


def _write_durably(path: Path, text: str) -> None:
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
