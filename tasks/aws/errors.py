"""Errors of AWS and botocore as errors of ours that say what to do.

The original stays the cause, so that tasks/runtime/retries.py still knows what passes by itself (the network, SlowDown)
and tries it again. No message holds a credential: botocore puts none into its errors' texts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rightcall.errors import RightcallError, StoreError

ABSENT = {"NoSuchKey", "NotFound", "404"}
CONDITION_FAILED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
EXPIRED_CODES = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "RequestExpired"}
UNKNOWN_CODES = {
    "InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "InvalidClientTokenId", "AuthFailure", "OptInRequired",
    "UnrecognizedClientException", "InvalidSignatureException", "MissingAuthenticationToken", "IncompleteSignature",
}  # fmt: skip
EXPIRED = (
    "the AWS credentials have expired; log in again (aws sso login, or new keys), then run the same command: it resumes"
)
UNKNOWN = (
    "AWS does not know the credentials ({message}); check AWS_PROFILE or AWS_ACCESS_KEY_ID and its secret, and that the region "
    "is enabled for the account"
)
# What botocore says when nothing came back from the service: by the names of the error's classes, the first that fits.
LOCAL_ADVICE: dict[str, set[str]] = {
    "no AWS credentials for {what}; run `aws configure` or `aws sso login`, or set AWS_PROFILE": {
        "NoCredentialsError", "PartialCredentialsError", "UnknownCredentialError", "NoAuthTokenError",
    },
    "AWS gave no credentials for {what}: {error}; log in again (aws sso login), then run the same command": {
        "CredentialRetrievalError", "TokenRetrievalError", "SSOError", "LoginError", "MetadataRetrievalError",
        "RefreshWithMFAUnsupportedError", "UnknownTokenProviderError",
    },
    "the AWS settings cannot be used for {what}: {error}; correct AWS_PROFILE, ~/.aws/config or the AWS_* variable": {
        "ProfileNotFound", "ConfigParseError", "ConfigNotFound", "InvalidConfigError", "InvalidRetryConfigurationError",
        "InvalidDefaultsMode", "InvalidProxiesConfigError", "InvalidChecksumConfigError", "InvalidS3AddressingStyleError",
        "InvalidSTSRegionalEndpointsConfigError", "InvalidS3UsEast1RegionalEndpointConfigError", "InvalidIMDSEndpointError",
        "InvalidIMDSEndpointModeError", "InvalidEndpointConfigurationError", "InvalidEndpointDiscoveryConfigurationError",
    },
    "no AWS region that can be used for {what}: {error}; set AWS_REGION, and check {settings}": {
        "NoRegionError", "InvalidRegionError", "UnknownRegionError", "UnknownEndpointError", "ServiceNotInRegionError",
        "EndpointVariantError", "UnknownFIPSEndpointError",
    },
    "{service} could not be reached for {what}: {error}; check the network and {settings}, then run the same command: "
    "it resumes": {"HTTPClientError", "ConnectionError"},
    "the transfer of {what} was damaged: {error}; run the same command again": {
        "ChecksumError", "FlexibleChecksumError", "IncompleteReadError", "AwsChunkedWrapperError",
    },
}  # fmt: skip
LOCAL_FAILURE = "{service} failed for {what}: {error}; check {settings}"
S3_SETTINGS = "AWS_REGION, AWS_ENDPOINT_URL_S3 and the address"


def code_of(error: BaseException) -> str:
    """The service's own code, "NoSuchKey"; a HEAD has no body, then it is the status, "404"."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


@contextmanager
def s3_errors(what: str, kind: type[RightcallError] = StoreError) -> Iterator[None]:
    """Turns every error of botocore and s3transfer about ``what`` (s3://bucket/key) into one of ours.

    Raises:
        RightcallError: of the type ``kind``.
    """
    from botocore.exceptions import BotoCoreError, ClientError
    from s3transfer.exceptions import (
        RetriesExceededError,
        S3DownloadFailedError,
        S3UploadFailedError,
        S3ValidationError,
    )

    try:
        yield
    except ClientError as err:
        raise kind(f"S3 refused {what!r}: {_refusal(err, what)}") from err
    except RetriesExceededError as err:
        raise kind(
            f"the transfer of {what!r} broke off again and again: {err.last_exception}; run the same command, what has "
            "arrived is kept"
        ) from err.last_exception
    except (S3DownloadFailedError, S3UploadFailedError, S3ValidationError) as err:
        raise kind(
            f"the transfer of {what!r} failed: {err}; something else may be writing there, run the same command again"
        ) from err
    except BotoCoreError as err:
        raise kind(local_advice(err, "S3", repr(what), S3_SETTINGS)) from err


def local_advice(error: BaseException, service: str, what: str, settings: str) -> str:
    """Of an error of botocore itself; ``settings``: what a user checks when the address or the region is wrong."""
    names = {kind.__name__ for kind in type(error).__mro__}
    text = next((text for text, known in LOCAL_ADVICE.items() if known & names), LOCAL_FAILURE)
    return text.format(error=error, service=service, what=what, settings=settings)


def _expired(error: Any, bucket: str) -> str:
    return EXPIRED


def _unknown(error: Any, bucket: str) -> str:
    return UNKNOWN.format(message=code_of(error))


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
    _expired: EXPIRED_CODES,
    _unknown: UNKNOWN_CODES,
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
