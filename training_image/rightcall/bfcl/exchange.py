"""The same call with other values, so that a model learns to copy what the user said, not what users often say.

Get the price of Amazon stock for the last 13 days.         {"company": "Amazon", "days": 13}
Get the price of Louvre Museum stock for the last 87 days.  {"company": "Louvre Museum", "days": 87}
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace

from rightcall.bfcl.situations import Json, Situation, rng_for, tool_named

_MAX_CHARACTERS = 40
_COPIES = 2


def with_values_exchanged(cases: list[Situation], seed: int) -> Iterator[Situation]:
    """Each case up to twice; exchanged is every text and number that its question names once, word for word.

    Texts are those of other cases, whatever they mean there: names for names, words for words.
    """
    names, words = _said(cases)
    for case in cases:
        for copy in range(_COPIES):
            if other := _exchanged(case, names, words, rng_for(seed, "exchange", copy, case.id)):
                yield replace(other, id=f"{case.id}-exchanged-{copy}")


def _said(cases: list[Situation]) -> tuple[list[str], list[str]]:
    """The texts that questions name word for word: names, and other words."""
    said = {value for case in cases for _, value, _ in _places(case) if isinstance(value, str)}
    return sorted(v for v in said if v[0].isupper()), sorted(v for v in said if v[0].islower())


def _places(case: Situation) -> Iterator[tuple[str, str | int, re.Match[str]]]:
    """(parameter, value, where the question names it), for values that it names once."""
    if case.call is None:
        return
    properties = tool_named(case.tools, case.call["name"])["function"]["parameters"]["properties"]
    for name, value in case.call["arguments"].items():
        if isinstance(value, bool) or not isinstance(value, (str, int)) or not 1 < len(str(value)) <= _MAX_CHARACTERS:
            continue
        if properties[name].get("enum") or (isinstance(value, str) and not value[0].isalpha()):
            continue
        places = list(re.finditer(rf"(?<![\w.,$-]){re.escape(str(value))}(?![\w%-]|[.,]\d)", case.question))
        if len(places) == 1:
            yield name, value, places[0]


def _exchanged(case: Situation, names: list[str], words: list[str], rng: random.Random) -> Situation | None:
    places = sorted(_places(case), key=lambda place: place[2].start(), reverse=True)
    if case.call is None or not places:
        return None
    question, arguments = case.question, dict(case.call["arguments"])
    for name, value, place in places:
        other = _another(value, names, words, rng)
        if str(other) in question:
            continue
        question = question[: place.start()] + str(other) + question[place.end() :]
        arguments[name] = other
    call: Json = {"name": case.call["name"], "arguments": arguments}
    return None if call == case.call else replace(case, question=question, call=call, accepted={})


def _another(value: str | int, names: list[str], words: list[str], rng: random.Random) -> str | int:
    if isinstance(value, int) and 1800 <= value <= 2100:
        return rng.randrange(1950, 2030)  # a year
    if isinstance(value, int):
        digits = len(str(abs(value)))
        return rng.randrange(10 ** (digits - 1), 10**digits) if digits > 1 else value
    return rng.choice(names if value[0].isupper() else words)
