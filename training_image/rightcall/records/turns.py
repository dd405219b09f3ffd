"""Conversations of other schemas as OpenAI's messages, the last of them the assistant's.

{"conversations": [{"from": "human", "value": "Weather in Graz?"}, {"from": "function_call", "value": '{"name": …}'},
 {"from": "observation", "value": "4"}, {"from": "gpt", "value": "4 °C."}], "system": "…", "tools": "[…]"}
"""

from __future__ import annotations

import json
from typing import Any

from rightcall.errors import DataError
from rightcall.rows.switches import SWITCHES
from rightcall.rows.texts import from_text, messages_from_text
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.verifier import parse

_SPEAKERS = {
    name: role
    for role, names in {
        "system": "system",
        "user": "user human",
        "assistant": "assistant gpt model bot chatgpt",
        "tool": "tool observation ipython function_response function-response tool_response tool_result",
        "function_call": "function_call function-call tool_call",
    }.items()
    for name in names.split()
}


def openai(record: Row) -> Row:
    """``functions`` are tools, a column ``system`` is the first message, ``parallel_tool_calls: false`` is held to.

    Raises:
        DataError: ``bad_tools``, ``system_differs`` or ``parallel_calls``.
    """
    row = {name: value for name, value in record.items() if name not in ("functions", "parallel_tool_calls", "system")}
    row["messages"] = with_system(messages_from_text(record["messages"]), record.get("system"))
    if record.get("functions"):
        row["tools"] = one_of(record.get("tools"), record["functions"])
    if record.get("parallel_tool_calls") is False:
        one_call_a_turn(row["messages"])
    return row


def one_of(tools: Any, functions: Any) -> Any:
    """OpenAI's older name for tools.

    Raises:
        DataError: ``bad_tools`` when the record has both, and they differ.
    """
    if tools and normalise_tools(tools) != normalise_tools(functions):
        raise DataError("the record has both functions and tools; leave one of them out", reason="bad_tools")
    return functions


def sharegpt(record: Row) -> Row:
    """Turns with from and value; those with role and content stay as they are."""
    row = {name: value for name, value in record.items() if name not in ("conversations", "system")}
    if record.get("functions"):
        row["tools"] = one_of(record.get("tools"), row.pop("functions"))
    turns = from_text(record["conversations"])
    messages = joined([spoken(turn) for turn in turns]) if isinstance(turns, list) else turns
    return row | {"messages": with_system(messages, record.get("system"))}


def spoken(turn: Any) -> Any:
    """A turn of ShareGPT as a message; with further fields, as ``weight``, kept.

    Raises:
        DataError: ``bad_toolcall`` when a function call's value is none.
    """
    if not isinstance(turn, dict) or "from" not in turn:
        return turn
    further = {name: value for name, value in turn.items() if name not in ("from", "value")}
    role, said = _SPEAKERS.get(str(turn["from"]).lower(), turn["from"]), turn.get("value")
    if role != "function_call":
        return {"role": role, "content": said, **further}
    text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    parsed = parse(text)
    if not parsed.calls:
        why = parsed.error.detail if parsed.error else "it has no name and arguments"
        raise DataError(f"the function call {text[:120]!r} cannot be read ({why}); correct it", reason="bad_toolcall")
    calls = [{"type": "function", "function": call} for call in parsed.calls]
    return {"role": "assistant", "content": "", "tool_calls": calls, **further}


def joined(messages: list[Any]) -> list[Any]:
    """What the assistant says right before it calls is one turn with the call."""
    found: list[Any] = []
    for message in messages:
        before: Any = found[-1] if found else None
        if _says(before) and isinstance(message, dict) and message.get("tool_calls") and not message.get("content"):
            found[-1] = {**message, "content": before["content"]}
        else:
            found.append(message)
    return found


def completion(record: Row) -> Row:
    """TRL's prompt and completion: what the prompt's assistant said is context.

    Raises:
        DataError: ``unpaired_preference`` when the record says that its completion is a bad one.
    """
    if record.get("label") is False:
        raise DataError(
            "label is false: the completion is an example of what not to write; drop the row, or pair it with a good "
            "one as chosen and rejected",
            reason="unpaired_preference",
        )
    row = {name: value for name, value in record.items() if name not in ("prompt", "completion", "label")}
    asked = as_messages(record["prompt"], "user")
    answered = as_messages(record["completion"], "assistant")
    return row | {"messages": [*map(_as_context, asked), *answered]}


def as_messages(value: Any, role: str) -> list[Any]:
    """Messages, one message, JSON text of either, or a text of ``role``."""
    value = messages_from_text(value)
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return [spoken(turn) for turn in value] if isinstance(value, list) else [spoken(value)]


def xlam(record: Row) -> Row:
    """One question and the calls that answer it.

    Raises:
        DataError: ``no_answer`` when there is neither a call nor a text.
    """
    row = {name: value for name, value in record.items() if name not in ("query", "answers", "system")}
    calls = from_text(record["answers"])
    if not calls:
        raise DataError(
            "answers is empty: there is neither a call nor a text to learn; give the text that is right here, or drop "
            "the row",
            reason="no_answer",
        )
    calls = [calls] if isinstance(calls, dict) else calls
    answer = {"content": calls} if isinstance(calls, str) else {"content": "", "tool_calls": calls}
    messages = [*as_messages(record["query"], "user"), {"role": "assistant", **answer}]
    return row | {"messages": with_system(messages, record.get("system"))}


def _as_context(message: Any) -> Any:
    if not isinstance(message, dict) or message.get("role") != "assistant":
        return message
    return {name: value for name, value in message.items() if name not in SWITCHES} | {"weight": 0}


def _says(message: Any) -> bool:
    return (
        isinstance(message, dict)
        and message.get("role") == "assistant"
        and isinstance(message.get("content"), str)
        and not message.get("tool_calls")
    )


def with_system(messages: Any, system: Any) -> Any:
    """The messages, opened by what stands in a column ``system``.

    Raises:
        DataError: ``system_differs`` when they open with another system message.
    """
    if not system or not isinstance(messages, list):
        return messages
    first = messages[0] if messages else None
    if not isinstance(first, dict) or first.get("role") not in ("system", "developer"):
        return [{"role": "system", "content": system}, *messages]
    if first.get("content") != system:
        raise DataError(
            f"the record's system {str(system)[:80]!r} is not its system message; leave one of them out",
            reason="system_differs",
        )
    return messages


def one_call_a_turn(messages: Any) -> None:
    """What ``parallel_tool_calls: false`` says.

    Raises:
        DataError: ``parallel_calls`` when a turn has several.
    """
    for message in messages if isinstance(messages, list) else ():
        calls = message.get("tool_calls") if isinstance(message, dict) else None
        if isinstance(calls, list) and len(calls) > 1:
            raise DataError(
                f"parallel_tool_calls is false, and a turn has {len(calls)} calls; correct one of the two",
                reason="parallel_calls",
            )
