"""How a chat template writes calls, found out by letting it write some.

    <tool_call>\\n{"name": "   get_weather   ", "arguments": {"city": "Rome"}   }\\n</tool_call>
    ────── before ──────────              ── middle ─────                      ──── after ─────

Several calls are joined by what stands between the arguments of one and the name of the next.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, NamedTuple

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError

# Marks of JSON calls; for the verifier each stands for a call wherever it is written.
TAGS = ("<tool_call>", "<TOOLCALL>", "<|python_tag|>")

_SEPARATORS = ((", ", ": "), (",", ":"))
_FIRST = ("probe_first", {"probe_text": "a b", "probe_number": 1})
_SECOND = ("probe-second", {"größe": {"list": [1.5, None, True], "text": 'It\'s "5 < 6" & <b>\n東京 😀'}})
_TEXT = "Probe of a text."


class Dialect(NamedTuple):
    """The literal text around the names and arguments of calls."""

    marker: str | None  # opens a call wherever it stands; None = a call is JSON from the first character of the answer
    before: str  # marker included, up to the quotation mark in front of the name
    middle: str  # from the quotation mark behind the name to the arguments
    between: str | None  # from the arguments to the next name's opening quotation mark; None = one call only
    after: str
    after_text: bool  # a call may follow text
    separators: tuple[str, str]  # of items and of keys, as in json.dumps

    @property
    def common(self) -> str:
        """What follows the arguments of a call, whether it is the last one or not."""
        if self.between is None:
            return self.after
        same = takewhile(lambda pair: pair[0] == pair[1], zip(self.between, self.after, strict=False))
        return "".join(character for character, _ in same)

    def head(self, name: str, opening: str) -> str:
        """From `opening` up to the arguments of a call of this tool."""
        return opening + json.dumps(name, ensure_ascii=False)[1:-1] + self.middle


def find_dialect(template: ChatTemplate) -> Dialect:
    """From one call, another one, two calls, and a call behind text.

    Raises:
        RecipeError: the template's calls are not JSON with the name in front of the arguments.
    """
    text = _written(template, [_FIRST])
    quoted = json.dumps(_FIRST[0])
    start = text.find(quoted)
    for separators in _SEPARATORS:
        place = text.find(_json(_FIRST[1], separators), start)
        if 0 <= start < place:
            break
    else:
        raise _unknown(template, text)
    dialect = Dialect(
        marker=None,
        before=text[: start + 1],
        middle=text[start + len(quoted) - 1 : place],
        between=None,
        after=text[place + len(_json(_FIRST[1], separators)) :],
        after_text=False,
        separators=separators,
    )
    dialect = dialect._replace(marker=next((tag for tag in TAGS if dialect.before.startswith(tag)), None))
    if dialect.marker is None and dialect.before[0] not in "{[":
        raise _unknown(template, text)
    if _written(template, [_SECOND]) != _by_hand(dialect, [_SECOND]):
        raise _unknown(template, text)
    return dialect._replace(between=_between(template, dialect), after_text=_after_text(template, dialect))


def _between(template: ChatTemplate, dialect: Dialect) -> str | None:
    try:
        text = _written(template, [_FIRST, _SECOND])
    except RecipeError:
        return None  # Llama 3 takes one call at a time
    start = text.find(_json(_FIRST[1], dialect.separators)) + len(_json(_FIRST[1], dialect.separators))
    end = text.find(json.dumps(_SECOND[0]), start)
    found = dialect._replace(between=text[start : end + 1])
    return found.between if end >= 0 and text == _by_hand(found, [_FIRST, _SECOND]) else None


def _after_text(template: ChatTemplate, dialect: Dialect) -> bool:
    if dialect.marker is None:
        return False
    try:
        text = _written(template, [_FIRST], content=_TEXT)
    except RecipeError:
        return False
    return text.startswith(_TEXT) and text.endswith(_by_hand(dialect, [_FIRST]))


def _by_hand(dialect: Dialect, calls: Sequence[tuple[str, dict[str, Any]]]) -> str:
    text, opening = "", dialect.before
    for name, arguments in calls:
        text += dialect.head(name, opening) + _json(arguments, dialect.separators)
        opening = dialect.between or ""
    return text + dialect.after


def _written(template: ChatTemplate, calls: Sequence[tuple[str, dict[str, Any]]], content: str = "") -> str:
    message = {
        "role": "assistant",
        "content": content,
        "tool_calls": [
            {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}
            for number, (name, arguments) in enumerate(calls)
        ],
    }
    try:
        return template.answer_text(message)
    except DataError as err:
        raise RecipeError(f"{_what(template)}: {err}; {_ADVICE}") from err


def _json(value: Any, separators: tuple[str, str]) -> str:
    return json.dumps(value, ensure_ascii=False, separators=separators)


_ADVICE = "set evaluation.grammar: false, or model.chat_template: chatml-tools"


def _what(template: ChatTemplate) -> str:
    return f"the grammar does not know how the chat template of {template.name} writes calls"


def _unknown(template: ChatTemplate, text: str) -> RecipeError:
    return RecipeError(f"{_what(template)}: {text[:200]!r}; {_ADVICE}")
