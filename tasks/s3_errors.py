"""What S3 and botocore refuse, in the words of whoever has to fix it.

The original stays the cause, so that what passes by itself (the network, SlowDown) is still known as such and tried
again by tasks/retries.py. No message holds a credential: botocore puts none into its errors' texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rightcall.errors import RightcallError, StoreError

ABSENT = {"NoSuchKey", "NotFound", "404"}
CONDITION_FAILED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def code_of(error: BaseException) -> str:
    """The service's own code, "NoSuchKey"; a HEAD has no body, then it is the status, "404"."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


@contextmanager
def s3_errors(what: str, kind: type[RightcallError] = StoreError) -> Iterator[None]:
    """Raises:
    RightcallError: of the ``kind``, for every error of botocore and s3transfer about ``what`` (s3://bucket/key).
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
    except ClientError as err:
        raise kind(f"S3 refused {what!r}: {_refusal(err, what)}") from err
    except RetriesExceededError as err:
        raise kind(
            f"the transfer of {what!r} broke off again and again: {err.last_exception}; run the same command, what has "
            "arrived is kept"
        ) from err.last_exception
    except BotoCoreError as err:
        raise kind(_local_failure(err, what)) from err


def _expired(error: Any, bucket: str) -> str:
    return "the AWS credentials have expired; log in again (aws sso login, or new keys), then run the same command: it "\
           "resumes"  # fmt: skip


def _unknown(error: Any, bucket: str) -> str:
    return (
        f"AWS does not know these credentials ({code_of(error)}); check AWS_PROFILE, AWS_ACCESS_KEY_ID and the secret "
        "that belongs to it"
    )


def _skewed(error: Any, bucket: str) -> str:
    return "the clock of this machine is wrong by more than 15 minutes; set it"


def _no_bucket(error: Any, bucket: str) -> str:
    return f"there is no bucket {bucket!r}; correct the name, or make it: aws s3 mb s3://{bucket}"


def _elsewhere(error: Any, bucket: str) -> str:
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or error.response.get("Error", {}).get("Region")
    asked = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return (
        f"the bucket {bucket!r} is in {f'region {region!r}' if region else 'another region'}, not in {asked!r}; set "
        "AWS_REGION to the bucket's region, and unset AWS_ENDPOINT_URL_S3 if it names another one"
    )


def _denied(error: Any, bucket: str) -> str:
    said = error.response.get("Error", {}).get("Message") or code_of(error)
    return (
        f"access denied ({said}). Either the bucket {bucket!r} belongs to another account, or your role lacks "
        "s3:ListBucket on the bucket, s3:GetObject, s3:PutObject or s3:DeleteObject on its objects, or the right to "
        "use its KMS key; `aws sts get-caller-identity` says who you are"
    )


def _busy(error: Any, bucket: str) -> str:
    tries = error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0) + 1
    return (
        f"it is busy ({code_of(error)}, {tries} tries with growing pauses); run the same command later, what has "
        "arrived is kept"
    )


def _changed(error: Any, bucket: str) -> str:
    return "the object was replaced while it was read; run the same command again"


ADVICE: dict[Callable[[Any, str], str], set[str]] = {
    _expired: {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"},
    _unknown: {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "AuthFailure"},
    _skewed: {"RequestTimeTooSkewed"},
    _no_bucket: {"NoSuchBucket"},
    # 400 without a body is S3's answer to a HEAD that was signed for another region.
    _elsewhere: {"PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "301", "307", "400",
                 "IllegalLocationConstraintException"},
    _denied: {"AccessDenied", "AccessDeniedException", "AllAccessDisabled", "AccountProblem", "Forbidden", "403"},
    _busy: {"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout", "Throttling", "ThrottlingException",
            "RequestLimitExceeded", "500", "502", "503", "504"},
    _changed: {"PreconditionFailed", "412"},
}  # fmt: skip


def _refusal(error: Any, what: str) -> str:
    code, bucket = code_of(error), what.removeprefix("s3://").partition("/")[0]
    for advice, codes in ADVICE.items():
        if code in codes:
            return advice(error, bucket)
    return f"{code}: {error.response.get('Error', {}).get('Message', '')}; check the bucket's settings"


def _local_failure(error: Any, what: str) -> str:
    """An error of botocore itself: nothing came back from the service."""
    from botocore import exceptions as known

    if isinstance(error, known.NoCredentialsError | known.PartialCredentialsError):
        return f"no AWS credentials for {what!r}; run `aws configure` or `aws sso login`, or set AWS_PROFILE"
    if isinstance(error, known.ProfileNotFound | known.ConfigParseError):
        return f"the AWS settings cannot be used for {what!r}: {error}; correct AWS_PROFILE or ~/.aws/config"
    if isinstance(error, known.CredentialRetrievalError | known.TokenRetrievalError | known.SSOError):
        return f"AWS gave no credentials for {what!r}: {error}; log in again (aws sso login)"
    if isinstance(error, known.NoRegionError | known.InvalidRegionError):
        return f"no AWS region for {what!r}: {error}; set AWS_REGION to the bucket's region"
    if isinstance(error, known.HTTPClientError | known.ConnectionError):
        return (
            f"S3 could not be reached for {what!r}: {error}; check the network, AWS_REGION and AWS_ENDPOINT_URL_S3, "
            "then run the same command: it resumes"
        )
    return f"S3 failed for {what!r}: {error}; check AWS_REGION, AWS_ENDPOINT_URL_S3 and the address"
