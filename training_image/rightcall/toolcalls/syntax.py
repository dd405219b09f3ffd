"""Find and read the calls in what a model wrote: six ways of writing them, nothing is ever executed.

<tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>     Hermes, Qwen, our ChatML; several in a row
<TOOLCALL>[{"name": "f", "arguments": {"a": 1}}]</TOOLCALL>     When2Call
{"name": "f", "parameters": {"a": 1}}                           Llama 3.x; several separated by ; or in a list
<|python_tag|>f(a=1)                                            Llama 3.x; also in front of JSON
[f(a=1), g(b="x")]                                              Llama 3.2, literals only
```json … ```                                                   any of these inside a markdown fence

A text calls when it begins with a call, when a fence does, or when a tag stands before one; a bare call behind prose is
prose. In a text that calls, every call counts, whatever its form and wherever it stands, and one that cannot be read is
an error: none passes unseen.
"""

from __future__ import annotations

import ast
import re
import warnings
from typing import Any

from rightcall.toolcalls.values import MAX_DEPTH, CallError, CallProblem, check_value, decode, shortened

Call = dict[str, Any]  # {"name": str, "arguments": dict}

MAX_CHARACTERS = 100_000
MAX_PYTHON_CHARACTERS = 20_000  # Python's parser works recursively
MAX_CALLS = 64

_TAG = r"(?:<(?:tool_call|TOOLCALL)>|<\|python_tag\|>)"
# "I wrapped it in <tool_call> tags.": what follows the tag is a word of a sentence, or ends a quotation
_MENTION = r"(?: +[A-Za-z]+(?=[\s,.:!?]|\Z)|[\"'`”’](?=[\s,.:!?)])|[,.:!?)])"
_NAME = r"[A-Za-z_][\w./-]*\("
# an object whose first key is a call's, or that has arguments: `{"note": "in {}", "name": "f", "arguments": {}}`
_JSON_FORM = (
    r"(?P<json>(?:\[\s*)?\{"
    r"(?:(?P<arguments>(?:[^{}\"]|\"(?:\\.|[^\"\\])*+\")*?[\"']?\b(?:arguments|parameters)[\"']?\s*:)"
    r"|\s*\"(?:id|name|function|type)\"\s*:))"
)
_LIST_FORM = rf"(?P<list>\[\s*{_NAME})"
_CALL_FORM = rf"(?P<call>{_NAME}\s*(?:\)|[A-Za-z_]\w*\s*=(?!=)))"
_TAG_FORM = rf"(?P<tag>{_TAG}(?!{_MENTION})\s*)"
_HERE = re.compile(f"{_TAG_FORM}|{_JSON_FORM}|{_LIST_FORM}|{_CALL_FORM}")
# in prose Python must begin a line, or an item of a list
_LATER = re.compile(
    rf"{_TAG_FORM}|{_JSON_FORM}|^[ \t]*(?:(?:[-*>]|\d{{1,3}}[.)])[ \t]+)?`*(?:{_LIST_FORM}|{_CALL_FORM})", re.MULTILINE
)
_AFTER_CALL_FORM = re.compile(rf"[ \t]*(?:[,;]?[ \t]*(?:\Z|[\n`<{{\[])|[,;]\s*{_NAME})")

_NEXT_TAG = re.compile(rf"</?(?:tool_call|TOOLCALL)>|{_TAG}")
_CLOSING = re.compile(rf"\s*(?:</(?:tool_call|TOOLCALL)>|(?={_TAG})|\Z)")
_FENCE = re.compile(r"```(?:json|python|tool_call|tool_code)?[ \t]*\n\s*(.*?)(?:```|\Z)", re.DOTALL)
_THOUGHTS = re.compile(r"\A\s*<think>.*?(?:</think>|\Z)", re.DOTALL)
_LOOKS_LIKE_JSON = re.compile(r"\{|\[\s*(?:[{\]\"]|\Z)")
_BETWEEN_CALLS = re.compile(r"[\s,;]*")
_BEHIND_CALL = re.compile(r"[\s,;`]*")
_STRING_OR_BRACKET = re.compile(
    r"""\"{3}(?:\\.|[^\\])*?\"{3}|'{3}(?:\\.|[^\\])*?'{3}|\#[^\n]*"""
    r"""|\"(?:\\.?|[^\"\\])*(?:\"|\Z)|'(?:\\.?|[^'\\])*(?:'|\Z)|[()\[\]{}]""",
    re.DOTALL,
)


def without_thoughts(text: str) -> str:
    """The text after a leading `<think>…</think>` block."""
    return _THOUGHTS.sub("", text, count=1).strip()


def read_calls(text: str) -> list[Call]:
    """The calls in the text in their order, [] when it attempts none.

    Raises:
        CallError: it attempts one that cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise CallError("too_long", f"{len(text)} characters, at most {MAX_CHARACTERS} are read")
    plain = text.strip()
    beginnings = {0, *(fence.start(1) for fence in _FENCE.finditer(plain))}
    calls: list[Call] = []
    calling = False
    doubt: CallError | None = None  # of what may be prose: an error only in a text that calls
    position = 0
    while opening := _HERE.match(plain, position) or _LATER.search(plain, position):
        form = str(opening.lastgroup)
        marked = form == "tag" or opening.start(form) in beginnings
        position = opening.end()
        if doubt and not marked:
            continue
        try:
            found, position = _read(plain, opening, form)
        except CallError as err:
            if marked and form != "call" and (form, err.reason) != ("json", "not_a_call"):
                raise
            # {"name": ...} in a sentence is not a failed call
            if form != "json" or opening["arguments"] or err.reason != "invalid_json":
                doubt = err
            continue
        calls += found
        calling = calling or (marked and bool(found))
        if len(calls) > MAX_CALLS:
            raise CallError("too_many_calls", f"{len(calls)}, at most {MAX_CALLS} are read")
    if calling and doubt:
        raise doubt
    return calls if calling else []


def _read(text: str, opening: re.Match[str], form: str) -> tuple[list[Call], int]:
    """The calls that begin at this opening, [] for none, and where to look for the next."""
    if form == "tag":
        found, end = _tagged(text, opening.end())
    elif form == "json":
        value, end = decode(text, opening.start(form))
        items = value if isinstance(value, list) else [value]
        if not any(map(_is_call, items)):
            # {"name": "Ada", "age": 36} is data, and an answer; a call may still stand inside
            return [], opening.end()
        found = [_call(item) for item in items]
    else:
        start = opening.start(form)
        end = _end_of_brackets(text, start)
        if form == "call" and not _AFTER_CALL_FORM.match(text, end):
            return [], end
        try:
            found = _python_calls(text[start:end])
        except CallError:
            if form == "list" and text.startswith("(", end):
                return [], end  # a link of markdown: [file(s)](https://…)
            raise
    behind = _BEHIND_CALL.match(text, end)
    return found, behind.end() if behind else end


def _tagged(text: str, start: int) -> tuple[list[Call], int]:
    """JSON is read from the opening tag on, not up to the closing one, because an argument may hold that too."""
    if _LOOKS_LIKE_JSON.match(text, start):
        found, end = _json_calls(text, start)
    else:
        tag = _NEXT_TAG.search(text, start)
        end = tag.start() if tag else len(text)
        found = _payload(text[start:end].strip())
    if not (closing := _CLOSING.match(text, end)):
        raise CallError("invalid_json", f"{text[end : end + 40]!r} follows the call")
    return found, closing.end()


def _payload(text: str) -> list[Call]:
    """What stands inside a tag must be calls."""
    if not text:
        raise CallError("unterminated_json", "nothing follows the tag")
    rest = ""
    if fence := _FENCE.match(text):
        text, rest = fence.group(1).strip(), text[fence.end() :].strip()
    if not _LOOKS_LIKE_JSON.match(text):
        calls = _python_calls(text)
    else:
        calls, end = _json_calls(text, 0)
        rest = text[end:] or rest
    if rest:
        raise CallError("invalid_json", f"{rest[:40]!r} follows the call")
    return calls


def _json_calls(text: str, position: int) -> tuple[list[Call], int]:
    """The calls from `position` on and where they end; white space, commas or semicolons may separate them."""
    values: list[Any] = []
    while position < len(text) and text[position] in "{[" and len(values) <= MAX_CALLS:
        value, position = decode(text, position)
        values += value if isinstance(value, list) else [value]
        between = _BETWEEN_CALLS.match(text, position)
        position = between.end() if between else position
    return [_call(value) for value in values], position


def _is_call(value: Any) -> bool:
    """Outside a tag only what has arguments, or says that it is a call: an answer may be JSON too."""
    if not isinstance(value, dict):
        return False
    inner = value["function"] if isinstance(value.get("function"), dict) else value
    return "arguments" in inner or "parameters" in inner or value.get("type") == "function"


def _call(value: Any) -> Call:
    if isinstance(value, dict) and isinstance(value.get("function"), dict):
        value = value["function"]
    if not isinstance(value, dict):
        raise CallError("not_a_call", f"{shortened(value)} is not an object")
    name = value.get("name", value.get("function"))
    if not isinstance(name, str) or not name.strip():
        raise CallError("not_a_call", f"{shortened(value)} names no tool")
    key = next((key for key in ("arguments", "parameters") if key in value), None)
    if key is None and value.keys() - {"name", "function", "id", "type"}:
        raise CallError("not_a_call", f"{shortened(value)} has no arguments")
    arguments = value[key] if key is not None else {}
    if isinstance(arguments, str):  # OpenAI's wire format
        wire = arguments.strip() or "{}"
        arguments, end = decode(wire, 0)
        if end < len(wire):
            raise CallError("invalid_json", f"{wire[end : end + 40]!r} follows the arguments")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise CallError("not_a_call", f"the arguments {shortened(arguments)} are not an object")
    return {"name": name.strip(), "arguments": arguments}


def _end_of_brackets(text: str, start: int) -> int:
    """Where the first bracket behind `start` is closed; brackets in strings do not count."""
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(text, start):
        depth += (token[0] in "([{") - (token[0] in ")]}")
        if depth == 0:
            return token.end()
    raise CallError("unterminated_json", "a bracket is never closed")


def _python_calls(text: str) -> list[Call]:
    if len(text) > MAX_PYTHON_CHARACTERS:
        raise CallError("too_long", f"{len(text)} characters, at most {MAX_PYTHON_CHARACTERS} are read as Python")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a model may write "\d" in a string
            node = ast.parse(text, mode="eval").body
        nodes = node.elts if isinstance(node, (ast.List, ast.Tuple)) else [node]
        return [_python_call(item) for item in nodes]
    except SyntaxError as err:
        cut = "never closed" in str(err.msg) or "unterminated" in str(err.msg)
        reason: CallProblem = "unterminated_json" if cut else "invalid_json"
        raise CallError(reason, f"neither JSON nor a call: {err.msg}") from err
    except ValueError as err:
        raise CallError("invalid_json", f"neither JSON nor a call: {err}") from err
    except (RecursionError, MemoryError) as err:
        raise CallError("too_deep", f"Python cannot parse it: {type(err).__name__}") from err


def _python_call(node: ast.expr) -> Call:
    if not isinstance(node, ast.Call):
        raise CallError("not_a_call", "an item is not a function call")
    parts, function = [], node.func
    while isinstance(function, ast.Attribute):
        parts.append(function.attr)
        function = function.value
    if not isinstance(function, ast.Name):
        raise CallError("not_a_call", "the function is not a plain name")
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise CallError("not_a_call", "an argument has no name")
    arguments = {str(keyword.arg): _literal(keyword.value) for keyword in node.keywords}
    check_value(arguments)
    return {"name": ".".join([function.id, *reversed(parts)]), "arguments": arguments}


_NAMES = {"true": True, "false": False, "null": None}


def _literal(node: ast.expr, depth: int = 0) -> Any:
    """The JSON value of a literal; ast.literal_eval would also let bytes, sets and complex numbers through."""
    if depth > MAX_DEPTH:
        raise CallError("too_deep", f"nested more than {MAX_DEPTH} levels")
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
    raise CallError("not_a_literal", f"{type(node).__name__} in an argument")
