"""SageMaker's and CloudWatch's errors in the words of whoever has to fix them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rightcall.errors import BackendError, RightcallError
from tasks.aws.errors import code_of, local_advice
from tasks.jobs.sagemaker.endings import refusal
from tasks.runtime.retries import is_transient

SETTINGS = "that the region exists (compute.sagemaker.region, AWS_REGION)"


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
