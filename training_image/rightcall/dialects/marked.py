"""Calls whose name stands between marks of its own, before JSON arguments.

f{"a": 1}   f[ARGS]{"a": 1}   f[CALL_ID]abcdefghi[ARGS]{"a": 1}                        Mistral v11-v13, behind [TOOL_CALLS]
<｜tool▁call▁begin｜>function<｜tool▁sep｜>f\\n```json\\n{"a": 1}\\n```<｜tool▁call▁end｜>   DeepSeek V3, R1
<｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>                             DeepSeek V3.1
<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|>    Kimi K2
<|channel|>commentary to=functions.f <|constrain|>json<|message|>{"a": 1}<|call|>        gpt-oss (harmony)
Action: f\\nAction Input: {"a": 1}                                                        ReAct
"""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from rightcall.dialects.literals import NAME
from rightcall.dialects.objects import decode_tolerantly, is_call
from rightcall.dialects.values import Call, CallError


class Mark(NamedTuple):
    opening: re.Pattern[str]  # begins a call
    head: re.Pattern[str]  # from there to the arguments; its last group is the tool's name
    closing: re.Pattern[str] | None  # None = nothing needs to
    look: str


def _mark(opening: str, head: str, closing: str | None, look: str) -> Mark:
    return Mark(re.compile(opening), re.compile(head), None if closing is None else re.compile(closing), look)


_CHANNEL = r"<\|channel\|>(?:commentary|analysis)"
_HEADER = rf"(?:{_CHANNEL})?\s?(?:<\|constrain\|>)?(?:json)?<\|message\|>"
HARMONY = rf"(?:<\|start\|>assistant)?(?:{_CHANNEL})?\s?to=(?:functions\.)?(?={NAME}{_HEADER}(?!\s*+<))"
MARKS = {
    "deepseek_v3": _mark(
        r"<｜tool▁call▁begin｜>function<｜tool▁sep｜>", rf"({NAME})\s*+```json\s*+", r"\s*+```\s*+<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f```json{}```<｜tool▁call▁end｜>",
    ),
    "deepseek_v31": _mark(
        r"<｜tool▁call▁begin｜>(?!function<)", rf"({NAME})<｜tool▁sep｜>\s*+", r"\s*+<｜tool▁call▁end｜>",
        "<｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜>",
    ),
    "kimi": _mark(
        r"<\|tool_call_begin\|>", r"\s*+(?:functions\.)?([^\s<>:]++)(?::\d++)?\s*+<\|tool_call_argument_begin\|>\s*+",
        r"\s*+<\|tool_call_end\|>", "<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>",
    ),
    "harmony": _mark(
        HARMONY, rf"({NAME}){_HEADER}\s*+", r"\s*+(?:<\|call\|>|\Z)",
        "to=functions.f<|message|>{}<|call|>",
    ),
    "react": _mark(
        r"(?m:^)Action: *+(?=[^\n]++\n\s*+Action Input:)", r"([^\n]*[^\s])\s*+Action Input:\s*+", None,
        "Action: f Action Input: {}",
    ),
}  # fmt: skip
# what stands around such calls and says nothing of its own
AROUND = re.compile(
    r"<｜tool▁calls▁(?:begin|end)｜>|<\|tool_calls_section_(?:begin|end)\|>|<\|start\|>assistant|<\|(?:call|end|eom|eot)\|>"
)
MISTRAL = re.compile(rf"({NAME})(?:\[CALL_ID\](\w++))?(\[ARGS\])?\s*+(?=\{{)")


def marked(text: str, start: int, kind: str, forgiven: set[str]) -> tuple[Call, int, str]:
    """The call that begins behind the opening that ended at `start`, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    mark = MARKS[kind]
    head = mark.head.match(text, start)
    if not head:
        rest = text[start : start + 40]
        raise CallError(
            "unterminated_json" if len(text) - start < 40 else "invalid_json", f"{rest!r} is no name with arguments"
        )
    arguments, end = arguments_at(text, head.end(), forgiven)
    if is_call(arguments) and "name" in arguments:
        raise CallError("invalid_json", f"a call follows {head[1]!r}, which has no arguments")
    if mark.closing is not None:
        closing = mark.closing.match(text, end)
        if not closing:
            cut = not text[end:].strip()
            raise CallError(
                "unterminated_json" if cut else "invalid_json", f"{text[end : end + 40]!r} follows the arguments"
            )
        end = closing.end()
    return {"name": head[1].strip(), "arguments": arguments}, end, mark.look


def mistral(text: str, head: re.Match[str], forgiven: set[str]) -> tuple[Call, int, str]:
    """The call of Mistral whose name this is, where it ends and how it looks.

    Raises:
        CallError: it cannot be read.
    """
    arguments, end = arguments_at(text, head.end(), forgiven)
    if is_call(arguments):
        raise CallError("invalid_json", f"a call follows {head[1]!r}, which has no arguments")
    look = f"f{'[CALL_ID]' if head[2] else ''}{head[3] or ''}{{}}"
    return {"name": head[1], "arguments": arguments}, end, look


def arguments_at(text: str, position: int, forgiven: set[str]) -> tuple[dict[str, Any], int]:
    """The object at this place and where it ends.

    Raises:
        CallError: there is none.
    """
    value, end = decode_tolerantly(text, position, forgiven)
    if not isinstance(value, dict):
        raise CallError("not_a_call", "the arguments are not an object")
    return value, end
