"""One boto3 client per service, process and environment, shared by all threads.

Credentials come from where boto3 finds them; AWS_ENDPOINT_URL (or AWS_ENDPOINT_URL_S3 …) names another service.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from tasks.aws.errors import s3_errors

S3_ATTEMPTS = 8  # of a request, about half a minute with growing pauses; AWS_MAX_ATTEMPTS sets another number
ATTEMPTS = 5  # of a request to SageMaker or CloudWatch; whoever waits for a job asks again anyway
CONNECTIONS = 32
CONNECT_SECONDS, READ_SECONDS = 10, 60


def s3() -> Any:
    """The client of S3.

    Raises:
        StoreError: there are no credentials, or the AWS settings cannot be used.
    """
    with s3_errors("S3"):
        # AWS_REGION: the CLI and most SDKs know it, boto3 alone does not.
        return _client(os.getpid(), "s3", os.environ.get("AWS_REGION") or None, aws_settings())


def sagemaker(region: str) -> Any:
    return _client(os.getpid(), "sagemaker", region, aws_settings())


def logs(region: str) -> Any:
    """CloudWatch's logs."""
    return _client(os.getpid(), "logs", region, aws_settings())


def aws_settings() -> tuple[tuple[str, str], ...]:
    """The variables that a client depends on beside its region; where they change, as in a test, a new one is made."""
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


@lru_cache(maxsize=8)
def _client(process: int, service: str, region: str | None, settings: tuple[tuple[str, str], ...]) -> Any:
    import boto3  # 0.3 s that a run on a folder does not need
    from botocore.config import Config

    many = service == "s3"  # requests at once, which slow down together when S3 asks for it
    config = Config(
        retries={
            "mode": "adaptive" if many else "standard",
            "total_max_attempts": int(os.environ.get("AWS_MAX_ATTEMPTS") or (S3_ATTEMPTS if many else ATTEMPTS)),
        },
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        tcp_keepalive=many,
    )
    # Session: the default one is not safe to share.
    return boto3.session.Session().client(service, config=config, region_name=region)
