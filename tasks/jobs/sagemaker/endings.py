"""How a training job ended, or why the service refused one: whether another attempt helps, and what a person should do.

| what                                                        | another attempt | the reader is told                      |
|-------------------------------------------------------------|-----------------|-----------------------------------------|
| Completed                                                   | –               |                                         |
| InternalServerError, throttling, CapacityError              | yes             | what it was                             |
| MaxWaitTimeExceeded (spot)                                  | yes             | max_wait_minutes, another type, no spot |
| NCCL, Xid, ECC in the program's failure                     | yes             | the line itself                         |
| the program's error (AlgorithmError)                        | no              | our error, as the type it had there     |
| out of memory                                               | no              | what to change                          |
| ClientError: image, data, disk                              | no              | what to correct                         |
| MaxRuntimeExceeded                                          | no              | max_runtime_minutes; it would resume    |
| Stopped                                                     | no              | never a success                         |
| ResourceLimitExceeded, role, image, credentials at creation | no              | the quota's name, the role, …           |
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rightcall.errors import BackendError, RightcallError, StoreError
from tasks.aws.errors import EXPIRED, EXPIRED_CODES, UNKNOWN, UNKNOWN_CODES
from tasks.jobs.contract import program_error

ENDED = ("Completed", "Failed", "Stopped")
LOG_GROUP = "/aws/sagemaker/TrainingJobs"
BROKEN_MACHINE = re.compile(
    r"\bNCCL|nccl[A-Z]\w+|\bXid\b|\bECC\b|\bEFA\b|CUDA error: (?:unspecified|uncorrectable|hardware)"
)
WRONG_CALL = re.compile(
    r"invalid (?:usage|argument)|ncclInvalid", re.IGNORECASE
)  # NCCL's words for mistakes of the program
OUT_OF_MEMORY = re.compile(
    r"out of memory|MemoryError|instance type with more memory|killed by signal 9|exit code: 137", re.IGNORECASE
)
FULL_DISK = re.compile(r"no space left on device|insufficient disk space|out of disk", re.IGNORECASE)
IMAGE = re.compile(r"\bimage\b|repository|\becr\b|manifest unknown", re.IGNORECASE)
DATA = re.compile(r"no s3 objects|download|s3 (?:url|prefix|bucket)|input data|access ?denied", re.IGNORECASE)
TRANSIENT = re.compile(r"^(?:InternalServerError|CapacityError|Throttling\w*|ServiceUnavailable|InternalFailure)\b|rate exceeded",
                       re.IGNORECASE)  # fmt: skip
MEMORY_ADVICE = (
    "halve per_device_train_batch_size and double gradient_accumulation_steps (the result stays the same), set "
    "activation_checkpointing: true, lower max_length, use compute.parallel zero3 or fsdp2, or a larger instance type"
)


@dataclass(frozen=True)
class End:
    """``error`` None = it is done; ``retry``: another attempt may well succeed."""

    error: RightcallError | None
    retry: bool = False


def classify(description: Mapping[str, Any]) -> End:
    """Of DescribeTrainingJob's answer, for a job that ended."""
    status, reason = str(description.get("TrainingJobStatus")), str(description.get("FailureReason") or "").strip()
    name, secondary = str(description.get("TrainingJobName")), str(description.get("SecondaryStatus") or "")
    where = f"SageMaker job {name!r}; its log: CloudWatch, group {LOG_GROUP}, streams {name}/…"
    if status == "Completed":
        return End(None)
    if "MaxWaitTimeExceeded" in (secondary, reason):
        return End(BackendError(
            "no spot capacity came, or not for long enough, within compute.sagemaker.max_wait_minutes; raise it, choose "
            f"another instance type or region, or set spot: false; what was trained is kept ({where})"
        ), retry=True)  # fmt: skip
    if "MaxRuntimeExceeded" in (secondary, reason):
        return End(BackendError(
            "the job reached compute.sagemaker.max_runtime_minutes and was ended; raise it and run the same command: it "
            f"resumes from the last checkpoint ({where})"
        ))  # fmt: skip
    if status == "Stopped":
        return End(BackendError(
            "the job was stopped, by someone with the console or `aws sagemaker stop-training-job`; the same command starts "
            f"it again and resumes from its last checkpoint ({where})"
        ))  # fmt: skip
    return _failed(reason, where)


def _failed(reason: str, where: str) -> End:
    kind, _, text = reason.partition(":")
    said = _without_exit_code(text if kind in ("AlgorithmError", "ClientError") else reason)
    if TRANSIENT.search(reason):
        hint = "; choose another instance type or region if it stays so" if kind == "CapacityError" else ""
        return End(BackendError(f"SageMaker could not run the job: {reason!r}{hint} ({where})"), retry=True)
    if (error := _full_disk(said, where) or program_error(said, where)) is not None:
        return End(error)
    if BROKEN_MACHINE.search(reason) and not WRONG_CALL.search(reason):
        return End(BackendError(f"a GPU or the network between hosts broke down: {said!r} ({where})"), retry=True)
    if OUT_OF_MEMORY.search(reason):
        what = f"the job ran out of memory: {said!r}; {MEMORY_ADVICE}"
    elif kind == "ClientError":
        what = f"SageMaker ended the job: {said!r}; {_client_advice(said)}"
    else:
        what = (
            f"the training program failed: {said or 'it left no reason'}; correct it and run the same command, it resumes from "
            "the last checkpoint"
        )
    return End(BackendError(f"{what} ({where})"))


def _full_disk(said: str, where: str) -> StoreError | None:
    if not FULL_DISK.search(said):
        return None
    return StoreError(
        f"the disk of the training host is full: {said!r}; raise compute.sagemaker.volume_gb (types with their own NVMe disk, "
        f"as p4d or g5, take a larger size instead), or save checkpoints less often ({where})"
    )


def _without_exit_code(text: str) -> str:
    """ "AlgorithmError: …, exit code: 1" is how the service quotes the failure file."""
    return re.sub(r",? ?exit code: 1\b\.?\s*$", "", text.strip(), flags=re.IGNORECASE).strip()


def _client_advice(said: str) -> str:
    if IMAGE.search(said):
        return "check compute.sagemaker.image (or RIGHTCALL_IMAGE), that it was pushed in this region, and that the role may pull it"
    if DATA.search(said):
        return "check that the store's bucket is in the job's region and that the role may read and write it"
    return "docs/sagemaker.md has the role's policies"


def refusal(code: str, message: str, name: str) -> BackendError:
    """Of an error answer of the SageMaker API that waiting will not heal; ``name``: the job that was meant."""
    return BackendError(f"SageMaker refused job {name!r} ({code}): {_refusal_advice(code, message)}")


def _refusal_advice(code: str, message: str) -> str:
    if code in ADVICE:
        return ADVICE[code].format(message=message.strip(), quota=_quota(message))
    if "assume role" in message.lower():
        return (
            f"{message} Correct compute.sagemaker.role (or RIGHTCALL_SAGEMAKER_ROLE), or add sagemaker.amazonaws.com to the "
            "role's trust policy; docs/sagemaker.md has it"
        )
    if IMAGE.search(message) or DATA.search(message):
        advice = _client_advice(message)
        return f"{message} {advice[0].upper()}{advice[1:]}"
    return f"{message}; correct what it names in compute.sagemaker"


def _quota(message: str) -> str:
    found = re.search(r"service limit '([^']+)'", message)
    return f"the quota {found[1]!r}" if found else "a quota"


DENIED = (
    "{message} Your own role needs sagemaker:CreateTrainingJob, DescribeTrainingJob, StopTrainingJob, AddTags and iam:PassRole "
    "for the execution role; docs/sagemaker.md has the policy"
)
ADVICE = {
    "ResourceLimitExceeded": "{quota} is too low. {message} Ask for more: `aws service-quotas list-service-quotas "
    "--service-code sagemaker` shows its code, then `aws service-quotas request-service-quota-increase --service-code "
    "sagemaker --quota-code … --desired-value …`, or https://console.aws.amazon.com/servicequotas/home/services/sagemaker/quotas; "
    "or choose another compute.sagemaker.instance_type",
    **dict.fromkeys(EXPIRED_CODES, EXPIRED),
    **dict.fromkeys(UNKNOWN_CODES, UNKNOWN),
    **dict.fromkeys(("AccessDeniedException", "AccessDenied"), DENIED),
}  # fmt: skip
