"""Which token comes next in each answer: the likeliest one or a drawn one, of all tokens or of those that are allowed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from rightcall.errors import ScoringError


class Constraint(Protocol):
    """What one answer may hold; it moves on with the answer."""

    def mask(self) -> NDArray[np.bool_]:
        """(vocabulary,): the tokens that may come next, an end-of-turn token among them when the answer may end."""

    def accept(self, token: int) -> None:
        """The answer goes on with this token; never called with the one that ends it."""


@dataclass(frozen=True)
class Sampling:
    """Draws instead of the likeliest token.

    Every answer has a seed of its own, and so the same numbers are drawn for it whatever is decoded beside it.
    """

    temperature: float
    seeds: Sequence[int]  # one per prompt
    top_p: float = 1.0  # draw from the likeliest tokens that have this share of the probability together


class NextToken:
    """The choice for all answers of a run; an answer is named by its prompt's index."""

    def __init__(
        self, eos_ids: Sequence[int], constraints: Sequence[Constraint] | None, sampling: Sampling | None
    ) -> None:
        self._ends = frozenset(eos_ids)
        self._constraints = constraints
        self._sampling = sampling
        self._draws = [random.Random(seed) for seed in sampling.seeds] if sampling else []  # noqa: S311

    def choose(self, answers: Sequence[int], logits: torch.Tensor) -> list[int]:
        """One token for each of these answers, in their order; logits (answers, vocabulary) in float32.

        Raises:
            ScoringError: a constraint forbids every token, or the model gives no numbers.
        """
        if self._constraints is not None:
            logits = logits.masked_fill(~_allowed(self._constraints, answers, logits), float("-inf"))
        best = logits.argmax(-1)
        if not bool(torch.isfinite(logits.gather(-1, best[:, None])).all()):
            raise ScoringError(
                "the model's logits are NaN or infinite: its weights are broken; train or fetch it again"
            )
        tokens: list[int] = (self._draw(answers, logits, self._sampling) if self._sampling else best).tolist()
        if self._constraints is not None:
            for answer, token in zip(answers, tokens, strict=True):
                if token not in self._ends:
                    self._constraints[answer].accept(token)
        return tokens

    def _draw(self, answers: Sequence[int], logits: torch.Tensor, sampling: Sampling) -> torch.Tensor:
        """By the inverse of the cumulative distribution: one number in [0, 1) decides, whatever the device."""
        heights = torch.tensor([[self._draws[answer].random()] for answer in answers], dtype=torch.float64)
        probabilities = (logits / sampling.temperature).softmax(-1)
        if sampling.top_p >= 1:
            return _first_above(probabilities, heights.to(logits.device))
        # a stable order, so that equal probabilities fall the same way everywhere
        ordered, tokens = probabilities.sort(dim=-1, descending=True, stable=True)
        before = ordered.cumsum(-1) - ordered
        kept = ordered.masked_fill(before >= sampling.top_p, 0.0)
        return tokens.gather(-1, _first_above(kept, heights.to(logits.device))[:, None])[:, 0]


def _allowed(constraints: Sequence[Constraint], answers: Sequence[int], logits: torch.Tensor) -> torch.Tensor:
    allowed = np.zeros(tuple(logits.shape), np.bool_)  # a head may have more rows than the tokenizer has tokens
    for row, answer in enumerate(answers):
        mask = constraints[answer].mask()[: allowed.shape[1]]
        if not mask.any():
            raise ScoringError(
                f"the constraint of prompt {answer!r} forbids every token: it can neither go on nor end; "
                "report the tools that were offered"
            )
        allowed[row, : len(mask)] = mask
    return torch.from_numpy(allowed).to(logits.device)


def _first_above(weights: torch.Tensor, heights: torch.Tensor) -> torch.Tensor:
    """Per row the first index whose cumulative weight is above the height, a share of the row's sum."""
    sums = weights.double().cumsum(-1)
    found = torch.searchsorted(sums, heights * sums[:, -1:], right=True)[:, 0]
    # rounding may carry a height to the very end, behind tokens of no weight
    last = (weights > 0).long().cumsum(-1).argmax(-1)
    return torch.minimum(found, last)
