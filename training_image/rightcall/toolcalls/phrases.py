"""Phrases of nine languages, by what they say: phrases.json, a list for each language and role.

    ignored  only looks like a question or a refusal      "no (need|reason) (to|for)"
    offers   a closing offer or a greeting, no question   "^sonst noch"
    asks     asks for something, also without a "?"       "(mir|uns) (fehlt|fehlen)"
    refuses                                               "ne (peux|puis) … (pas|plus)"

A phrase is a regular expression in lower case, with "…" for up to six words (ten characters where words have no spaces
between them), "~" for the rest of a word, and ^ and $ for the ends of the sentence. Every repetition is bounded.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from functools import reduce
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Literal

FILE = Path(__file__).with_name("phrases.json")
Role = Literal["ignored", "offers", "asks", "refuses"]
_UNSPACED = ("zh", "ja")  # no spaces between words
_UNSPACED_SCRIPT = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]")
_SUGAR = ((" … ?", " … "), (" … ", r" (?:[^\s.!?]{1,30} ){0,6}?"), ("…", r"[^.!?\n]{0,10}?"), ("~", r"\w{0,30}"))


class Phrases:
    """All languages' phrases of one role."""

    def __init__(self, role: Role) -> None:
        self._role = role
        spaced: list[str] = []
        unspaced: list[str] = []
        for language, phrases in json.loads(FILE.read_text(encoding="utf-8")).items():
            (unspaced if language in _UNSPACED else spaced).extend(phrases[role])
        self._spaced = re.compile(rf"\b(?:{_by_letter(spaced)})(?!\w)")
        self._unspaced = re.compile(_by_letter(unspaced))

    def first(self, text: str) -> int | None:
        """Where the first phrase begins; None = there is none."""
        return min((found.start() for pattern in self._of(text) if (found := pattern.search(text))), default=None)

    def last(self, text: str) -> int:
        """Where the last phrase ends; -1 = there is none."""
        return max((found.end() for pattern in self._of(text) for found in pattern.finditer(text)), default=-1)

    def without(self, text: str) -> str:
        return reduce(lambda rest, pattern: pattern.sub("", rest), self._of(text), text)

    def _of(self, text: str) -> tuple[re.Pattern[str], ...]:
        return (self._spaced, self._unspaced) if _UNSPACED_SCRIPT.search(text) else (self._spaced,)


def _by_letter(phrases: list[str]) -> str:
    """One expression, the phrases grouped by their first letter: ten times as fast as one after the other."""
    groups: defaultdict[str, dict[str, None]] = defaultdict(dict)
    for phrase in phrases:
        for opening in _openings(phrase):
            groups[opening[0]][opening[1:]] = None
    found = "|".join(rf"{letter}(?:{'|'.join(rest)})" for letter, rest in groups.items())
    for short, long in _SUGAR:
        found = found.replace(short, long)
    return found.replace("$", r"(?=[ .!?]{0,9}\Z)")


def _openings(phrase: str) -> list[str]:
    """ "(kann|darf) ich" → "kann ich", "darf ich": each begins with a letter, or with ^."""
    options = _options(phrase)
    if len(options) > 1:
        return [opening for option in options for opening in _openings(option)]
    if not phrase.startswith("("):
        return [phrase]
    end = _depths(phrase).index(0)
    inner, rest = _options(phrase[1:end]), phrase[end + 1 :]
    if rest.startswith("?"):
        inner, rest = [*inner, ""], rest[1:]
    return [opening for option in inner for opening in _openings(option + rest)]


def _options(phrase: str) -> list[str]:
    """Split at the | outside of brackets."""
    bars = [at for at, depth in enumerate(_depths(phrase)) if phrase[at] == "|" and depth == 0]
    return [phrase[before + 1 : bar] for before, bar in pairwise([-1, *bars, len(phrase)])]


def _depths(phrase: str) -> list[int]:
    """Of every character: how many brackets are open after it."""
    return list(accumulate({"(": 1, ")": -1}.get(character, 0) for character in phrase))


IGNORED, OFFERS, ASKS, REFUSES = Phrases("ignored"), Phrases("offers"), Phrases("asks"), Phrases("refuses")
