"""One boto3 client a process, environment and service."""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

from tasks.aws.errors import s3_errors
from tasks.aws.s3 import aws_settings

ATTEMPTS = 8  # of a request, about half a minute with growing pauses; AWS_MAX_ATTEMPTS sets another number
CONNECTIONS = 32
CONNECT_SECONDS, READ_SECONDS = 10, 60


def client() -> Any:
    """The S3 client of this process and environment; safe to share between threads, not between processes."""
    with s3_errors("S3"):
        return _client(os.getpid(), aws_settings())


@lru_cache(maxsize=4)
def _client(process: int, settings: tuple[tuple[str, str], ...]) -> Any:
    import boto3  # 0.3 s that a run on a folder does not need
    from botocore.config import Config

    attempts = int(os.environ.get("AWS_MAX_ATTEMPTS") or ATTEMPTS)
    config = Config(
        retries={"mode": "adaptive", "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        tcp_keepalive=True,
    )
    # Session: the default one is not safe to share. AWS_REGION: the CLI and most SDKs know it, boto3 alone does not.
    return boto3.session.Session().client("s3", config=config, region_name=os.environ.get("AWS_REGION") or None)
