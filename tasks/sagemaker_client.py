"""The SageMaker and CloudWatch clients of a run, and their errors in the words of whoever has to fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from rightcall.errors import BackendError, RightcallError
from tasks import s3
from tasks.retries import is_transient
from tasks.sagemaker_ends import refusal
from tasks.sagemaker_request import aws_settings

ATTEMPTS = 5  # of one call; whoever waits asks again anyway
CONNECT_SECONDS, READ_SECONDS = 10, 60


def client(service: str, region: str) -> Any:
    """``service``: "sagemaker" or "logs"."""
    return _client(os.getpid(), service, region, aws_settings())


@lru_cache(maxsize=8)
def _client(process: int, service: str, region: str, settings: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from botocore.config import Config

    config = Config(
        retries={"mode": "standard", "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS)},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
    )
    return boto3.session.Session(region_name=region).client(service, config=config)


@contextmanager
def service_errors(name: str, region: str) -> Iterator[None]:
    """botocore's errors as BackendError; the original is the cause, so that what passes by itself is known as such.

    ``name``: the job that is meant.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as err:
        raise _refused(err, name) from err
    except BotoCoreError as err:
        raise BackendError(_local_advice(err, name, region)) from err


def passes(error: BaseException) -> bool:
    """Whether asking again later makes sense: throttling, 500s, a network that is away."""
    return is_transient(error)


def not_found(error: BaseException) -> bool:
    """DescribeTrainingJob's way to say that there is no such job."""
    return s3.code_of(error) in ("ValidationException", "ResourceNotFound") and "not found" in str(error).lower()


def _refused(error: Any, name: str) -> RightcallError:
    message = error.response.get("Error", {}).get("Message", "")
    if is_transient(error):
        tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return BackendError(
            f"SageMaker is busy ({s3.code_of(error)}: {message}; {tries} tries for job {name!r}); run the same command later, "
            "it goes on where it was"
        )
    return refusal(s3.code_of(error), message, name)


def _local_advice(error: Any, name: str, region: str) -> str:
    from botocore import exceptions

    if isinstance(error, exceptions.NoCredentialsError | exceptions.PartialCredentialsError):
        return "no AWS credentials for SageMaker; run `aws configure` or `aws sso login`, or set AWS_PROFILE"
    if isinstance(error, exceptions.ProfileNotFound | exceptions.ConfigParseError):
        return f"the AWS settings cannot be used: {error}; correct AWS_PROFILE or ~/.aws/config"
    if isinstance(
        error,
        exceptions.CredentialRetrievalError
        | exceptions.TokenRetrievalError
        | exceptions.SSOError
        | exceptions.UnauthorizedSSOTokenError,
    ):
        return f"AWS gave no credentials: {error}; log in again (aws sso login) and run the same command"
    if isinstance(error, exceptions.HTTPClientError | exceptions.ConnectionError | exceptions.InvalidRegionError):
        return (
            f"SageMaker could not be reached in region {region!r} for job {name!r}: {error}; check the network and that the "
            "region exists (compute.sagemaker.region, AWS_REGION), then run the same command"
        )
    return f"SageMaker could not be asked about job {name!r}: {error}; check compute.sagemaker and the AWS settings"
