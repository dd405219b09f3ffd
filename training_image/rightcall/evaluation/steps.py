"""Which turns a model is asked to write, and after what: the steps of conversations, and multiple-choice items as steps.

item  {"question": "Weather in Rome?", "answers": {…}, "correct_answer": "tool_call"}
step  {"id": …, "conversation": …, "behaviour": "tool_call", "tools": […],
       "messages": [{"role": "user", "content": "Weather in Rome?"}, the gold answer as a message, with what the item accepts]}
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, ScoringError
from rightcall.evaluation.questions import answer_message
from rightcall.rows.conversations import as_many_of_each
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.judging import gold_calls

NAMED = 5  # steps that a message names


def steps_to_write(steps: Sequence[Row], items: Sequence[Row], generation_items: int, seed: int) -> list[Row]:
    """All steps, and as many of the items as the recipe wants answered freely.

    Raises:
        ScoringError: an id twice, or an item whose gold answer cannot be read.
    """
    chosen = [*steps, *map(step_of_item, sample(items, generation_items, seed))]
    repeated = [name for name, n in Counter(step["id"] for step in chosen).items() if n > 1]
    if repeated:
        raise ScoringError(
            f"{len(repeated)} ids of steps occur more than once, e.g. {repeated[:3]!r}; give every conversation and "
            "every item its own id"
        )
    return chosen


def step_of_item(row: Row) -> Row:
    """A conversation of its own: one question, the gold answer."""
    gold = row["correct_answer"]
    try:
        answer = answer_message(row, gold)
        if gold == "tool_call":
            answer |= {"accepted": [row.get("accepted") or {}], "string_rule": row.get("string_rule") or "plain"}
    except DataError as err:
        raise ScoringError(f"item {row['id']!r} cannot be scored: {err}") from err
    return {
        "id": row["id"], "source": row["source"], "behaviour": gold, "conversation": row["id"], "group": row["id"],
        "messages": [{"role": "user", "content": row["question"]}, answer], "tools": row["tools"],
    }  # fmt: skip


def read_prompts(template: ChatTemplate, steps: Sequence[Row]) -> list[list[int]]:
    """What the model reads before it writes each step's turn.

    Raises:
        ScoringError: a step that the template cannot write, whose gold call cannot be read, or that leaves no room to write.
    """
    prompts = []
    for step in steps:
        try:
            gold_calls(step["messages"][-1])
            prompts.append(template.encode_prompt(step["messages"][:-1], step["tools"]))
        except DataError as err:
            raise ScoringError(f"step {step['id']!r} cannot be scored: {err}") from err
    long = [
        (step["id"], len(prompt))
        for step, prompt in zip(steps, prompts, strict=True)
        if len(prompt) >= template.max_length
    ]
    if long:
        named = ", ".join(
            f"{name!r} with {length} tokens" for name, length in sorted(long, key=lambda pair: -pair[1])[:NAMED]
        )
        raise ScoringError(
            f"{len(long)} of {len(steps)} steps leave the model no room to write, its window has {template.max_length} "
            f"tokens: {named}{', …' if len(long) > NAMED else ''}; take a model with a larger window, shorter tools or policy, "
            "or data.too_long: cut_front"
        )
    return prompts


def sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """Up to n rows, as many of each gold behaviour as there are, in the order of the rows."""
    return [rows[place] for place in as_many_of_each([row["correct_answer"] for row in rows], n, seed)]


def tokens_read(prompts: Sequence[Sequence[int]]) -> int:
    """Tokens of the prompts with every shared beginning counted once, as in one prefix tree."""
    ordered = [np.array(prompt) for prompt in sorted(map(list, prompts))]
    total, before = 0, np.empty(0, int)
    for prompt in ordered:
        length = min(len(before), len(prompt))
        different = np.flatnonzero(before[:length] != prompt[:length])
        total += len(prompt) - (int(different[0]) if len(different) else length)
        before = prompt
    return total
