"""Glaive's schema: a whole chat in one text, its functions in another.

system  SYSTEM: You are a helpful assistant with access to the following functions. Use them if required - {"name": …} {…}
chat    USER: Weather? ASSISTANT: <functioncall> {"name": "weather", "arguments": '{"town": "Graz"}'} <|endoftext|>
        FUNCTION RESPONSE: {"c": 4} ASSISTANT: 4 °C. <|endoftext|>
"""

from __future__ import annotations

import json
import re
from typing import Any

from rightcall.errors import DataError
from rightcall.rows.texts import values_in
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.verifier import parse

_SPEAKER = re.compile(r"(?:\A|\n)\s*(USER|ASSISTANT|A|FUNCTION RESPONSE):\s?")
_ROLES = {"USER": "user", "ASSISTANT": "assistant", "A": "assistant", "FUNCTION RESPONSE": "tool"}
_CALL = "<functioncall>"
_QUOTED = re.compile(r"(\"arguments\"\s*:\s*)'(.*)'(\s*\}\s*)\Z", re.DOTALL)
_OFFER = re.compile(r",? with access to the following functions.*?(?=[\[{]|\Z)", re.DOTALL)


def glaive(record: Row) -> Row:
    """The record with messages and tools.

    Raises:
        DataError: ``bad_content`` when the chat is no text with speakers; ``bad_tools`` or ``bad_toolcall`` when what
            it offers or calls cannot be read.
    """
    row = {name: value for name, value in record.items() if name not in ("system", "chat")}
    system, tools = _system(record.get("system"))
    chat = record["chat"]
    parts = _SPEAKER.split(chat) if isinstance(chat, str) else [""]
    if len(parts) < 3 or parts[0].strip():
        raise DataError(
            f"chat is {str(chat)[:80]!r}; give a text with USER: and ASSISTANT: before what each says",
            reason="bad_content",
        )
    messages = [_turn(_ROLES[speaker], text) for speaker, text in zip(parts[1::2], parts[2::2], strict=True)]
    head = [{"role": "system", "content": system}] if system else []
    given = {"tools": tools} if tools else {}
    return {**row, **given, "messages": [*head, *messages]}


def _system(raw: Any) -> tuple[str, list[Any]]:
    text = str(raw or "").removeprefix("SYSTEM:").strip()
    offer = _OFFER.search(text)
    if offer is None:
        return text, []
    tools = values_in(text[offer.end() :].strip())
    if not tools:
        raise DataError(
            f"the functions {text[offer.end() :][:120]!r} cannot be read; correct the row", reason="bad_tools"
        )
    before = text[: offer.start()].strip()
    return before if before.endswith((".", "")) and not before else f"{before}.", tools


def _turn(role: str, text: str) -> Row:
    text = text.replace("<|endoftext|>", "").strip()
    said, marked, call = text.partition(_CALL)
    if role != "assistant" or not marked:
        return {"role": role, "content": text}
    parsed = parse(_QUOTED.sub(_unquoted, call.strip()))
    if not parsed.calls:
        why = parsed.error.detail if parsed.error else "it has no name and arguments"
        raise DataError(
            f"the call {call.strip()[:120]!r} cannot be read ({why}); correct the row", reason="bad_toolcall"
        )
    calls = [{"type": "function", "function": each} for each in parsed.calls]
    return {"role": role, "content": said.strip(), "tool_calls": calls}


def _unquoted(match: re.Match[str]) -> str:
    """'{"town": "Graz"}' in single quotes as the JSON text that OpenAI's arguments are."""
    return match[1] + json.dumps(match[2].replace("\\'", "'")) + match[3]
