"""The content of a row: a key that does not depend on ids, the class it is balanced by, the parts that are compared."""

from __future__ import annotations

import hashlib
import json

import orjson

from data_checks.duplicates import Hashes, normalise, shingles, text_hash
from rightcall.rows.vocabulary import Row, RowKind

# fields that are not content, or that repeat another field
IDENTITY = ("id", "uuid", "source_id", "source", "group", "situation", "raw_tools")
NO_TOOLS = "no tools"
SEVERAL = "several turns"


def content_key(record: Row) -> int:
    """8 bytes of a hash over everything but the ids; of a million different rows two share one with chance 3e-8."""
    content = {name: value for name, value in record.items() if name not in IDENTITY}
    try:
        text = orjson.dumps(content, option=orjson.OPT_SORT_KEYS)
    except orjson.JSONEncodeError:  # a whole number beyond 64 bits
        text = json.dumps(content, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def conversation_key(row: Row) -> int:
    """Of what was said and offered; neither ids of calls nor the group count, and each side has copies of its own."""
    messages = [{**m, "tool_calls": [c["function"] for c in m.get("tool_calls") or ()]} for m in row["messages"]]
    said = [{name: value for name, value in message.items() if name != "tool_call_id"} for message in messages]
    return content_key({"messages": said, "tools": row["tools"], "side": row["side"]})


def taught_behaviours(row: Row, kind: RowKind) -> list[str]:
    """Behaviours of the turns that a row trains or judges."""
    if row.get("trained"):
        return [behaviour for _, behaviour in row["trained"]]
    return [row["correct_answer"] if kind == "choice" else row["behaviour"]]


def class_of(row: Row, kind: RowKind) -> tuple[str, ...]:
    if len(row.get("trained") or ()) > 1:
        return (SEVERAL,)
    if kind == "conversation":
        return (row["trained"][0][1],)
    if kind == "choice":
        return (row["correct_answer"], "tools" if row["tools"] else NO_TOOLS)
    return (row["behaviour"], row["rejected_kind"]) if kind == "preference" else (row["behaviour"],)


def row_parts(row: Row, kind: RowKind) -> list[Hashes]:
    """The shingles of each part in which near duplicates must be alike.

    Of a training row: what was said before the last user turn, that turn, what followed it (tool results), each answer.
    A row teaches every answer in it, so a conversation is more than its last turn: hundreds end with "thank you" and
    "you're welcome". The system message and the tools do not count: where they matter, the answers differ.
    """
    if kind == "choice":
        return [shingles(normalise(row["question"]), [tool["function"]["name"] for tool in row["tools"]])]
    prompt, answers = _turns(row, kind)
    last = max((index for index, message in enumerate(prompt) if message["role"] == "user"), default=0)
    parts = [prompt[:last], prompt[last : last + 1], prompt[last + 1 :], *([answer] for answer in answers)]
    return [shingles(normalise(_spoken(part))) for part in parts]


def calls_key(row: Row, kind: RowKind) -> str:
    """Equal for rows whose calls are equal, value by value; of rows without calls always the same."""
    if kind == "choice":
        return ""
    prompt, answers = _turns(row, kind)
    called = [
        [[call["function"]["name"], call["function"]["arguments"]] for call in message["tool_calls"]]
        for message in [*prompt, *answers]
        if message.get("tool_calls")
    ]
    return f"{text_hash(json.dumps(called, sort_keys=True)):x}"


def last_exchange(row: Row, kind: RowKind) -> str:
    """The last user turn and the answer to it, for people: "Is it open? → open_hours {"day": "Sunday"}"."""
    if kind == "choice":
        return str(row["question"])
    prompt, answers = _turns(row, kind)
    asked = next(message["content"] for message in reversed(prompt) if message["role"] == "user")
    calls = [call["function"] for call in answers[0].get("tool_calls") or ()]
    said = [answers[0].get("content") or "", *(f"{each['name']} {json.dumps(each['arguments'])}" for each in calls)]
    return f"{asked} → {' '.join(filter(None, said))}"


def _turns(row: Row, kind: RowKind) -> tuple[list[Row], list[Row]]:
    """The messages before the answer, and the answers (of a pair: both)."""
    if kind in ("sft", "step", "conversation"):
        return row["messages"][:-1], row["messages"][-1:]
    return row["prompt"], [row["chosen"], row["rejected"]]


def _spoken(messages: list[Row]) -> str:
    return "\n".join(message.get("content") or "" for message in messages if message["role"] != "system")
