"""Prose around calls may tell of what was called; of another call it may not, in however rare a form."""

from __future__ import annotations

import builtins
import re
from collections.abc import Sequence
from typing import Any

from rightcall.dialects.values import Call, CallError, decode


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


def check_prose(text: str, calls: Sequence[Call], offered: set[Any] | None) -> None:
    """The name of an offered tool beside arguments: {"action": "f", "action_input": {…}}, <tool name="f">, f: {…}, f("x").

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
    pattern = re.compile(
        rf"(?<![\w.-])(?P<name>{names})(?![\w-])"
        r"(?:[^{}]{0,40}(?P<object>\{)(?=\s*+(?:[\"'\\“}]|\w++:))|\s\(\s*+\w++\s*+[=:]|\(\s*+(?:\w++\s*+:|[\d\"']))"
        rf"|<(?P<element>{names})[\s/>]|\bname=[\"'](?P<attribute>{names})[\"']|<name>(?P<content>{names})</name>"
    )
    for found in pattern.finditer(text):
        name = str(found[str(found.lastgroup)] if found.lastgroup != "object" else found["name"])
        if found["object"] and _is_told(name, _object_at(text, found.start("object")), calls):
            continue
        raise CallError("not_a_call", f"{found[0][:60]!r} stands beside the calls")


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
