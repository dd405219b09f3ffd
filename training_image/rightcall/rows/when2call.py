"""NVIDIA When2Call's four schemas (train_sft, train_pref, mcq, llm_judge), reshaped to the canonical fields.

    {"tools": ['{"name": …}', …], "messages": [{"role": "user", …}, {"role": "assistant", "content":
     '<TOOLCALL>[{"name": "get_ip", "arguments": {}}]</TOOLCALL>'}]}

is a record of train_sft. The published files name no class; derived ones may (``class``).
"""

from __future__ import annotations

import json
import re
from typing import Any

from rightcall.errors import DataError

_TOOLCALL = re.compile(r"<TOOLCALL>(.*?)(?:</TOOLCALL>|$)", re.DOTALL)
_COLUMNS = {"uuid", "messages", "chosen_response", "rejected_response", "class", "rejected_class"}
_REFUSAL = re.compile(
    r"\b(unable|can(?:no|')t|can’t|not able|(?:don't|don’t|do not|doesn't) have|no (?:available )?(?:tool|function"
    r"|way)|outside|beyond"
    r"|not (?:something|supported|available)|none of)\b",
    re.IGNORECASE,
)
_ASK = re.compile(
    r"\?|\b(please (?:provide|specify|tell|share|confirm|give)|could you|I(?:'ll| will)? need|let me know|clarif\w+"
    r"|which|what)\b",
    re.IGNORECASE,
)


def is_record(record: dict[str, Any]) -> bool:
    """True for what only When2Call's files have: class names, response fields, or calls as <TOOLCALL> text."""
    if "chosen_response" in record or "class" in record or "correct_answer" in record:
        return True
    messages = record.get("messages")
    return isinstance(messages, list) and any(
        isinstance(m, dict) and "<TOOLCALL>" in str(m.get("content")) for m in messages
    )


def reshape(record: dict[str, Any], kind: str) -> dict[str, Any]:
    """The record under canonical field names; values are checked by ``rows.to_canonical`` afterwards."""
    fields: dict[str, Any] = {"id": record.get("id") or record.get("uuid"), "tools": record.get("tools")}
    if kind == "choice":
        names = ("question", "answers", "correct_answer", "accepted", "string_rule")
        return fields | {name: record[name] for name in names if name in record}
    fields = {name: value for name, value in record.items() if name not in _COLUMNS} | fields
    messages = record.get("messages")
    turns = [structured(m) for m in messages] if isinstance(messages, list) else messages
    if kind == "sft":
        behaviour = record.get("class") or record.get("behaviour")
        return fields | {"messages": turns} | ({"behaviour": behaviour} if behaviour else {})
    fields["prompt"] = turns
    for name in ("chosen", "rejected"):
        if f"{name}_response" in record:
            fields[name] = structured(record[f"{name}_response"])
    if record.get("class"):
        fields["behaviour"] = record["class"]
    if record.get("rejected_class"):
        fields["rejected_kind"] = record["rejected_class"]
    return fields


def tool_text(tool: dict[str, Any]) -> str:
    """A canonical tool as the files write theirs."""
    return json.dumps(tool["function"], ensure_ascii=False)


def raw_tools(record: dict[str, Any], tools: list[dict[str, Any]]) -> list[str] | None:
    """The tools' text in the file, which NVIDIA's task shows to the model; None where ``tools`` give the same."""
    raw = record.get("raw_tools") or record.get("tools")
    if not isinstance(raw, list) or not all(isinstance(text, str) for text in raw):
        return None
    return None if raw == [tool_text(tool) for tool in tools] else raw


def structured(message: Any) -> Any:
    """The message with ``<TOOLCALL>[…]</TOOLCALL>`` text as structured tool_calls; any other message unchanged.

    Raises:
        DataError: ``bad_toolcall`` when the text between the tags is not JSON calls.
    """
    if (
        not isinstance(message, dict)
        or message.get("role") != "assistant"
        or not isinstance(message.get("content"), str)
    ):
        return message
    text = message["content"]
    if "<TOOLCALL>" not in text:
        return message
    calls = [call for match in _TOOLCALL.finditer(text) for call in _calls(match.group(1))]
    rest = _TOOLCALL.sub("", text).strip()
    return {
        **message,
        "content": rest,
        "tool_calls": [{"id": f"call_{i}", "type": "function", "function": c} for i, c in enumerate(calls)],
    }


def _calls(text: str) -> list[dict[str, Any]]:
    try:
        calls = json.loads(text)
    except ValueError as err:
        raise DataError(
            f"{text[:120]!r} inside <TOOLCALL> is not JSON ({err}); correct the row", reason="bad_toolcall"
        ) from err
    calls = calls if isinstance(calls, list) else [calls]
    for call in calls:
        if not isinstance(call, dict) or not isinstance(call.get("name"), str):
            raise DataError(
                f"{text[:120]!r} inside <TOOLCALL> is no list of calls with a name; correct the row",
                reason="bad_toolcall",
            )
    return [{"name": call["name"], "arguments": call.get("arguments", {})} for call in calls]


def infer_behaviour(message: dict[str, Any]) -> str:
    """The behaviour of an answer without a label: a call, or a guess by its wording (enough to balance by)."""
    if message.get("tool_calls"):
        return "tool_call"
    text = str(message.get("content") or "")
    if _REFUSAL.search(text) and not text.rstrip().endswith("?"):
        return "cannot_answer"
    return "request_for_info" if _ASK.search(text) else "direct"
