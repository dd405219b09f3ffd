"""How the customer makes himself known, and how the agent finds him: by email, or by name and zip."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

from rightcall.retail import offer
from rightcall.retail.customer import Customer, NoFitError
from rightcall.retail.talk import Talk


def answer(t: Talk, c: Customer, kind: str) -> None:
    """The customer says who he is, and the agent finds him by that."""
    t.customer({"email": "email", "name": "name_zip", "both": "email_name_zip"}[kind], **c.identity)
    find(t, c, by_name=kind == "name")


def find(t: Talk, c: Customer, *, by_name: bool) -> None:
    if by_name or offer.FULL[-1] not in t.offered:
        names_ = {"first_name": c.identity["first"], "last_name": c.identity["last"], "zip": c.identity["zip"]}
        t.calls("find_user_id_by_name_zip", **names_)
    else:
        t.calls("find_user_id_by_email", email=c.identity["email"])
    t.known = True


def identify(t: Talk, c: Customer, opening: str, way: str) -> None:
    """Say the request, and what leads to the customer's user id: at once, when asked, or after detours."""
    greeting = "" if len(t.messages) > 1 else t.voice.greeting()
    if way.startswith("said"):
        intent = {"said_email": "email", "said_name": "name_zip", "said_both": "email_name_zip"}[way]
        said = re.sub("^sure,? ", "", t.voice.say(intent, **c.identity), flags=re.IGNORECASE)  # an answer's word
        t.says(greeting + (f"{opening} {said}" if t.dice.chance(0.7) else f"{said} {opening}"))
        if way == "said_email" and offer.FULL[-1] not in t.offered:
            t.asks("name_zip")
            answer(t, c, "name")
        else:
            find(t, c, by_name=way == "said_name")
        return
    t.says(greeting + opening)
    t.asks("identity" if offer.FULL[-1] in t.offered else "name_zip")
    _WAYS.get(way, partial(answer, kind=way))(t, c)


def _pushed(t: Talk, c: Customer) -> None:
    t.customer("push_identity")
    t.asks("identity_insist")
    answer(t, c, t.dice.pick(("email", "name", "both")))


def _name_only(t: Talk, c: Customer) -> None:
    t.customer("name", **c.identity)
    t.asks("identity_rest", first=c.identity["first"])
    if t.dice.chance(0.7):
        t.customer("zip", **c.identity)
        find(t, c, by_name=True)
    else:
        answer(t, c, "email")


def _user_id_only(t: Talk, c: Customer) -> None:
    t.customer("user_id", **c.identity)
    t.asks("identity_after_id")
    answer(t, c, t.dice.pick(("email", "name")))


def _wrong_email(t: Talk, c: Customer) -> None:
    """A typo in the address; then the right one, or name and zip."""
    _miss(t, c)
    t.asks("identity_again")
    answer(t, c, t.dice.pick(("email", "name", "name")))


def _miss(t: Talk, c: Customer) -> None:
    name, host = c.identity["email"].split("@")
    at = 1 + t.dice.place(len(name) - 2)
    wrong = f"{name[:at]}{name[at + 1 :]}@{host}"
    t.customer("email", email=wrong)
    if t.calls("find_user_id_by_email", email=wrong) is not None:
        raise NoFitError


def nobody(t: Talk, c: Customer) -> None:
    """Two addresses that are not known, and nothing else to go by."""
    _miss(t, c)
    t.asks("identity_again")
    _miss(t, c)
    t.declines("unknown")


_WAYS: dict[str, Callable[[Talk, Customer], None]] = {
    "pushed": _pushed,
    "name_only": _name_only,
    "user_id_only": _user_id_only,
    "wrong_email": _wrong_email,
}
