"""What the emulated SageMaker refuses, in the words of the real one."""

from __future__ import annotations

from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from sagemaker_client import (  # noqa: F401  two are fixtures, by another name
    SPOT,
    STOPPABLE,
    channel,
    client,
    finished,
    fresh_service,
    refused,
    request,
    run,
    running_service,
)
from sagemaker_service import Service
from sagemaker_service.machines.clouds import make_role


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"TrainingJobName": "no_underscores"}, "1 validation error detected: Value 'no_underscores' at 'trainingJobName' failed to "
         "satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}"),
        ({"TrainingJobName": "a" * 64}, "Member must have length less than or equal to 63"),
        ({"RoleArn": None}, "Value null at 'roleArn' failed to satisfy constraint: Member must not be null"),
        ({"ResourceConfig": {"InstanceType": "ml.x9.huge", "InstanceCount": 1, "VolumeSizeInGB": 1}}, "enum value set"),
        ({"HyperParameters": {"a": "b" * 2501}}, "at 'hyperParameters.a.member' failed to satisfy constraint: Member must have length"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 0}}, "Member must have value greater than or equal to 1"),
        ({"Tags": [{"Key": "k", "Value": "{}"}]}, "at 'tags.1.member.value'"),
        ({"Environment": {"A": "b" * 513}}, "at 'environment.A.member'"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}},
         "It is only supported when EnableManagedSpotTraining is set to true"),
        ({"EnableManagedSpotTraining": True}, "It must be present and be greater than or equal to MaxRuntimeInSeconds"),
        (SPOT | {"ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1,
                                    "KeepAlivePeriodInSeconds": 60}}, "KeepAlivePeriodInSeconds is not supported"),
        ({"AlgorithmSpecification": {"TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/other:1", "TrainingInputMode": "File"}},
         "Cannot find repository: other in registry ID: 123456789012"),
        ({"RoleArn": "arn:aws:iam::123456789012:role/nobody"}, "Could not assume role arn:aws:iam::123456789012:role/nobody. Please "
         "ensure that the role exists and allows principal 'sagemaker.amazonaws.com' to assume the role."),
        ({"InputDataConfig": [channel("c", "s3://jobs/gone/")]},
         'No S3 objects found under S3 URL "s3://jobs/gone/" given in input data source. Please ensure that the bucket exists'),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_in_the_service_s_words(
    changes: dict[str, Any], message: str, service: Service
) -> None:
    with pytest.raises(ClientError) as error:
        client(parameter_validation=False).create_training_job(
            **request("wrong", **({"TrainingJobName": "wrong"} | changes))
        )
    code, text = refused(error)
    assert code == "ValidationException"
    assert message in text
    assert "wrong" not in service.jobs


def test_a_role_that_trusts_another_service_is_refused(service: Service) -> None:
    trust = {
        "Statement": {"Effect": "Allow", "Principal": {"Service": "ec2.amazonaws.com"}, "Action": "sts:AssumeRole"}
    }
    with pytest.raises(ClientError, match=r"Could not assume role .*allows principal 'sagemaker.amazonaws.com'"):
        run(service, "stranger", RoleArn=make_role(service.iam, "stranger", trust))


def test_a_bucket_of_another_region_holds_no_objects_for_the_service(service: Service) -> None:
    with pytest.raises(ClientError, match=r"exists in the selected region \(eu-west-1\)"):
        boto3.client("sagemaker", region_name="eu-west-1").create_training_job(
            **request(
                "far",
            )
        )


def test_a_name_is_taken_once(service: Service) -> None:
    run(service, "unique")
    with pytest.raises(ClientError) as error:
        client().create_training_job(**request("unique"))
    assert refused(error) == (
        "ResourceInUse",
        "Training job names must be unique within an AWS account and region, and a training job with this name already exists "
        "(arn:aws:sagemaker:us-east-1:123456789012:training-job/unique)",
    )


def test_a_quota_counts_the_instances_of_running_jobs(service: Service) -> None:
    service.faults.set_quota("ml.g5.xlarge", 1)
    resources = {"InstanceType": "ml.g5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 1}
    client().create_training_job(**request("first", "sh", "-c", STOPPABLE, ResourceConfig=resources))
    with pytest.raises(ClientError) as error:
        client().create_training_job(**request("second", ResourceConfig=resources))
    code, text = refused(error)
    assert code == "ResourceLimitExceeded"
    assert (
        "'ml.g5.xlarge for training job usage' is 1 Instances, with current utilization of 1 Instances and a request delta of 1"
        in text
    )
    client().stop_training_job(TrainingJobName="first")
    finished(service, "first")
    assert run(service, "third", ResourceConfig=resources)["TrainingJobStatus"] == "Completed"


def test_a_job_that_is_not_there_or_has_ended_cannot_be_described_or_stopped(service: Service) -> None:
    for verb in ("describe", "stop", "delete"):
        with pytest.raises(ClientError) as error:
            getattr(client(), f"{verb}_training_job")(TrainingJobName="nobody")
        assert refused(error) == ("ValidationException", "Requested resource not found.")
    run(service, "over")
    with pytest.raises(ClientError, match="the training job is in status Completed"):
        client().stop_training_job(TrainingJobName="over")
