"""Which training steps are answered, and with which seeds: the same for the same recipe, whatever else is in the rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.rows.conversations import as_many_of_each, judged_steps_of
from rightcall.rows.vocabulary import Row


def training_steps(rows: Iterable[Row], held_out: Iterable[Row]) -> list[Row]:
    """Trained turns of the sft rows whose behaviour is known, but those that the evaluation asks as well; equal ones once."""
    seen = {_content(step) for step in held_out}
    found = []
    for row in rows:
        for step in judged_steps_of(row):
            content = _content(step)
            if content not in seen and len(step["messages"]) > 1:
                seen.add(content)
                found.append(step)
    return found


def fitting(steps: Sequence[Row], template: ChatTemplate, max_length: int) -> list[Row]:
    """The steps that fit into max_length tokens with their gold turn.

    Raises:
        DataError: none does.
    """
    lengths = template.count_tokens([(step["messages"], step["tools"]) for step in steps])
    found = [step for step, length in zip(steps, lengths, strict=True) if length <= max_length]
    if not found:
        raise DataError(
            f"none of the {len(steps)} training steps fits into dpo.max_length={max_length!r} tokens (the shortest has "
            f"{min(lengths, default=0)}), so no pair could be trained on; raise it, or set mine.samples to 0"
        )
    return found


def choose(steps: Sequence[Row], n: int | None, seed: int) -> list[Row]:
    """Up to n steps, as many of each behaviour as there are, in their order; None = all."""
    if n is None or n >= len(steps):
        return list(steps)
    return [steps[place] for place in as_many_of_each([step["behaviour"] for step in steps], n, seed)]


def seed_of(seed: int, step: Row, sample: int) -> int:
    """Of one answer."""
    return int.from_bytes(hashlib.sha256(f"{seed} {step['id']} {sample}".encode()).digest()[:8], "big")


def _content(step: Row) -> str:
    messages = [
        {name: value for name, value in message.items() if name != "tool_call_id"} for message in step["messages"]
    ]
    text = json.dumps([messages, step["tools"]], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
