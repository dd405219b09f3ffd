"""Keys and values of a prefix tree, and of the answers that grow out of it, in buffers that are allocated once.

    tree of two prompts     A─B─C─x      chain A B C, seen by both rows
    (rows 0 and 1)              └─y      chain x, seen by row 0
                                         chain y, seen by row 1

While answers grow, each has one new token a pass. Rows are in the order of the tree, so a chain is seen by neighbouring rows
only: each chain is attended to by a slice of the rows, in place (no key is copied, none is looked at in vain), and what a
row gets from its chains and from its own answer is put together.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from rightcall.decoding.partial_attention import attend, merge
from rightcall.likelihood.prefix_tree import Ints, PrefixTree

IMPLEMENTATION = "rightcall_decoding"
BLOCK = 128  # nodes of the tree that look at it together


class Chain(NamedTuple):
    """Nodes start … stop - 1, each the only child of the one before it, and the rows [first, last) that see them."""

    start: int
    stop: int
    first: int
    last: int


class Block(NamedTuple):
    """Neighbouring nodes that are fed: all see the first `shared` nodes of the tree, some of them the others."""

    start: int  # counted from the first node of the pass
    stop: int
    shared: int
    others: torch.Tensor
    unseen: torch.Tensor  # (queries, others) boolean


class Pass(NamedTuple):
    """One forward pass over nodes of the tree."""

    start: int
    stop: int
    blocks: list[Block]


class TreeStore:
    """Buffers, a pair a layer, made when a layer first writes: layers may differ in their heads.

    nodes    (key heads, nodes, size)
    answers  (rows, key heads, longest, size): the tokens of each open answer, as many in each
    """

    def __init__(self, nodes: int, rows: int, longest: int, device: torch.device) -> None:
        self._sizes = (nodes, rows, longest)
        self._device = device
        self._nodes: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._answers: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._pass: Pass | None = None  # None: answers grow

    def read(self, tree: PrefixTree, start: int, stop: int) -> None:
        """The next pass feeds the nodes start … stop - 1; all before them have been fed."""
        self._pass = Pass(start, stop, cut(tree.ends, start, stop, self._device))

    def grow(self, tree: PrefixTree, leaves: Ints) -> None:
        """From here on answers grow out of these nodes, one row each, in ascending order; nothing is written yet."""
        self._pass, self._tree, self._leaves, self._count = None, tree, leaves, 0
        self._starts = starts_of_chains(tree)
        self._look()

    def keep(self, rows: list[int]) -> None:
        """The other answers are finished: their rows leave, the rest move together in their order."""
        index = torch.tensor(rows, device=self._device)
        for pair in self._answers.values():
            for buffer in pair:
                buffer[: len(rows), :, : self._count] = buffer[index, :, : self._count]
        self._leaves = self._leaves[rows]
        self._look()

    def grown(self) -> None:
        """Every open answer has one more token in the buffers."""
        self._count += 1

    @property
    def depths(self) -> Ints:
        """Position of each row's next token."""
        depths: Ints = self._tree.depths[self._leaves] + 1 + self._count
        return depths

    def _look(self) -> None:
        """What the open rows see of the tree."""
        self._chains = chains(self._tree, self._starts, self._leaves)
        self._biases: dict[tuple[int, int, torch.dtype], torch.Tensor] = {}

    def attend(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        """query (heads, fed, size), key and value (key heads, fed, size) → (fed, heads, size)."""
        if torch.is_autocast_enabled(query.device.type):  # rotated keys come in float32 even so
            key, value = key.to(torch.bfloat16), value.to(torch.bfloat16)
        heads, fed, _ = query.shape
        # (key heads, fed, heads that share one, size): a query of each stands beside the others of its node
        stacked = query.to(key.dtype).view(len(key), heads // len(key), fed, -1).transpose(1, 2).contiguous()
        # products are in the type of the keys
        with torch.autocast(query.device.type, enabled=False):
            out = self._of_tree(layer, stacked, key, value, scaling) if self._pass else self._of_answers(
                layer, stacked, key, value, scaling
            )  # fmt: skip
        return out.view(*stacked.shape[:3], -1).transpose(0, 1).reshape(fed, heads, -1).to(query.dtype)

    def _of_tree(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        start, stop, blocks = self._pass or Pass(0, 0, [])
        keys, values = self._buffers(self._nodes, layer, key, value)
        keys[:, start:stop] = key
        values[:, start:stop] = value
        together = query.shape[2]
        flat = query.view(len(key), -1, query.shape[-1])
        found = []
        for block in blocks:
            some = flat[:, block.start * together : block.stop * together]
            bias = _bias(block.unseen, together, some.dtype)
            whole = attend(some, keys[:, block.others], values[:, block.others], scaling, bias)
            seen = slice(0, block.shared)
            part = [(slice(None), attend(some, keys[:, seen], values[:, seen], scaling))] if block.shared else []
            found.append(merge(whole, part))
        return torch.cat(found, 1)

    def _of_answers(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        node_keys, node_values = self._nodes[layer]
        keys, values = self._buffers(self._answers, layer, key, value)
        key_heads, rows, together, size = query.shape
        keys[:rows, :, self._count] = key.transpose(0, 1)
        values[:rows, :, self._count] = value.transpose(0, 1)
        written = slice(0, self._count + 1)
        # (rows, key heads, together, written)
        scores = (query.transpose(0, 1) @ keys[:rows, :, written].transpose(2, 3)).float() * scaling
        lse = scores.logsumexp(-1)
        own = (scores - lse[..., None]).exp_().to(values.dtype) @ values[:rows, :, written]
        flat = query.view(key_heads, rows * together, size)
        parts = []
        for chain in self._chains:
            some, nodes = slice(chain.first * together, chain.last * together), slice(chain.start, chain.stop)
            bias = self._chain_bias(chain, together, flat.dtype)
            parts.append((some, attend(flat[:, some], node_keys[:, nodes], node_values[:, nodes], scaling, bias)))
        whole = own.transpose(0, 1).reshape(key_heads, rows * together, -1), lse.transpose(0, 1).reshape(key_heads, -1)
        return merge(whole, parts)

    def _chain_bias(self, chain: Chain, together: int, dtype: torch.dtype) -> torch.Tensor | None:
        """None where all rows see the whole chain; a row that grows out of its middle sees what is above."""
        leaves = self._leaves[chain.first : chain.last]
        if int(leaves[0]) >= chain.stop - 1:
            return None
        name = (chain.start, together, dtype)
        if name not in self._biases:
            unseen = np.arange(chain.start, chain.stop)[None, :] > leaves[:, None]
            self._biases[name] = _bias(torch.as_tensor(unseen, device=self._device), together, dtype)
        return self._biases[name]

    def _buffers(
        self, held: dict[int, tuple[torch.Tensor, torch.Tensor]], layer: int, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in held:
            nodes, rows, longest = self._sizes
            shape = (len(key), nodes) if held is self._nodes else (rows, len(key), longest)
            held[layer] = key.new_empty(*shape, key.shape[-1]), value.new_empty(*shape, value.shape[-1])
        return held[layer]


def cut(ends: Ints, start: int, stop: int, device: torch.device) -> list[Block]:
    """The nodes start … stop - 1 in blocks; node j is seen by node i when j <= i < ends[j]."""
    nodes = np.arange(stop)
    blocks = []
    for first in range(start, stop, BLOCK):
        queries = nodes[first : first + BLOCK]
        # the nodes that are above the whole block, as far as they stand at the tree's beginning
        above = ends[:first] > queries[-1]
        shared = first if above.all() else int(above.argmin())
        others = shared + np.flatnonzero(ends[shared : queries[-1] + 1] > first)
        unseen = (others[None, :] > queries[:, None]) | (queries[:, None] >= ends[others][None, :])
        here = (torch.as_tensor(array, device=device) for array in (others, unseen))
        blocks.append(Block(first - start, first - start + len(queries), shared, *here))
    return blocks


def starts_of_chains(tree: PrefixTree) -> Ints:
    """The nodes that are not the only child of the node before them."""
    follows = (tree.depths[1:] == tree.depths[:-1] + 1) & (tree.ends[1:] == tree.ends[:-1])
    return np.concatenate([[0], 1 + np.flatnonzero(~follows)])


def chains(tree: PrefixTree, starts: Ints, leaves: Ints) -> list[Chain]:
    """The chains that answers growing out of `leaves` (ascending) see; what none of them sees is left out."""
    stops = np.append(starts[1:], len(tree))
    firsts, lasts = np.searchsorted(leaves, starts), np.searchsorted(leaves, tree.ends[starts])
    found = []
    for start, stop, first, last in zip(starts.tolist(), stops.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        if first < last:
            found.append(Chain(start, min(stop, int(leaves[last - 1]) + 1), first, last))
    return found


def _bias(unseen: torch.Tensor, together: int, dtype: torch.dtype) -> torch.Tensor:
    """(queries of all heads that share one, keys)"""
    bias = torch.zeros(unseen.shape, dtype=dtype, device=unseen.device).masked_fill_(unseen, float("-inf"))
    return bias.repeat_interleave(together, 0)


def attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_store: TreeStore,
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """What transformers calls in every layer: query (1, heads, fed, size) → (1, fed, heads, size)."""
    factor = query.shape[-1] ** -0.5 if scaling is None else scaling
    return tree_store.attend(module.layer_idx, query[0], key[0], value[0], factor)[None], None


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
