"""Answers from a model that cannot be fed prefix trees: batches through transformers' own `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import GenerationConfig, LogitsProcessor

from rightcall.decoding.next_token import NextToken


class _Chosen(LogitsProcessor):
    """Leaves `generate` one token to choose: ours."""

    def __init__(self, choice: NextToken, answers: Sequence[int], limits: Sequence[int], ends: Sequence[int]) -> None:
        self._choice, self._limits, self._ends = choice, limits, ends
        self.written: dict[int, list[int]] = {answer: [] for answer in answers}
        self._open = {answer: row for row, answer in enumerate(answers)}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        forced = torch.full_like(scores, float("-inf"))
        forced[:, self._ends[0]] = 0.0
        rows = list(self._open.values())
        if rows:
            tokens = self._choice.choose(list(self._open), scores[rows].float())
            forced[rows] = float("-inf")
            forced[rows, tokens] = 0.0
            for answer, token in zip(list(self._open), tokens, strict=True):
                if token in self._ends:
                    del self._open[answer]
                    continue
                self.written[answer].append(token)
                if len(self.written[answer]) >= self._limits[answer]:
                    del self._open[answer]
        return forced


def decode_plainly(
    model: Any,
    prompts: Sequence[Sequence[int]],
    answers: Sequence[int],
    choice: NextToken,
    *,
    limits: Sequence[int],
    ends: Sequence[int],
    pad_id: int,
) -> list[list[int]]:
    """The answers to the prompts of these indices as one batch, padded left."""
    device = next(model.parameters()).device
    some = [list(prompts[answer]) for answer in answers]
    longest = max(map(len, some))
    ids = torch.tensor([[pad_id] * (longest - len(prompt)) + prompt for prompt in some], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in some], device=device)
    settings = GenerationConfig(
        max_new_tokens=max(limits[answer] for answer in answers),
        do_sample=False,
        eos_token_id=list(ends),
        pad_token_id=pad_id,
    )
    chosen = _Chosen(choice, answers, limits, ends)
    model.generate(input_ids=ids, attention_mask=mask, generation_config=settings, logits_processor=[chosen])
    return [chosen.written[answer] for answer in answers]
