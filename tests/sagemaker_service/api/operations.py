"""What each operation of the API does; requests have passed botocore's model."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

from sagemaker_service.api import rules
from sagemaker_service.api.jobs import Job
from sagemaker_service.api.wire import ServiceError, invalid
from sagemaker_service.machines import clouds

if TYPE_CHECKING:
    from sagemaker_service.api.service import Service

NOT_FOUND = "Requested resource not found."


class Operations:
    def __init__(self, service: Service) -> None:
        self.service = service

    def call(self, operation: str, request: dict[str, Any], region: str) -> dict[str, Any]:
        verb = getattr(self, re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).lower(), None)
        if operation == "CreateTrainingJob":
            return self.create_training_job(request, region)
        if verb is None:
            raise ServiceError("UnknownOperationException", f"this emulation does not know {operation}", 404)
        return dict(verb(request))

    def create_training_job(self, request: dict[str, Any], region: str) -> dict[str, Any]:
        service = self.service
        rules.check_shape(request)
        rules.check_name(request["TrainingJobName"], service.jobs)
        rules.check_role(service.iam, request["RoleArn"])
        rules.check_image(request["AlgorithmSpecification"]["TrainingImage"], service.images, request["RoleArn"])
        rules.check_inputs(clouds.client("s3", service.aws_url, region), request, region)
        job = Job(request, region, service.account)
        service.start(job)
        return {"TrainingJobArn": job.arn}

    def describe_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        return self._job(request).describe()

    def stop_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        if job.status != "InProgress":
            raise invalid(f"The request was rejected because the training job is in status {job.status}.")
        job.stop()
        return {}

    def delete_training_job(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._job(request)
        if not job.finished.is_set():
            raise invalid(f"The request was rejected because the training job is in status {job.status}.")
        del self.service.jobs[job.name]
        return {}

    def list_training_jobs(self, request: dict[str, Any]) -> dict[str, Any]:
        def fits(job: Job) -> bool:
            return (
                request.get("NameContains", "").lower() in job.name.lower()
                and request.get("StatusEquals", job.status) == job.status
                and job.created >= _seconds(request.get("CreationTimeAfter", 0))
                and job.created <= _seconds(request.get("CreationTimeBefore", float("inf")))
            )

        found = sorted((job for job in list(self.service.jobs.values()) if fits(job)), key=lambda job: job.created)
        if request.get("SortOrder", "Descending") == "Descending":
            found.reverse()
        start, most = int(request.get("NextToken", 0)), request.get("MaxResults", 10)
        page = {"TrainingJobSummaries": [job.summary() for job in found[start : start + most]]}
        return page | ({"NextToken": str(start + most)} if start + most < len(found) else {})

    def add_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        job = self._owner(request)
        job.tags |= {tag["Key"]: tag["Value"] for tag in request["Tags"]}
        return {"Tags": [{"Key": key, "Value": value} for key, value in job.tags.items()]}

    def list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"Tags": [{"Key": key, "Value": value} for key, value in self._owner(request).tags.items()]}

    def delete_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        for key in request["TagKeys"]:
            self._owner(request).tags.pop(key, None)
        return {}

    def _job(self, request: dict[str, Any]) -> Job:
        job = self.service.jobs.get(request["TrainingJobName"])
        if job is None:
            raise invalid(NOT_FOUND)
        return job

    def _owner(self, request: dict[str, Any]) -> Job:
        for job in self.service.jobs.values():
            if job.arn == request["ResourceArn"]:
                return job
        raise invalid(NOT_FOUND)


def _seconds(when: float | str) -> float:
    return datetime.fromisoformat(when).timestamp() if isinstance(when, str) else when
