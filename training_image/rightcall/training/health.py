"""Signs that preference training goes wrong while its loss still falls.

- The chosen answers become less likely: the loss only asks that the rejected ones fall faster
  (Razin et al. 2024, arXiv 2410.08847).
- The margins are saturated: sigmoid(4) = 0.98, so what is left of the gradient is noise on a few pairs.
- Fewer answers are right when the model writes freely, though it tells the given ones apart better.
- The policy moves to longer or shorter answers: DPO's reward is a sum over tokens (Park et al. 2024, arXiv 2403.19159).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

WINDOW = 8  # steps that a judgement looks back on; before so many there is none
FALL_NATS_PER_TOKEN = 0.1
SATURATED_MARGIN = 4.0
SATURATED_ACCURACY = 0.99
DRIFT = 0.25
PROBE_FALL = 0.1


class Health:
    """Judges the last steps; `tokens_per_logprob` is how many tokens one log-probability sums over, on average.

    Without a reference model (`reference_free`) the first step stands for it.
    """

    def __init__(self, beta: float, tokens_per_logprob: float, *, reference_free: bool = False) -> None:
        self.beta, self.tokens_per_logprob = beta, tokens_per_logprob
        self.start: float | None = None if reference_free else 0.0
        self.first_loss: float | None = None
        self.probed: list[float] = []  # shares of right answers: the first probe's, the last one's
        self._seen: deque[dict[str, float]] = deque(maxlen=WINDOW)

    def see(self, values: Mapping[str, float]) -> None:
        """One step's metrics, under our names."""
        names = ("chosen_reward", "margin", "rewards_accuracy", "length_drift", "loss")
        if self.first_loss is None and "loss" in values:
            self.first_loss = float(values["loss"])
        if self.start is None:
            self.start = float(values["chosen_reward"])
        self._seen.append({name: float(values[name]) for name in names if name in values})

    def see_probe(self, values: Mapping[str, float]) -> None:
        self.probed = [*self.probed[:1], float(values["probe_right"])]

    def warnings(self) -> list[str]:
        found = self._unwritten()
        if len(self._seen) < WINDOW:
            return found
        # the reward is beta times how far the log-probability has moved from the reference's
        moved = (self._mean("chosen_reward") - (self.start or 0.0)) / self.beta / self.tokens_per_logprob
        if moved < -FALL_NATS_PER_TOKEN:
            found.append(
                f"chosen answers become less likely: {moved:+.2f} nats per token against the start; "
                "add an sft term or lower learning_rate"
            )
        if self._mean("margin") > SATURATED_MARGIN and self._mean("rewards_accuracy") >= SATURATED_ACCURACY:
            found.append(
                f"margins are saturated (mean {self._mean('margin'):.1f}): further steps teach little; "
                "stop earlier or mine harder pairs"
            )
        drift = self._mean("length_drift")
        if abs(drift) > DRIFT:
            found.append(
                f"length drift: preferred answers are {drift:+.0%} longer than the reference's; try length_normalised"
            )
        return found

    def _unwritten(self) -> list[str]:
        if len(self.probed) < 2 or self.first_loss is None or self._mean("loss") >= self.first_loss:
            return []
        start, last = self.probed
        if last >= start - PROBE_FALL:
            return []
        return [
            f"right written answers fell from {start:.2f} to {last:.2f} while the loss fell: the pairs teach to choose, not "
            "to write; set dpo.keep: best, add an sft term, or take fewer steps"
        ]

    def _mean(self, name: str) -> float:
        values = [values[name] for values in self._seen if name in values]
        return sum(values) / len(values) if values else 0.0

    def state(self) -> dict[str, Any]:
        return {
            "seen": list(self._seen), "start": self.start, "first_loss": self.first_loss, "probed": self.probed,
        }  # fmt: skip

    def restore(self, state: Mapping[str, Any]) -> None:
        self._seen.extend(state.get("seen", []))
        self.start = state.get("start", self.start)
        self.first_loss, self.probed = state.get("first_loss"), list(state.get("probed", []))


def length_drift(
    policy: Sequence[tuple[float, float]], reference: Sequence[tuple[float, float]], lengths: Sequence[tuple[int, int]]
) -> float:
    """How much longer the answer is that the policy expects to choose from each pair, relative to the reference.

    Arguments are (chosen, rejected): log-probabilities and lengths in tokens. With probability p of the first,
    expected length = p · chosen + (1 - p) · rejected.
    """
    ours = sum(_expected(logps, pair) for logps, pair in zip(policy, lengths, strict=True))
    theirs = sum(_expected(logps, pair) for logps, pair in zip(reference, lengths, strict=True))
    return ours / theirs - 1


def _expected(logps: tuple[float, float], lengths: tuple[int, int]) -> float:
    difference = max(-60.0, min(60.0, logps[1] - logps[0]))
    first = 1 / (1 + math.exp(difference))
    return first * lengths[0] + (1 - first) * lengths[1]
