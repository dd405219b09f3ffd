"""Canonical rows: brings a record under OpenAI's names into the one shape that every part relies on.

sft:        {"id", "source", "messages": […, {"role": "assistant", "content": "", "tool_calls": […]}], "tools": […],
            "behaviour"}, and "trained": [[message, behaviour], …] where the record switches turns off
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
from rightcall.rows.lines import reject_constant
from rightcall.rows.snapshots import COLUMNS
from rightcall.rows.switches import SWITCHES, switch_of, switched_on
from rightcall.rows.texts import from_text
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
REASONING = ("reasoning_content", "reasoning", "thinking")  # names of one thing
# of a message, and always read; of the switches stays "weight": 0; REASONING and name are kept as well, for templates that write them
MESSAGE_FIELDS = frozenset(
    ("role", "content", "tool_calls", "function_call", "refusal", "tool_call_id", "behaviour", "accepted", *SWITCHES)
)


def canonical_row(record: Row, kind: RowKind) -> Row:
    """A record with OpenAI's names, or with those above, as a row without id and source.

    Tools are shared between rows: do not change them.

    Raises:
        DataError: its reason is missing_field:<name>, unknown_schema, bad_role, bad_content, bad_arguments,
            bad_behaviour, bad_switch, bad_tool, bad_tools, bad_toolcall, duplicate_tool or nothing_trained.
    """
    return _CANONICAL[kind](record)


def content_digest(row: Row) -> str:
    return hashlib.sha256(json.dumps(row, sort_keys=True).encode()).hexdigest()[:16]


def _sft(record: Row) -> Row:
    if "messages" not in record:
        raise _absent(
            "messages",
            record,
            "an SFT row has messages (or conversations; prompt, completion; query, answers; chat) and tools",
        )
    if isinstance(record["messages"], str):
        raise DataError(
            f"messages is the text {record['messages'][:80]!r}, no JSON; give a list of messages", reason="bad_content"
        )
    messages = canonical_messages(record["messages"])
    if messages[-1]["role"] != "assistant":
        raise DataError(
            f"the last message is the {messages[-1]['role']!r}'s; an SFT row ends with the assistant's answer",
            reason="bad_role",
        )
    row: Row = {"messages": messages, "tools": normalise_tools(record.get("tools"))}
    turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    on = switched_on(record["messages"], turns)
    if on is None or on == turns:
        raw = record["messages"][-1] if isinstance(record["messages"], list) else None
        return row | {"behaviour": _behaviour(record.get("behaviour") or label_of(raw, messages[-1]))}
    named = {turns[-1]: record.get("behaviour")}
    trained = [[at, _behaviour(named.get(at) or label_of(record["messages"][at], messages[at]))] for at in on]
    # nothing is learned from what follows the last trained turn
    return row | {"messages": messages[: on[-1] + 1], "behaviour": trained[-1][1], "trained": trained}


def label_of(raw: Any, message: Row, guess: Callable[[Row], str] = when2call.infer_behaviour) -> Any:
    """A turn's behaviour: its label, what the record marks as a refusal, or a guess."""
    if isinstance(raw, dict) and raw.get("behaviour") is not None:
        return raw["behaviour"]
    return "cannot_answer" if _refusal(raw) else guess(message)


def _preference(record: Row) -> Row:
    for name in ("prompt", "chosen", "rejected"):
        if name not in record:
            raise _absent(
                name,
                record,
                "a preference row has prompt, chosen, rejected (or input, preferred_output, non_preferred_output) and tools",
            )
    prompt = canonical_messages(record["prompt"])
    (chosen, right), (rejected, wrong) = _answer(record["chosen"]), _answer(record["rejected"])
    kind = record.get("rejected_kind") or wrong
    if kind not in REJECTED_KINDS:
        raise DataError(f"rejected_kind is {kind!r}; one of {', '.join(REJECTED_KINDS)}", reason="bad_behaviour")
    return {
        "prompt": prompt,
        "tools": normalise_tools(record.get("tools")),
        "chosen": chosen,
        "rejected": rejected,
        "behaviour": _behaviour(record.get("behaviour") or right),
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


def _answer(raw: Any) -> tuple[Row, str]:
    """chosen or rejected, and its behaviour: a message, a list of one (TRL's conversational format), or a plain text."""
    if isinstance(raw, str):
        raw = {"role": "assistant", "content": raw}
    elif isinstance(raw, list):
        if len(raw) != 1:
            raise DataError(
                f"an answer of {len(raw)} messages; chosen and rejected are one turn of the assistant's",
                reason="bad_content",
            )
        raw = raw[0]
    message = _message(raw)
    if message["role"] != "assistant":
        raise DataError(
            f"an answer of the {message['role']!r}; chosen and rejected are the assistant's", reason="bad_role"
        )
    if switch_of(raw) is False:
        raise DataError("one of the two answers has weight 0; drop the pair", reason="nothing_trained")
    return message, label_of(raw, message)


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
    if refusal := _refusal(raw):
        message["content"] = _refused(message, refusal)
    for name in REASONING:
        if raw.get(name) not in (None, ""):
            message["reasoning_content"] = _reasoning(raw[name], role)
            break
    calls = _raw_calls(raw, role)
    if calls:
        message["tool_calls"] = [_call(call, index) for index, call in enumerate(calls)]
    if raw.get("accepted"):
        message["accepted"] = _accepted_of_calls(raw["accepted"], len(calls))
    if switch_of(raw) is False:
        message["weight"] = 0
    names = ("tool_call_id", "name") if role == "tool" else ("name",)
    message |= {name: str(raw[name]) for name in names if raw.get(name) not in (None, "")}
    if role != "tool" and not message["content"] and not calls:
        raise DataError(f"the {role!r}'s message is empty; drop the row or fill it", reason="bad_content")
    return message


def _accepted_of_calls(raw: Any, calls: int) -> list[Row]:
    if not isinstance(raw, list) or len(raw) != calls:
        raise DataError(
            f"accepted is {str(raw)[:80]!r} beside {calls} calls; give a list with an object for each call",
            reason="bad_accepted",
        )
    return [_accepted(of_call) for of_call in raw]


def _raw_calls(raw: Row, role: str) -> list[Any]:
    """function_call is OpenAI's older name for the one call of a turn."""
    calls, older = from_text(raw.get("tool_calls")), from_text(raw.get("function_call"))
    if calls and older:
        raise DataError(
            "a message has both function_call and tool_calls; leave one of them out", reason="bad_arguments"
        )
    if older:
        calls = [older]
    if calls and (role != "assistant" or not isinstance(calls, list)):
        raise DataError(
            f"tool_calls of the {role!r} are {str(calls)[:80]!r}; a list, of the assistant only", reason="bad_arguments"
        )
    return calls or []


def _refusal(raw: Any) -> str:
    """What the assistant said instead of an answer: a field, or a part of the content."""
    if not isinstance(raw, dict):
        return ""
    if isinstance(raw.get("refusal"), str) and raw["refusal"]:
        return str(raw["refusal"])
    content = raw.get("content")
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    return "".join(part["refusal"] for part in parts if isinstance(part.get("refusal"), str))


def _refused(message: Row, refusal: str) -> str:
    if message["role"] != "assistant" or message["content"] not in ("", refusal):
        raise DataError(
            f"a message of the {message['role']!r} has the refusal {refusal[:80]!r} and says {message['content'][:80]!r}; "
            "leave one of them out",
            reason="bad_content",
        )
    return refusal


def _reasoning(raw: Any, role: str) -> str:
    if role != "assistant" or not isinstance(raw, str):
        raise DataError(
            f"reasoning_content of the {role!r} is {str(raw)[:80]!r}; give a text, of the assistant only",
            reason="bad_content",
        )
    return raw


def _content(raw: Any) -> str:
    if raw is None:
        return ""
    if isinstance(raw, str):
        return raw
    if isinstance(raw, list):
        texts = [_part(part) for part in raw]
        if None not in texts:
            return "".join(text for text in texts if text)
    raise DataError(f"content is {str(raw)[:80]!r}; give text or text parts", reason="bad_content")


def _part(part: Any) -> str | None:
    """None = it is no text, as an image is none; a refusal is said beside the text."""
    if isinstance(part, str):
        return part
    if not isinstance(part, dict):
        return None
    if isinstance(part.get("refusal"), str) and part.get("type") == "refusal":
        return ""
    return part["text"] if isinstance(part.get("text"), str) else None


def _call(raw: Any, index: int) -> Row:
    function = from_text(raw.get("function", raw)) if isinstance(raw, dict) else None
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
