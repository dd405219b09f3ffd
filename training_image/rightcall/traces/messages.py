"""One recorded message, whoever's API it was written for, as OpenAI's messages.

{"role": "assistant", "parts": [{"type": "tool_call", "id": "c1", "name": "get_weather", "arguments": {"city": "Graz"}}]}
→ [{"role": "assistant", "content": "", "tool_calls": [{"id": "c1", "type": "function", "function": {…}}]}]

Read are the parts of OpenTelemetry's conventions, the blocks of Anthropic, Gemini and Bedrock, the items of OpenAI's Responses
and of its chat completions, OpenInference's and Traceloop's attributes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row

ROLES = ("system", "user", "assistant", "tool")
_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "developer": "system", "function": "tool"}
_READ = {  # what a message is made of; any other field stays and is named as not used
    "role", "type", "parts", "contents", "content", "tool_calls", "function_call", "call_id", "finish_reason", "stop_reason",
    "status", "id", "index", "object", "tool_call_id", "name", "arguments", "output", "summary", "encrypted_content", "model",
    "usage", "stop_sequence",
}  # fmt: skip
_CUT = {
    "length",
    "max_tokens",
    "content_filter",
    "error",
    "incomplete",
    "safety",
    "failed",
}  # how an answer ended early
_TEXT = {"text", "input_text", "output_text", "summary_text"}
_CALL = {"tool_call", "tool_use", "function_call", "functionCall", "toolUse"}
_RESULT = {
    "tool_call_response", "tool_result", "function_call_output", "functionResponse", "function_response", "toolResult",
}  # fmt: skip


@dataclass
class _Parts:
    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)
    calls: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    refusal: str = ""
    others: list[Any] = field(default_factory=list)  # images and their like, which the checks refuse by name


def read_messages(raw: Iterable[Any], role: str = "") -> list[Row]:
    """``role``: of what has none.

    Raises:
        DataError: ``bad_content``, something stands there that is no message.
    """
    return joined([message for each in raw for message in read_message(each, role)])


def read_message(raw: Any, role: str = "") -> list[Row]:
    """A message with two results is two; what a user says beside results follows them.

    Raises:
        DataError: as in `read_messages`.
    """
    if isinstance(raw, str):
        raw = {"content": raw}
    if not isinstance(raw, dict):
        raise DataError(f"a recorded message is a {type(raw).__name__}; an object is wanted", reason="bad_content")
    if isinstance(raw.get("message"), dict):
        raw = {**{name: each for name, each in raw.items() if name != "message"}, **raw["message"]}
    kind = raw["type"] if isinstance(raw.get("type"), str) else ""
    said = str(raw.get("role") or kind or role)
    parts = _Parts()
    if kind in _CALL or kind in _RESULT or kind == "reasoning":  # an item of Responses
        _take(raw, parts)
        said = "assistant"
    else:
        _take_all(_contents(raw), parts)
        for call in _listed(raw.get("tool_calls")):
            parts.calls.append(_call(call))
    return _written(_ROLES.get(said, said if said != "message" else role), parts, raw)


def joined(messages: list[Row]) -> list[Row]:
    """Calls, thoughts and text that were recorded one after another are one turn; two texts stay two."""
    found: list[Row] = []
    for message in messages:
        before: Row = found[-1] if found else {}
        if before.get("role") == message["role"] == "assistant" and not _speaks_again(before, message):
            thoughts = [each["reasoning_content"] for each in (before, message) if each.get("reasoning_content")]
            calls = [*before.get("tool_calls", ()), *message.get("tool_calls", ())]
            found[-1] = {
                **before, **message, "content": before["content"] or message["content"],
                **({"tool_calls": calls} if calls else {}), **({"reasoning_content": "\n".join(thoughts)} if thoughts else {}),
            }  # fmt: skip
        else:
            found.append(message)
    return found


def text_of(raw: Any) -> str:
    """The text of a system message that is a text, a list of parts, or a message."""
    if isinstance(raw, str):
        return raw
    parts = _Parts()
    whole = raw if isinstance(raw, list) else [raw] if isinstance(raw, dict) else []
    _take_all(_contents(raw) if isinstance(raw, dict) and "role" in raw else whole, parts)
    return "\n".join(parts.texts)


def _speaks_again(before: Row, message: Row) -> bool:
    return bool(message["content"]) and bool(before["content"] or before.get("tool_calls"))


def _written(role: str, parts: _Parts, raw: Row) -> list[Row]:
    further = {name: each for name, each in raw.items() if name not in _READ and name != "message"}
    if role == "tool" and not parts.results:
        parts.results.append(
            _result(raw.get("tool_call_id") or raw.get("call_id") or raw.get("id"), raw.get("name"), _text(parts))
        )
        parts.texts, parts.others = [], []
    messages = list(parts.results)
    if not parts.results or parts.texts or parts.others or parts.calls:
        texts: Any = "".join(parts.texts)
        message = {"role": role, "content": [*parts.texts, *parts.others] if parts.others else texts, **further}
        message |= {"tool_calls": parts.calls} if parts.calls else {}
        message |= {"function_call": raw["function_call"]} if raw.get("function_call") else {}
        message |= {"reasoning_content": "\n".join(parts.thoughts)} if parts.thoughts else {}
        message |= {"refusal": parts.refusal} if parts.refusal else {}
        message |= {"name": raw["name"]} if raw.get("name") and role != "assistant" and not parts.calls else {}
        ended = {str(raw.get(name)).lower() for name in ("finish_reason", "stop_reason", "status")}
        messages.append(message | ({"weight": 0} if ended & _CUT and role == "assistant" else {}))
    return messages


def _contents(raw: Row) -> list[Any]:
    for name in ("parts", "contents", "content"):
        value = raw.get(name)
        if isinstance(value, str) and value.startswith('[{"type"'):  # Traceloop writes a list of parts as text
            try:
                value = json.loads(value)
            except ValueError:
                return [value]
        if value not in (None, ""):
            return value if isinstance(value, list) else [value]
    return []


def _take_all(raw: Iterable[Any], parts: _Parts) -> None:
    for given in raw:
        wrapped = given.get("message_content") if isinstance(given, dict) else None  # OpenInference
        each = wrapped if isinstance(wrapped, dict) else given
        if isinstance(each, str):
            parts.texts.append(each)
        elif isinstance(each, dict):
            _take(each, parts)
        else:
            parts.others.append(each)


def _take(part: Row, parts: _Parts) -> None:
    named = part.get("type") or next((name for name in part if name in _CALL or name in _RESULT), "text")
    kind = str(named)
    inner = part[kind] if isinstance(part.get(kind), dict) else part
    said = next((part[name] for name in ("content", "text", "thinking") if isinstance(part.get(name), str)), None)
    if kind in _TEXT and said is not None:
        parts.texts.append(said)
    elif kind in ("reasoning", "thinking"):
        thought = said or text_of([*_listed(part.get("summary")), *_listed(part.get("content"))])
        parts.thoughts += [thought] if thought else []
    elif kind == "refusal" and isinstance(part.get("refusal"), str):
        parts.refusal += part["refusal"]
    elif kind in _CALL:
        parts.calls.append(_call(inner))
    elif kind in _RESULT:
        identifier = inner.get("tool_use_id") or inner.get("toolUseId") or inner.get("call_id") or inner.get("id")
        value = next((inner[name] for name in ("response", "result", "output", "content") if name in inner), "")
        parts.results.append(_result(identifier, inner.get("name"), _result_text(value)))
    else:
        parts.others.append(part)


def _call(raw: Any) -> Row:
    call: Row = raw.get("tool_call", raw) if isinstance(raw, dict) else {}
    inner = call.get("function")
    function: Row = inner if isinstance(inner, dict) else call
    arguments = next((function[name] for name in ("arguments", "args", "input") if name in function), None)
    identifier = call.get("call_id") or call.get("toolUseId") or call.get("id")
    return {
        **({"id": str(identifier)} if identifier else {}),
        "type": "function",
        "function": {"name": function.get("name"), "arguments": {} if arguments is None else arguments},
    }


def _result(identifier: Any, name: Any, text: str) -> Row:
    named = {"tool_call_id": identifier, "name": name}
    return {"role": "tool", "content": text, **{key: str(each) for key, each in named.items() if each}}


def _result_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(each, dict) and "text" in each for each in value):
        return "\n".join(str(each["text"]) for each in value)
    return json.dumps(value, ensure_ascii=False)


def _text(parts: _Parts) -> str:
    others = [json.dumps(each, ensure_ascii=False) for each in parts.others]
    return "".join([*parts.texts, *others])


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
