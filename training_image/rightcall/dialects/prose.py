"""Prose around calls may tell of what was called; of another call it may not, in however rare a form."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from typing import Any

from rightcall.dialects.elements import Tools, properties_of
from rightcall.dialects.literals import Literals
from rightcall.dialects.values import Call, CallError, decode

# stands nowhere but beside an argument, and so not behind a tool's name in a sentence
_BESIDE_ARGUMENTS = re.compile(
    r"<\|message\|>\s*+\{|</?arg_(?:key|value)>|</?(?:｜DSML｜|[a-z]{1,20}:)?parameter\b|<\|tool_call_argument_begin\|>|<｜tool▁sep｜>"
    r"|\[ARGS\]|<escape>|<\|\"\|>"
)

# town='Rome', "town": "Rome", \"town\": 5, name="town"; what follows is no word of a sentence
_ARGUMENT = re.compile(
    r"\bname=[\"'](?P<element>[^\W\d][\w-]*+)[\"']"
    r"|(?:\b(?P<keyword>[^\W\d][\w-]*+)\s*+=|\\?[\"'](?P<key>[^\W\d][\w-]*+)\\?[\"']\s*+:)"
    r"\s*+(?=[\"'\d\[{-]|\\\"|(?i:true|false|null|none)\b)"
)
_MAX_ARGUMENTS = 100  # that a text may tell of
_MAX_VALUE = 500


def check_mention(mention: Call, calls: Sequence[Call], offered: set[Any] | None) -> None:
    """A call of Python inside a sentence; `offered` are the tools' names, None = not known.

    Raises:
        CallError: it is none of the calls that were read, nor a part of one.
    """
    name, arguments = mention["name"], mention["arguments"]
    if hasattr(builtins, name) or (offered is not None and name not in offered) or (not arguments and offered is None):
        return
    if not _is_told(name, arguments, calls):
        raise CallError("not_a_call", f"a call of {name!r} stands in a sentence beside the calls")


def check_prose(text: str, calls: Sequence[Call], offered: set[Any] | None, tools: Tools) -> None:
    """The name of an offered tool beside arguments, in what is none of the dialects, or was to be one.

    {"action": "f", "action_input": {…}}, <tool name="f">, f: {…}, f("x"), <tool_cal>f<arg_key>…, to=functions.f <message|>{…}

    Raises:
        CallError: they are none of the calls that were read, nor a part of one.
    """
    names = "|".join(
        re.escape(name)
        for name in sorted(offered or (), key=str, reverse=True)
        if isinstance(name, str) and name and name in text  # of hundreds of tools hardly any
    )
    if not names:
        return
    _check_arguments(text, re.compile(rf"(?<![\w-])(?:{names})(?![\w-])"), calls, tools)
    pattern = re.compile(
        rf"(?:(?<![\w.-])|(?<=functions\.))(?P<name>{names})(?![\w-])"
        r"(?:[^{}]{0,40}(?P<object>\{)(?=\s*+(?:[\"'\\“}]|\w++:))|\s\(\s*+\w++\s*+[=:]|\(\s*+(?:\w++\s*+:|[\d\"']))"
        rf"|[\"']name[\"']\s*+:\s*+[\"'](?P<broken>{names})[\"'](?![^{{}}]{{0,2000}}\bdescription\b)"
        rf"|<(?P<element>{names})[\s/>]|\bname=[\"'](?P<attribute>{names})[\"']|<name>(?P<content>{names})</name>"
    )
    for found in pattern.finditer(text):
        name = str(found[str(found.lastgroup)] if found.lastgroup != "object" else found["name"])
        if found["object"] and _is_told(name, _object_at(text, found.start("object")), calls):
            continue
        raise CallError("not_a_call", f"{found[0][:60]!r} stands beside the calls")


def _check_arguments(text: str, names: re.Pattern[str], calls: Sequence[Call], tools: Tools) -> None:
    """Behind the name of an offered tool, however far: what stands before arguments, or an argument that the tool declares."""
    first = names.search(text)
    if first is None:
        return
    if sign := _BESIDE_ARGUMENTS.search(text, first.end()):
        raise CallError("not_a_call", f"{first[0]!r} and {sign[0]!r} stand beside the calls")
    found = dict.fromkeys(each[0] for each in names.finditer(text))
    declared = {name: properties_of(name, tools) or {} for name in found}
    told = 0
    for argument in _ARGUMENT.finditer(text, first.end()):
        key = str(argument[str(argument.lastgroup)])
        owners = [name for name in found if key in declared[name]]
        if not owners:
            continue
        told += 1
        value = _value_at(text, argument.end()) if told <= _MAX_ARGUMENTS else ...
        if not any(_is_told(name, {key: value}, calls) for name in owners):
            raise CallError("not_a_call", f"{first[0]!r} and its {argument[0]!r} stand beside the calls")


def _value_at(text: str, position: int) -> Any:
    try:
        return Literals(text[position : position + _MAX_VALUE], 0).value()
    except CallError:
        return ...


def _object_at(text: str, position: int) -> dict[str, Any] | None:
    try:
        value, _ = decode(text, position)
    except CallError:
        return None
    return value if isinstance(value, dict) else None


def _is_told(name: str, arguments: dict[str, Any] | None, calls: Sequence[Call]) -> bool:
    return arguments is not None and any(
        call["name"] == name and arguments.items() <= call["arguments"].items() for call in calls
    )
