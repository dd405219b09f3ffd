"""Log-likelihoods of many continuations in one pass over a prefix tree, or plainly where a model cannot do that."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from rightcall.likelihood.prefix_tree import PrefixTree
from rightcall.likelihood.tree_attention import IMPLEMENTATION, cut

logger = logging.getLogger(__name__)

LOGIT_ROWS = 256  # rows of logits held at once: 256 × 150,000 vocabulary × 4 bytes = 150 MiB
PROBE_TOLERANCE = 1e-3


def is_whole(layer: torch.nn.Linear) -> bool:
    """Weights that processes share (ZeRO-3, FSDP) or that are quantised are of another type, or of another shape here."""
    return type(layer.weight) is torch.nn.Parameter and layer.weight.shape == (layer.out_features, layer.in_features)


class Scorer:
    """A model in eval mode, and whether it may be fed prefix trees."""

    def __init__(self, model: Any) -> None:
        self.model = model.eval()
        self.device = next(model.parameters()).device
        self.window = _sliding_window(self.model.config.get_text_config())
        self.uses_trees = self._can_use_trees()

    def logliks(self, sequences: Sequence[list[int]], prompts: Sequence[int], *, low_precision: bool) -> list[float]:
        """Sum of log p(token | all before it) over each sequence's tokens from position `prompts[i]` on.

        `low_precision` computes the hidden states in bf16; logits and softmax are float32 either way.
        """
        with torch.no_grad(), self._autocast(low_precision):
            if self.uses_trees and max(map(len, sequences)) <= self.window:
                return self._in_tree(sequences, prompts)
            return self._in_batch(sequences, prompts)

    def _in_tree(self, sequences: Sequence[list[int]], prompts: Sequence[int]) -> list[float]:
        tree = PrefixTree.build(sequences)
        with self._attention(IMPLEMENTATION):
            hidden = self.model.get_decoder()(
                input_ids=self._tensor(tree.tokens)[None],
                position_ids=self._tensor(tree.depths)[None],
                # four dimensions: transformers then makes no mask of its own; the blocks hold the real one
                attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device),
                tree_blocks=cut(self._tensor(tree.ends)),
                use_cache=False,
            ).last_hidden_state[0]
        nodes = np.concatenate([path[start - 1 :] for path, start in zip(tree.paths, prompts, strict=True)])
        targets = np.concatenate([sequence[start:] for sequence, start in zip(sequences, prompts, strict=True)])
        logprobs = self._logprobs(hidden, nodes, targets)
        lengths = [len(sequence) - start for sequence, start in zip(sequences, prompts, strict=True)]
        return [float(part.sum()) for part in np.split(logprobs, np.cumsum(lengths)[:-1])]

    def _logprobs(self, hidden: torch.Tensor, nodes: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """log p(target | node) for every pair; the logits of a node are computed once, in float32."""
        head = self.model.get_output_embeddings()
        rows, row_of = np.unique(nodes, return_inverse=True)
        found = np.empty(len(nodes))
        with torch.autocast(self.device.type, enabled=False):
            for start in range(0, len(rows), LOGIT_ROWS):
                some = hidden[self._tensor(rows[start : start + LOGIT_ROWS])]
                logits = head(some.to(head.weight.dtype)).float()
                normaliser = logits.logsumexp(-1)
                pairs = np.flatnonzero((row_of >= start) & (row_of < start + LOGIT_ROWS))
                row = self._tensor(row_of[pairs] - start)
                found[pairs] = (logits[row, self._tensor(targets[pairs])] - normaliser[row]).double().cpu().numpy()
        return found

    def _in_batch(self, sequences: Sequence[list[int]], prompts: Sequence[int]) -> list[float]:
        """One question's sequences as a right-padded batch; padding stands after everything that is looked at."""
        longest = max(map(len, sequences)) - 1
        ids = torch.zeros(len(sequences), longest, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence) - 1] = torch.tensor(sequence[:-1])
            mask[row, : len(sequence) - 1] = 1
        logits = self.model(input_ids=ids.to(self.device), attention_mask=mask.to(self.device), use_cache=False).logits
        found = []
        for row, (sequence, start) in enumerate(zip(sequences, prompts, strict=True)):
            logprobs = logits[row, start - 1 : len(sequence) - 1].float().log_softmax(-1)
            targets = torch.tensor(sequence[start:], device=self.device)
            found.append(float(logprobs.gather(-1, targets[:, None]).double().sum()))
        return found

    @contextlib.contextmanager
    def _attention(self, implementation: str) -> Iterator[None]:
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation(implementation)
        try:
            yield
        finally:
            self.model.set_attn_implementation(usual)

    def _autocast(self, low_precision: bool) -> contextlib.AbstractContextManager[Any]:
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low_precision)

    def _tensor(self, values: np.ndarray) -> torch.Tensor:
        return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.long, device=self.device)

    def _can_use_trees(self) -> bool:
        """Tried out rather than looked up: attention that ignores the tree gives other numbers than plain scoring."""
        config = self.model.config.get_text_config()
        stem = [token % config.vocab_size for token in range(11, 19)]
        sequences = [[*stem, 3, 5, 7], [*stem, 5, 3, 9, 4], [*stem[:4], 6, 2]]
        try:
            with torch.no_grad():
                trees, plain = self._in_tree(sequences, [8, 8, 4]), self._in_batch(sequences, [8, 8, 4])
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, NotImplementedError) as err:
            return self._refuse(f"it does not take a tree's attention mask: {type(err).__name__}: {err}")
        if not np.allclose(trees, plain, atol=PROBE_TOLERANCE * max(1.0, *map(abs, plain))):
            return self._refuse(f"on a trial it gives {trees!r} with a tree and {plain!r} without")
        return True

    def _refuse(self, reason: str) -> bool:
        logger.warning(
            "scoring question by question, several times slower, because of the model's attention: %s", reason
        )
        return False


def _sliding_window(config: Any) -> float:
    """Sequences up to this length see all of themselves, in trees as well; longer ones are scored plainly."""
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None)
    slides = window and (layers is None or "sliding_attention" in layers)
    return float(window or 0) if slides else float("inf")
