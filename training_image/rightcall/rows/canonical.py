"""Canonical rows: brings a record into the one shape that every part relies on.

sft:        {"id", "source", "messages": […, {"role": "assistant", "content": "", "tool_calls": […]}], "tools": […],
            "behaviour"}
preference: {"id", "source", "prompt": […], "tools": […], "chosen": {…}, "rejected": {…}, "behaviour", "rejected_kind"}
choice:     {"id", "source", "question", "tools": […], "answers": {behaviour: text}, "correct_answer"},
            and "raw_tools": [text, …] where the file writes the tools as text that the canonical form would change

What else a right call may hold: "accepted": [{argument: [value, …]}, …] of an assistant's message, an object for each of
its calls, or "accepted": {argument: [value, …]} of a choice row, and there "string_rule" (see `toolcalls.gold`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, get_args

from rightcall.errors import DataError
from rightcall.rows import when2call
from rightcall.rows.lines import naming_the_line, reject_constant
from rightcall.rows.snapshots import COLUMNS, RAW_TOOLS
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import BEHAVIOURS, REJECTED_KINDS, Row, RowKind, StringRule

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def to_canonical(record: Row, kind: RowKind, source: str, number: int, adapter: str = "auto") -> Row:
    """The record as a canonical row; ``number`` is its line, named in errors.

    Tools are shared between rows: do not change them.

    Raises:
        DataError: its reason is missing_field:<name>, unknown_schema, bad_role, bad_content, bad_arguments,
            bad_behaviour, bad_tool, bad_tools, bad_toolcall, duplicate_tool or too_deep; the line is named at the end.
    """
    written = record
    with naming_the_line(number, source):
        if adapter == "when2call" or (adapter == "auto" and when2call.is_record(record)):
            record = when2call.reshape(record, kind)
        elif adapter == "bfcl" or ("function" in record and "question" in record):
            raise DataError(
                "a BFCL record is half a row; name the folder with adapter bfcl, not its files", reason="unknown_schema"
            )
        row = _CANONICAL[kind](record)
    given = record.get("id")
    raw = when2call.raw_tools(written, row["tools"]) if kind == "choice" else None
    text = {RAW_TOOLS: raw} if raw is not None else {}
    return {"id": str(given) if given not in (None, "") else content_digest(row), "source": source, **row, **text}


def content_digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def _sft(record: Row) -> Row:
    if "messages" not in record:
        raise _absent("messages", record, "an SFT row has messages and tools")
    messages = canonical_messages(record["messages"])
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the last message is the {messages[-1]['role']!r}'s; an SFT row ends with the assistant's answer",
            reason="bad_role",
        )
    behaviour = _behaviour(record.get("behaviour") or when2call.infer_behaviour(messages[-1]))
    return {"messages": messages, "tools": normalise_tools(record.get("tools")), "behaviour": behaviour}


def _preference(record: Row) -> Row:
    for name in ("prompt", "chosen", "rejected"):
        if name not in record:
            raise _absent(name, record, "a preference row has prompt, chosen, rejected and tools")
    prompt = canonical_messages(record["prompt"])
    chosen, rejected = _answer(record["chosen"]), _answer(record["rejected"])
    kind = record.get("rejected_kind") or when2call.infer_behaviour(rejected)
    if kind not in REJECTED_KINDS:
        raise DataError(f"rejected_kind is {kind!r}; one of {', '.join(REJECTED_KINDS)}", reason="bad_behaviour")
    return {
        "prompt": prompt,
        "tools": normalise_tools(record.get("tools")),
        "chosen": chosen,
        "rejected": rejected,
        "behaviour": _behaviour(record.get("behaviour") or when2call.infer_behaviour(chosen)),
        "rejected_kind": kind,
    }


def _choice(record: Row) -> Row:
    for name in ("question", "answers", "correct_answer"):
        if name not in record:
            raise _absent(name, record, "an item has question, tools, four answers and correct_answer")
    question, answers = record["question"], record["answers"]
    if not isinstance(question, str) or not question.strip():
        raise DataError(f"question is {question!r}; give the user's text", reason="bad_content")
    if not isinstance(answers, dict):
        raise DataError(
            f"answers is a {type(answers).__name__}; give an object with {', '.join(BEHAVIOURS)}", reason="bad_content"
        )
    for name in BEHAVIOURS:
        if not isinstance(answers.get(name), (str, dict)) or not answers[name]:
            raise DataError(
                f"it is {answers.get(name)!r}; give a text for each of the four answers",
                reason=f"missing_field:answers.{name}",
            )
    texts = {n: a if isinstance(a := answers[n], str) else json.dumps(a, ensure_ascii=False) for n in BEHAVIOURS}
    row = {
        "question": question,
        "tools": normalise_tools(record.get("tools")),
        "answers": texts,
        "correct_answer": _behaviour(record["correct_answer"]),
    }
    if record.get("accepted"):
        row["accepted"] = _accepted(record["accepted"])
    if record.get("string_rule"):
        row["string_rule"] = _string_rule(record["string_rule"])
    return row


def _accepted(raw: Any) -> Row:
    if not isinstance(raw, dict) or not all(isinstance(values, list) for values in raw.values()):
        raise DataError(
            f"accepted is {str(raw)[:80]!r}; give an object with a list of values for each argument",
            reason="bad_accepted",
        )
    return raw


def _string_rule(raw: Any) -> str:
    if raw not in get_args(StringRule):
        raise DataError(f"string_rule is {raw!r}; one of {', '.join(get_args(StringRule))}", reason="bad_accepted")
    return str(raw)


_CANONICAL: dict[RowKind, Callable[[Row], Row]] = {"sft": _sft, "preference": _preference, "choice": _choice}


def _absent(name: str, record: Row, wanted: str) -> DataError:
    known = {column for kind in _CANONICAL for column in COLUMNS[kind]} - {"id", "source", "tools", "trained"}
    if known & record.keys():
        return DataError(f"the record has {sorted(record)[:8]!r}; {wanted}", reason=f"missing_field:{name}")
    return DataError(
        f"the record has the fields {sorted(record)[:8]!r}, no {name!r}; {wanted}", reason="unknown_schema"
    )


def _behaviour(name: Any) -> str:
    if name not in BEHAVIOURS:
        raise DataError(f"{name!r}; one of {', '.join(BEHAVIOURS)}", reason="bad_behaviour")
    return str(name)


def _answer(raw: Any) -> Row:
    """chosen and rejected: a message, a list of one message (TRL's conversational format), or a plain text."""
    if isinstance(raw, str):
        raw = {"role": "assistant", "content": raw}
    elif isinstance(raw, list) and len(raw) == 1:
        raw = raw[0]
    message = _message(raw)
    if message["role"] != "assistant":
        raise DataError(
            f"an answer of the {message['role']!r}; chosen and rejected are the assistant's", reason="bad_role"
        )
    return message


def canonical_messages(raw: Any) -> list[Row]:
    if isinstance(raw, str):
        raw = [{"role": "user", "content": raw}]
    if not isinstance(raw, list) or not raw:
        raise DataError(f"messages is {str(raw)[:80]!r}; give a list of at least one message", reason="bad_content")
    return [_message(message) for message in raw]


def _message(raw: Any) -> Row:
    if not isinstance(raw, dict):
        raise DataError(f"a message is {str(raw)[:80]!r}; give an object with role and content", reason="bad_content")
    role = _ROLES.get(raw["role"]) if isinstance(raw.get("role"), str) else None
    if role is None:
        raise DataError(f"{raw.get('role')!r}; one of {', '.join(sorted(_ROLES))}", reason="bad_role")
    message: Row = {"role": role, "content": _content(raw.get("content"))}
    if raw.get("tool_calls"):
        if role != "assistant" or not isinstance(raw["tool_calls"], list):
            raise DataError(
                f"tool_calls of the {role!r} are {str(raw['tool_calls'])[:80]!r}; a list, of the assistant only",
                reason="bad_arguments",
            )
        message["tool_calls"] = [_call(call, index) for index, call in enumerate(raw["tool_calls"])]
    if raw.get("accepted"):
        message["accepted"] = _accepted_of_calls(raw["accepted"], len(message.get("tool_calls", ())))
    if role == "tool":
        message |= {name: str(raw[name]) for name in ("tool_call_id", "name") if raw.get(name) is not None}
    elif not message["content"] and "tool_calls" not in message:
        raise DataError(f"the {role!r}'s message is empty; drop the row or fill it", reason="bad_content")
    return message


def _accepted_of_calls(raw: Any, calls: int) -> list[Row]:
    if not isinstance(raw, list) or len(raw) != calls:
        raise DataError(
            f"accepted is {str(raw)[:80]!r} beside {calls} calls; give a list with an object for each call",
            reason="bad_accepted",
        )
    return [_accepted(of_call) for of_call in raw]


def _content(raw: Any) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list) and all(isinstance(p, dict) and isinstance(p.get("text"), str) for p in raw):
        return "".join(part["text"] for part in raw)
    raise DataError(f"content is {str(raw)[:80]!r}; give text or text parts", reason="bad_content")


def _call(raw: Any, index: int) -> Row:
    function = raw.get("function", raw) if isinstance(raw, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"]:
        raise DataError(
            f"the tool call {str(raw)[:80]!r} has no function name; give name and arguments", reason="bad_arguments"
        )
    arguments = function.get("arguments")
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments, parse_constant=reject_constant) if arguments.strip() else {}
        except ValueError as err:
            raise DataError(
                f"{arguments[:80]!r} of {function['name']!r} is not JSON ({err}); give an object",
                reason="bad_arguments",
            ) from err
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise DataError(
            f"{str(arguments)[:80]!r} of {function['name']!r} is no object; give named arguments",
            reason="bad_arguments",
        )
    identifier = str(raw.get("id") or f"call_{index}")
    return {"id": identifier, "type": "function", "function": {"name": function["name"], "arguments": arguments}}
