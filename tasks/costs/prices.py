"""Prices of SageMaker training instances on demand, from one dated file; this command refreshes it.

python -m tasks.costs.prices --region us-east-1      # AWS credentials with pricing:GetProducts
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError
from tasks.machine.terminal import errors_end_the_command

PRICES = Path(__file__).with_name("prices.json")
API_REGION = "us-east-1"  # the price list API lives there and knows all regions
SOURCE = "AWS Price List API, pricing:GetProducts, AmazonSageMaker, usage type Train"
# "USE1-Train:ml.g5.2xlarge"; us-east-1's older types have no prefix
TRAINING = re.compile(r"(?:[A-Z0-9]+-)?Train:(ml\.[a-z0-9-]+\.[a-z0-9]+)")


@dataclass(frozen=True)
class Price:
    usd_per_hour: float  # one instance
    verified: bool  # False: not read from AWS, see the file's source
    region: str
    date: str


def price_of(instance_type: str, path: Path = PRICES) -> Price | None:
    """None: the file has none."""
    content = _read(path, path.stat().st_mtime_ns if path.exists() else 0)
    entry = content["prices"].get(instance_type)
    return None if entry is None else Price(
        float(entry["usd_per_hour"]), bool(entry["verified"]), content["region"], content["date"]
    )  # fmt: skip


@lru_cache(maxsize=4)
def _read(path: Path, stamp: int) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as err:
        raise BackendError(
            f"the prices {str(path)!r} cannot be read: {err}; restore the file from git or run `python -m tasks.costs.prices`"
        ) from err


def refresh(region: str, path: Path = PRICES) -> int:
    """Writes today's prices of a region's training instances; gives how many.

    Raises:
        BackendError: AWS cannot be reached or does not allow it, or lists none; the file stays as it was.
    """
    found = dict(sorted(_from_aws(region)))
    if not found:
        raise BackendError(f"AWS lists no training instances in the region {region!r}; write it as in us-east-1")
    head = {"region": region, "date": datetime.now(UTC).date().isoformat(), "source": SOURCE}
    write(path, head, {name: {"usd_per_hour": usd, "verified": True} for name, usd in found.items()})
    return len(found)


def write(path: Path, head: dict[str, str], prices: dict[str, dict[str, Any]]) -> None:
    """One instance type a line, so that a diff shows what became dearer."""
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in prices.items()]
    opening = "".join(f" {json.dumps(name)}: {json.dumps(value)},\n" for name, value in head.items())
    path.write_text("{\n" + opening + ' "prices": {\n' + ",\n".join(lines) + "\n }\n}\n", encoding="utf-8")


def _from_aws(region: str) -> Iterator[tuple[str, float]]:
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    filters = [
        {"Type": "TERM_MATCH", "Field": "regionCode", "Value": region},
        {"Type": "TERM_MATCH", "Field": "productFamily", "Value": "ML Instance"},
    ]
    try:
        client = boto3.client("pricing", region_name=API_REGION)
        pages = client.get_paginator("get_products").paginate(ServiceCode="AmazonSageMaker", Filters=filters)
        for page in pages:
            for text in page["PriceList"]:
                yield from _price_in(json.loads(text))
    except (BotoCoreError, ClientError) as err:
        raise BackendError(
            f"the AWS price list could not be read: {err}; it needs a network, credentials and the permission "
            f"pricing:GetProducts. The prices in {PRICES.name} stay as they were"
        ) from err


def _price_in(product: dict[str, Any]) -> Iterator[tuple[str, float]]:
    match = TRAINING.fullmatch(product["product"]["attributes"].get("usagetype", ""))
    if match is None:
        return
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            usd = float(dimension["pricePerUnit"].get("USD", 0))
            if usd > 0:
                yield match[1], usd


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        "python -m tasks.costs.prices", description="Refresh tasks/costs/prices.json from AWS."
    )
    parser.add_argument("--region", default=API_REGION, help="the region that jobs run in")
    parser.add_argument("--file", type=Path, default=PRICES, help="the file to write")
    given = parser.parse_args(arguments)
    with errors_end_the_command():
        count = refresh(given.region, given.file)
    sys.stdout.write(f"{count} prices of {given.region} written to {given.file}; read `git diff` before you commit\n")


if __name__ == "__main__":
    main()
