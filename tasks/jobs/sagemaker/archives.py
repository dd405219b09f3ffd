"""A finished job's model.tar.gz and output.tar.gz, from S3 into the stage's folder."""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError
from rightcall.job.stage_table import STAGES
from tasks.aws import clients, errors, s3
from tasks.runtime.stage import StageRun

READ_BYTES = 2**20


class LostResult(BackendError):
    """A job says Completed, but its archives are missing or broken: only another attempt brings them back."""


def collect(stage: str, description: Mapping[str, Any], run: StageRun, log: Path) -> None:
    """Fills ``run.folder`` with model/, output/ and job.log, as the local backend does.

    Raises:
        LostResult: an archive was deleted, is cut off, or wants to write outside of its folder.
        StoreError: S3 cannot be read.
    """
    name = str(description["TrainingJobName"])
    output = f"{description['OutputDataConfig']['S3OutputPath'].rstrip('/')}/{name}/output"
    for folder in (run.folder / "model", run.folder / "output"):
        shutil.rmtree(folder, ignore_errors=True)
    if STAGES[stage].makes_model:
        model = description.get("ModelArtifacts", {}).get("S3ModelArtifacts") or f"{output}/model.tar.gz"
        _fetch(str(model), run.folder / "model", run)
    _fetch(f"{output}/output.tar.gz", run.folder / "output", run)
    _lift(run.folder / "output")
    expected = STAGES[stage].leaves.replace("output/data/", "output/")
    if not (run.folder / expected).exists():
        raise LostResult(
            f"job {name!r} is Completed but its archives hold no {expected!r}; this is a mistake of the program, its log: {log}"
        )
    if log.exists():
        shutil.copyfile(log, run.folder / "job.log")


def _fetch(url: str, folder: Path, run: StageRun) -> None:
    from botocore.exceptions import ClientError

    address, archive = s3.parse_address(url), run.scratch / url.rpartition("/")[2]
    with errors.s3_errors(url):
        try:
            size = clients.s3().head_object(Bucket=address.bucket, Key=address.prefix)["ContentLength"]
            run.store.require_space(2 * size)
            clients.s3().download_file(address.bucket, address.prefix, str(archive))
        except ClientError as err:
            if errors.code_of(err) in errors.ABSENT:
                raise LostResult(
                    f"{url!r} was deleted, or never written; the same command starts another attempt, which resumes from the "
                    "last checkpoint if that is still there"
                ) from err
            raise
    try:
        extract(archive, folder, url)
    finally:
        archive.unlink(missing_ok=True)


def extract(archive: Path, folder: Path, url: str) -> None:
    """Everything in a tar.gz, to its last byte.

    Raises:
        LostResult: it is cut off, is no tar.gz, or has a member that climbs out of the folder.
    """
    folder.mkdir(parents=True)
    try:
        with gzip.open(archive, "rb") as stream, tarfile.open(fileobj=stream, mode="r:") as tar:
            tar.extractall(folder, filter="data")
            while stream.read(READ_BYTES):  # to the checksum at its end: a cut between two files shows only there
                continue
    except tarfile.FilterError as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise LostResult(
            f"{url!r} wants to write outside of its folder: {err}; nothing of it was kept. Find out who writes to that bucket; "
            "the same command starts another attempt"
        ) from err
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as err:
        shutil.rmtree(folder, ignore_errors=True)
        raise LostResult(
            f"{url!r} is cut off or no tar.gz ({err}); the same command starts another attempt, which resumes from the last "
            "checkpoint"
        ) from err


def _lift(folder: Path) -> None:
    """Some versions of the service pack output/data with its folder around it."""
    if [path.name for path in folder.iterdir()] == ["data"]:
        inner = folder.rename(folder.with_name("output.packed")) / "data"
        inner.rename(folder)
        inner.parent.rmdir()
