"""Find and read the calls in what a model wrote: six ways of writing them, nothing is ever executed.

<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>     Hermes, Qwen, our ChatML; several in a row
<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>     When2Call
{"name": "f", "parameters": {"a": 1}}                           Llama 3.x; several separated by ; or in a list
<|python_tag|>f(a=1)                                            Llama 3.x; also in front of JSON
[f(a=1), g(b="x")]                                              Llama 3.2, literals only
```json … ```                                                   any of these inside a markdown fence
"""

from __future__ import annotations

import ast
import json
import math
import re
import warnings
from typing import Any

Call = dict[str, Any]  # {"name": str, "arguments": dict}

MAX_CHARACTERS = 100_000
MAX_PYTHON_CHARACTERS = 20_000  # Python's parser works recursively
MAX_CALLS = 64
MAX_DEPTH = 32

_OPENING = re.compile(r"<(?:tool_call|TOOLCALL)>\s*")
_CLOSING = re.compile(r"\s*(?:</(?:tool_call|TOOLCALL)>|(?=<(?:tool_call|TOOLCALL)>)|\Z)")
_PYTHON_TAG = "<|python_tag|>"
_FENCE = re.compile(r"```(?:json|python|tool_call|tool_code)?[ \t]*\n(.*?)(?:```|\Z)", re.DOTALL)
_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_LOOKS_LIKE_JSON = re.compile(r"\{|\[\s*(?:[{\]\"]|\Z)")
_LOOKS_LIKE_JSON_CALL = re.compile(r'\[?\s*\{\s*"(?:name|function|type)"\s*:')
_LOOKS_LIKE_PYTHON_CALLS = re.compile(r"\[\s*[A-Za-z_][\w.]*\(")
_LOOKS_LIKE_PYTHON_CALL = re.compile(r"[A-Za-z_][\w.]*\(")
_BETWEEN_CALLS = re.compile(r"[\s,;]*")
_CUT_LITERAL = re.compile(r"-|t|tr|tru|f|fa|fal|fals|n|nu|nul|\\?u[0-9a-fA-F]{0,4}|\\|\.|[eE][+-]?")


class CallError(ValueError):
    """Code first: unterminated_json, invalid_json, not_a_call, not_a_literal, too_long, too_deep, too_many_calls."""


def without_thoughts(text: str) -> str:
    """The text after a leading `<think>…</think>` block."""
    return _THOUGHTS.sub("", text, count=1).strip()


def read_calls(text: str) -> list[Call]:
    """The calls in the text, [] when it attempts none. Raises: CallError when it attempts one that cannot be read."""
    if len(text) > MAX_CHARACTERS:
        raise CallError(f"too_long: {len(text)} characters, at most {MAX_CHARACTERS} are read")
    plain = text.strip()
    calls = _untagged(plain)  # first, because an argument may hold a tag
    if not calls and _OPENING.search(plain):
        calls = _tagged(plain)
    elif not calls and _PYTHON_TAG in plain:
        calls = _payload(plain.split(_PYTHON_TAG, 1)[1].strip())
    elif not calls:
        fenced = (_untagged(match.group(1).strip()) for match in _FENCE.finditer(plain))
        calls = next(filter(None, fenced), [])
    if len(calls) > MAX_CALLS:
        raise CallError(f"too_many_calls: {len(calls)}, at most {MAX_CALLS} are read")
    return calls


def _tagged(text: str) -> list[Call]:
    """JSON is read from the opening tag on, not up to the closing one, because an argument may hold that too."""
    calls: list[Call] = []
    position = 0
    while (opening := _OPENING.search(text, position)) and len(calls) <= MAX_CALLS:
        start = opening.end()
        if _LOOKS_LIKE_JSON.match(text, start):
            found, position = _json_calls(text, start)
            if not (closing := _CLOSING.match(text, position)):
                raise CallError(f"invalid_json: {text[position : position + 40]!r} follows the call")
            position = closing.end()
        else:
            end = re.compile(r"</?(?:tool_call|TOOLCALL)>").search(text, start)
            position = end.start() if end else len(text)
            found = _payload(text[start:position].strip())
        calls += found
    return calls


def _untagged(text: str) -> list[Call]:
    """Without a tag only what looks like a call is one: a direct answer may be JSON too."""
    if _LOOKS_LIKE_JSON_CALL.match(text):
        try:
            return _json_calls(text, 0)[0]
        except CallError as err:
            # {"name": "Ada", "age": 36} is data, and an answer
            if str(err).startswith("not_a_call"):
                return []
            raise
    if _LOOKS_LIKE_PYTHON_CALLS.match(text):
        return _python_calls(text)
    if _LOOKS_LIKE_PYTHON_CALL.match(text) and text.endswith(")"):
        try:
            return _python_calls(text)
        except CallError:
            return []
    return []


def _payload(text: str) -> list[Call]:
    """What stands inside a tag must be calls."""
    if not text:
        raise CallError("unterminated_json: nothing follows the tag")
    if fence := _FENCE.match(text):
        text = fence.group(1).strip()
    if not _LOOKS_LIKE_JSON.match(text):
        return _python_calls(text)
    calls, end = _json_calls(text, 0)
    if end < len(text):
        raise CallError(f"invalid_json: {text[end : end + 40]!r} follows the call")
    return calls


def _json_calls(text: str, position: int) -> tuple[list[Call], int]:
    """The calls from `position` on and where they end; white space, commas or semicolons may separate them."""
    values: list[Any] = []
    while position < len(text) and text[position] in "{[" and len(values) <= MAX_CALLS:
        value, position = _decode(text, position)
        values += value if isinstance(value, list) else [value]
        between = _BETWEEN_CALLS.match(text, position)
        position = between.end() if between else position
    return [_call(value) for value in values], position


def _decode(text: str, position: int) -> tuple[Any, int]:
    try:
        value, end = json.JSONDecoder(parse_constant=_refuse_constant).raw_decode(text, position)
    except json.JSONDecodeError as err:
        code = "unterminated_json" if _cut_off(err) else "invalid_json"
        raise CallError(f"{code}: {err.msg} at character {err.pos}") from err
    except RecursionError as err:
        raise CallError("too_deep: the JSON is nested too deeply") from err
    except ValueError as err:
        raise CallError(f"invalid_json: {str(err)[:80]}") from err
    _check_value(value)
    return value, end


def _cut_off(err: json.JSONDecodeError) -> bool:
    if err.msg.startswith("Unterminated string"):
        return True
    rest = err.doc[err.pos :]
    return not rest.strip(' \t\n\r,:"') or _CUT_LITERAL.fullmatch(rest) is not None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _check_value(value: Any, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise CallError(f"too_deep: nested more than {MAX_DEPTH} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise CallError("invalid_json: a number is too large")
    if isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            _check_value(item, depth + 1)


def _call(value: Any) -> Call:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        raise CallError(f"not_a_call: {_short(value)} is not an object")
    name = value.get("name", value.get("function"))
    if not isinstance(name, str) or not name.strip():
        raise CallError(f"not_a_call: {_short(value)} names no tool")
    key = next((key for key in ("arguments", "parameters") if key in value), None)
    if key is None and value.keys() - {"name", "function", "id", "type"}:
        raise CallError(f"not_a_call: {_short(value)} has no arguments")
    arguments = value[key] if key is not None else {}
    if isinstance(arguments, str):  # OpenAI's wire format
        arguments, _ = _decode(arguments.strip() or "{}", 0)
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise CallError(f"not_a_call: the arguments {_short(arguments)} are not an object")
    return {"name": name.strip(), "arguments": arguments}


def _python_calls(text: str) -> list[Call]:
    if len(text) > MAX_PYTHON_CHARACTERS:
        raise CallError(f"too_long: {len(text)} characters, at most {MAX_PYTHON_CHARACTERS} are read as Python")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # "\d" in a string is the model's affair
            node = ast.parse(text, mode="eval").body
        nodes = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
        return [_python_call(item) for item in nodes]
    except CallError:
        raise
    except SyntaxError as err:
        cut = "never closed" in str(err.msg) or "unterminated" in str(err.msg)
        raise CallError(f"{'unterminated' if cut else 'invalid'}_json: neither JSON nor a call: {err.msg}") from err
    except (ValueError, RecursionError, MemoryError) as err:
        raise CallError(f"too_deep: Python cannot parse it: {type(err).__name__}") from err


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise CallError("not_a_call: an item is not a function call")
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        raise CallError("not_a_call: the function is not a plain name")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise CallError("not_a_call: an argument has no name")
    arguments = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    _check_value(arguments)
    return {"name": ".".join([function.id, *reversed(parts)]), "arguments": arguments}


_NAMES = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr, depth: int = 0) -> Any:
    """The JSON value of a literal; ast.literal_eval would also let bytes, sets and complex numbers through."""
    if depth > MAX_DEPTH:
        raise CallError(f"too_deep: nested more than {MAX_DEPTH} levels")
    if isinstance(node, ast.Constant) and isinstance(node.value, (str, int, float, type(None))):
        return node.value
    if isinstance(node, ast.Name) and node.id in _NAMES:
        return _NAMES[node.id]
    if isinstance(node, (ast.List, ast.Tuple)):
        return [_literal(item, depth + 1) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [key.value for key in node.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]
        if len(keys) == len(node.values):
            return dict(zip(keys, [_literal(item, depth + 1) for item in node.values], strict=True))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        number = node.operand.value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            return -number
    raise CallError(f"not_a_literal: {type(node).__name__} in an argument")


def _short(value: Any) -> str:
    return repr(value)[:80]
