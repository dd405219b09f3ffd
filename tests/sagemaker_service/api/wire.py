"""Answers and errors in the service's own form: AWS-JSON 1.1."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass
from typing import Any

# code: (HTTP status, the service's wording)
KNOWN = {
    "ThrottlingException": (400, "Rate exceeded"),
    "InternalFailure": (500, "The request processing has failed because of an unknown error, exception or failure."),
    "ServiceUnavailable": (503, "The request has failed due to a temporary failure of the server."),
    "ResourceLimitExceeded": (
        400,
        "The account-level service limit 'ml.p4d.24xlarge for training job usage' is 0 Instances, with current utilization "
        "of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an increase for this "
        "quota. If AWS Service Quotas is not available, contact AWS support to request an increase for this quota.",
    ),
    "ExpiredTokenException": (400, "The security token included in the request is expired"),
    "UnrecognizedClientException": (400, "The security token included in the request is invalid."),
    "InvalidClientTokenId": (403, "The security token included in the request is invalid."),
    "AccessDeniedException": (
        400,
        "User: arn:aws:iam::123456789012:user/somebody is not authorized to perform: sagemaker:{operation} because no "
        "identity-based policy allows the sagemaker:{operation} action",
    ),
    "ValidationException": (400, "Requested resource not found."),
}


class ServiceError(Exception):
    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.message, self.status = code, message, status


def invalid(message: str) -> ServiceError:
    return ServiceError("ValidationException", message)


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: dict[str, str]


def answer(content: Any, status: int = 200, code: str = "") -> Answer:
    headers = {"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())}
    if code:
        headers["x-amzn-ErrorType"] = code
    return Answer(status, json.dumps(content).encode(), headers)


def error_answer(error: ServiceError) -> Answer:
    return answer({"__type": error.code, "message": error.message}, error.status, error.code)
