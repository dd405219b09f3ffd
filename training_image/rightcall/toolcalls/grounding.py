"""Values of calls that nobody has said: ids, e-mail addresses, codes that stand in no message, tool result or schema.

    grounded      {"order_id": "#W6067464"} after "my order is w6067464"; {"city": "Rome"}: a word is no id
    ungrounded    {"user_id": "sara_doe_496"} copied from the tool's description; {"zip": "19031"} that was never given

A value is compared in full, whatever case and punctuation: "#W6067464" is "w6067464", never "#W606746" or "#W60674641".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rightcall.dialects.values import Call
from rightcall.toolcalls.schema import find_tool

MIN_LENGTH = 8  # of an id without a digit: gift_card, omar_anderson
MIN_NUMBER = 10_000  # integers below are counts, years, hours, small amounts
MIN_WORD_DIGITS = 3  # of a word in a text of several: "845" of "845 Willow Lane", not "2" of "return 2 items"
MAX_VALUES = 200  # of one call that are looked at

# What a model may rightly write in another form than it was said in: amounts and sums, dates, times, short numbers.
# A sum: up to its first digit, up to a sign behind that, and the rest, so that no text is gone through twice.
_CONVERTED = re.compile(
    r"[-+*/().,%\s$€£¥]*+\d[-()\s\d]*+[.,+*/%$€£¥][-+*/().,%\s$€£¥\d]*+"
    r"|\d{1,4}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}(?:[T ].*)?|\d{1,2}(?::\d{2}){1,2}.*|\d{1,4} ?[^\W\d]{1,3}",
    re.DOTALL,
)
_MIXED = re.compile(r"(?=.*[_\d])(?=.*[^\W\d_])[\w-]+")
_PARTS = re.compile(r"[^\W_]+")
_ESCAPE = re.compile(r"\\+[nrt]")  # JSON's line break, also in JSON that is a text: its letter belongs to no word
_BETWEEN = re.compile(r"[\W_]{0,3}+")
_PREFIXED = re.compile(r"[^\W\d_]{0,2}(\d{5,})")


def ungrounded_values(call: Call, said: str, tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """The id-like values of a call that stand neither in `said` (see `what_was_said`) nor among its schema's enum and default values."""
    parameters = (find_tool(call["name"], tools) or {}).get("parameters") or {}
    context = f"{said}\n{' '.join(_schema_values(parameters))}".lower()
    values = [value for _, value in zip(range(MAX_VALUES), _leaves(call["arguments"]), strict=False)]
    return [part for value in values for part in id_like_parts(value) if not stands_in(part, context)]


def what_was_said(messages: Sequence[Mapping[str, Any]]) -> str:
    """Everything that the messages hold: texts, results, and the arguments of earlier calls."""
    said = (json.dumps([message.get("content"), message.get("tool_calls")], ensure_ascii=False) for message in messages)
    return _ESCAPE.sub(" ", "\n".join(said))


def id_like_parts(value: Any) -> list[str]:
    """What of a value can only be copied, never worded: the value itself, its parts where it is a text, or nothing.

    A single word is id-like when it holds a digit, @ or #, or has at least eight characters that mix letters with digits
    or underscores; in a text of several words only e-mail addresses, #s, and words with three digits count. Amounts,
    dates, times and short numbers are no ids: they may be computed or converted.
    """
    if isinstance(value, bool) or value is None:
        return []
    if isinstance(value, (int, float)):
        return [str(value)] if isinstance(value, int) and abs(value) >= MIN_NUMBER else []
    text = str(value).strip()
    if not text or _CONVERTED.fullmatch(text):
        return []
    words = text.split()
    if len(words) == 1:
        mixed = len(text) >= MIN_LENGTH and _MIXED.fullmatch(text)
        return [text] if mixed or re.search(r"[\d@#]", text) else []
    parts = (word.strip(".,;:!?()[]\"'") for word in words)
    return [
        part for part in parts
        if re.search(r"\w@\w|#\w", part) or (len(re.findall(r"\d", part)) >= MIN_WORD_DIGITS and not _CONVERTED.fullmatch(part))
        or (part.isdigit() and len(part) >= MIN_WORD_DIGITS)
    ]  # fmt: skip


def stands_in(value: str, context: str) -> bool:
    """As whole words: what stands before and behind is no letter or digit."""
    parts = _PARTS.findall(value.lower())
    if not parts or _finds(parts, context):
        return True
    # "order 6067464" for "#W6067464", or the other way round: such a letter is often left out
    number = _PREFIXED.fullmatch("".join(parts))
    return number is not None and _finds([number[1]], context, letters_before=2)


def _finds(parts: Sequence[str], context: str, letters_before: int = 0) -> bool:
    """By hand: an expression of as many parts as a model may write takes longer to make than to use."""
    start = context.find(parts[0])
    while start >= 0:
        if _begins(context, start, letters_before) and _stand_at(parts, context, start):
            return True
        start = context.find(parts[0], start + 1)
    return False


def _begins(context: str, start: int, letters_before: int) -> bool:
    """Does a word begin here, or up to so many letters before?"""
    for place in range(start, start - letters_before - 1, -1):
        before = context[place - 1 : place] if place > 0 else ""
        if not before.isalnum():
            return True
        if before.isdecimal():
            return False
    return False


def _stand_at(parts: Sequence[str], context: str, position: int) -> bool:
    """One after the other with little between them, and the last one ends a word."""
    for number, part in enumerate(parts):
        between = _BETWEEN.match(context, position)
        position = between.end() if number and between else position
        if not context.startswith(part, position):
            return False
        position += len(part)
    return not context[position : position + 1].isalnum()


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        for item in value.values():
            yield from _leaves(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _leaves(item)
    else:
        yield value


def _schema_values(schema: Any) -> Iterator[str]:
    """Values that the schema itself offers; its descriptions are examples, which a model must not copy."""
    if isinstance(schema, Mapping):
        for key, value in schema.items():
            if key in ("enum", "const", "default"):
                yield from map(str, _leaves(value))
            else:
                yield from _schema_values(value)
    elif isinstance(schema, (list, tuple)):
        for item in schema:
            yield from _schema_values(item)
