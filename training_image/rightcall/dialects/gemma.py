"""Calls as FunctionGemma and Gemma 4 write them: an object without quotes, in which a text stands between marks.

<start_function_call>call:f{a:<escape>x<escape>,b:1}<end_function_call>
<|tool_call>call:f{a:<|"|>x<|"|>,b:[true,null]}<tool_call|>
"""

from __future__ import annotations

import re
from typing import Any

from rightcall.dialects.literals import NAME
from rightcall.dialects.values import MAX_DEPTH, Call, CallError, check_value, decode, unique

OPENING = re.compile(r"<start_function_call>|<\|tool_call>")

_HEAD = re.compile(rf"\s*+call:({NAME})\{{")
_CLOSING = re.compile(r"\s*+(?:<end_function_call>(?:<start_function_response>)?|<tool_call\|>(?:<\|tool_response>)?)")
_QUOTE = re.compile(r"<escape>|<\|\"\|>")
_KEY = re.compile(r"([^\s{}\[\],:<>]++)\s*+:\s*+")
_BARE = re.compile(r"[^{}\[\],<>]*+")
_SPACE = re.compile(r"\s*+")
_WORDS = {"None": None, "True": True, "False": False}


def gemma(text: str, opening: re.Match[str]) -> tuple[Call, int, str]:
    """The call that this mark opens, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    head = _HEAD.match(text, opening.end())
    if not head:
        cut = len(text) - opening.end() < 40
        raise CallError("unterminated_json" if cut else "invalid_json", "no call:name{ follows the mark")
    values = _Values(text, head.end() - 1)
    arguments = values.object(0)
    check_value(arguments)
    if not (closing := _CLOSING.match(text, values.position)):
        cut = not text[values.position :].strip()
        raise CallError("unterminated_json" if cut else "invalid_json", "the call is not closed")
    return {"name": head[1], "arguments": arguments}, closing.end(), f"{opening[0]}call:f{{}}"


class _Values:
    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise CallError("too_deep", f"nested more than {MAX_DEPTH} levels")
        if self._next("{"):
            return self.object(depth)
        if self._next("["):
            items: list[Any] = []
            self._each("]", lambda: items.append(self.value(depth + 1)))
            return items
        if _QUOTE.match(self.text, self.position):
            return self._quoted()
        return self._bare()

    def object(self, depth: int) -> dict[str, Any]:
        pairs: list[tuple[str, Any]] = []
        self._each("}", lambda: pairs.append((self._key(), self.value(depth + 1))))
        try:
            return unique(pairs)
        except ValueError as err:
            raise CallError("invalid_json", str(err)) from err

    def _each(self, closing: str, read: Any) -> None:
        self.position += 1
        if self._next(closing):
            self.position += 1
            return
        while True:
            read()
            if self._next(","):
                self.position += 1
            elif self._next(closing):
                self.position += 1
                return
            else:
                raise self._wrong("neither a comma nor the closing bracket follows a value")

    def _key(self) -> str:
        self._skip()
        if _QUOTE.match(self.text, self.position):
            key = self._quoted()
            if not self._next(":"):
                raise self._wrong("a key has no value")
            self.position += 1
            self._skip()
            return key
        found = _KEY.match(self.text, self.position)
        if not found:
            raise self._wrong("a key has no value")
        self.position = found.end()
        return found[1]

    def _quoted(self) -> str:
        opening = _QUOTE.match(self.text, self.position)
        mark = opening[0] if opening else ""
        start = self.position + len(mark)
        end = self.text.find(mark, start)
        if end < 0:
            raise CallError("unterminated_json", "a text is never closed")
        self.position = end + len(mark)
        return self.text[start:end]

    def _bare(self) -> Any:
        """A number or a word; else a text, as vLLM reads it."""
        found = _BARE.match(self.text, self.position)
        raw = found[0].strip() if found else ""
        if not raw or not found:
            raise self._wrong("a value is missing")
        if found.end() == len(self.text):
            raise CallError("unterminated_json", "the text ends inside a value")
        self.position = found.end()
        if raw in _WORDS:
            return _WORDS[raw]
        try:
            value, end = decode(raw, 0)
        except CallError as err:
            if err.detail == "a number is too large":
                raise
            return raw
        return value if end == len(raw) else raw

    def _next(self, bracket: str) -> bool:
        self._skip()
        return self.text.startswith(bracket, self.position)

    def _skip(self) -> None:
        space = _SPACE.match(self.text, self.position)
        self.position = space.end() if space else self.position

    def _wrong(self, detail: str) -> CallError:
        return CallError("unterminated_json" if self.position >= len(self.text) else "invalid_json", detail)
