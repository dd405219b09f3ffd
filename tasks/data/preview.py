"""Three rows of a snapshot as they are trained on: the text that the model sees, with what it learns to write marked."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np

from rightcall.chat.template import ChatTemplate
from rightcall.rows.conversations import trained_turns
from rightcall.rows.snapshots import iter_snapshot
from rightcall.rows.vocabulary import Row

ROWS = 3
LONGEST = 700  # characters of a stretch that is not trained; of a longer one the middle is left out
MARKS, COLOURS = ("⟦", "⟧"), ("\x1b[1;32m", "\x1b[0m")


def preview_rows(template: ChatTemplate, folder: Path, *, colours: bool) -> str:
    """``colours``: bold green in place of ⟦…⟧."""
    lengths, behaviours = [], Counter[str]()
    for row in iter_snapshot(folder, "sft", ("id", "behaviour", "messages", "trained", "n_tokens")):
        lengths.append(row["n_tokens"])
        behaviours.update(behaviour for _, behaviour in trained_turns(row))
    if not lengths:
        return "No sft rows to show."
    wanted = {len(lengths) * part // ROWS for part in range(ROWS)}
    shown = [row for number, row in enumerate(iter_snapshot(folder, "sft")) if number in wanted]
    p50, p90, p99 = (int(np.percentile(lengths, share)) for share in (50, 90, 99))
    turns = ", ".join(f"{count:,} {name}" for name, count in behaviours.most_common())
    head = (
        f"{len(lengths):,} sft rows; trained turns: {turns}; tokens: half have at most {p50:,}, 90% {p90:,}, 99% {p99:,}, "
        f"the longest {max(lengths):,}. What is trained stands in {'bold' if colours else '⟦ ⟧'}."
    )
    return "\n\n".join([head, *(_row(template, row, COLOURS if colours else MARKS) for row in shown)])


def _row(template: ChatTemplate, row: Row, marks: tuple[str, str]) -> str:
    turns = ", ".join(f"message {index + 1} {behaviour}" for index, behaviour in trained_turns(row))
    title = f"── {row['id']} ({row['source']}), {row['n_tokens']:,} tokens, trained: {turns}"
    return f"{title}\n{marked(template, row, marks)}"


def marked(template: ChatTemplate, row: Row, marks: tuple[str, str]) -> str:
    """The rendered row; each trained turn, its end-of-turn token included, between the marks."""
    messages, tools = row["messages"], row["tools"]
    text, parts, done = template.render(messages, tools), [], 0
    for index, _ in trained_turns(row):
        start = len(template.prompt_text(messages[:index], tools))
        whole = template.render(messages[: index + 1], tools)
        token = template.end_of(messages[index])
        end = whole.rfind(token, start) + len(token)
        if text.startswith(whole[:end]):  # else the template writes earlier turns otherwise: they are not trained
            parts += [_short(text[done:start]), marks[0], text[start:end], marks[1]]
            done = end
    return "".join([*parts, _short(text[done:])])


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    half = LONGEST // 2
    return f"{text[:half]}\n[… {len(text) - 2 * half:,} characters …]\n{text[-half:]}"
