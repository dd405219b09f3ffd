"""A logged record as a canonical conversation, or the reason why it is none.

{"id": "c1", "user_id": "u7", "messages": [{"role": "user", …}, {"role": "assistant", "content": "", "tool_calls": …}, …]}

→ {"id": "c1", "source", "group": "u7", "messages": […, the last one the assistant's], "tools": […],
   "trained": [[1, "request_for_info"], [3, "tool_call"]]}
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from rightcall.errors import DataError
from rightcall.records.schemas import as_openai
from rightcall.rows.canonical import canonical_messages, content_digest, label_of
from rightcall.rows.lines import naming_the_line
from rightcall.rows.switches import switched_on
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import BEHAVIOURS, Row

_AROUND = 40  # characters shown before and after where two texts part


@dataclass
class Named:
    """What the recipe says once about all conversations of a source, and what its records have said so far."""

    tools: list[Row] | None = None
    system: str | None = None
    group_by: str | None = None
    first: dict[str, Row] = field(default_factory=dict)  # name of a tool → as the first conversation offered it
    fields: dict[str, None] = field(default_factory=dict)  # of all records, in order
    endings: int = 0  # conversations that went on after the last assistant turn
    greetings: int = 0  # that the assistant began
    unused: Counter[str] = field(default_factory=Counter)  # columns and fields that no conversation is made of


def to_conversation(record: Row, source: str, number: int, named: Named, guess: Callable[[str], str]) -> Row:
    """The record as a conversation; ``guess`` gives the behaviour of a text that has no label.

    What follows the last assistant turn is left out: nothing answers it. So is what follows the last one that is trained.

    Raises:
        DataError: its reason is one of canonical_messages' or normalise_tools', or missing_field:<name>,
            no_assistant_turn, nothing_trained, bad_switch, two_assistant_turns, roles_do_not_alternate,
            result_without_call, unknown_call_id, call_not_answered, behaviour_contradicts_answer, tools_differ,
            tool_schema_changed, system_differs; the line is named at the end.
    """
    named.fields.update(dict.fromkeys(record))
    with naming_the_line(number, source):
        return _conversation(as_openai(record, "conversation", named.unused, named.tools), source, named, guess)


def _conversation(record: Row, source: str, named: Named, guess: Callable[[str], str]) -> Row:
    if "messages" not in record:
        raise DataError(
            f"the record has the fields {sorted(record)[:8]!r}, no 'messages'; a conversation has messages, and tools "
            "where the recipe names none",
            reason="missing_field:messages",
        )
    messages, raw = canonical_messages(record["messages"]), record["messages"]
    raw = raw if isinstance(raw, list) else [None]
    if messages and messages[0]["role"] == "system":
        _same_system(messages[0]["content"], named.system)
    elif named.system is not None:
        messages, raw = [{"role": "system", "content": named.system}, *messages], [None, *raw]
    asked = next((index for index, message in enumerate(messages) if message["role"] == "user"), len(messages))
    turns = [index for index, message in enumerate(messages) if index > asked and message["role"] == "assistant"]
    if not turns:
        raise DataError(
            f"of {len(record['messages'])} messages none is the assistant's answer to a user; drop the conversation",
            reason="no_assistant_turn",
        )
    on = switched_on(raw, turns)
    turns = turns if on is None else on
    ends_early = turns[-1] + 1 < len(messages)
    messages = messages[: turns[-1] + 1]
    _check_order(messages)

    def guessed(message: Row) -> str:
        return "tool_call" if message.get("tool_calls") else guess(message["content"])

    trained = [[at, _behaviour(messages[at], label_of(raw[at], messages[at], guessed))] for at in turns]
    conversation = {"messages": messages, "tools": _tools(record.get("tools"), named), "trained": trained}
    given = record.get("id")
    identifier = str(given) if given not in (None, "") else content_digest(conversation)
    group = _group(record, named.group_by) if named.group_by else identifier
    named.endings += ends_early
    named.greetings += any(message["role"] == "assistant" for message in messages[:asked])
    situation = str(record.get("situation") or "")
    return {"id": identifier, "source": source, "group": group, "situation": situation, **conversation}


def _group(record: Row, name: str) -> str:
    value = record.get(name)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise DataError(
            f"data.group_by is {name!r}, which is {value!r} here; the record has {sorted(record)[:12]!r}",
            reason=f"missing_field:{name}",
        )
    return str(value)


def _behaviour(message: Row, label: Any) -> str:
    if label not in BEHAVIOURS:
        raise DataError(f"{label!r}; one of {', '.join(BEHAVIOURS)}", reason="bad_behaviour")
    if (label == "tool_call") != bool(message.get("tool_calls")):
        has = "a call" if message.get("tool_calls") else f"no call, but {message['content'][:80]!r}"
        raise DataError(f"a turn is labelled {label!r} and has {has}", reason="behaviour_contradicts_answer")
    return str(label)


def _check_order(messages: list[Row]) -> None:
    """(system) (assistant's greeting) user, assistant, user …; every call is answered by the tool before others speak."""
    open_calls: list[str] = []
    before, called = "start", False
    for number, message in enumerate(messages, 1):
        role = message["role"]
        if role == "tool":
            _answer_call(message, open_calls, called, number)
            continue
        if open_calls:
            raise DataError(
                f"message {number} is the {role}'s, but the call {open_calls[0]!r} has no result yet; add the tool's "
                "message after the call",
                reason="call_not_answered",
            )
        if role == before == "assistant" and not called:
            raise DataError(
                f"messages {number - 1} and {number} are both the assistant's; join them into one (text and calls may "
                "stand in one message)",
                reason="two_assistant_turns",
            )
        if role == before == "user" or (role == "system" and before != "start"):
            raise DataError(
                f"message {number} is the {role}'s and follows the {before}'s; join them, or correct the order",
                reason="roles_do_not_alternate",
            )
        open_calls = [call["id"] for call in message.get("tool_calls") or ()]
        before, called = role, bool(open_calls)


def _answer_call(message: Row, open_calls: list[str], called: bool, number: int) -> None:
    if not called:
        raise DataError(
            f"message {number} is a tool's result, but no call stands before it: {message['content'][:80]!r}; add the "
            "assistant's message with tool_calls, or drop the result",
            reason="result_without_call",
        )
    answered = message.get("tool_call_id", open_calls[0] if open_calls else None)
    if answered not in open_calls:
        waiting = f"open is {open_calls!r}" if open_calls else "every call has its result already"
        raise DataError(
            f"message {number} is the result of the call {answered!r}, which answers nothing: {waiting}; correct "
            "tool_call_id",
            reason="unknown_call_id",
        )
    open_calls.remove(answered)


def _same_system(own: str, named: str | None) -> None:
    if named is not None and " ".join(own.split()) != " ".join(named.split()):
        raise DataError(
            f"the system message differs from the recipe's 'system': {_parting(named, own)}; leave one of them out",
            reason="system_differs",
        )


def _tools(raw: Any, named: Named) -> list[Row]:
    own = normalise_tools(raw)
    if named.tools is not None:
        if raw is not None and (difference := _difference(named.tools, own)):
            raise DataError(
                f"the record's tools differ from the recipe's: {difference}; leave one of them out",
                reason="tools_differ",
            )
        return named.tools
    for tool in own:
        first = named.first.setdefault(tool["function"]["name"], tool)
        if first is not tool and first != tool:
            raise DataError(
                f"the tool {tool['function']['name']!r} is not the one that the source's first conversation with it "
                f"offers: {_parting(_text(first), _text(tool))}; name the right tools once, as 'tools' of the source",
                reason="tool_schema_changed",
            )
    return own


def _difference(named: list[Row], own: list[Row]) -> str:
    """What an own list of tools lacks, adds or changes; "" = nothing. The order does not count."""
    theirs = {tool["function"]["name"]: tool for tool in named}
    ours = {tool["function"]["name"]: tool for tool in own}
    parts = [f"it lacks {name!r}" for name in theirs if name not in ours]
    parts += [f"it adds {name!r}" for name in ours if name not in theirs]
    for name, tool in theirs.items():
        if name in ours and tool != ours[name]:
            parts.append(f"{name!r}: {_parting(_text(tool), _text(ours[name]))}")
    more = f" and {len(parts) - 3} more" if len(parts) > 3 else ""
    return "; ".join(parts[:3]) + more


def _text(tool: Row) -> str:
    return json.dumps(tool["function"], ensure_ascii=False, sort_keys=True)


def _parting(first: str, second: str) -> str:
    """Where two texts part: 'first: …get order by id… then: …get order by number…'."""
    first, second = " ".join(first.split()), " ".join(second.split())
    same = next(
        (at for at, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )
    shown = [text[max(0, same - _AROUND) : same + _AROUND] for text in (first, second)]
    return f"{shown[0]!r} became {shown[1]!r}"
