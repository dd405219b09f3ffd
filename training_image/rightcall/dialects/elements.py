"""Calls written as elements whose values are bare text; the type of a value comes from the tool's schema.

<function=f><parameter=a>1</parameter></function>            Qwen3-Coder, Qwen3.5, Nemotron 3; in <tool_call>
<function=f>{"a": 1}</function>                              Llama 3.1's own functions
f<arg_key>a</arg_key><arg_value>1</arg_value>                GLM-4.x; in <tool_call>
<invoke name="f"><parameter name="a">1</parameter></invoke>  DeepSeek V3.2 (<｜DSML｜invoke …>), MiniMax M2

Without tools a value is what JSON reads, else text. An element inside a value is an error: readers differ on where it ends.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from rightcall.dialects.literals import NAME, Literals, after_space
from rightcall.dialects.objects import decode_tolerantly
from rightcall.dialects.values import Call, CallError, check_value, decode, unique

Tools = Sequence[Mapping[str, Any]]

PREFIX = r"(?:｜DSML｜|[a-z]{1,20}:)?"
FUNCTION = re.compile(r"<function=([^\n<>=\"']+)>")
INVOKE = re.compile(rf"<({PREFIX})invoke name=\"([^\n<>\"]+)\">")
ARGUMENTS_OF = re.compile(rf"({NAME})\s*+(?=<arg_key>|</tool_call>)")

_PARAMETER = re.compile(r"\s*+<parameter=([^\n<>]+)>")
_NAMED_PARAMETER = re.compile(rf"\s*+<{PREFIX}parameter name=\"([^\n<>\"]+)\"(?: string=\"(true|false)\")?>")
_ARGUMENT = re.compile(r"\s*+<arg_key>([^<]+)</arg_key>\s*+<arg_value>")
_ELEMENT = re.compile(
    rf"<(?:function=|/function>|parameter=|/?arg_(?:key|value)>|/?tool_call>|/?{PREFIX}(?:invoke|parameter)\b)"
)
_PYTHON = {"True": True, "False": False, "None": None}
_TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,), "array": (list,),
    "null": (type(None),),
}  # fmt: skip


def function(text: str, opening: re.Match[str], tools: Tools, forgiven: set[str]) -> tuple[Call, int, str]:
    """The call that this <function=…> opens, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    name, position = opening[1].strip(), after_space(text, opening.end())
    if text.startswith("{", position):
        arguments, position = decode_tolerantly(text, position, forgiven)
        if not isinstance(arguments, dict):
            raise CallError("not_a_call", "the arguments are not an object")
        return {"name": name, "arguments": arguments}, _closed(text, position, "</function>"), "<function={}>"
    pairs, position = _values(text, opening.end(), _PARAMETER, "</parameter>", properties_of(name, tools))
    end = after_space(text, position)
    if not text.startswith("</function>", end) and text.startswith("</tool_call>", end):
        forgiven.add("unclosed")
        return _made(name, pairs), end, "<function=>"
    return _made(name, pairs), _closed(text, position, "</function>"), "<function=>"


def invoke(text: str, opening: re.Match[str], tools: Tools) -> tuple[Call, int, str]:
    """The call that this <invoke name="…"> opens, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    prefix, name = opening[1], opening[2].strip()
    closing = f"</{prefix}parameter>"
    pairs, position = _values(text, opening.end(), _NAMED_PARAMETER, closing, properties_of(name, tools))
    return _made(name, pairs), _closed(text, position, f"</{prefix}invoke>"), f"<{prefix}invoke>"


def arguments_of(text: str, opening: re.Match[str], tools: Tools) -> tuple[Call, int, str]:
    """The call of GLM that this name opens, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    name = opening[1]
    pairs, position = _values(text, opening.end(), _ARGUMENT, "</arg_value>", properties_of(name, tools))
    return _made(name, pairs), position, "<arg_key>"


def _values(
    text: str, position: int, opening: re.Pattern[str], closing: str, properties: Mapping[str, Any] | None
) -> tuple[list[tuple[str, Any]], int]:
    pairs: list[tuple[str, Any]] = []
    while found := opening.match(text, position):
        end = text.find(closing, found.end())
        if end < 0:
            raise CallError("unterminated_json", f"the value of {found[1]!r} is never closed")
        raw = text[found.end() : end]
        if inner := _ELEMENT.search(raw):
            raise CallError("invalid_json", f"{inner[0]!r} stands in the value of {found[1]!r}")
        if closing == "</parameter>":
            raw = raw.removeprefix("\n").removesuffix("\n")
        name = found[1].strip()
        if opening is _NAMED_PARAMETER and found[2] == "true":
            pairs.append((name, raw))
        else:
            pairs.append((name, typed(raw, None if properties is None else properties.get(name, {}))))
        position = end + len(closing)
    return pairs, position


def typed(raw: str, schema: Any) -> Any:
    """The value that a text stands for; `schema` of the property, None = the tool is not known.

    Raises:
        CallError: it stands for a number that cannot be kept.
    """
    allowed = _allowed(schema)
    if allowed == {"string"}:
        return raw
    text = raw.strip()
    try:
        value, end = decode(text, 0)
        value = value if end == len(text) else raw
    except CallError as err:
        if err.detail == "a number is too large":
            raise
        value = _python(text, raw) if allowed and allowed <= {"array", "object", "null"} else _PYTHON.get(text, raw)
    if not allowed or any(_is_a(value, name) for name in allowed):
        return value
    return raw if "string" in allowed else value


def _python(text: str, raw: str) -> Any:
    """A list or object as Python shows it, which some templates write (Seed-OSS, the first Qwen3-Coder)."""
    literals = Literals(text, 0)
    try:
        value = literals.value()
        check_value(value)
    except CallError:
        return raw
    return value if literals.position == len(text) else raw


def _allowed(schema: Any) -> set[str]:
    """The types that a property may have; empty = any."""
    if not isinstance(schema, Mapping):
        return set()
    named = schema.get("type")
    if isinstance(named, str):
        return {named}
    if isinstance(named, list):
        return {name for name in named if isinstance(name, str)}
    options = next((schema[key] for key in ("anyOf", "oneOf") if isinstance(schema.get(key), list)), None)
    if options is not None:
        found = [_allowed(option) for option in options]
        return set().union(*found) if all(found) else set()
    values = (
        schema["enum"] if isinstance(schema.get("enum"), list) else [schema[key] for key in ("const",) if key in schema]
    )
    return {name for value in values for name in _TYPES if _is_a(value, name)}


def _is_a(value: Any, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, _TYPES.get(name, ()))


def properties_of(name: str, tools: Tools) -> Mapping[str, Any] | None:
    """The schemas of a tool's parameters; None = there is no such tool."""
    for tool in tools:
        function = tool.get("function") if isinstance(tool.get("function"), Mapping) else tool
        if isinstance(function, Mapping) and function.get("name") == name:
            parameters = function.get("parameters")
            found = parameters.get("properties") if isinstance(parameters, Mapping) else None
            return found if isinstance(found, Mapping) else {}
    return None


def _made(name: str, pairs: list[tuple[str, Any]]) -> Call:
    try:
        return {"name": name, "arguments": unique(pairs)}
    except ValueError as err:
        raise CallError("invalid_json", str(err)) from err


def _closed(text: str, position: int, closing: str) -> int:
    position = after_space(text, position)
    if text.startswith(closing, position):
        return position + len(closing)
    if closing.startswith(text[position:]):
        raise CallError("unterminated_json", f"{closing} is missing")
    raise CallError("invalid_json", f"{text[position : position + 40]!r} stands where {closing} should")
