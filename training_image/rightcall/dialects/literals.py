"""Calls and values written as Python, read from the text one after another; nothing is ever executed.

f(a=1, b='x', c=[True, None])       keywords and names need not be Python's: town-weather(from="Graz")
{'name': 'f', 'arguments': {}}      a dict, in which JSON's true, false and null may stand too
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable
from typing import Any

from rightcall.dialects.values import MAX_DEPTH, Call, CallError, check_value, shortened, unique

NAME = r"[^\W\d][\w./:-]*+"
AFTER_A_VALUE = " follows a value"  # ends an error's detail

_SPACE = re.compile(r"(?:\s++|#[^\n]*+)*+")
_WHITE = re.compile(r"\s*+")
_NAME = re.compile(NAME)
_KEYWORD = re.compile(r"([^\W\d][\w.-]*+)\s*+=(?!=)")
_STRING = re.compile(
    r"""[rRuU]?(?:\"{3}(?:\\.|[^\\\"]|\"(?!\"\"))*+\"{3}|'{3}(?:\\.|[^\\']|'(?!''))*+'{3}"""
    r"""|\"(?:\\.|[^\"\\])*+\"|'(?:\\.|[^'\\])*+')""",
    re.DOTALL,
)
_QUOTE = re.compile(r"[rRuU]?[\"']")
_ESCAPE = re.compile(
    r"\\(?:[0-7]{1,3}|x[0-9a-fA-F]{0,2}|u[0-9a-fA-F]{0,4}|U[0-9a-fA-F]{0,8}|N(?:\{[^}]*+\})?|[\\'\"abfnrtv\n])"
)
_JSON_TEXT = json.JSONDecoder(strict=False)
_NUMBER = re.compile(r"[+-]?(?:0[xX][0-9a-fA-F]++|(?:[0-9]++\.?[0-9]*+|\.[0-9]++)(?:[eE][+-]?[0-9]++)?)(?![\w.])")
_WORD = re.compile(r"[^\W\d]\w*+(?![\w.(])")
_CONSTANTS = {"True": True, "False": False, "None": None, "true": True, "false": False, "null": None}
_COMMA = re.compile(r",(?:\s++|#[^\n]*+)*+")


def after_space(text: str, position: int) -> int:
    space = _WHITE.match(text, position)
    return space.end() if space else position


class Literals:
    """A place in a text, from which values and calls are read; `notes` says what Python allows and JSON does not."""

    def __init__(self, text: str, position: int) -> None:
        self.text = text
        self.position = position
        self.notes: set[str] = set()

    def calls(self) -> list[Call]:
        """One call, or the calls of a list."""
        if not self.text.startswith("[", self.position):
            return self.call()
        self.position += 1
        found: list[Call] = []
        self._each("]", lambda: found.extend(self.call()))
        return found

    def call(self, depth: int = 0) -> list[Call]:
        """f(a=1); of print(f(a=1)), what is printed."""
        name = _NAME.match(self.text, self.position)
        if not name or depth > MAX_DEPTH:
            raise self._wrong("not_a_call", "an item is not a function call")
        self._move(name.end())
        if not self.text.startswith("(", self.position):
            raise self._wrong("not_a_call", "a name is not called")
        self.position += 1
        printed: list[Call] = []
        pairs: list[tuple[str, Any]] = []

        def argument() -> None:
            if keyword := _KEYWORD.match(self.text, self.position):
                self._move(keyword.end())
                pairs.append((keyword[1], self.value()))
            elif self.text.startswith("{", self.position) and not pairs:
                self.notes.add("positional")  # f({"a": 1})
                pairs.extend(self._dict(1).items())
            elif name[0] == "print" and _NAME.match(self.text, self.position):
                printed.extend(self.call(depth + 1))
            else:
                raise self._wrong("not_a_call", "an argument has no name")

        self._each(")", argument)
        if printed and not pairs:
            self.notes.add("printed")
            return printed
        arguments = self._object(pairs)
        check_value(arguments)
        return [{"name": name[0], "arguments": arguments}]

    def value(self, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise CallError("too_deep", f"nested more than {MAX_DEPTH} levels")
        match self.text[self.position : self.position + 1]:
            case "[":
                return self._items("]", depth)
            case "(":
                return self._items(")", depth)
            case "{":
                return self._dict(depth)
        if _QUOTE.match(self.text, self.position):
            return self._strings()
        if number := _NUMBER.match(self.text, self.position):
            self._move(number.end())
            return self._number(number[0])
        word = _WORD.match(self.text, self.position)
        if word and word[0] in _CONSTANTS:
            self._move(word.end())
            return _CONSTANTS[word[0]]
        raise self._wrong("not_a_literal", f"{self.text[self.position : self.position + 20]!r} is no literal")

    def _items(self, closing: str, depth: int) -> Any:
        self.position += 1
        items: list[Any] = []
        comma = self._each(closing, lambda: items.append(self.value(depth + 1)))
        if closing == ")":
            self.notes.add("python_dict")
            return items[0] if len(items) == 1 and not comma else items
        self._note(comma)
        return items

    def _dict(self, depth: int) -> dict[str, Any]:
        self.position += 1
        pairs: list[tuple[str, Any]] = []

        def pair() -> None:
            if not _QUOTE.match(self.text, self.position):
                raise self._wrong("not_a_literal", "a key is no text")
            key = self._strings()
            if not self.text.startswith(":", self.position):
                raise self._wrong("invalid_json", "a key has no value")
            self._move(self.position + 1)
            pairs.append((key, self.value(depth + 1)))

        self._note(self._each("}", pair))
        return self._object(pairs)

    def _each(self, closing: str, read: Callable[[], None]) -> bool:
        """Read items up to the closing bracket; whether a comma stands before it."""
        self._move(self.position)
        comma = False
        while not self.text.startswith(closing, self.position):
            read()
            self._move(self.position)
            found = _COMMA.match(self.text, self.position)
            comma = found is not None
            if found:
                self.position = found.end()
            elif not self.text.startswith(closing, self.position):
                raise self._wrong("not_a_literal", f"{self.text[self.position : self.position + 20]!r}{AFTER_A_VALUE}")
        self.position += 1
        return comma

    def _note(self, comma: bool) -> None:
        if comma:
            self.notes.add("trailing_comma")

    def _strings(self) -> str:
        parts = []
        while _QUOTE.match(self.text, self.position):
            string = _STRING.match(self.text, self.position)
            if not string:
                raise CallError("unterminated_json", "a text is never closed")
            parts.append(self._string(string[0]))
            self._move(string.end())
        return "".join(parts)

    def _string(self, token: str) -> str:
        """As JSON where it is JSON: "\\/" is a slash there."""
        if "\n" in token:
            self.notes.add("raw_newline")
        if token[0] == '"' and not token.startswith('"""'):
            try:
                return str(_JSON_TEXT.decode(token))
            except ValueError:
                pass
        self.notes.add("python_dict")
        quoted = token.lstrip("rRuU")
        marks = 3 if quoted.startswith(("'''", '"""')) else 1
        inner = quoted[marks:-marks]
        if "\\" not in inner or token[0] in "rR":
            return inner
        try:
            return _ESCAPE.sub(lambda found: codecs.decode(found[0], "unicode_escape"), inner)
        except ValueError as err:
            raise CallError("invalid_json", f"{shortened(token)} is no text: {err}"[:200]) from err

    def _number(self, token: str) -> int | float:
        try:
            if "x" in token.lower():
                return int(token, 16)
            return float(token) if set(token) & set(".eE") else int(token)
        except ValueError as err:  # more digits than Python reads
            raise CallError("invalid_json", "a number is too large") from err

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        try:
            return unique(pairs)
        except ValueError as err:
            raise CallError("invalid_json", str(err)) from err

    def _move(self, position: int) -> None:
        space = _SPACE.match(self.text, position)
        self.position = space.end() if space else position

    def _wrong(self, reason: Any, detail: str) -> CallError:
        if self.position >= len(self.text):
            return CallError("unterminated_json", "the text ends inside a call")
        return CallError(reason, detail)
