"""What a finished stage is known by: its ref, and its manifest with the sha256 of every file, written last."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from rightcall.errors import StoreError
from tasks.machine.hashing import HASHING_THREADS, hash_file, hash_files

Kind = Literal["model", "snapshot", "scores", "verdict", "registration", "report"]
MANIFEST = "manifest.json"
SETTLED_NS = 10**9  # a file that changed more recently may change again within the same tick of the file system's clock

Parts = str | tuple[str, ...]  # "model/" (all below it), "sft.parquet", several of them, "" = everything

# sha256 of files as they were when they were hashed here, by (device, inode, size, mtime, ctime); ctime cannot be set back.
_hashed: dict[tuple[int, ...], str] = {}


class ArtifactRef(BaseModel):
    """What moves between tasks instead of models and datasets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    uri: str  # "<stage>/<key>", relative to the store, so that the store can move
    digest: str  # sha256 over the non-volatile files
    kind: Kind


def is_volatile(relative: str) -> bool:
    """Whether a file holds timings and so does not count for the digest: equal work has equal digests."""
    path = PurePosixPath(relative)
    return path.name in ("metrics.jsonl", "summary.json") or path.suffix == ".log" or "data_docs" in path.parts[:-1]


def digest_files(hashes: Mapping[str, str]) -> str:
    """sha256 of the JSON object {relative path: sha256} of the non-volatile files, keys sorted."""
    counted = {path: value for path, value in hashes.items() if not is_volatile(path)}
    return hashlib.sha256(json.dumps(counted, sort_keys=True).encode()).hexdigest()


def seal(stage: str, key: str, kind: Kind, work: Path, manifest: Mapping[str, Any]) -> ArtifactRef:
    """Hashes every file of ``work`` and writes its manifest, last and durably; other runs do not see it yet."""
    files = hash_files(work, _list_files(work), durable=True)
    digest = digest_files({path: entry["sha256"] for path, entry in files.items()})
    content = {"stage": stage, "key": key, "kind": kind, "digest": digest, **manifest, "files": files}
    _write_durably(work / MANIFEST, json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    return ArtifactRef(uri=f"{stage}/{key}", digest=digest, kind=kind)


def digest_in_record(record: bytes) -> str:
    try:
        return str(json.loads(json.loads(record)["result"])["data"]["digest"])
    except (ValueError, KeyError, TypeError):
        return ""


def files_of(manifest: Mapping[str, Any], parts: Parts) -> dict[str, dict[str, Any]]:
    """The entries of the manifest that belong to ``parts``."""
    wanted = (parts,) if isinstance(parts, str) else parts
    return {
        path: entry
        for path, entry in manifest["files"].items()
        if any(each in ("", path) or (each.endswith("/") and path.startswith(each)) for each in wanted)
    }


def changed_files(folder: Path, manifest: Mapping[str, Any], parts: Parts = "") -> list[str]:
    """Files of ``parts`` whose content is not what the manifest says; one that was hashed in this process already and has
    not been touched since is not read again.
    """
    files = files_of(manifest, parts)
    with ThreadPoolExecutor(HASHING_THREADS) as pool:
        found = pool.map(lambda relative: _known_sha256(folder / relative), files)
        return [path for path, sha256 in zip(files, found, strict=True) if sha256 != files[path]["sha256"]]


def is_consistent(manifest: Mapping[str, Any]) -> bool:
    """Whether the digest, by which everybody knows the result, is that of the files it lists."""
    return bool(
        digest_files({path: entry["sha256"] for path, entry in manifest["files"].items()}) == manifest["digest"]
    )


def _known_sha256(path: Path) -> str | None:
    """None = the file is gone."""
    try:
        status = path.stat()
        stamp = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED_NS
        if settled and stamp in _hashed:
            return _hashed[stamp]
        sha256 = str(hash_file(path)["sha256"])
    except FileNotFoundError:
        return None
    if settled:
        _hashed[stamp] = sha256
    return sha256


def split(ref: ArtifactRef) -> tuple[str, str]:
    stage, _, key = ref.uri.partition("/")
    return stage, key


def ref_of(stage: str, key: str, manifest: Mapping[str, Any]) -> ArtifactRef:
    return ArtifactRef(uri=f"{stage}/{key}", digest=manifest["digest"], kind=manifest["kind"])


def read_manifest(folder: Path) -> dict[str, Any] | None:
    try:
        return parse_manifest((folder / MANIFEST).read_bytes())
    except OSError:
        return None


def parse_manifest(text: bytes) -> dict[str, Any] | None:
    """None = it was cut, or is no manifest."""
    try:
        manifest = json.loads(text)
    except ValueError:
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
