"""Multiple-choice items under a model, as lm-eval would score them.

Prompts with equal beginnings (the same tools) and the four answers of each stand in prefix trees, so a token that many
sequences share is computed once. Trees run in bf16 where the recipe says so; items whose best two answers are too close
for bf16 are scored again in float32, so that predictions are those of float32.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from rightcall.evaluation.progress import Progress
from rightcall.evaluation.questions import Question
from rightcall.job.partial_results import PartialResults
from rightcall.likelihood.prefix_tree import PrefixTree, group
from rightcall.likelihood.scorer import Scorer
from rightcall.recipe.sections import EvaluationSection
from rightcall.rows.vocabulary import BEHAVIOURS

logger = logging.getLogger(__name__)

Item = dict[str, Any]
PART = "choice"  # of the progress

# Two answers closer than this may change places in bf16. Largest error of a difference between two answers seen with
# SmolLM2-135M on 36 items of When2Call and SGD: 0.74 nats, 0.0053 nats a character.
NEAR_TIE_NATS = 1.0
NEAR_TIE_NATS_PER_CHARACTER = 0.008
CUDA_TREE_FACTOR = 4  # a GPU is only busy with larger trees than a CPU's caches like


class Scored(NamedTuple):
    items: list[Item]
    tokens: int  # fed to the model


class Plan:
    """Which items share a tree: fixed by the rows alone, so that a resumed run computes the very same numbers."""

    def __init__(self, scorer: Scorer, questions: Sequence[Question], settings: EvaluationSection) -> None:
        self.scorer = scorer
        self.questions = questions
        self.low_precision = settings.dtype == "bfloat16"
        self.max_tokens = settings.max_tree_tokens * (CUDA_TREE_FACTOR if scorer.device.type == "cuda" else 1)
        self.chunks = self._group(range(len(questions)))

    @property
    def tokens_naive(self) -> int:
        """What one sequence at a time would feed to the model."""
        return sum(len(sequence) - 1 for question in self.questions for sequence in question.sequences)

    @property
    def digest(self) -> str:
        text = json.dumps([self.chunks, self.low_precision, [asdict(question) for question in self.questions]])
        return hashlib.sha256(text.encode()).hexdigest()

    def score(self, chunk: Sequence[int]) -> Scored:
        """Items of one tree, near-ties settled in float32."""
        items, tokens = self._items(chunk, low_precision=self.low_precision)
        if self.low_precision:
            close = [index for index, item in zip(chunk, items, strict=True) if is_near_tie(item)]
            settled: dict[int, Item] = {}
            for part in self._group(close):
                again, more = self._items(part, low_precision=False)
                tokens += more
                settled |= {index: item | {"rescored": True} for index, item in zip(part, again, strict=True)}
            items = [settled.get(index, item) for index, item in zip(chunk, items, strict=True)]
        return Scored(items, tokens)

    def in_order(self, scored: Mapping[int, Scored]) -> list[Item]:
        """Lines of items.jsonl in the order of the rows, from all chunks by number."""
        found: dict[int, Item] = {}
        for number, chunk in enumerate(self.chunks):
            found |= zip(chunk, scored[number].items, strict=True)
        return [found[index] for index in range(len(found))]

    def _items(self, chunk: Sequence[int], *, low_precision: bool) -> Scored:
        questions = [self.questions[index] for index in chunk]
        sequences = [sequence for question in questions for sequence in question.sequences]
        prompts = [len(question.prompt) for question in questions for _ in BEHAVIOURS]
        logliks = self.scorer.logliks(sequences, prompts, low_precision=low_precision)
        items = [_item(question, logliks[4 * row : 4 * row + 4]) for row, question in enumerate(questions)]
        naive = sum(len(sequence) - 1 for sequence in sequences)
        return Scored(items, len(PrefixTree.build(sequences)) if self.scorer.uses_trees else naive)

    def _group(self, indices: Sequence[int]) -> list[list[int]]:
        if not self.scorer.uses_trees:
            return [[index] for index in indices]
        sequences = [self.questions[index].sequences for index in indices]
        return [[indices[position] for position in chunk] for chunk in group(sequences, self.max_tokens)]


def score_items(plan: Plan, finished: PartialResults, progress: Progress) -> dict[int, Scored]:
    """All trees of the plan by number; those in `finished` are not computed again.

    Raises:
        SystemExit: with status 143, when the job was asked to stop; what is done is kept for the next run.
    """
    done = {number: Scored(**piece) for number, piece in finished.pieces.items()}
    if done:
        logger.info("going on after %d of %d trees that an earlier run scored", len(done), len(plan.chunks))
    progress.known(
        PART, sum(len(scored.items) for scored in done.values()), sum(scored.tokens for scored in done.values())
    )
    with progress.watching(plan.scorer.model, PART):
        for number, chunk in enumerate(plan.chunks):
            if number in done:
                continue
            progress.stop_if_asked()
            started = time.monotonic()
            scored = done[number] = plan.score(chunk)
            finished.add(number, scored._asdict())
            progress.add(PART, len(scored.items), scored.tokens, time.monotonic() - started, scored.tokens)
    return done


def is_near_tie(item: Mapping[str, Any]) -> bool:
    """True when bf16's error could change the item's prediction under one of the two rules."""
    plain = sorted(item["loglikelihood"])
    normed = sorted(value / length for value, length in zip(item["loglikelihood"], item["characters"], strict=True))
    return plain[-1] - plain[-2] < NEAR_TIE_NATS or normed[-1] - normed[-2] < NEAR_TIE_NATS_PER_CHARACTER


def _item(question: Question, logliks: Sequence[float]) -> Item:
    per_character = [value / length for value, length in zip(logliks, question.characters, strict=True)]
    return {
        "id": question.id,
        "gold": question.gold,
        "loglikelihood": [round(value, 6) for value in logliks],
        "characters": question.characters,
        "tokens": [len(answer) for answer in question.answers],
        # the first of equals, as numpy's argmax in lm-eval
        "prediction": BEHAVIOURS[logliks.index(max(logliks))],
        "prediction_norm": BEHAVIOURS[per_character.index(max(per_character))],
        "has_tools": question.has_tools,
        "rescored": False,
    }
