"""One conversation as it is written down: how the customer talks, what the agent does, and every call really executed.

Voice(dice, reserved=False).say("cancel", order="#W7678072", why="needless")   "pls cancel my order #W7678072, no longer needed"
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Sequence
from typing import Any, TypeVar

from rightcall.retail import tools
from rightcall.retail.agent_phrases import ASKS, DECLINES, TELLS
from rightcall.retail.customer_phrases import ANSWERS, PARTS, REQUESTS
from rightcall.retail.offer import FULL
from rightcall.retail.world import Json, World

T = TypeVar("T")


class Dice:
    """Chance that falls the same on every machine and in every Python: only ``random.random()`` is promised to."""

    def __init__(self, *seed: object) -> None:
        self._random = random.Random(":".join(map(str, seed)))  # noqa: S311 - wording, no secret

    def chance(self, share: float) -> bool:
        return self._random.random() < share

    def pick(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def place(self, length: int) -> int:
        return int(self._random.random() * length)

    def shuffled(self, options: Sequence[T]) -> list[T]:
        keys = sorted((self._random.random(), place) for place in range(len(options)))
        return [options[place] for _, place in keys]


_PART = re.compile(r"<(\w+)>")
_SLOT = re.compile(r"(\{\w+\})")
_SHORTHAND = (
    (re.compile(r"\b[Pp]lease\b"), "pls"), (re.compile(r"\b[Yy]ou\b"), "u"), (re.compile(r"\bbecause\b"), "cuz"),
    (re.compile(r"\b[Tt]hank you\b"), "thx"), (re.compile(r"\bwant to\b"), "wanna"), (re.compile(r"\byour\b"), "ur"),
    (re.compile(r"\bdon't\b"), "dont"), (re.compile(r"\bcan't\b"), "cant"), (re.compile(r"\bI'm\b"), "im"),
)  # fmt: skip
_HABITS = (
    ("plain",) * 10
    + ("lower",) * 4
    + ("bare",) * 2
    + ("shorthand",) * 2
    + ("typos",) * 3
    + ("polite",) * 3
    + ("shouting",)
)


class Voice:
    """Frames and keyboard habits of one customer; habits change the frame's own words, never names, ids or addresses."""

    def __init__(self, dice: Dice, *, reserved: bool) -> None:
        self._dice = dice
        self._side = int(reserved)
        self._habit = dice.pick(_HABITS)
        self._bare_ids = dice.chance(0.15)  # writes W7678072 for #W7678072

    def greeting(self) -> str:
        """At times none; what follows it stands behind a blank."""
        if self._dice.chance(0.4):
            return ""
        return self._typed(self.part("hello")) + self._dice.pick((", ", ", ", "! ", ". "))

    def say(self, intent: str, why: str = "", **slots: str) -> str:
        """A sentence with this intent; `why` is the part that <why> stands for."""
        frames = (REQUESTS.get(intent) or ANSWERS[intent])[self._side]
        frame = self._filled(self._dice.pick(frames), why)
        if intent != "yes" or self._habit in ("lower", "bare"):  # a yes has to be one for the policy's sake
            frame = self._typed(frame[0].upper() + frame[1:])
        if self._bare_ids and "order" in slots:
            slots["order"] = slots["order"].removeprefix("#")
        return _SLOT.sub(lambda found: slots[found[1][1:-1]], frame)

    def part(self, name: str) -> str:
        return self._dice.pick(PARTS[name][self._side])

    def _filled(self, frame: str, why: str) -> str:
        return _PART.sub(lambda found: self.part(why if found[1] == "why" else found[1]), frame)

    def _typed(self, frame: str) -> str:
        pieces = _SLOT.split(frame)
        match self._habit:
            case "lower":
                pieces = [p if p.startswith("{") else p.lower() for p in pieces]
            case "bare":
                pieces = [p if p.startswith("{") else re.sub(r"[.,!?']", "", p.lower()) for p in pieces]
            case "shorthand":
                for pattern, short in _SHORTHAND:
                    pieces = [p if p.startswith("{") else pattern.sub(short, p) for p in pieces]
            case "typos":
                pieces = [p if p.startswith("{") else self._misspelt(p) for p in pieces]
            case "shouting":
                pieces[-1] = re.sub(r"[.!]$", "!!", pieces[-1])
            case "polite" if self._dice.chance(0.3) and frame.endswith("."):
                pieces.append(" Thank you.")
        return "".join(pieces)

    def _misspelt(self, piece: str) -> str:
        words = piece.split(" ")
        for place, word in enumerate(words):
            if len(word) > 4 and word.isalpha() and self._dice.chance(0.15):
                at = 1 + self._dice.place(len(word) - 2)
                swap = word[at + 1] + word[at] if self._dice.chance(0.5) else word[at + 1]
                words[place] = word[:at] + swap + word[at + 2 :]
        return " ".join(words)


class Talk:
    def __init__(self, world: World, dice: Dice, voice: Voice, policy: str) -> None:
        self.world = world
        self.dice = dice
        self.voice = voice
        self.offered: tuple[Json, ...] = FULL
        self.messages: list[Json] = [{"role": "system", "content": policy}]
        self.profile: Json | None = None  # what get_user_details said, once it was called
        self.orders: dict[str, Json] = {}  # what get_order_details said
        self.known = False  # the user was found
        self.mind = "yes"  # how the customer answers the next confirmation: yes, no, unsure
        self._calls = 0

    def customer(self, intent: str, why: str = "", **slots: str) -> None:
        self.says(self.voice.say(intent, why, **slots))

    def says(self, text: str) -> None:
        self.messages.append({"role": "user", "content": text})

    def asks(self, phrase: str, **slots: str) -> None:
        self._agent(ASKS[phrase], slots, "request_for_info")

    def declines(self, phrase: str, **slots: str) -> None:
        self._agent(DECLINES[phrase], slots, "cannot_answer")

    def tells(self, phrase: str, **slots: str) -> None:
        self._agent(TELLS[phrase], slots, "direct")

    def _agent(self, phrases: tuple[str, ...], slots: dict[str, str], behaviour: str) -> None:
        text = self.dice.pick(phrases).format(**slots)
        self.messages.append({"role": "assistant", "content": text, "behaviour": behaviour})

    def calls(self, name: str, **arguments: Any) -> Any:
        """What the tool returned, read; None = an error, which the model saw as a text."""
        self._calls += 1
        key = f"call_{self._calls}"
        call = {"id": key, "type": "function", "function": {"name": name, "arguments": arguments}}
        self.messages.append({"role": "assistant", "content": "", "tool_calls": [call], "behaviour": "tool_call"})
        result = tools.call(self.world, name, copy.deepcopy(arguments))
        self.messages.append({"role": "tool", "tool_call_id": key, "name": name, "content": result})
        if result.startswith(tools.ERROR):
            return None
        return json.loads(result) if result.startswith("{") else result

    def look_at_order(self, order_id: str) -> Any:
        """Look the order up unless its details were seen and nothing changed it since."""
        if order_id not in self.orders:
            found = self.calls("get_order_details", order_id=order_id)
            if found is None:
                return None
            self.orders[order_id] = found
        return self.orders[order_id]

    def look_at_profile(self, user_id: str) -> Json:
        if self.profile is None:
            self.profile = self.calls("get_user_details", user_id=user_id)
        return self.profile
