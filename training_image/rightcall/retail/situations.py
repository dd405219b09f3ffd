"""Every situation that a conversation is made of, how often it occurs, and how the customer makes himself known.

A situation is "family/detail". The customer opens with his request; the agent finds out who he is, unless the request
is one that nobody is granted; then it is handled, and at times another one follows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from rightcall.retail import answers, identity, offer, requests
from rightcall.retail.customer import Customer, NoFitError, names
from rightcall.retail.requests import Request
from rightcall.retail.talk import Talk

Maker = Callable[[Talk, Customer], Request]
_USUAL = ("email", "name", *("said_email",) * 6, *("said_name",) * 4, "said_both", "said_both")
_NO_ONE_NEEDED = (*answers.NEVER, "human")


class Situation(NamedTuple):
    name: str
    share: float  # relative to the others
    play: Callable[[Talk, Customer], None]


def play(t: Talk, c: Customer, wanted: Sequence[Request], way: str = "") -> None:
    first, *others = wanted
    opening = t.voice.say(first.intent, first.why, **first.slots)
    if first.intent in _NO_ONE_NEEDED:
        t.says(t.voice.greeting() + opening)
    else:
        identity.identify(t, c, opening, way or t.dice.pick(_USUAL))
    first.handle()
    for request in others:
        said = t.voice.say(request.intent, request.why, **request.slots)
        said = said if said[:2] in ("I ", "I'") else said[:1].lower() + said[1:]
        t.says(f"{t.voice.say('also')} {said}")
        if t.profile is None and not t.known and request.intent not in _NO_ONE_NEEDED:
            t.asks("identity")
            identity.answer(t, c, t.dice.pick(("email", "name")))
        request.handle()
    close(t)


def close(t: Talk) -> None:
    """Some say thanks when they got what they wanted; nobody does to a transfer or a refusal."""
    last = t.messages[-1]["content"]
    if t.messages[-1].get("behaviour") == "direct" and "TRANSFERRED" not in last and t.dice.chance(0.15):
        t.customer("thanks")
        t.tells("bye")


def _one(make: Callable[..., Request], way: str = "", **fixed: str) -> Callable[[Talk, Customer], None]:
    return lambda t, c: play(t, c, [make(t, c, **fixed)], way)


_WRITES: tuple[Maker, ...] = (
    requests.cancel,
    requests.send_back,
    requests.ship_to,
    requests.pay_with,
    partial(requests.swap, status="pending"),
    partial(requests.swap, status="delivered"),
)


def _first_that_fits(t: Talk, c: Customer, makers: Sequence[Maker]) -> Request:
    for make in makers:
        used = set(c.used)
        try:
            return make(t, c)
        except NoFitError:
            c.used = used
    raise NoFitError


def _writing(t: Talk, c: Customer) -> Request:
    house: list[Maker] = [requests.move_house]
    rare = t.dice.chance(0.1)
    writes = t.dice.shuffled(_WRITES)
    return _first_that_fits(t, c, [*house, *writes] if rare else [*writes, *house])


def _any_request(t: Talk, c: Customer) -> Request:
    """Some request that can be granted, most often a write."""
    profile = (partial(answers.about_profile, intent=i) for i in ("profile_methods", "balance", "profile_address"))
    last: list[Maker] = t.dice.shuffled([*profile, requests.move_house])
    if t.dice.chance(0.2):
        asked = [partial(answers.about_order, intent=intent) for intent in ("status", "paid", "contents", "price")]
        return _first_that_fits(t, c, [*t.dice.shuffled(asked), *last])
    return _first_that_fits(t, c, [*t.dice.shuffled(_WRITES), *last])


def _with_way(way: str) -> Callable[[Talk, Customer], None]:
    return lambda t, c: play(t, c, [_any_request(t, c)], way)


def _nobody_found(t: Talk, c: Customer) -> None:
    request = _any_request(t, c)
    t.says(t.voice.greeting() + t.voice.say(request.intent, request.why, **request.slots))
    t.asks("identity")
    identity.nobody(t, c)


def _several(t: Talk, c: Customer) -> None:
    first, second = _any_request(t, c), _any_request(t, c)
    if first.intent == second.intent:
        raise NoFitError
    play(t, c, [first, second])


def _minded(make: Maker, mind: str) -> Callable[[Talk, Customer], None]:
    def run(t: Talk, c: Customer) -> None:
        request = make(t, c)
        t.mind = mind
        play(t, c, [request])

    return run


def _hurried(t: Talk, c: Customer) -> None:
    """The customer says at once that he wants no questions; the agent confirms all the same."""
    request = _writing(t, c)
    said = t.voice.say(request.intent, request.why, **request.slots)
    identity.identify(t, c, f"{said} {t.voice.say('push_confirm')}", t.dice.pick(("said_email", "said_name", "email")))
    request.handle()
    close(t)


def _fewer(t: Talk, c: Customer) -> None:
    """At the confirmation the customer keeps one of two items: the details change, and are confirmed again."""
    order = c.order("delivered", least=2)
    items = c.items(order, 2)
    method = c.refund_method(order)
    kept = t.dice.pick(items)

    def handle() -> None:
        t.look_at_order(order)
        key = requests.method_id(t, c, method)
        listed = ", ".join(f"{item['name']} {item['item_id']}" for item in items)
        t.asks("confirm_return", order=order, items=listed, method=key)
        t.customer("only", items=kept["name"])
        requests.finish_return(t, c, order, [kept], method._replace(known="said"), ask_method=False)

    play(t, c, [Request("return", handle, {"order": order, "items": names(items), "method": method.text})])


def _looked_up(t: Talk, c: Customer) -> None:
    """The customer does not know the order id: his orders are looked through for the item."""
    if len(c.orders()) > 2:
        raise NoFitError
    request = requests.send_back(t, c)
    order = request.slots["order"]
    before = c.orders()[: c.orders().index(order)]
    wanted = request.slots["items"]
    if " and " in wanted or any(wanted in names(c.all_items(key)) for key in before):
        raise NoFitError

    def handle() -> None:
        t.asks("order")
        t.customer("no_order_id")
        t.look_at_profile(c.user_id)
        for key in before:
            t.look_at_order(key)
        request.handle()

    slots = {key: value for key, value in request.slots.items() if key != "order"}
    play(t, c, [replace(request, intent="return_no_order", handle=handle, slots=slots)])


def _twice(t: Talk, c: Customer) -> None:
    play(t, c, requests.twice(t, c))


def _with_tools(offered: tuple[dict, ...], run: Callable[[Talk, Customer], None]) -> Callable[[Talk, Customer], None]:
    def offer(t: Talk, c: Customer) -> None:
        t.offered = offered
        run(t, c)

    return offer


def _cancel_gone(t: Talk, c: Customer) -> None:
    request = requests.cancel(t, c)

    def handle() -> None:
        t.calls("transfer_to_human_agents", summary="no tool for this")
        t.tells("transferred")

    play(t, c, [replace(request, handle=handle)])


def _withdrawn(t: Talk, c: Customer) -> None:
    first = requests.send_back(t, c)
    play(t, c, [first, requests.withdrawn(t, c, first)])


def _hello(t: Talk, c: Customer) -> None:
    """A greeting without a request first."""
    request = _any_request(t, c)
    t.customer("hello")
    t.asks("need")
    play(t, c, [request])


def _small_talk(t: Talk, c: Customer) -> None:
    request = _any_request(t, c)
    if t.dice.chance(0.5):
        t.customer("bot")
        t.tells("bot")
        play(t, c, [request])
    else:
        play(t, c, [request])
        if t.messages[-1].get("behaviour") == "direct":
            t.customer("praise")
            t.tells("praise")


def _refused_then(intent: str) -> Callable[[Talk, Customer], None]:
    def run(t: Talk, c: Customer) -> None:
        never = answers.refused(t, c, intent)
        try:
            granted = [_any_request(t, c)] if t.dice.chance(0.5) else []
        except NoFitError:
            granted = []
        play(t, c, t.dice.shuffled([never, *granted]))

    return run


_swap_any: Maker = lambda t, c: requests.swap(t, c, t.dice.pick(("pending", "delivered")))  # noqa: E731

SITUATIONS: tuple[Situation, ...] = (
    Situation("plain/cancel", 4, _one(requests.cancel)),
    Situation("plain/return", 5, _one(requests.send_back)),
    Situation("plain/exchange", 4, _one(requests.swap, status="delivered")),
    Situation("plain/modify_items", 4, _one(requests.swap, status="pending")),
    Situation("plain/order_address", 2, _one(requests.ship_to)),
    Situation("plain/profile_address_for_order", 2, _one(requests.ship_to, missing="profile")),
    Situation("plain/user_address", 1, _one(requests.move_house)),
    Situation("plain/payment", 3, _one(requests.pay_with)),
    Situation("several/two_requests", 5, _several),
    Situation("missing/order_id", 2, _one(requests.send_back, missing="order")),
    Situation("missing/order_id_cancel", 2, _one(requests.cancel, missing="order")),
    Situation("missing/order_id_looked_up", 3, _looked_up),
    Situation("missing/reason", 3, _one(requests.cancel, missing="reason")),
    Situation("missing/items", 2, _one(requests.send_back, missing="items")),
    Situation("missing/refund_method", 2, _one(requests.send_back, missing="method")),
    Situation(
        "missing/payment",
        2,
        lambda t, c: play(t, c, [requests.swap(t, c, t.dice.pick(("pending", "delivered")), "method")]),
    ),
    Situation(
        "missing/options",
        2,
        lambda t, c: play(t, c, [requests.swap(t, c, t.dice.pick(("pending", "delivered")), "wish")]),
    ),
    Situation("missing/address", 2, _one(requests.ship_to, missing="value")),
    Situation("missing/zip", 2, _with_way("name_only")),
    Situation("order_of_steps/identity_pushed", 3, _with_way("pushed")),
    Situation("order_of_steps/user_id_is_not_enough", 2, _with_way("user_id_only")),
    Situation("order_of_steps/no_confirmation_wanted", 3, _hurried),
    Situation("changed_mind/no", 4, _minded(_writing, "no")),
    Situation("changed_mind/unsure", 1, _minded(_writing, "unsure")),
    Situation("changed_mind/fewer_items", 2, _fewer),
    Situation("denied/cancel", 10, _one(answers.wrong_status, intent="cancel")),
    Situation("denied/return", 8, _one(answers.wrong_status, intent="return")),
    Situation("denied/modify", 10, _one(answers.modify_barred)),
    Situation("denied/exchange", 6, _one(answers.wrong_status, intent="swap")),
    Situation("denied/reason", 5, _one(answers.odd_reason)),
    Situation("denied/other_type", 4, _one(answers.other_type)),
    Situation("denied/refund_elsewhere", 6, _one(requests.refund_elsewhere)),
    Situation("denied/second_change", 3, _twice),
    Situation("denied/other_user", 7, _refused_then("other_user")),
    Situation("denied/price_match", 5, _refused_then("price_match")),
    Situation("no_tool/off_topic", 7, _refused_then("off_topic")),
    Situation("no_tool/new_order", 5, _refused_then("new_order")),
    Situation("no_tool/discount", 5, _refused_then("discount")),
    Situation("no_tool/opinion", 5, _refused_then("opinion")),
    Situation("transfer/human", 3, _one(answers.handed_over, intent="human")),
    Situation("transfer/account", 3, _one(answers.handed_over, intent="account")),
    Situation("transfer/parcel", 2, _one(answers.handed_over, intent="parcel")),
    Situation("unknown_user/found_at_last", 3, _with_way("wrong_email")),
    Situation("unknown_user/never_found", 3, _nobody_found),
    Situation("tool_error/unknown_order", 3, _one(answers.unknown_order)),
    Situation("tool_error/gift_card_too_low", 3, _one(requests.poor_card)),
    Situation("tool_error/sold_out", 4, _one(requests.sold_out)),
    Situation(
        "near_tools/tracking",
        3,
        _with_tools(offer.WITH_NEAR, lambda t, c: play(t, c, [answers.tracking(t, c, own_tool=True)])),
    ),
    Situation("near_tools/return_withdrawn", 2, _with_tools(offer.WITH_NEAR, _withdrawn)),
    Situation("near_tools/plain", 4, _with_tools(offer.WITH_NEAR, lambda t, c: play(t, c, [_any_request(t, c)]))),
    Situation("tool_gone/email", 5, _with_tools(offer.WITHOUT_EMAIL, _with_way("said_email"))),
    Situation("tool_gone/email_not_given", 2, _with_tools(offer.WITHOUT_EMAIL, _with_way("name"))),
    Situation("tool_gone/cancel", 5, _with_tools(offer.WITHOUT_CANCEL, _cancel_gone)),
    Situation("question/status", 3, _one(answers.about_order, intent="status")),
    Situation("question/contents", 2, _one(answers.about_order, intent="contents")),
    Situation("question/price", 2, _one(answers.about_order, intent="price")),
    Situation("question/paid", 2, _one(answers.about_order, intent="paid")),
    Situation("question/tracking", 2, _one(answers.tracking)),
    Situation("question/total", 2, _one(answers.total)),
    Situation("question/options", 1, _one(answers.options)),
    Situation("question/profile_address", 2, _one(answers.about_profile, intent="profile_address")),
    Situation("question/payment_methods", 2, _one(answers.about_profile, intent="profile_methods")),
    Situation("question/orders", 2, _one(answers.about_profile, intent="profile_orders")),
    Situation("question/balance", 2, _one(answers.about_profile, intent="balance")),
    Situation("small_talk/greeting", 2, _hello),
    Situation("small_talk/chat", 2, _small_talk),
)
