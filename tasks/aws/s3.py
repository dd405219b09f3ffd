"""Small objects in S3: read, written, deleted, listed; transfers.py moves the large ones.

A conditional write that was refused is an answer, not an error: ``put`` gives None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from rightcall.errors import StoreError
from tasks.aws import clients
from tasks.aws.errors import ABSENT, CONDITION_FAILED, code_of, s3_errors

SCHEME = "s3://"


@dataclass(frozen=True)
class Address:
    """A bucket and a prefix in it, "" or without slashes at its ends."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, relative: str) -> str:
        return f"{self.prefix}/{relative}" if self.prefix else relative


@dataclass(frozen=True)
class Object:
    """What GET gave; both times come from the service's clock."""

    body: bytes
    etag: str
    modified: datetime
    answered: datetime


@dataclass(frozen=True)
class Listed:
    size_bytes: int
    etag: str
    modified: datetime


def parse_address(text: str) -> Address:
    """Bucket and prefix of s3://bucket/prefix.

    Raises:
        StoreError: it does not look like s3://bucket or s3://bucket/prefix.
    """
    match = re.fullmatch(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(?:/+(.*?))?/*", text)
    if match is None or any(part in ("", ".", "..") for part in (match[2] or "x").split("/")):
        raise StoreError(f"{text!r} is no address in S3; write s3://bucket/prefix, as in s3://my-team/rightcall")
    return Address(match[1], match[2] or "")


def get(address: Address, relative: str) -> Object | None:
    """The whole of a small object; None = there is none."""
    from botocore.exceptions import ClientError

    with s3_errors(f"{address}/{relative}"):
        try:
            answer = clients.s3().get_object(Bucket=address.bucket, Key=address.key(relative))
        except ClientError as err:
            if code_of(err) in ABSENT:
                return None
            raise
        body = answer["Body"].read()
    return Object(body, answer["ETag"], answer["LastModified"], _answered(answer))


def put(address: Address, relative: str, body: bytes, *, replaces: str | None = None, new: bool = False) -> str | None:
    """Writes a small object; gives its ETag.

    replaces: only if the ETag of what is there is this one. new: only if nothing is there. None = it was not so.
    """
    from botocore.exceptions import ClientError

    condition = {"IfNoneMatch": "*"} if new else {"IfMatch": replaces} if replaces else {}
    with s3_errors(f"{address}/{relative}"):
        try:
            answer = clients.s3().put_object(Bucket=address.bucket, Key=address.key(relative), Body=body, **condition)
        except ClientError as err:
            if condition and code_of(err) in CONDITION_FAILED | ABSENT:
                return None
            raise
    return str(answer["ETag"])


def delete(address: Address, relative: str, *, only: str | None = None) -> bool:
    """Deletes an object; ``only``: if its ETag is this one. False = it was another, or none."""
    from botocore.exceptions import ClientError

    with s3_errors(f"{address}/{relative}"):
        try:
            clients.s3().delete_object(
                Bucket=address.bucket, Key=address.key(relative), **({"IfMatch": only} if only is not None else {})
            )
        except ClientError as err:
            if code_of(err) in CONDITION_FAILED | ABSENT:
                return False
            raise
    return True


def list_objects(address: Address, below: str) -> dict[str, Listed]:
    """The objects whose address begins with ``below`` ("sft/1a2b/"), by what follows it."""
    start = address.key(below)
    with s3_errors(f"{address}/{below}"):
        pages = clients.s3().get_paginator("list_objects_v2").paginate(Bucket=address.bucket, Prefix=start)
        return {
            item["Key"][len(start) :]: Listed(item["Size"], item["ETag"], item["LastModified"])
            for page in pages
            for item in page.get("Contents", [])
        }


def _answered(answer: Mapping[str, Any]) -> datetime:
    return parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
