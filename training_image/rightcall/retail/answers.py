"""Requests that change nothing: questions about orders and the profile, refusals by the rules, handing over to a human."""

from __future__ import annotations

from rightcall.retail.customer import Customer, NoFitError, names, one
from rightcall.retail.requests import Request
from rightcall.retail.talk import Talk
from rightcall.retail.tools import available, options_text
from rightcall.retail.world import Json

# Never done for anybody, so that the agent needs to know neither the customer nor the order.
NEVER = ("off_topic", "opinion", "new_order", "discount", "price_match", "other_user")
_MODIFIES = ("address", "address_profile", "payment", "address_no_value")
HANDED_OVER = {"human": "wants a human", "account": "account change", "parcel": "parcel problem"}


def about_order(t: Talk, c: Customer, intent: str) -> Request:
    """status, contents, price or paid: the answer stands in the order's details."""
    order = c.order()
    (item,) = c.items(order, 1)

    def handle() -> None:
        shown = t.look_at_order(order)
        slots = {"order": order, "status": shown["status"], "method": shown["paid_with"], "item": item["name"]}
        t.tells(intent, **slots, names=names(c.all_items(order), options=True), price=str(item["price"]))

    return Request(intent, handle, {"order": order, "item": item["name"]})


def tracking(t: Talk, c: Customer, *, own_tool: bool = False) -> Request:
    order = c.order("delivered", "processed", "delivered", "pending")

    def handle() -> None:
        if own_tool:
            found = t.calls("get_order_tracking", order_id=order)
            number = found["tracking"] if found else ""
            status = "not shipped"
        else:
            shown = t.look_at_order(order)
            number, status = shown.get("tracking", ""), shown["status"]
        if number:
            t.tells("tracking", order=order, tracking=number)
        else:
            t.tells("untracked", order=order, status=status)

    return Request("tracking", handle, {"order": order})


def total(t: Talk, c: Customer) -> Request:
    order = c.order(least=2)
    first, second = c.items(order, 2)

    def handle() -> None:
        t.look_at_order(order)
        value = t.calls("calculate", expression=f"{first['price']} + {second['price']}")
        t.tells("sum", total=value)

    return Request("sum", handle, {"order": order, "first_item": first["name"], "second_item": second["name"]})


def options(t: Talk, c: Customer) -> Request:
    order = c.order()
    (item,) = c.items(order, 1)
    found = available(t.world.product(item["product_id"]))
    if not 1 <= len(found) <= 5:
        raise NoFitError

    def handle() -> None:
        t.look_at_order(order)
        t.calls("get_product_details", product_id=item["product_id"])
        t.tells("options", options="; ".join(options_text(v["options"]) for v in found.values()))

    return Request("options", handle, {"order": order, "item": item["name"]})


def about_profile(t: Talk, c: Customer, intent: str) -> Request:
    if intent == "profile_orders" and not c.orders():
        raise NoFitError
    cards = [key for key in c.user["payment_methods"] if key.startswith("gift_card")]
    if intent == "balance" and len(cards) != 1:
        raise NoFitError

    def handle() -> None:
        shown = t.look_at_profile(c.user_id)
        slots: Json = {"address": shown["address"], "methods": ", ".join(shown["payment_methods"])}
        if intent == "balance":
            slots |= {"method": cards[0], "balance": shown["payment_methods"][cards[0]].removeprefix("balance ")}
        t.tells(intent, **slots, orders=", ".join(shown["orders"]))

    return Request(intent, handle)


def refused(t: Talk, c: Customer, intent: str) -> Request:
    """What the shop does for nobody, said in words."""
    order, item = "", t.dice.pick(sorted(p["name"] for p in t.world.products()))
    if intent in ("discount", "price_match"):
        order = c.order()
        item = c.items(order, 1)[0]["name"]
    if intent == "other_user":
        order = f"#W{1_000_000 + t.dice.place(9_000_000)}"

    def handle() -> None:
        t.declines(intent)
        if t.dice.chance(0.4):
            t.customer("push_denied")
            t.declines("insist")

    return Request(intent, handle, {"order": order, "item": item, "one": one(item)})


def handed_over(t: Talk, c: Customer, intent: str) -> Request:
    def handle() -> None:
        t.calls("transfer_to_human_agents", summary=HANDED_OVER[intent])
        t.tells("transferred")

    return Request(intent, handle, {"order": c.order("delivered", most=9)} if intent == "parcel" else {})


def wrong_status(t: Talk, c: Customer, intent: str) -> Request:
    """Cancel, modify, return or exchange what is in no state for it; only a look at the order shows that."""
    barred = {"return": ("pending", "processed", "cancelled"), "swap": ("processed", "cancelled")}
    order = c.order(*barred.get(intent, ("delivered", "processed", "cancelled")))
    (item,) = c.items(order, 1)
    other = [key for key in c.user["payment_methods"] if key != c.paid_with(order)] or [c.paid_with(order)]
    slots = {
        "order": order,
        "items": item["name"],
        "item": item["name"],
        "method": other[0],
        "address": c.new_address()[0],
        "wish": "another color",
    }
    phrase = {"cancel": "cancel_status", "return": "return_status", "swap": "swap_status"}.get(intent, "modify_status")

    def handle() -> None:
        status = t.look_at_order(order)["status"]
        t.declines(phrase, order=order, status=status)
        if t.dice.chance(0.4):
            t.customer("push_denied")
            t.declines("insist")

    return Request(intent, handle, slots, t.dice.pick(("needless", "mistake")))


def modify_barred(t: Talk, c: Customer) -> Request:
    return wrong_status(t, c, t.dice.pick(_MODIFIES))


def odd_reason(t: Talk, c: Customer) -> Request:
    order = c.order("pending")

    def handle() -> None:
        t.look_at_order(order)
        t.declines("reason", order=order)
        if t.dice.chance(0.3):
            t.customer("ok")
            t.tells("unchanged")

    return Request("cancel", handle, {"order": order}, "odd")


def other_type(t: Talk, c: Customer) -> Request:
    order = c.order("pending", "delivered")
    (item,) = c.items(order, 1)
    other = t.dice.pick(c.other_products(order))

    def handle() -> None:
        t.look_at_order(order)
        t.declines("type", item=item["name"], other=other)

    return Request("swap_type", handle, {"order": order, "item": item["name"], "other": one(other)})


def unknown_order(t: Talk, c: Customer) -> Request:
    """A digit of the order id is wrong: no such order; with the right id it goes on."""
    order = c.order()
    wrong = order[:-1] + str((int(order[-1]) + 1 + t.dice.place(9)) % 10)

    def handle() -> None:
        if t.look_at_order(wrong) is not None:
            raise NoFitError
        t.asks("order_again", order=wrong)
        t.customer("order_again", order=order)
        t.tells("status", order=order, status=t.look_at_order(order)["status"])

    return Request("status", handle, {"order": wrong})
