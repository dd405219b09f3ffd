"""The price file, and the command that refreshes it from a price list service that answers as AWS's does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from rightcall.errors import BackendError
from rightcall.recipe.loading import load_recipe
from tasks.costs import prices
from tasks.costs.prices import PRICES, price_of
from tasks.costs.throughput import hardware

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))


def test_the_price_file_says_when_and_where_from_and_claims_nothing_it_did_not_read() -> None:
    content = json.loads(PRICES.read_text())
    assert content["region"]
    assert len(content["date"].split("-")) == 3
    assert content["source"]
    if content["source"] != prices.SOURCE:
        assert not any(entry["verified"] for entry in content["prices"].values())
    assert all(entry["usd_per_hour"] > 0 for entry in content["prices"].values())


def test_every_recipe_runs_on_instances_with_a_price_and_a_known_speed() -> None:
    for path in RECIPES:
        settings = load_recipe(path).compute.sagemaker
        for kind in (settings.instance_type, settings.score_instance_type or settings.instance_type):
            assert kind is not None, path
            assert price_of(kind) is not None, (path, kind)
            assert hardware(kind) is not None, (path, kind)


class PriceList(BaseHTTPRequestHandler):
    """What AWS's price list service answers to GetProducts, two products a page."""

    products: tuple[dict[str, Any], ...] = ()
    status = 200

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        start = int(asked.get("NextToken") or 0)
        region = next(rule["Value"] for rule in asked["Filters"] if rule["Field"] == "regionCode")
        found = [product for product in self.products if product["product"]["attributes"]["regionCode"] == region]
        page: dict[str, Any] = {"PriceList": [json.dumps(product) for product in found[start : start + 2]]}
        if start + 2 < len(found):
            page["NextToken"] = str(start + 2)
        if self.status != 200:
            page = {"__type": "AccessDeniedException", "Message": "not authorized to perform: pricing:GetProducts"}
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(json.dumps(page).encode())

    def log_message(self, *arguments: Any) -> None:
        pass


def _product(usage: str, usd: str, region: str = "us-east-1") -> dict[str, Any]:
    dimension = {"pricePerUnit": {"USD": usd}, "unit": "Hrs"}
    terms = {"OnDemand": {"sku.term": {"priceDimensions": {"sku.term.rate": dimension}}}}
    return {"product": {"attributes": {"usagetype": usage, "regionCode": region}}, "terms": terms}


@pytest.fixture
def price_list(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[PriceList]]:
    class Answer(PriceList):
        products = (
            _product("USE1-Train:ml.g5.2xlarge", "1.6000000000"),
            _product("USE1-Host:ml.g5.2xlarge", "9.9"),
            _product("USE1-Train:ml.p5.48xlarge", "60.0"),
            _product("USE1-Train:ml.g6.xlarge", "0.0000000000"),
            _product("EU-Train:ml.m5.large", "0.13", "eu-west-1"),
        )

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", f"http://127.0.0.1:{server.server_port}")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    yield Answer
    server.shutdown()
    server.server_close()


def test_the_command_takes_training_prices_from_aws(
    price_list: type[PriceList], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prices.json"
    prices.main(["--file", str(file)])
    assert "2 prices of us-east-1" in capsys.readouterr().out
    content = json.loads(file.read_text())
    assert content["prices"] == {
        "ml.g5.2xlarge": {"usd_per_hour": 1.6, "verified": True},
        "ml.p5.48xlarge": {"usd_per_hour": 60.0, "verified": True},
    }
    assert content["source"] == prices.SOURCE
    found = price_of("ml.g5.2xlarge", file)
    assert found is not None
    assert (found.usd_per_hour, found.verified) == (1.6, True)
    prices.main(["--region", "eu-west-1", "--file", str(file)])
    assert list(json.loads(file.read_text())["prices"]) == ["ml.m5.large"]


@pytest.mark.parametrize(
    ("region", "status", "message"),
    [("us-east-1", 400, "pricing:GetProducts"), ("us-mars-1", 200, "no training instances in the region 'us-mars-1'")],
)
def test_a_refresh_that_fails_leaves_the_file_alone(
    price_list: type[PriceList],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    *,
    region: str,
    status: int,
    message: str,
) -> None:
    price_list.status = status
    file = tmp_path / "prices.json"
    file.write_text("{}")
    with pytest.raises(SystemExit, match="1"):
        prices.main(["--region", region, "--file", str(file)])
    assert message in capsys.readouterr().err
    assert file.read_text() == "{}"


def test_without_a_network_the_command_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x", "AWS_MAX_ATTEMPTS": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_ENDPOINT_URL_PRICING", "http://127.0.0.1:9")
    with pytest.raises(SystemExit, match="1"):
        prices.main(["--file", str(tmp_path / "prices.json")])
    text = capsys.readouterr().err
    for part in ("Could not connect", "a network, credentials and the permission", "stay as they were"):
        assert part in text


def test_a_broken_price_file_is_named(tmp_path: Path) -> None:
    file = tmp_path / "prices.json"
    file.write_text("{")
    with pytest.raises(BackendError, match="restore the file from git"):
        price_of("ml.g5.2xlarge", file)
