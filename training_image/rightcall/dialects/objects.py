"""Calls written as JSON objects, whatever their keys are called.

{"name": "f", "arguments": {"a": 1}}                                            also "parameters", and in any order
{"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}   OpenAI's
{"tool_calls": [...]}, [...]                                                    several
{"tool_call_id": "0", "tool_name": "f", "parameters": {}}                       Cohere's
"""

from __future__ import annotations

from typing import Any

from rightcall.dialects.literals import Literals
from rightcall.dialects.values import Call, CallError, check_value, decode, shortened

_NAMES = ("name", "tool_name", "function")
_ARGUMENTS = ("arguments", "parameters")
_UNUSUAL_ARGUMENTS = ("args", "input", "kwargs")
_SEVERAL = ("tool_calls", "function_call")
_WITHOUT_ARGUMENTS = {*_NAMES, "id", "type", "tool_call_id", "index"}


def decode_tolerantly(text: str, position: int, forgiven: set[str]) -> tuple[Any, int]:
    """As `decode`; also trailing commas, raw new lines in a text, and a dict of Python.

    Raises:
        CallError: neither JSON nor Python.
    """
    try:
        return decode(text, position)
    except CallError as err:
        if err.reason not in ("invalid_json", "unterminated_json") or not text.startswith(("{", "["), position):
            raise
        literals = Literals(text, position)
        try:
            value = literals.value()
        except CallError:
            raise CallError(err.reason, err.detail, literals.position - position) from None
        check_value(value)
        forgiven.update(literals.notes or {"python_dict"})
        return value, literals.position


def is_call(value: Any) -> bool:
    """Outside a tag only what has arguments, or says that it is a call: an answer may be JSON too."""
    if not isinstance(value, dict) or _several(value) is not None:
        return isinstance(value, dict)
    inner = value["function"] if isinstance(value.get("function"), dict) else value
    if "description" in inner and "arguments" not in inner:
        return False  # a tool as it is offered
    if any(key in inner for key in _ARGUMENTS) or value.get("type") == "function":
        return True
    return _name(inner) is not None and any(isinstance(inner.get(key), dict) for key in _UNUSUAL_ARGUMENTS)


def is_bare_name(value: Any) -> str | None:
    """The name in {"name": "f"}, which is a call where a tool f is offered."""
    return _name(value) if isinstance(value, dict) and not value.keys() - _WITHOUT_ARGUMENTS else None


def calls_of(value: Any, forgiven: set[str]) -> tuple[list[Call], str]:
    """The calls in an object or a list of objects, and how they look: "{name,arguments}", "[{name,parameters}]".

    Raises:
        CallError: something in it is no call.
    """
    if isinstance(value, list):
        found = [calls_of(item, forgiven) for item in value]
        if any(isinstance(item, list) for item in value):
            raise CallError("not_a_call", f"{shortened(value)} is a list of lists")
        looks = sorted({look for _, look in found})
        return [call for calls, _ in found for call in calls], f"[{'|'.join(looks)}]"
    if not isinstance(value, dict):
        raise CallError("not_a_call", f"{shortened(value)} is not an object")
    if (inner := _several(value)) is not None:
        calls, look = calls_of(inner, forgiven)
        return calls, f"{{{','.join(key for key in _SEVERAL if key in value)}:{look}}}"
    if isinstance(value.get("function"), dict):
        call, look = _call(value["function"], forgiven)
        return [call], f"{{function:{look}}}"
    call, look = _call(value, forgiven)
    return [call], look


def _several(value: dict[str, Any]) -> Any:
    return next((value[key] for key in _SEVERAL if isinstance(value.get(key), (list, dict)) and value[key]), None)


def _name(value: dict[str, Any]) -> str | None:
    name = next((value[key] for key in _NAMES if key in value), None)
    return name if isinstance(name, str) and name.strip() else None


def _call(value: dict[str, Any], forgiven: set[str]) -> tuple[Call, str]:
    name = _name(value)
    if name is None:
        raise CallError("not_a_call", f"{shortened(value)} names no tool")
    key = next((key for key in (*_ARGUMENTS, *_UNUSUAL_ARGUMENTS) if key in value), None)
    if key is None and value.keys() - _WITHOUT_ARGUMENTS:
        raise CallError("not_a_call", f"{shortened(value)} has no arguments")
    if len([key for key in _ARGUMENTS if value.get(key) is not None]) > 1 or ("name" in value and "tool_name" in value):
        raise CallError("invalid_json", f"{shortened(value)} is two calls in one")
    arguments = value[key] if key is not None else {}
    look = f"{{{next(key for key in _NAMES if key in value)},{key}}}"
    if isinstance(arguments, str):  # OpenAI's wire format
        look = f'{look[:-1]}:""}}'
        wire = arguments.strip() or "{}"
        arguments, end = decode_tolerantly(wire, 0, forgiven)
        if wire[end:].strip():
            raise CallError("invalid_json", f"{wire[end : end + 40]!r} follows the arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise CallError("not_a_call", f"the arguments {shortened(arguments)} are not an object")
    if key is None or key in _UNUSUAL_ARGUMENTS:
        forgiven.add("no_arguments" if key is None else "other_keys")
    return {"name": name.strip(), "arguments": arguments}, look
