"""Calls, results and tools that stand as text in messages, as the messages and tools of their own that they are.

system     … <tools>[{"name": …}]</tools> …                                              → tools
assistant  Let me see. <tool_call>{"name": …, "arguments": …}</tool_call>                → content, tool_calls
user, tool <tool_response>{"degrees": 7}</tool_response><tool_response>…</tool_response> → two messages of the tool
assistant  [Market Trends API(country="us")]                                             → tool_calls, where it is offered
"""

from __future__ import annotations

import json
import re
from typing import Any

from rightcall.errors import DataError
from rightcall.records.texts import values_in
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.verifier import parse

_CALL_BLOCK = re.compile(r"<tool_call>.*?(?:</tool_call>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>\s*(.*?)\s*(?:</tool_response>|\Z)", re.DOTALL)
_TOOLS_BLOCK = re.compile(r"<tools>\s*([\[{].*?)\s*</tools>", re.DOTALL)
# How a model is to write calls: the chat template says that, in the model's own way.
_INTRODUCTION = re.compile(
    r"(?:# Tools\b|You are a function calling AI model|You (?:may|can) call one or more functions"
    r"|You are provided with function signatures|Here are the available tools|[^\n.!?]*<tools>)"
)
_INSTRUCTION = re.compile(
    r"(?:(?:For )?[Ee]ach function call|Use the following pydantic model|[^\n.!?]*<tool_call>).*</tool_call>"
    r"(?:[^.\n]*XML tags\.?)?",
    re.DOTALL,
)
_LISTED = re.compile(r"Here is a list of functions in JSON format.*?(?=\[\s*\{)", re.DOTALL)
_LISTED_END = re.compile(r"\A.*?NO other text MUST be included\.?", re.DOTALL)
_OPENS = ("{", "[", "<", "`")  # what a text begins with that is a call and nothing else
_STRING = r"\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*'"
_SAID_IN_CALLS = ("<tool_call>", "</tool_call>")


def structured(messages: Any, tools: Any) -> tuple[Any, Any]:
    """The messages, and the tools that they are offered; what holds no such text is given back as it is.

    Raises:
        DataError: ``bad_toolcall`` when what should be a call cannot be read; ``bad_tools`` when a system message
            offers other tools than the record.
    """
    if not isinstance(messages, list):
        return messages, tools
    found: list[Any] = []
    for message in messages:
        text = _text(message)
        role = message.get("role") if text else None
        if role in ("system", "developer"):
            text, tools = _without_tools(text, tools)
            if text == _text(message):
                found.append(message)
            elif text:
                found.append({**message, "content": text})
        elif role == "assistant":
            found.append(called(message, tools))
        elif role is not None and "<tool_response>" in text:
            found += _results(message, text)
        else:
            found.append(message)
    return _each_result(found), tools


def called(message: Any, tools: Any) -> Any:
    """An assistant's message with its calls out of its text.

    Raises:
        DataError: ``bad_toolcall`` when what should be a call cannot be read.
    """
    text = _text(message)
    tagged = "<tool_call>" in text
    if not tagged and not text.lstrip().startswith(_OPENS):
        return message
    offered = [tool["function"]["name"] for tool in normalise_tools(tools)]
    masked, names = _masked(text, offered)
    if not (tagged or offered):
        return message
    parsed = parse(masked)
    if parsed.error is not None:
        if not text.lstrip().startswith("<") and not tagged and not any(name in text for name in offered):
            return message  # broken JSON, or code: an answer all the same
        raise DataError(
            f"{text[:120]!r} begins a call that cannot be read ({parsed.error.detail}); correct the row",
            reason="bad_toolcall",
        )
    calls = [{**call, "name": names.get(call["name"], call["name"])} for call in parsed.calls]
    if not calls or not (tagged or {call["name"] for call in calls} <= set(offered)):
        return message
    rest = _CALL_BLOCK.sub("", text).strip() if tagged else ""
    if message.get("tool_calls") or any(mark in rest for mark in _SAID_IN_CALLS) or parse(rest).calls:
        raise DataError(
            f"{text[:120]!r} has a call in <tool_call> and another beside it; write all of them as tool_calls",
            reason="bad_toolcall",
        )
    return {**message, "content": rest, "tool_calls": [{"type": "function", "function": call} for call in calls]}


def _text(message: Any) -> str:
    """Empty where there is none, or where it is no message."""
    content = message.get("content") if isinstance(message, dict) else None
    if isinstance(content, list) and all(
        isinstance(part, dict) and isinstance(part.get("text"), str) for part in content
    ):
        return "".join(part["text"] for part in content)
    return content if isinstance(content, str) else ""


def _masked(text: str, offered: list[str]) -> tuple[str, dict[str, str]]:
    """A list of calls with names that Python would not read, as in ToolACE: [Market Trends API(country="us")]."""
    strange = sorted((name for name in offered if not name.replace(".", "_").isidentifier()), key=len, reverse=True)
    if not strange or not text.lstrip().startswith("["):
        return text, {}
    names = {f"offered_{number}": name for number, name in enumerate(strange)}
    marks = {name: mark for mark, name in names.items()}
    called = re.compile(rf"{_STRING}|(?<![\w.])({'|'.join(map(re.escape, strange))})(?=\s*\()")
    return called.sub(lambda match: marks[match[1]] if match[1] else match[0], text), names


def _without_tools(text: str, tools: Any) -> tuple[str, Any]:
    """A system message without the tools in it and how they are to be called; the tools of the record, or these."""
    if block := _TOOLS_BLOCK.search(text):
        own, behind = values_in(block[1]), text[block.end() :]
        opening = _INTRODUCTION.search(text, 0, block.start() + len("<tools>"))
        before = text[: opening.start()] if opening else text[: block.start()]
        rest = _INSTRUCTION.sub("", behind) if "<tool_call>" in behind else behind
    elif opening := _LISTED.search(text):
        try:
            own, end = json.JSONDecoder().raw_decode(text, opening.end())
        except ValueError:
            return text, tools
        before, rest = text[: opening.start()], _LISTED_END.sub("", text[end:])
    else:
        return text, tools
    if not own or not all(isinstance(tool, dict) for tool in own):
        return text, tools
    if tools and (names := _names(own)) != (given := _names(tools)):
        raise DataError(
            f"the system message offers the tools {sorted(names)[:8]!r}, the record {sorted(given)[:8]!r}; leave one out",
            reason="bad_tools",
        )
    return f"{before.rstrip()}\n{rest.strip()}".strip(), tools or own


def _names(tools: Any) -> set[str]:
    return {tool["function"]["name"] for tool in normalise_tools(tools)}


def _results(message: Row, text: str) -> list[Row]:
    """A message for each result; one that says something else as well stays as it is."""
    if message.get("role") not in ("tool", "function", "user") or _RESPONSE.sub("", text).strip():
        return [message]
    contents = [match[1] for match in _RESPONSE.finditer(text)]
    own = ("role", "content", *(["tool_call_id"] if len(contents) > 1 else []))
    further = {name: value for name, value in message.items() if name not in own}
    return [{"role": "tool", "content": content, **further} for content in contents]


def _each_result(messages: list[Any]) -> list[Any]:
    """One message with a list of as many results as there were calls, as ToolACE writes them, is a message each."""
    found: list[Any] = []
    for number, message in enumerate(messages):
        calls = _calls_of(messages[number - 1]) if number else 0
        role = message.get("role") if isinstance(message, dict) else None
        after = messages[number + 1] if number + 1 < len(messages) else None
        if role == "tool" and calls > 1 and not (isinstance(after, dict) and after.get("role") == "tool"):
            results = values_in(_text(message))
            if len(results) == calls and "tool_call_id" not in message:
                found += [{**message, "content": json.dumps(each, ensure_ascii=False)} for each in results]
                continue
        found.append(message)
    return found


def _calls_of(message: Any) -> int:
    calls = message.get("tool_calls") if isinstance(message, dict) else None
    return len(calls) if isinstance(calls, list) else 0
