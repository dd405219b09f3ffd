"""Judged answers become preference pairs: what the model wrote wrong is rejected.

line of mined.jsonl  {"id": "c1/3", "sample": 0, "behaviour": "tool_call", "text": "Sure!", "calls": [], "cut": false,
                      "ok": false, "error_kind": "did_not_call"}
pair                 a preference row: the step's prompt, its gold turn as chosen, an answer as rejected
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.sections import MineSection
from rightcall.rows.snapshots import COLUMNS, to_columns
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.judging import beside_gold

SOURCE = "mined"
Line = dict[str, Any]


@dataclass
class Pairs:
    rows: list[Row] = field(default_factory=list)  # with n_tokens
    left_out: Counter[str] = field(default_factory=Counter)  # wrong answers that made no pair, by reason


def judge(step: Row, sample: int, text: str, *, cut: bool) -> Line:
    """One line of mined.jsonl; `cut`: the answer was not at its end."""
    parsed, judgement, _ = beside_gold(step, text)
    return {
        "id": step["id"], "sample": sample, "behaviour": step["behaviour"], "text": parsed.text, "calls": parsed.calls,
        "cut": cut, "ok": judgement.ok, "error_kind": judgement.error_kind,
    }  # fmt: skip


def make_pairs(
    steps: Sequence[Row], lines: Sequence[Line], template: ChatTemplate, settings: MineSection, max_length: int
) -> Pairs:
    """A pair for every different wrong answer of a step, at most `pairs_per_kind` of an error kind."""
    pairs, own = Pairs(), defaultdict(list)
    for line in lines:
        own[line["id"]].append(line)
    for step in steps:
        found = _of_step(step, own[step["id"]], template, own_chosen=settings.chosen == "own", max_length=max_length)
        pairs.rows += found.rows
        pairs.left_out += found.left_out
    if settings.pairs_per_kind is not None:
        kept = balanced(pairs.rows, settings.pairs_per_kind, settings.seed)
        pairs.left_out["more than pairs_per_kind"] += len(pairs.rows) - len(kept)
        pairs.rows = kept
    pairs.left_out = +pairs.left_out
    return pairs


def balanced(rows: Sequence[Row], per_kind: int, seed: int) -> list[Row]:
    """At most `per_kind` rows of each rejected kind, in their order; of many steps before many of one step."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    turns: Counter[tuple[str, str]] = Counter()
    by_kind: dict[str, list[tuple[int, float, int]]] = defaultdict(list)
    for index, row in enumerate(rows):
        kind, step = row["rejected_kind"], row["id"].rpartition("#")[0]
        by_kind[kind].append((turns[kind, step], generator.random(), index))
        turns[kind, step] += 1
    chosen = sorted(index for waiting in by_kind.values() for _, _, index in sorted(waiting)[:per_kind])
    return [rows[index] for index in chosen]


def answer_message(template: ChatTemplate, text: str, calls: Sequence[Mapping[str, Any]]) -> Row | None:
    """The message that the template writes as this text: its calls if they read so, else the bare text.

    None = the template cannot write it: a control token stands inside, or an odd call where calls have tokens of their own.
    """
    called = [
        {"id": f"call_{index}", "type": "function", "function": {"name": call["name"], "arguments": call["arguments"]}}
        for index, call in enumerate(calls)
    ]
    said: Row = {"role": "assistant", "content": text.strip()}
    candidates = [{"role": "assistant", "content": "", "tool_calls": called}, said] if called else [said]
    for message in candidates:
        try:
            written = template.answer_text(message)
        except DataError:
            continue
        if written.strip() == text.strip():
            return message
    return None


def write_pairs(path: Path, rows: Sequence[Row]) -> None:
    """A snapshot's preference.parquet."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([*((name, pa.string()) for name in COLUMNS["preference"]), ("n_tokens", pa.int32())])
    lines = [{**to_columns(row, "preference"), "n_tokens": int(row["n_tokens"])} for row in rows]
    pq.write_table(pa.Table.from_pylist(lines, schema=schema), path, compression="zstd")


def _of_step(step: Row, own: Sequence[Line], template: ChatTemplate, *, own_chosen: bool, max_length: int) -> Pairs:
    pairs = Pairs()
    prompt, tools, chosen = step["messages"][:-1], step["tools"], step["messages"][-1]
    gold = template.answer_text(chosen).strip()
    if own_chosen:
        chosen = _right_one(template, own) or chosen
    seen = {gold, template.answer_text(chosen).strip()}
    for line in own:
        text = line["text"].strip()
        if line["ok"]:
            continue
        rejected = answer_message(template, text, line["calls"]) if text else None
        try:
            if text in seen:
                pairs.left_out["the same again" if text != gold else "gold itself"] += 1
            elif not text:
                pairs.left_out["empty"] += 1
            elif rejected is None:
                pairs.left_out["no message of the template"] += 1
            elif (size := _tokens(template, prompt, tools, (chosen, rejected))) > max_length:
                pairs.left_out["longer than dpo.max_length"] += 1
            else:
                pairs.rows.append({
                    "id": f"{step['id']}#{line['sample']}", "source": SOURCE, "behaviour": step["behaviour"],
                    "rejected_kind": line["error_kind"], "prompt": prompt, "tools": tools, "chosen": chosen,
                    "rejected": rejected, "n_tokens": size,
                })  # fmt: skip
        except DataError:  # two texts share a token across their border
            pairs.left_out["no message of the template"] += 1
        seen.add(text)
    return pairs


def _right_one(template: ChatTemplate, own: Sequence[Line]) -> Row | None:
    """The first right answer that came to its end and that the template can write."""
    whole = [line for line in own if line["ok"] and not line["cut"] and line["text"].strip()]
    messages = (answer_message(template, line["text"], line["calls"]) for line in whole)
    return next((message for message in messages if message is not None), None)


def _tokens(template: ChatTemplate, prompt: Sequence[Row], tools: Any, answers: Sequence[Row]) -> int:
    """Of the longer side."""
    return max(sum(map(len, template.encode_pair(prompt, tools, answer))) for answer in answers)
