"""Prefect's records of finished tasks in S3, as a block of our own: prefect-aws pins an older botocore."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any, ClassVar

from prefect.filesystems import WritableFileSystem
from prefect.settings import get_current_settings
from pydantic import Field

from tasks.aws import s3
from tasks.aws.s3 import Address

FOLDER = ".results"


class S3Results(WritableFileSystem):
    """Small objects below s3://bucket/prefix/.results; credentials come from the environment, never from the block."""

    _block_type_name: ClassVar[str | None] = "rightcall results in S3"
    _block_type_slug: ClassVar[str | None] = "rightcall-s3-results"

    bucket: str
    prefix: str = Field("", description="Without slashes at its ends.")

    # Prefect calls the plain name with _sync=True from synchronous code, and awaits the answer elsewhere if it can.
    def read_path(self, path: str, **_: Any) -> bytes:  # type: ignore[override]
        """The content of a record.

        Raises:
            FileNotFoundError: there is no such record, which Prefect takes for "not cached".
        """
        found = s3.get(self._address(), f"{FOLDER}/{path}")
        if found is None:
            raise FileNotFoundError(f"{self._address()}/{FOLDER}/{path}")
        return found.body

    def write_path(self, path: str, content: bytes, **_: Any) -> None:  # type: ignore[override]
        s3.put(self._address(), f"{FOLDER}/{path}", content)

    def _address(self) -> Address:
        return Address(self.bucket, self.prefix)


def saved_block(address: Address) -> S3Results:
    """The block as Prefect's server knows it: a task takes no other."""
    return _saved_block(address, str(get_current_settings().api.url))


@lru_cache(maxsize=8)
def _saved_block(address: Address, server: str) -> S3Results:
    block = S3Results(bucket=address.bucket, prefix=address.prefix)
    digest = hashlib.sha256(str(address).encode()).hexdigest()[:12]
    block.save(f"results-{digest}", overwrite=True)
    return block
