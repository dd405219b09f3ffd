"""What a customer may want done, and how the right agent does it: look, ask for what is missing, confirm, write, tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rightcall.retail.customer import Customer, Method, NoFitError, Swap, names
from rightcall.retail.talk import Talk
from rightcall.retail.tools import one_line, options_text
from rightcall.retail.world import Json


@dataclass(frozen=True)
class Request:
    intent: str  # of customer_phrases.REQUESTS
    handle: Callable[[], None]  # all that follows, once the customer is known
    slots: dict[str, str] = field(default_factory=dict)
    why: str = ""


def confirm(t: Talk, ask: str, slots: Json, write: Callable[[], Any], done: str) -> None:
    """Say what will happen, wait for a yes, do it. What the customer answers is `t.mind`: yes, no, unsure or push."""
    t.asks(ask, **slots)
    mind, t.mind = t.mind, "yes"
    if mind == "no":
        t.customer("no")
        t.tells("unchanged")
        return
    if mind == "unsure":
        t.customer("unsure")
        t.asks(ask, **slots)
    t.customer("yes")
    write()
    t.orders.pop(slots.get("order", ""), None)
    t.tells(done, **slots)


def method_id(t: Talk, c: Customer, method: Method) -> str:
    """What the customer named, as an id; a name alone is looked up in the profile."""
    if method.known == "profile":
        t.look_at_profile(c.user_id)
    return method.key


def cancel(t: Talk, c: Customer, missing: str = "") -> Request:
    order = c.order("pending")
    why, reason = t.dice.pick((("needless", "no longer needed"), ("mistake", "ordered by mistake")))

    def handle() -> None:
        if missing == "order":
            t.asks("order")
            t.customer("order", order=order)
        if t.look_at_order(order)["status"] != "pending":
            raise NoFitError
        if missing == "reason":
            t.asks("reason", order=order)
            t.customer("why", why=why)
        slots = {"order": order, "reason": reason, "method": c.paid_with(order)}
        confirm(
            t,
            "confirm_cancel",
            slots,
            lambda: t.calls("cancel_pending_order", order_id=order, reason=reason),
            "cancelled",
        )

    intent = {"order": "cancel_no_order", "reason": "cancel_no_reason"}.get(missing, "cancel")
    return Request(intent, handle, {} if missing == "order" else {"order": order}, why)


def send_back(t: Talk, c: Customer, missing: str = "") -> Request:
    order = c.order("delivered")
    count = 1 + (t.dice.chance(0.3) and len(c.all_items(order)) > 1)
    items = c.items(order, count)
    if missing == "items" and len(c.all_items(order)) == 1:
        raise NoFitError
    method = c.refund_method(order)
    slots = {"order": order, "items": names(items), "method": method.text}

    def handle() -> None:
        if missing == "order":
            t.asks("order")
            t.customer("order", order=order)
        t.look_at_order(order)
        if missing == "items":
            t.asks("items", order=order, names=names(c.all_items(order)))
            t.customer("items", items=slots["items"])
        finish_return(t, c, order, items, method, ask_method=missing == "method")

    intent = f"return_no_{missing}" if missing else "return"
    gone = {"order": ("order",), "items": ("items",), "method": ("method",)}.get(missing, ())
    return Request(intent, handle, {key: value for key, value in slots.items() if key not in gone})


def finish_return(t: Talk, c: Customer, order: str, items: list[Json], method: Method, *, ask_method: bool) -> None:
    if ask_method:
        paid = c.paid_with(order)
        t.asks("refund", paid_with=paid, card="another gift card" if paid.startswith("gift_card") else "a gift card")
        t.customer("method", method=method.text)
    key = method_id(t, c, method)

    def write() -> None:
        ids = [item["item_id"] for item in items]
        t.calls("return_delivered_order_items", order_id=order, item_ids=ids, payment_method_id=key)

    listed = ", ".join(f"{item['name']} {item['item_id']}" for item in items)
    confirm(t, "confirm_return", {"order": order, "items": listed, "method": key}, write, "returned")


def swap(t: Talk, c: Customer, status: str, missing: str = "") -> Request:
    """Another variant of an item: the order's state alone says whether it is modified or exchanged."""
    order = c.order(status)
    found = c.swap(order)
    method = c.paying_method(order, max(0.0, round(found.new["price"] - found.item["price"], 2)))
    slots = {"order": order, "item": found.item["name"], "wish": found.wish, "method": method.text}

    def handle() -> None:
        t.look_at_order(order)
        if missing == "wish":
            t.asks("wish", item=found.item["name"])
            t.customer("wish", wish=found.wish)
        t.calls("get_product_details", product_id=found.item["product_id"])
        if missing == "method":
            t.asks("difference")
            t.customer("method", method=method.text)
        finish_swap(t, c, order, found, method)

    intent = f"swap_no_{missing}" if missing else "swap"
    return Request(intent, handle, {key: value for key, value in slots.items() if key != missing})


def finish_swap(t: Talk, c: Customer, order: str, found: Swap, method: Method) -> None:
    item, new = found.item, found.new
    key = method_id(t, c, method)
    tool, done = {
        "pending": ("modify_pending_order_items", "modified"),
        "delivered": ("exchange_delivered_order_items", "exchanged"),
    }[t.world.order(order)["status"]]
    slots = {
        "order": order,
        "item": item["name"],
        "old": item["item_id"],
        "new": new["item_id"],
        "options": options_text(new["options"]),
        "method": key,
    }

    def write() -> None:
        ids = {"item_ids": [item["item_id"]], "new_item_ids": [new["item_id"]]}
        t.calls(tool, order_id=order, **ids, payment_method_id=key)

    confirm(t, "confirm_swap", slots, write, done)


def ship_to(t: Talk, c: Customer, missing: str = "") -> Request:
    """Another address for a pending order; "profile": the one on file, which has to be looked up."""
    order = c.order("pending")
    text, address = c.new_address()

    def handle() -> None:
        t.look_at_order(order)
        where, said = address, one_line(address)
        if missing == "value":
            t.asks("address")
            t.customer("new_address", address=text)
        elif missing == "profile":
            said = t.look_at_profile(c.user_id)["address"]
            where = c.profile_address()
        confirm(
            t,
            "confirm_address",
            {"order": order, "address": said},
            lambda: t.calls("modify_pending_order_address", order_id=order, **where),
            "address",
        )

    intent = {"value": "address_no_value", "profile": "address_profile"}.get(missing, "address")
    return Request(intent, handle, {"order": order} | ({} if missing else {"address": text}))


def move_house(t: Talk, c: Customer) -> Request:
    text, address = c.new_address()

    def handle() -> None:
        confirm(
            t,
            "confirm_user_address",
            {"address": one_line(address)},
            lambda: t.calls("modify_user_address", user_id=c.user_id, **address),
            "user_address",
        )
        t.profile = None

    return Request("user_address", handle, {"address": text})


def pay_with(t: Talk, c: Customer) -> Request:
    order = c.order("pending")
    total = t.world.order(order)["payment_history"][0]["amount"]
    method = c.paying_method(order, total, other=True)

    def handle() -> None:
        t.look_at_order(order)
        key = method_id(t, c, method)
        confirm(
            t,
            "confirm_payment",
            {"order": order, "method": key, "paid_with": c.paid_with(order)},
            lambda: t.calls("modify_pending_order_payment", order_id=order, payment_method_id=key),
            "payment",
        )

    return Request("payment", handle, {"order": order, "method": method.text})


def refund_elsewhere(t: Talk, c: Customer) -> Request:
    """The refund to a card that did not pay is refused; then the customer takes the original way, or leaves it."""
    order = c.order("delivered")
    items = c.items(order, 1)
    method = c.foreign_method(order)
    allowed = c.refund_method(order)

    def handle() -> None:
        t.look_at_order(order)
        t.declines("refund", paid_with=c.paid_with(order), method=method.key)
        if t.dice.chance(0.6):
            t.customer("method", method=allowed.text)
            finish_return(t, c, order, items, allowed, ask_method=False)

    return Request("return", handle, {"order": order, "items": names(items), "method": method.text})


def twice(t: Talk, c: Customer) -> tuple[Request, Request]:
    """An item is exchanged or modified, and then another one of the same order is asked for."""
    first = swap(t, c, t.dice.pick(("pending", "delivered")))
    order = first.slots["order"]
    others = [item for item in c.all_items(order) if item["name"] != first.slots["item"]]
    if not others:
        raise NoFitError

    def handle() -> None:
        t.declines("once", order=order)

    item = others[0]["name"]
    slots = {"order": order, "item": item, "wish": "another color", "method": first.slots["method"]}
    return first, Request("swap", handle, slots)


def sold_out(t: Talk, c: Customer) -> Request:
    """What is wished for is not to be had; at times something else is."""
    status = t.dice.pick(("pending", "delivered"))
    order = c.order(status)
    found = c.swap(order, sold_out=True)
    method = c.paying_method(order, 0.0)
    slots = {"order": order, "item": found.item["name"], "wish": found.wish, "method": method.text}

    def handle() -> None:
        t.look_at_order(order)
        t.calls("get_product_details", product_id=found.item["product_id"])
        t.declines("sold_out", item=found.item["name"], options=options_text(found.new["options"]))
        again = c.swap_of(found.item)
        if again is None or t.dice.chance(0.4):
            t.customer("ok")
            t.tells("unchanged")
            return
        t.customer("wish", wish=again.wish)
        finish_swap(t, c, order, again, method)

    return Request("swap", handle, slots)


def poor_card(t: Talk, c: Customer) -> Request:
    """The gift card does not cover the order, which shows only when the tool says so; then another method is taken."""
    order = c.order("pending")
    total = t.world.order(order)["payment_history"][0]["amount"]
    method = c.poor_gift_card(order, total)
    try:
        better = c.paying_method(order, total, other=True)
    except NoFitError:
        better = None

    def pay(key: str) -> None:
        t.calls("modify_pending_order_payment", order_id=order, payment_method_id=key)

    def handle() -> None:
        t.look_at_order(order)
        slots = {"order": order, "paid_with": c.paid_with(order)}
        t.asks("confirm_payment", method=method.key, **slots)
        t.customer("yes")
        pay(method.key)
        t.asks("other_payment")
        if better is None:
            t.customer("no")
            t.tells("unchanged")
            return
        t.customer("method", method=better.key)
        confirm(t, "confirm_payment", {**slots, "method": better.key}, lambda: pay(better.key), "payment")

    return Request("payment", handle, {"order": order, "method": method.text})


def withdrawn(t: Talk, c: Customer, first: Request) -> Request:
    """With the tool for it on offer, a return just requested is withdrawn, which is no cancelling of an order."""
    order = first.slots["order"]

    def handle() -> None:
        confirm(
            t,
            "confirm_cancel_return",
            {"order": order},
            lambda: t.calls("cancel_requested_return", order_id=order),
            "return_withdrawn",
        )

    return Request("cancel_return", handle, {"order": order})
