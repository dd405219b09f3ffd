"""What the service itself demands of a CreateTrainingJob that botocore's model allows.

Wordings are the service's own, as users quote them in public issues; where none was found it is said beside the line.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable
from typing import Any

from botocore.exceptions import ClientError

from sagemaker_service.api.faults import Faults
from sagemaker_service.api.jobs import Job
from sagemaker_service.api.wire import ServiceError, invalid
from sagemaker_service.machines.storage import split

LONGEST_SECONDS = 432_000  # the default quota of "Longest run time for a training job"
RAISE = (
    "Please use AWS Service Quotas to request an increase for this quota. If AWS Service Quotas is not available, contact "
    "AWS support to request an increase for this quota."
)


def check_shape(request: dict[str, Any]) -> None:
    """The rules between fields of one request."""
    for name in ("ResourceConfig", "StoppingCondition", "AlgorithmSpecification"):
        if name not in request:  # optional in the model only for serverless jobs
            raise invalid(f"{name} is required")
    algorithm, resources, stopping = (
        request["AlgorithmSpecification"], request["ResourceConfig"], request["StoppingCondition"]
    )  # fmt: skip
    if "TrainingImage" not in algorithm:
        raise invalid("You must specify TrainingImage or AlgorithmName; this emulation knows TrainingImage only")
    if resources.get("InstanceCount", 0) < 1 or "InstanceType" not in resources:
        raise invalid("InstanceType and InstanceCount are required, or InstanceGroups; this emulation knows no groups")
    if resources.get("VolumeSizeInGB", 0) < 1:
        raise invalid("VolumeSizeInGB must be at least 1")  # wording not seen
    _check_waiting(bool(request.get("EnableManagedSpotTraining")), stopping, resources)
    names = [channel["ChannelName"] for channel in request.get("InputDataConfig", [])]
    if len(set(names)) != len(names):
        raise invalid("Channel names must be unique")  # wording not seen
    if any(tag["Key"].lower().startswith("aws:") for tag in request.get("Tags", [])):
        raise invalid("aws: prefixed tag key names are not allowed for external use.")
    for name in request.get("Environment", {}):
        if name.startswith("SAGEMAKER_INTERNAL"):
            raise invalid(f"Environment variable {name} is reserved")  # wording not seen


def _check_waiting(spot: bool, stopping: dict[str, int], resources: dict[str, Any]) -> None:
    running, waiting = stopping.get("MaxRuntimeInSeconds", 86_400), stopping.get("MaxWaitTimeInSeconds")
    if running > LONGEST_SECONDS:
        raise _over_quota("Longest run time for a training job", LONGEST_SECONDS, 0, running, "Seconds")
    if spot and (waiting is None or waiting < running):
        raise invalid(
            "Invalid MaxWaitTimeInSeconds. It must be present and be greater than or equal to MaxRuntimeInSeconds"
        )
    if not spot and waiting is not None:
        raise invalid(
            "Invalid MaxWaitTimeInSeconds. It is only supported when EnableManagedSpotTraining is set to true"
        )
    if spot and resources.get("KeepAlivePeriodInSeconds"):  # wording not seen
        raise invalid("KeepAlivePeriodInSeconds is not supported when EnableManagedSpotTraining is set to true")


def check_role(iam: Any, arn: str) -> None:
    refused = invalid(
        f"Could not assume role {arn}. Please ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to "
        "assume the role."
    )
    try:
        role = iam.get_role(RoleName=arn.rpartition("/")[2])["Role"]
    except ClientError as err:
        raise refused from err
    statements = role["AssumeRolePolicyDocument"].get("Statement", [])
    allowed = [
        service
        for statement in ([statements] if isinstance(statements, dict) else statements)
        if statement.get("Effect") == "Allow" and "sts:AssumeRole" in _listed(statement.get("Action"))
        for service in _listed((statement.get("Principal") or {}).get("Service"))
    ]
    if role["Arn"] != arn or "sagemaker.amazonaws.com" not in allowed:
        raise refused


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or [])


def check_image(image: str, known: Iterable[str], role: str) -> None:
    uri = re.fullmatch(r"(\d{12})\.dkr\.ecr\.[a-z0-9-]+\.amazonaws\.com(?:\.cn)?/([^:@]+)(?:[:@].+)?", image)
    if uri is None:
        raise invalid(f"Invalid image URI {image}. Please provide a valid Amazon Elastic Container Registry path")
    if any(fnmatch.fnmatchcase(image, pattern) for pattern in known):
        return
    if any(fnmatch.fnmatchcase(image.rpartition(":")[0] or image, pattern.rpartition(":")[0]) for pattern in known):
        raise invalid(f"Cannot find the requested image: {image}")
    raise invalid(
        f"Cannot find repository: {uri[2]} in registry ID: {uri[1]} Please check if your ECR repository exists and role {role} "
        "has proper pull permissions for SageMaker: ecr:BatchCheckLayerAvailability, ecr:BatchGetImage, "
        "ecr:GetDownloadUrlForLayer"
    )


def check_inputs(s3: Any, request: dict[str, Any], region: str) -> None:
    default_mode = request["AlgorithmSpecification"]["TrainingInputMode"]
    for channel in request.get("InputDataConfig", []):
        source = channel["DataSource"].get("S3DataSource")
        mode = channel.get("InputMode", default_mode)
        if source is None or source["S3DataType"] != "S3Prefix" or mode == "Pipe":
            raise invalid(f"channel {channel['ChannelName']!r}: this emulation knows S3Prefix in File or FastFile mode")
        bucket, prefix = split(source["S3Uri"])
        try:
            found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)["KeyCount"]
            home = s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] or "us-east-1"
        except ClientError:
            found, home = 0, region
        if not found or home != region:
            raise invalid(no_objects(source["S3Uri"], bucket, region, request["RoleArn"]))


def no_objects(uri: str, bucket: str, region: str, role: str) -> str:
    return (
        f'No S3 objects found under S3 URL "{uri}" given in input data source. Please ensure that the bucket exists in the '
        f'selected region ({region}), that objects exist under that S3 prefix, and that the role "{role}" has "s3:ListBucket" '
        f'permissions on bucket "{bucket}".'
    )


def check_name(name: str, jobs: dict[str, Job]) -> None:
    if name in jobs:
        raise ServiceError(
            "ResourceInUse",
            "Training job names must be unique within an AWS account and region, and a training job with this name already "
            f"exists ({jobs[name].arn})",
        )


def check_quota(request: dict[str, Any], jobs: Iterable[Job], faults: Faults) -> None:
    resources, spot = request["ResourceConfig"], bool(request.get("EnableManagedSpotTraining"))
    kind, wanted = resources["InstanceType"], resources["InstanceCount"]
    running = [job for job in jobs if not job.finished.is_set() and job.instance_type == kind]
    used = sum(job.instances for job in running if job.spot == spot)
    name = f"{kind} for {'spot ' if spot else ''}training job usage"
    if used + wanted > faults.quota(name):
        raise _over_quota(name, faults.quota(name), used, wanted, "Instances")
    warm = f"{kind} for training warm pool usage"
    if resources.get("KeepAlivePeriodInSeconds") and wanted > faults.quota(warm):
        raise _over_quota(warm, faults.quota(warm), 0, wanted, "Instances")


def _over_quota(name: str, limit: int, used: int, wanted: int, unit: str) -> ServiceError:
    return ServiceError(
        "ResourceLimitExceeded",
        f"The account-level service limit '{name}' is {limit} {unit}, with current utilization of {used} {unit} and a request "
        f"delta of {wanted} {unit}. {RAISE}",
    )
