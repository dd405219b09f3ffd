"""Calls, results and tools that stand as text in messages, as the messages and tools of their own that they are.

system     … <tools>[{"name": …}]</tools> …                                              → tools
assistant  Let me see. <tool_call>{"name": …, "arguments": …}</tool_call>                → content, tool_calls
user, tool <tool_response>{"degrees": 7}</tool_response><tool_response>…</tool_response> → two messages of the tool
assistant  [Market Trends API(country="us")]                                             → tool_calls, where it is offered
"""

from __future__ import annotations

import json
import re
from typing import Any, NamedTuple

from rightcall.dialects.finding import LATER, SIGNED, without_thoughts
from rightcall.dialects.reading import read_calls
from rightcall.dialects.values import CallError
from rightcall.errors import DataError
from rightcall.rows.texts import values_in
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import Row

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
_MAY_CALL = re.compile(r"[{(\[<]")
_PYTHON = ("f(", "[f(", "print(")  # as the reader shows calls without a mark
_LIST = re.compile(r"^\s*\[", re.MULTILINE)
_STRING = r"(?<!\w)(?:\"(?:\\.|[^\"\\])*\"|'(?:\\.|[^'\\])*')"
_TAGS = ("<tool_call>", "</tool_call>")


class Offer(NamedTuple):
    """The tools of a row, as its messages' texts may call them."""

    tools: list[Row]
    names: list[str]

    def all(self, calls: list[Row]) -> bool:
        return {call["name"] for call in calls} <= set(self.names)


def offer_of(tools: Any, otherwise: list[Row] | None = None) -> Offer:
    """Of a record's tools; ``otherwise``: those that are named for all records.

    Raises:
        DataError: they cannot be read.
    """
    normalised = normalise_tools(tools) or otherwise or []
    return Offer(normalised, [tool["function"]["name"] for tool in normalised])


def structured(messages: Any, tools: Any, otherwise: list[Row] | None = None) -> tuple[Any, Any]:
    """The messages, and the tools that they are offered; what holds no such text is given back as it is.

    ``otherwise``: normalised tools that a record without any may call.

    Raises:
        DataError: ``bad_toolcall`` when what should be a call cannot be read; ``bad_tools`` when a system message
            offers other tools than the record.
    """
    if not isinstance(messages, list):
        return messages, tools
    found: list[Any] = []
    offer: Offer | None = None
    for message in messages:
        text = _text(message)
        role = message.get("role") if text else None
        if role in ("system", "developer"):
            (text, tools), offer = _without_tools(text, tools), None
            if text == _text(message):
                found.append(message)
            elif text:
                found.append({**message, "content": text})
        elif role == "assistant" and _MAY_CALL.search(text):
            offer = offer or offer_of(tools, otherwise)
            found.append(called(message, offer))
        elif role is not None and "<tool_response>" in text:
            found += _results(message, text)
        else:
            found.append(message)
    return _each_result(found), tools


def called(message: Any, offer: Offer) -> Any:
    """An assistant's message with its calls out of its text: all that the verifier would read as a call.

    Raises:
        DataError: ``bad_toolcall`` when what should be a call cannot be read, or calls stand beside it.
    """
    text = _text(message)
    if not _MAY_CALL.search(text):
        return message
    masked, names = _masked(text, offer.names)
    spoken = without_thoughts(masked)
    try:
        found = read_calls(spoken, [*offer.tools, *({"name": mark} for mark in names)])
    except CallError as err:
        signed = any(opening.lastgroup in SIGNED for opening in LATER.finditer(spoken))
        if not signed and not any(name in text for name in offer.names):
            return message  # broken JSON, or code: an answer all the same
        raise DataError(
            f"{text[:120]!r} begins a call that cannot be read ({err.detail}); correct the row", reason="bad_toolcall"
        ) from err
    calls = [{**call, "name": names.get(call["name"], call["name"])} for call in found.calls]
    if not calls or not (offer.all(calls) or _is_meant(found.dialects, offer)):
        return message
    if message.get("tool_calls") or any(mark in found.around for mark in _TAGS):
        raise DataError(
            f"{text[:120]!r} has a call in its text and another beside it; write all of them as tool_calls",
            reason="bad_toolcall",
        )
    thoughts = masked[: masked.rfind(spoken)].strip()
    content = "\n".join(filter(None, (thoughts, found.around)))
    for mark, name in names.items():
        content = content.replace(mark, name)
    return {**message, "content": content, "tool_calls": [{"type": "function", "function": call} for call in calls]}


def _is_meant(dialects: frozenset[str], offer: Offer) -> bool:
    """Of calls of tools that are not offered: Python may be code, and where no tool is offered JSON may be data."""
    return any(not look.startswith(_PYTHON) and (offer.names or not look.startswith(("{", "[{"))) for look in dialects)


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
    if not strange or not _LIST.search(text):
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
