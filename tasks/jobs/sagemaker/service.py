"""The SageMaker and CloudWatch clients of a run, and their errors in the words of whoever has to fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from rightcall.errors import BackendError, RightcallError
from tasks.aws.errors import code_of, local_advice
from tasks.aws.s3 import aws_settings
from tasks.jobs.sagemaker.endings import refusal
from tasks.runtime.retries import is_transient

ATTEMPTS = 5  # of one call; whoever waits asks again anyway
CONNECT_SECONDS, READ_SECONDS = 10, 60
SETTINGS = "that the region exists (compute.sagemaker.region, AWS_REGION)"


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
        what = f"job {name!r} in region {region!r}"
        raise BackendError(local_advice(err, "SageMaker", what, SETTINGS)) from err


def passes(error: BaseException) -> bool:
    """Whether asking again later makes sense: throttling, 500s, a network that is away."""
    return is_transient(error)


def not_found(error: BaseException) -> bool:
    """DescribeTrainingJob's way to say that there is no such job."""
    return code_of(error) in ("ValidationException", "ResourceNotFound") and "not found" in str(error).lower()


def _refused(error: Any, name: str) -> RightcallError:
    message = error.response.get("Error", {}).get("Message", "")
    if is_transient(error):
        tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
        return BackendError(
            f"SageMaker is busy ({code_of(error)}: {message}; {tries} tries for job {name!r}); run the same command later, "
            "it goes on where it was"
        )
    return refusal(code_of(error), message, name)
