"""Many answers at once: the prompts of a batch are one prefix tree, computed once, and all answers grow out of it.

    policy + tools ─ user ─ call ─ result ─ …      step 1 ends after "user", step 2 after "result": one path
                  └─ user ─ …                      another conversation

Teacher-forced steps of a conversation are prefixes of each other, and all of them share policy and tools: a tree of some
thousand nodes holds dozens of prompts. What *all* prompts of a run share is computed once for the whole run.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from rightcall.decoding.next_token import Constraint, NextToken, Sampling
from rightcall.decoding.plain import decode_plainly
from rightcall.decoding.tree_store import IMPLEMENTATION, TreeStore
from rightcall.errors import ScoringError
from rightcall.likelihood.prefix_tree import PrefixTree, group
from rightcall.likelihood.scorer import Scorer, is_whole

logger = logging.getLogger(__name__)

MAX_ANSWERS = 64  # that grow at once
STORE_BYTES = 1 << 30  # keys and values of one tree, beside what all trees share
PASS_TOKENS = 2048  # nodes of a tree in one forward pass: bounds what the layers hold in between
PLAIN_ROWS = 16  # prompts of a batch without trees
PROBE_TOLERANCE = 1e-3

Done = Callable[[list[int], list[list[int]]], None]


class Decoder:
    """A model that writes; its weights may change between two calls of `decode`."""

    def __init__(self, model: Any, eos_ids: Sequence[int], pad_id: int) -> None:
        self._scorer = Scorer(model)
        self.model, self.device = self._scorer.model, self._scorer.device
        self._ends, self._pad_id = tuple(eos_ids), pad_id
        config = self.model.config.get_text_config()
        self._window: int | None = getattr(config, "max_position_embeddings", None)
        self.uses_trees = self._scorer.uses_trees and self._can_grow()

    def decode(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        low_precision: bool = True,
        constraints: Sequence[Constraint] | None = None,
        sampling: Sampling | None = None,
        known: Mapping[int, list[int]] | None = None,
        on_done: Done | None = None,
        before_batch: Callable[[], None] = lambda: None,
    ) -> list[list[int]]:
        """What the model writes after each prompt, without the end-of-turn token; of `max_new_tokens` at most.

        `max_new_tokens` may differ by prompt. `low_precision` computes the hidden states in bf16; logits are float32
        either way. `known`: answers of an earlier run by the prompt's index; a batch of known answers is not computed
        again, and batches do not depend on what is known, so a run that goes on ends as one that was never stopped.
        `on_done` gets the indices and the answers of every batch when it is computed; `before_batch` may raise to
        end the work between two.

        Raises:
            ScoringError: a prompt is empty or longer than the model's window, or a constraint forbids every token.
        """
        limits = self.limits(prompts, max_new_tokens)
        choice = NextToken(self._ends, constraints, sampling)
        answers: dict[int, list[int]] = {index: [] for index, limit in enumerate(limits) if not limit}
        answers |= known or {}
        in_trees = self.uses_trees and all(
            len(prompt) + limit <= self._scorer.window for prompt, limit in zip(prompts, limits, strict=True)
        )
        run = _Trees(self, prompts, limits, choice) if in_trees else _Batches(self, prompts, limits, choice)
        for batch in run.batches:
            if all(index in answers for index in batch):
                continue
            before_batch()
            with torch.no_grad(), self.autocast(low_precision):
                found = run.answer(batch)
            answers |= zip(batch, found, strict=True)
            if on_done is not None:
                on_done(batch, found)
        return [answers[index] for index in range(len(prompts))]

    def limits(self, prompts: Sequence[Sequence[int]], max_new_tokens: int | Sequence[int]) -> list[int]:
        """Tokens that each answer may have: what is asked for, and no more than the window has room for.

        Raises:
            ScoringError: a prompt is empty, or longer than the window.
        """
        asked = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        window = self._window or max(map(len, prompts), default=0) + max(asked, default=0)
        for index, (limit, prompt) in enumerate(zip(asked, prompts, strict=True)):
            if not prompt:
                raise ScoringError(f"prompt {index!r} has no tokens; leave it out")
            if limit and len(prompt) >= window:
                raise ScoringError(
                    f"prompt {index!r} has {len(prompt)!r} tokens, and the model's window is {window!r}: nothing can be "
                    "written after it; cut the conversation (data.too_long: cut_front), or take a model with more room"
                )
        return [min(limit, window - len(prompt)) for limit, prompt in zip(asked, prompts, strict=True)]

    def head(self, hidden: torch.Tensor) -> torch.Tensor:
        """(rows, vocabulary) in float32."""
        head = self.model.get_output_embeddings()
        with torch.autocast(self.device.type, enabled=False):
            logits: torch.Tensor = head(hidden.to(head.weight.dtype)).float()
        return logits

    def forward(self, tokens: Sequence[int], positions: np.ndarray, store: TreeStore) -> torch.Tensor:
        """(nodes, hidden)"""
        hidden: torch.Tensor = self.model.get_decoder()(
            input_ids=torch.as_tensor(tokens, dtype=torch.long, device=self.device)[None],
            position_ids=torch.as_tensor(positions, dtype=torch.long, device=self.device)[None],
            # four dimensions: transformers then makes no mask of its own; the store knows who sees what
            attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self.device),
            tree_store=store,
            use_cache=False,
        ).last_hidden_state[0]
        return hidden

    @contextlib.contextmanager
    def attention(self) -> Iterator[None]:
        usual = self.model.config._attn_implementation
        self.model.set_attn_implementation(IMPLEMENTATION)
        try:
            yield
        finally:
            self.model.set_attn_implementation(usual)

    @contextlib.contextmanager
    def autocast(self, low_precision: bool) -> Iterator[None]:
        """bf16 products. The weights are cast once: without gradients autocast casts all of them again for every token."""
        layers = [
            layer
            for layer in self.model.get_decoder().modules()
            if low_precision
            and isinstance(layer, torch.nn.Linear)
            and layer.weight.dtype == torch.float32
            and is_whole(layer)
        ]
        weights = [layer.weight for layer in layers]
        try:
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
            with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=low_precision):
                yield
        finally:
            for layer, weight in zip(layers, weights, strict=True):
                layer.weight = weight

    @property
    def eos_ids(self) -> tuple[int, ...]:
        return self._ends

    @property
    def pad_id(self) -> int:
        return self._pad_id

    def _can_grow(self) -> bool:
        """Tried out: two answers of two given tokens each, their logits beside those of a plain pass."""
        config = self.model.config.get_text_config()
        stem = [token % config.vocab_size for token in range(11, 19)]
        prompts, forced = [stem, [*stem[:5], 6, 2]], [[3, 5], [7, 4]]
        try:
            with torch.no_grad():
                trees = _forced_logits(self, prompts, forced)
                plain = [
                    self.model(torch.tensor([[*prompt, *more]], device=self.device), use_cache=False).logits[0, -1]
                    for prompt, more in zip(prompts, forced, strict=True)
                ]
        except (RuntimeError, TypeError, ValueError, AttributeError, KeyError, NotImplementedError) as err:
            logger.warning("prompts are answered without shared prefixes, several times slower: %s", err)
            return False
        expected = torch.stack(plain).float()
        if not torch.allclose(trees, expected, atol=PROBE_TOLERANCE * max(1.0, float(expected.abs().max()))):
            logger.warning(
                "prompts are answered without shared prefixes, several times slower: a trial gave other logits"
            )
            return False
        return True


class _Trees:
    """A run over prompts as prefix trees, one after the other, with the beginning that all share kept between them."""

    def __init__(
        self, decoder: Decoder, prompts: Sequence[Sequence[int]], limits: Sequence[int], choice: NextToken
    ) -> None:
        self._decoder, self._prompts, self._limits, self._choice = decoder, prompts, limits, choice
        # every prompt has a node of its own behind it: the one that its first new token grows out of
        self._stem = min(common_prefix(prompts), min(map(len, prompts), default=1) - 1)
        self.batches = self._plan()
        self._store: TreeStore | None = None

    def _plan(self) -> list[list[int]]:
        """Neighbours together, so that a tree has as much in common as can be."""
        config = self._decoder.model.config.get_text_config()
        max_nodes = max(PASS_TOKENS, STORE_BYTES // _bytes_per_token(config))
        waiting = [index for index, limit in enumerate(self._limits) if limit]
        batches = []
        for chunk in group([[[*self._prompts[index][self._stem :], 0]] for index in waiting], max_nodes):
            parts = -(-len(chunk) // MAX_ANSWERS)
            batches += [[waiting[at] for at in part] for part in np.array_split(np.array(chunk), parts)]
        return batches

    def answer(self, batch: Sequence[int]) -> list[list[int]]:
        tree = PrefixTree.build([[*self._prompts[index], 0] for index in batch])
        leaves = np.array([path[-1] for path in tree.paths])
        order = np.argsort(leaves, kind="stable")
        with self._decoder.attention():
            store, hidden = self._read(tree, leaves[order])
            store.grow(tree, leaves[order])
            found = self._grow(store, hidden, [batch[row] for row in order])
        return [found[index] for index in batch]

    def _read(self, tree: PrefixTree, leaves: np.ndarray) -> tuple[TreeStore, torch.Tensor]:
        """The store with all nodes of the tree, and the hidden states of the leaves."""
        store, start = self._store_for(tree)
        kept = []
        # what all share has passes of its own: else the first tree of a run that goes on would be cut, and so rounded, otherwise
        starts = [*range(start, self._stem, PASS_TOKENS), *range(self._stem, len(tree), PASS_TOKENS)]
        for first, last in pairwise([*starts, len(tree)]):
            store.read(tree, first, last)
            hidden = self._decoder.forward(tree.tokens[first:last].tolist(), tree.depths[first:last], store)
            inside = leaves[(leaves >= first) & (leaves < last)] - first
            kept.append(hidden[torch.as_tensor(inside, device=hidden.device)])
        return store, torch.cat(kept)

    def _store_for(self, tree: PrefixTree) -> tuple[TreeStore, int]:
        """A store, and how many nodes of the tree are in it already: the shared beginning, after the first tree."""
        if self._store is None:
            nodes = max(len(PrefixTree.build([[*self._prompts[i], 0] for i in part])) for part in self.batches)
            self._store = TreeStore(nodes, max(map(len, self.batches)), max(self._limits), self._decoder.device)
            return self._store, 0
        return self._store, self._stem

    def _grow(self, store: TreeStore, hidden: torch.Tensor, rows: list[int]) -> dict[int, list[int]]:
        """Answers by the prompt's index; `rows` are the prompts of the store's rows."""
        ends = set(self._decoder.eos_ids)
        answers: dict[int, list[int]] = {index: [] for index in rows}
        while True:
            tokens = self._choice.choose(rows, self._decoder.head(hidden))
            going = []
            for row, (index, token) in enumerate(zip(rows, tokens, strict=True)):
                if token not in ends:
                    answers[index].append(token)
                    if len(answers[index]) < self._limits[index]:
                        going.append(row)
            if not going:
                return answers
            if len(going) < len(rows):
                store.keep(going)
                rows, tokens = [rows[row] for row in going], [tokens[row] for row in going]
            hidden = self._decoder.forward(tokens, store.depths, store)
            store.grown()


class _Batches:
    """The same without trees."""

    def __init__(
        self, decoder: Decoder, prompts: Sequence[Sequence[int]], limits: Sequence[int], choice: NextToken
    ) -> None:
        self._decoder, self._prompts, self._limits, self._choice = decoder, prompts, limits, choice
        # batches of equal lengths hold little padding
        waiting = [index for index, limit in enumerate(limits) if limit]
        order = sorted(waiting, key=lambda index: (len(prompts[index]), index))
        self.batches = [order[start : start + PLAIN_ROWS] for start in range(0, len(order), PLAIN_ROWS)]

    def answer(self, batch: Sequence[int]) -> list[list[int]]:
        return decode_plainly(
            self._decoder.model, self._prompts, batch, self._choice,
            limits=self._limits, ends=self._decoder.eos_ids, pad_id=self._decoder.pad_id,
        )  # fmt: skip


def _forced_logits(decoder: Decoder, prompts: Sequence[Sequence[int]], forced: Sequence[Sequence[int]]) -> torch.Tensor:
    """(prompts, vocabulary): logits after each prompt and its given tokens, which are fed as a growing answer."""
    tree = PrefixTree.build([[*prompt, 0] for prompt in prompts])
    leaves = np.array([path[-1] for path in tree.paths])
    order = np.argsort(leaves)
    store = TreeStore(len(tree), len(prompts), len(forced[0]), decoder.device)
    with decoder.attention():
        store.read(tree, 0, len(tree))
        decoder.forward(tree.tokens.tolist(), tree.depths, store)
        store.grow(tree, leaves[order])
        for tokens in np.array(forced)[order].T:
            hidden = decoder.forward(tokens.tolist(), store.depths, store)
            store.grown()
    return decoder.head(hidden)[torch.as_tensor(np.argsort(order), device=decoder.device)]


def common_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Length of the beginning that all prompts share; what the first and the last in order share, all do."""
    if not prompts:
        return 0
    first, last = min(map(tuple, prompts)), max(map(tuple, prompts))
    return next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))


def _bytes_per_token(config: Any) -> int:
    """Of keys and values in all layers, as if in float32."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * heads * size * 2 * 4)
