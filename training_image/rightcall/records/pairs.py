"""Two answers to one prompt, of other schemas as {"prompt": […], "chosen": […], "rejected": […]}.

{"input": {"messages": […], "tools": […]}, "preferred_output": […], "non_preferred_output": […]}      OpenAI
{"chosen": [user, assistant], "rejected": [user, assistant]}                                         TRL, implicit prompt
{"conversations": […], "chosen": {"from": "gpt", "value": …}, "rejected": {…}}                       ShareGPT
"""

from __future__ import annotations

from typing import Any

from rightcall.errors import DataError
from rightcall.records import turns
from rightcall.rows.texts import from_text
from rightcall.rows.vocabulary import Row

_SIDES = ("chosen", "rejected")


def openai(record: Row) -> Row:
    """``input`` is what a fine-tuning row is, without the answer.

    Raises:
        DataError: ``bad_content`` when it is no object with messages; or as ``turns.openai``.
    """
    asked = from_text(record["input"])
    if not isinstance(asked, dict) or "messages" not in asked:
        raise DataError(f"input is {str(asked)[:80]!r}; give an object with messages", reason="bad_content")
    names = ("input", "preferred_output", "non_preferred_output")
    row = {name: value for name, value in record.items() if name not in names}
    chosen, rejected = (turns.as_messages(record[name], "assistant") for name in names[1:])
    if asked.get("parallel_tool_calls") is False:
        turns.one_call_a_turn(chosen)
    asked = turns.openai(asked)
    prompt = asked.pop("messages")
    return {**row, **asked, "prompt": prompt, "chosen": chosen, "rejected": rejected}


def conversational(record: Row) -> Row:
    """TRL's pairs, with the prompt or with sides that both begin with it; JSON text is read.

    Raises:
        DataError: ``bad_prompt`` when the prompt is another one than the sides begin with; ``bad_tools`` or
            ``system_differs``.
    """
    row = {name: value for name, value in record.items() if name not in ("conversations", "functions", "system")}
    if record.get("functions"):
        row["tools"] = turns.one_of(record.get("tools"), record["functions"])
    sides = [turns.as_messages(record[side], "assistant") for side in _SIDES]
    given = record.get("prompt") if record.get("prompt") is not None else record.get("conversations")
    prompt = None if given is None else turns.as_messages(given, "user")
    if all(len(side) > 1 for side in sides) and (prompt is None or not _answers(sides[0][0])):
        shared = _beginning(*sides)
        if any(message not in sides[0][:shared] for message in prompt or ()):
            raise DataError(
                f"prompt is {str(given)[:80]!r}, which is not what chosen and rejected begin with; leave it out",
                reason="bad_prompt",
            )
        prompt, sides = sides[0][:shared], [side[shared:] for side in sides]
    if prompt is None:
        return row
    prompt = turns.with_system(prompt, record.get("system"))
    return {**row, "prompt": prompt, **dict(zip(_SIDES, sides, strict=True))}


def _answers(message: Any) -> bool:
    return isinstance(message, dict) and message.get("role") == "assistant"


def _beginning(first: list[Any], second: list[Any]) -> int:
    """How many messages both begin with; each keeps one to answer with."""
    same = 0
    while same < min(len(first), len(second)) - 1 and first[same] == second[same]:
        same += 1
    return same
