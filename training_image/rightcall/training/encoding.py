"""Rows become token ids through the model's chat template; the only place where training sees text.

SFT   {"input_ids": [1, 4093, …], "labels": [-100, …, -100, 44, 2], "row_factors": 1.0}
      or "row_factors": [1.0, 1.0, …], one a token, in every row where the turns of one differ
DPO   {"prompt_ids": […], "chosen_ids": […], "rejected_ids": […], "chosen_characters": 41, "rejected_characters": 67}
"""

from __future__ import annotations

import hashlib
import json
import logging
import random
from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.likelihood.answer_head import IGNORED
from rightcall.rows.conversations import trained_turns

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EncodedRows:
    rows: list[dict[str, Any]]
    too_long: int  # rows left out because they do not fit into max_length
    trained_turns: int = 0
    hidden_turns: int = 0  # to be trained, but the template writes what stands before them in another way
    trained_tokens: dict[str, int] = field(default_factory=dict)  # by behaviour, before any factor

    def facts(self) -> dict[str, Any]:
        """What the summary says of the rows."""
        return {
            "rows": len(self.rows), "rows_too_long": self.too_long, "turns": self.trained_turns,
            "turns_hidden": self.hidden_turns, "trained_tokens": self.trained_tokens, "warnings": self.warnings(),
        }  # fmt: skip

    def warnings(self) -> list[str]:
        if not self.hidden_turns:
            return []
        every = self.trained_turns + self.hidden_turns
        return [
            f"{self.hidden_turns} of {every} turns are not trained: this chat template rewrites earlier turns, so a model "
            "would write them after another text than a whole conversation has; set data.train_on: last"
        ]


def needed_rows(rows: Sequence[dict[str, Any]], steps: int, rows_per_step: int, seed: int) -> list[dict[str, Any]]:
    """The rows that `steps` optimiser steps will see, in a seeded order: no more of them are encoded or scored.

    All rows where `steps` is -1 or needs more than one epoch.
    """
    needed = steps * rows_per_step
    order = list(range(len(rows)))
    random.Random(seed).shuffle(order)  # noqa: S311 (not cryptography)
    if 0 < needed < len(rows):
        logger.info("%d of %d rows are used: %d steps of %d rows", needed, len(rows), steps, rows_per_step)
        order = order[:needed]
    return [rows[index] for index in order]


def encode_conversations(
    rows: Sequence[dict[str, Any]],
    template: ChatTemplate,
    max_length: int,
    factors: Mapping[Any, float],
    first_token: float = 1.0,
) -> EncodedRows:
    """Token ids and labels of SFT rows; `factors` by behaviour multiply the loss of a turn, `first_token` that of its first token.

    Raises:
        DataError: no row fits into max_length, or one has nothing to train.
    """
    encoded: list[dict[str, Any]] = []
    too_long = wanted = 0
    found: Counter[str] = Counter()  # turns by behaviour
    tokens: Counter[str] = Counter()
    for row in rows:
        turns = dict(trained_turns(row))
        ((ids, places),) = template.encode_turns([(row["messages"], row["tools"])], [turns])
        if len(ids) > max_length:
            too_long += 1
            continue
        if not places:
            raise DataError(f"row {row.get('id')!r} has no assistant turn to train; quarantine it")
        # What follows the last trained token predicts nothing that counts: most templates end with a line break.
        end = max(stop for _, stop in places.values())
        labels, each = [IGNORED] * end, [1.0] * end
        for turn, (start, stop) in places.items():
            labels[start:stop] = ids[start:stop]
            each[start:stop] = [float(factors.get(turns[turn], 1.0))] * (stop - start)
            each[start] *= first_token
            tokens[turns[turn]] += stop - start
        wanted += len(turns)
        found.update(turns[turn] for turn in places)
        encoded.append({"input_ids": ids[:end], "labels": labels, "row_factors": each, "shared": _shared(row)})
    _shorten_factors(encoded)
    checked = _checked("conversations", encoded, too_long, max_length)
    counts = found.total(), wanted - found.total()
    result = EncodedRows(checked.rows, too_long, *counts, dict(sorted(tokens.items())))
    for warning in result.warnings():
        logger.warning(warning)
    return result


def _shared(row: Mapping[str, Any]) -> str:
    """What all steps of one agent have in common, its policy and its tools; "" for rows that are no conversations."""
    if row.get("trained") is None:
        return ""
    first = row["messages"][0]
    system = first["content"] if first["role"] in ("system", "developer") else None
    return hashlib.sha256(json.dumps([system, row["tools"]], sort_keys=True).encode()).hexdigest()[:16]


def ungroup(rows: Sequence[dict[str, Any]], smallest: int) -> None:
    """Lets rows of groups of fewer than `smallest` rows, which fill no batch, stand with any others."""
    counts = Counter(row["shared"] for row in rows)
    for row in rows:
        row["shared"] = row["shared"] if counts[row["shared"]] >= smallest else ""


def _shorten_factors(rows: list[dict[str, Any]]) -> None:
    """One factor a row, where every row has only one: a column holds numbers or lists, not both."""
    trained = [
        {factor for factor, label in zip(row["row_factors"], row["labels"], strict=True) if label != IGNORED}
        for row in rows
    ]
    if all(len(factors) == 1 for factors in trained):
        for row, (factor,) in zip(rows, trained, strict=True):
            row["row_factors"] = factor


def encode_pairs(rows: Sequence[dict[str, Any]], template: ChatTemplate, max_length: int) -> EncodedRows:
    """Token ids of preference rows, and the characters of both answers for length normalisation.

    Raises:
        DataError: no pair fits into max_length.
    """
    encoded, too_long = [], 0
    for row in rows:
        prompt, chosen = template.encode_pair(row["prompt"], row["tools"], row["chosen"])
        _, rejected = template.encode_pair(row["prompt"], row["tools"], row["rejected"])
        if len(prompt) + max(len(chosen), len(rejected)) > max_length:
            too_long += 1
            continue
        encoded.append({
            "prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected,
            "chosen_characters": max(1, len(template.answer_text(row["chosen"]))),
            "rejected_characters": max(1, len(template.answer_text(row["rejected"]))),
        })  # fmt: skip
    return _checked("preference pairs", encoded, too_long, max_length)


def _checked(what: str, encoded: list[dict[str, Any]], too_long: int, max_length: int) -> EncodedRows:
    if not encoded:
        raise DataError(
            f"none of the {too_long} {what} fits into max_length={max_length!r} tokens; raise it, or ingest other data"
        )
    if too_long:
        logger.warning(
            "%d of %d %s are longer than max_length=%d and left out",
            too_long,
            too_long + len(encoded),
            what,
            max_length,
        )
    return EncodedRows(encoded, too_long)


def pack(rows: Sequence[dict[str, Any]], max_length: int) -> list[list[dict[str, Any]]]:
    """Bins of rows of at most max_length tokens together, and of one group: best fit, longest first.

    TRL's pack_dataset fills as many bins as full, but of columns of lists only, and a row's factor may be one number.
    """
    bins: list[list[dict[str, Any]]] = []
    free: dict[str, list[tuple[int, int]]] = {}  # by group: tokens left in a bin and its number, ascending
    for row in sorted(rows, key=lambda row: len(row["input_ids"]), reverse=True):
        length, places = len(row["input_ids"]), free.setdefault(row.get("shared", ""), [])
        place = bisect_left(places, (length, 0))
        if place == len(places):
            left, number = max_length, len(bins)
            bins.append([])
        else:
            left, number = places.pop(place)
        bins[number].append(row)
        insort(places, (left - length, number))
    return bins


def pad(sequences: Sequence[Sequence[float]], value: float) -> torch.Tensor:
    """(rows, longest), padded right."""
    longest = max(map(len, sequences))
    return torch.tensor([[*sequence, *[value] * (longest - len(sequence))] for sequence in sequences])


@dataclass(frozen=True)
class ConversationCollator:
    """Batches of SFT rows, or of bins of them ({"rows": […]})."""

    pad_id: int

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        rows = [row for example in examples for row in example.get("rows", [example])]
        factors = [row["row_factors"] for row in rows]
        return {
            "input_ids": pad([row["input_ids"] for row in rows], self.pad_id),
            "attention_mask": pad([[1] * len(row["input_ids"]) for row in rows], 0),
            "labels": pad([row["labels"] for row in rows], IGNORED),
            "row_factors": pad(factors, 1.0) if isinstance(factors[0], list) else torch.tensor(factors),
        }


@dataclass(frozen=True)
class PairCollator:
    """Batches of pairs as TRL wants them: all chosen sequences, then all rejected ones."""

    pad_id: int
    length_normalised: bool = False

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        sides = [(example, side) for side in ("chosen", "rejected") for example in examples]
        prompts = [example["prompt_ids"] for example, _ in sides]
        answers = [example[f"{side}_ids"] for example, side in sides]
        batch = {
            "input_ids": pad([prompt + answer for prompt, answer in zip(prompts, answers, strict=True)], self.pad_id),
            "attention_mask": pad([[1] * (len(p) + len(a)) for p, a in zip(prompts, answers, strict=True)], 0),
            "completion_mask": pad([[0] * len(p) + [1] * len(a) for p, a in zip(prompts, answers, strict=True)], 0),
        }
        factors = [1 / example[f"{side}_characters"] if self.length_normalised else 1.0 for example, side in sides]
        if "ref_chosen_logps" in examples[0]:
            count = len(examples)
            reference = [
                example[f"ref_{side}_logps"] * factor for (example, side), factor in zip(sides, factors, strict=True)
            ]
            batch["ref_chosen_logps"] = torch.tensor(reference[:count])
            batch["ref_rejected_logps"] = torch.tensor(reference[count:])
        if self.length_normalised:
            batch["row_factors"] = torch.tensor(factors)
        return batch
