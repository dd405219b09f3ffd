"""What one customer of the shop has: orders, items, ways to pay, and what he may wish for instead."""

from __future__ import annotations

from typing import Any, NamedTuple

from rightcall.retail.talk import Dice, Voice
from rightcall.retail.tools import ADDRESS, available, one_line, options_text, paid_with
from rightcall.retail.world import Json, World

_MOST_OPTIONS = 5  # available items of a product that is exchanged: its list has about 30 tokens for each


class NoFitError(Exception):
    """This customer has nothing that the situation needs."""


class Method(NamedTuple):
    text: str  # as the customer names it
    key: str  # payment_method_id
    known: str  # where the agent finds the id: "said", "order" or "profile"


class Swap(NamedTuple):
    item: Json
    new: Json
    wish: str  # the options that differ, in words


class Customer:
    def __init__(self, world: World, user_id: str, dice: Dice, voice: Voice) -> None:
        self.user_id = user_id
        self._world = world
        self._dice = dice
        self._voice = voice
        self.user = world.user(user_id)
        name, address = self.user["name"], self.user["address"]
        self.identity = {
            "email": self.user["email"],
            "first": name["first_name"],
            "last": name["last_name"],
            "zip": address["zip"],
            "user_id": user_id,
        }
        self.used: set[str] = set()  # orders that were talked about

    def orders(self) -> list[str]:
        return list(self.user["orders"])

    def order(self, *statuses: str, least: int = 1, most: int = 3) -> str:
        """An order in one of these states (any, when none is given) that was not talked about yet."""
        fit = [
            key
            for key in self.orders()
            if key not in self.used
            and (not statuses or self._world.order(key)["status"] in statuses)
            and least <= len(self._world.order(key)["items"]) <= most
        ]
        short = [key for key in fit if len(self._world.order(key)["items"]) == least]
        key = str(self._any(short if short and self._dice.chance(0.6) else fit))
        self.used.add(key)
        return key

    def items(self, order_id: str, count: int) -> list[Json]:
        """Items that their name alone tells apart, in the order's own order."""
        held = self._world.order(order_id)["items"]
        names = [item["name"] for item in held]
        single = [item for item in held if names.count(item["name"]) == 1]
        if len(single) < count:
            raise NoFitError
        chosen = self._dice.shuffled(single)[:count]
        return [item for item in single if item in chosen]

    def swap(self, order_id: str, *, sold_out: bool = False) -> Swap:
        """An item of the order and another variant of it; `sold_out`: one that is not to be had."""
        held = self.all_items(order_id)
        for item in self._dice.shuffled(held):
            if [other["name"] for other in held].count(item["name"]) == 1 and (
                found := self.swap_of(item, sold_out=sold_out)
            ):
                return found
        raise NoFitError

    def swap_of(self, item: Json, *, sold_out: bool = False) -> Swap | None:
        product = self._world.product(item["product_id"])
        open_ = available(product)
        if not 2 <= len(open_) <= _MOST_OPTIONS:
            return None
        others = [v for key, v in product["variants"].items() if key != item["item_id"] and (key in open_) != sold_out]
        wishes = [(_changed(item, variant), variant) for variant in others]
        near = [(changed, variant) for changed, variant in wishes if 1 <= len(changed) <= 2]
        if not near:
            return None
        changed, variant = self._dice.pick(near)
        return Swap(item, variant, " and ".join(f"{key} {value}" for key, value in changed.items()))

    def all_items(self, order_id: str) -> list[Json]:
        return list(self._world.order(order_id)["items"])

    def paid_with(self, order_id: str) -> str:
        return paid_with(self._world.order(order_id))

    def refund_method(self, order_id: str) -> Method:
        """The original way of paying, or a gift card."""
        original = self.paid_with(order_id)
        cards = [key for key in self.user["payment_methods"] if key.startswith("gift_card") and key != original]
        choices = [Method(self._voice.part("original"), original, "order")] * 3 + [Method(original, original, "said")]
        choices += [Method(key, key, "said") for key in cards]
        if len(cards) == 1 and not original.startswith("gift_card"):
            choices.append(Method("my gift card", cards[0], "profile"))
        return self._dice.pick(choices)

    def foreign_method(self, order_id: str) -> Method:
        """A card or account that a refund may not go to."""
        original = self.paid_with(order_id)
        others = [k for k in self.user["payment_methods"] if k != original and not k.startswith("gift_card")]
        key = self._any(others)
        return Method(key, key, "said")

    def paying_method(self, order_id: str, amount: float, *, other: bool = False) -> Method:
        """A method that covers the amount; `other`: not the one that the order was paid with."""
        original = self.paid_with(order_id)
        methods = self.user["payment_methods"]
        covering = [
            k for k, m in methods.items() if m.get("balance", amount) >= amount and not (other and k == original)
        ]
        key = self._any(covering)
        kind = methods[key]["source"]
        choices = [Method(key, key, "said")] * 2
        if kind != methods[original]["source"] and [m["source"] for m in methods.values()].count(kind) == 1:
            spoken = {"paypal": "my PayPal", "gift_card": "my gift card", "credit_card": "my credit card"}[kind]
            choices += [Method(spoken, key, "profile")] * 2
        if key == original:
            choices.append(Method(self._voice.part("original"), key, "order"))
        return self._dice.pick(choices)

    def poor_gift_card(self, order_id: str, amount: float) -> Method:
        original = self.paid_with(order_id)
        methods = self.user["payment_methods"]
        poor = [k for k, m in methods.items() if m.get("balance", amount) < amount and k != original]
        key = self._any(poor)
        return Method(key, key, "said")

    def new_address(self) -> tuple[str, Json]:
        """(as it is said, as a tool takes it): an address that nobody in the shop has."""
        numbers = [str(100 + self._dice.place(890)) for _ in range(2)]
        street = self._dice.pick(
            ("Linden Lane", "Harbor Street", "Willow Way", "Station Road", "Quarry Drive", "Bay Avenue")
        )
        city, state, zip_start = self._dice.pick(_CITIES)
        address = {
            "address1": f"{numbers[0]} {street}",
            "address2": self._dice.pick((f"Apt {numbers[1][0]}", f"Suite {numbers[1]}", f"Unit {numbers[1][:2]}")),
            "city": city,
            "state": state,
            "country": "USA",
            "zip": f"{zip_start}{10 + self._dice.place(89)}",
        }
        if self._dice.chance(0.5):
            return one_line(address), address
        return f"{address['address1']}, {address['address2']}, {city}, {state} {address['zip']}, USA", address

    def profile_address(self) -> Json:
        return {key: self.user["address"][key] for key in ADDRESS}

    def other_products(self, order_id: str) -> list[str]:
        held = {item["name"] for item in self.all_items(order_id)}
        return [name for name in sorted(p["name"] for p in self._world.products()) if name not in held]

    def _any(self, found: list[Any]) -> Any:
        if not found:
            raise NoFitError
        return self._dice.pick(found)


_CITIES = (
    ("Portland", "OR", "972"), ("Boise", "ID", "837"), ("Tucson", "AZ", "857"), ("Omaha", "NE", "681"),
    ("Raleigh", "NC", "276"), ("Madison", "WI", "537"), ("Reno", "NV", "895"), ("Tampa", "FL", "336"),
)  # fmt: skip


def names(items: list[Json], *, options: bool = False) -> str:
    said = [f"{item['name']} ({options_text(item['options'])})" if options else item["name"] for item in items]
    return " and ".join([", ".join(said[:-1]), said[-1]] if len(said) > 1 else said)


def one(product: str) -> str:
    """ "an E-Reader", "a pair of Sneakers"."""
    if product.endswith("s") and not product.endswith("ss"):
        return f"a pair of {product}"
    return f"{'an' if product[0] in 'AEIO' or product.startswith('LED') else 'a'} {product}"


def _changed(item: Json, variant: Json) -> dict[str, str]:
    return {key: value for key, value in variant["options"].items() if item["options"].get(key) != value}
