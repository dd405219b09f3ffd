"""Every end of a job and every refusal: what the user reads, and whether another attempt is made."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path
from typing import Any

import pytest

from rightcall.errors import BackendError, DataError, RightcallError, StoreError, TrainingError
from tasks.jobs.sagemaker.archives import LostResult, _lift, extract
from tasks.jobs.sagemaker.endings import End, classify, refusal

JOB = "rightcall-sft-1a2b"
QUOTA = (
    "The account-level service limit 'ml.p4d.24xlarge for training job usage' is 0 Instances, with current utilization of 0 "
    "Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this quota."
)


def end(status: str = "Failed", reason: str = "", secondary: str | None = None) -> End:
    description: dict[str, Any] = {
        "TrainingJobName": JOB,
        "TrainingJobStatus": status,
        "SecondaryStatus": secondary or status,
    }
    return classify(description | ({"FailureReason": reason} if reason else {}))


@pytest.mark.parametrize(
    ("reason", "reads"),
    [
        ("InternalServerError: We encountered an internal error. Please try again.", "SageMaker could not run the job"),
        ("CapacityError: Unable to provision requested ML compute capacity.", "choose another instance type or region"),
        ("ThrottlingException: Rate exceeded", "SageMaker could not run the job"),
        ("ClientError: Rate exceeded", "SageMaker could not run the job"),
        ("AlgorithmError: RuntimeError: NCCL error: unhandled system error, exit code: 1", "NCCL error: unhandled system error'"),
        ("AlgorithmError: DistBackendError: ncclRemoteError: A call failed, exit code: 1", "between hosts broke down"),
        ("AlgorithmError: BackendError: Xid 79: GPU has fallen off the bus, exit code: 1", "a GPU or the network"),
        ("AlgorithmError: AcceleratorError: CUDA error: uncorrectable ECC error encountered, exit code: 1", "ECC error"),
    ],
)  # fmt: skip
def test_what_may_pass_by_itself_is_tried_again(reason: str, reads: str) -> None:
    found = end(reason=reason)
    assert found.retry
    assert isinstance(found.error, BackendError)
    assert reads in str(found.error)
    assert JOB in str(found.error)


@pytest.mark.parametrize(
    ("reason", "kind", "reads"),
    [
        ("AlgorithmError: TrainingError: the loss became nan in step 7; lower learning_rate\n\n  File \"/x.py\", line 1, exit "
         "code: 1", TrainingError, "the loss became nan in step 7; lower learning_rate (SageMaker job"),
        ("AlgorithmError: DataError: the NCCL row is broken, exit code: 1", DataError, "the NCCL row is broken ("),
        ("AlgorithmError: KeyError: 'x', exit code: 1", BackendError, "the training program failed: KeyError: 'x'; correct"),
        ("AlgorithmError: , exit code: 1", BackendError, "the training program failed: it left no reason"),
        ("AlgorithmError: RuntimeError: NCCL error: invalid usage (run with NCCL_DEBUG=WARN), exit code: 1", BackendError,
         "the training program failed"),
        ("AlgorithmError: OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB, exit code: 1", BackendError,
         "ran out of memory: 'OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB'; halve per_device_train_batch_size"),
        ("AlgorithmError: BackendError: the training process was killed by signal 9 (SIGKILL), exit code: 1", BackendError,
         "ran out of memory"),
        ("ClientError: Please use an instance type with more memory, or reduce the size of training data processed on an "
         "instance.", BackendError, "a larger instance type"),
        ("AlgorithmError: OSError: [Errno 28] No space left on device, exit code: 1", StoreError,
         "raise compute.sagemaker.volume_gb"),
        ("ClientError: Cannot pull image 123.dkr.ecr.x/rightcall:1: manifest unknown", BackendError,
         "check compute.sagemaker.image (or RIGHTCALL_IMAGE)"),
        ("ClientError: Data download failed: S3 access denied", BackendError, "the role may read and write it"),
    ],
)  # fmt: skip
def test_what_stays_is_not_tried_again_and_says_what_to_do(reason: str, kind: type[RightcallError], reads: str) -> None:
    found = end(reason=reason)
    assert not found.retry
    assert type(found.error) is kind
    assert reads in str(found.error)


def test_stopped_is_never_a_success() -> None:
    stopped = end("Stopped")
    assert not stopped.retry
    assert "the job was stopped" in str(stopped.error)
    too_long = end("Stopped", secondary="MaxRuntimeExceeded")
    assert not too_long.retry
    assert "reached compute.sagemaker.max_runtime_minutes" in str(too_long.error)
    assert "resumes from the last checkpoint" in str(too_long.error)


def test_spot_capacity_that_does_not_come_is_asked_for_again() -> None:
    found = end("Stopped", secondary="MaxWaitTimeExceeded")
    assert found.retry
    assert "within compute.sagemaker.max_wait_minutes; raise it, choose another instance type" in str(found.error)


def test_only_completed_is_done() -> None:
    assert end("Completed") == End(None)


@pytest.mark.parametrize(
    ("code", "message", "reads"),
    [
        ("ResourceLimitExceeded", QUOTA, ["the quota 'ml.p4d.24xlarge for training job usage' is too low", "is 0 Instances",
                                          "aws service-quotas request-service-quota-increase"]),
        ("ExpiredTokenException", "The security token included in the request is expired", ["have expired; log in again"]),
        ("UnrecognizedClientException", "The security token included in the request is invalid.",
         ["does not know the credentials", "AWS_PROFILE", "region is enabled"]),
        ("AccessDeniedException", "User: x is not authorized to perform: sagemaker:CreateTrainingJob",
         ["User: x is not authorized", "iam:PassRole", "docs/sagemaker.md"]),
        ("ValidationException", "Could not assume role arn:aws:iam::1:role/x. Please ensure that the role exists and allows "
         "principal 'sagemaker.amazonaws.com' to assume the role.", ["role/x", "trust policy"]),
        ("ValidationException", "Cannot find repository: rightcall in registry ID: 1 Please check if your ECR repository exists",
         ["Cannot find repository: rightcall", "Check compute.sagemaker.image"]),
        ("ValidationException", 'No S3 objects found under S3 URL "s3://b/x/"', ["s3://b/x/", "role may read"]),
        ("ValidationException", "Invalid MaxRuntime", ["Invalid MaxRuntime; correct what it names in compute.sagemaker"]),
    ],
)  # fmt: skip
def test_a_refusal_says_what_to_do(code: str, message: str, reads: list[str]) -> None:
    text = str(refusal(code, message, JOB))
    assert text.startswith(f"SageMaker refused job {JOB!r} ({code}): ")
    assert not [part for part in reads if part not in text]


def make_archive(path: Path, *names: str) -> Path:
    """A name with "link/" gets a symbolic link to the folder above before it."""
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            if name.startswith("link/"):
                link = tarfile.TarInfo("link")
                link.type, link.linkname = tarfile.SYMTYPE, ".."
                tar.addfile(link)
            member = tarfile.TarInfo(name)
            member.size = 1000
            tar.addfile(member, io.BytesIO(bytes(range(250)) * 4))
    return path


def test_an_archive_is_unpacked_whole(tmp_path: Path) -> None:
    extract(
        make_archive(tmp_path / "model.tar.gz", "config.json", "sub/weights"), tmp_path / "model", "s3://b/model.tar.gz"
    )
    assert sorted(path.name for path in (tmp_path / "model").rglob("*") if path.is_file()) == ["config.json", "weights"]


@pytest.mark.parametrize("name", ["../escaped", "sub/../../escaped", "link/escaped"])
def test_an_archive_that_climbs_out_leaves_nothing(tmp_path: Path, name: str) -> None:
    archive = make_archive(tmp_path / "model.tar.gz", "config.json", name)
    with pytest.raises(LostResult, match=r"'s3://b/model.tar.gz' wants to write outside of its folder: "):
        extract(archive, tmp_path / "model", "s3://b/model.tar.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["model.tar.gz"]


def test_an_absolute_path_in_an_archive_lies_within_the_folder_too(tmp_path: Path) -> None:
    extract(make_archive(tmp_path / "model.tar.gz", "/tmp/escaped"), tmp_path / "model", "s3://b/model.tar.gz")
    assert (tmp_path / "model/tmp/escaped").is_file()


@pytest.mark.parametrize("kept", [0, 10, 0.3, 0.6, 0.95, -4, -1])
def test_an_archive_that_is_cut_anywhere_is_no_result(tmp_path: Path, kept: float) -> None:
    whole = make_archive(tmp_path / "model.tar.gz", "config.json", "weights").read_bytes()
    (tmp_path / "model.tar.gz").write_bytes(whole[: int(kept * len(whole)) if 0 < kept < 1 else int(kept)])
    with pytest.raises(LostResult, match=r"is cut off or no tar.gz \(.*\); the same command starts another attempt"):
        extract(tmp_path / "model.tar.gz", tmp_path / "model", "s3://b/model.tar.gz")
    assert not (tmp_path / "model").exists()


def test_an_archive_without_its_last_member_is_no_result(tmp_path: Path) -> None:
    """Cut exactly between two files, and packed again without tar's end: only the missing end tells."""
    content = gzip.decompress(make_archive(tmp_path / "model.tar.gz", "config.json", "weights").read_bytes())
    (tmp_path / "model.tar.gz").write_bytes(gzip.compress(content[:1536])[:-8])
    with pytest.raises(LostResult):
        extract(tmp_path / "model.tar.gz", tmp_path / "model", "s3://b/model.tar.gz")


def test_output_packed_with_its_folder_around_it_is_unpacked_like_the_rest(tmp_path: Path) -> None:
    extract(make_archive(tmp_path / "a.tar.gz", "data/summary.json"), tmp_path / "output", "s3://b/output.tar.gz")
    _lift(tmp_path / "output")
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["summary.json"]
