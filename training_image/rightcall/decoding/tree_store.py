"""Keys and values of a prefix tree, and of the answers that grow out of it, in buffers that are allocated once.

    tree of two prompts     A─B─C─x      chain A B C, seen by both rows      at depth 0
    (rows 0 and 1)              └─y      chain x, seen by row 0              at depth 3
                                         chain y, seen by row 1              at depth 3

While answers grow, each has one new token a pass. A node of the tree is seen by neighbouring rows only (rows are in the
order of the tree), and the nodes that a row sees all have different depths. So the scores of a pass are one table (rows,
depths), filled chain by chain, each with a product of two dense matrices: no key is copied, none is looked at in vain.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

from rightcall.likelihood.prefix_tree import Ints, PrefixTree
from rightcall.likelihood.tree_attention import BLOCK, Block, tree_attention

IMPLEMENTATION = "rightcall_decoding"


class Chain(NamedTuple):
    """Nodes start … stop - 1, each the only child of the one before it, and the rows [first, last) that see them."""

    start: int
    stop: int
    depth: int  # of the first node
    first: int
    last: int


class Pass(NamedTuple):
    """What one forward pass over nodes of the tree writes and sees."""

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

    # the tree

    def read(self, tree: PrefixTree, start: int, stop: int) -> None:
        """The next pass feeds the nodes start … stop - 1; all before them have been fed."""
        self._pass = Pass(start, stop, cut(torch.as_tensor(tree.ends, device=self._device), start, stop))

    # the answers

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
        return self._tree.depths[self._leaves] + 1 + self._count

    def _look(self) -> None:
        """What the open rows see of the tree."""
        self._chains = chains(self._tree, self._starts, self._leaves)
        lengths = self._tree.depths[self._leaves] + 1
        self._width = int(lengths.max())
        unseen = np.arange(self._width)[None, :] >= lengths[:, None]
        self._bias = torch.zeros(unseen.shape, device=self._device)
        self._bias.masked_fill_(torch.as_tensor(unseen, device=self._device), float("-inf"))

    # attention

    def attend(
        self, module: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        """query (1, heads, fed, size), key and value (1, key heads, fed, size) → (1, fed, heads, size)."""
        if torch.is_autocast_enabled(query.device.type):  # rotated keys come in float32 even so
            key, value = key.to(torch.bfloat16), value.to(torch.bfloat16)
        if self._pass is None:
            return self._attend_answers(module.layer_idx, query, key[0], value[0], scaling)
        start, stop, blocks = self._pass
        keys, values = self._buffers(self._nodes, module.layer_idx, key[0], value[0], answers=False)
        keys[:, start:stop] = key[0]
        values[:, start:stop] = value[0]
        query = query.to(keys.dtype)
        return tree_attention(module, query, keys[None], values[None], None, tree_blocks=blocks, scaling=scaling)[0]

    def _attend_answers(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None
    ) -> torch.Tensor:
        node_keys, node_values = self._nodes[layer]
        keys, values = self._buffers(self._answers, layer, key, value, answers=True)
        _, heads, rows, size = query.shape
        key_heads, fed, width = key.shape[0], self._count + 1, self._width
        shared = heads // key_heads
        keys[:rows, :, self._count] = key.transpose(0, 1)
        values[:rows, :, self._count] = value.transpose(0, 1)
        scaled = query[0] * (size**-0.5 if scaling is None else scaling)
        # (key heads, rows, shared, size): the query heads of a key head stand side by side
        stacked = scaled.to(keys.dtype).view(key_heads, shared, rows, size).transpose(1, 2).contiguous()
        flat = stacked.view(key_heads, rows * shared, size)
        scores = flat.new_zeros(key_heads, rows * shared, width + fed)
        for start, stop, depth, first, last in self._chains:
            some = slice(first * shared, last * shared)
            scores[:, some, depth : depth + stop - start] = flat[:, some] @ node_keys[:, start:stop].transpose(1, 2)
        own = stacked.transpose(0, 1) @ keys[:rows, :, :fed].transpose(2, 3)  # (rows, key heads, shared, fed)
        table = scores.view(key_heads, rows, shared, width + fed)
        table[..., width:] = own.transpose(0, 1)
        table = table.float()
        table[..., :width] += self._bias[None, :, None, :]
        weights = table.softmax(-1).to(values.dtype)
        flat_weights = weights.view(key_heads, rows * shared, width + fed)
        out = (weights[..., width:].transpose(0, 1) @ values[:rows, :, :fed]).transpose(0, 1).float()
        out = out.reshape(key_heads, rows * shared, -1)
        for start, stop, depth, first, last in self._chains:
            some = slice(first * shared, last * shared)
            out[:, some] += flat_weights[:, some, depth : depth + stop - start] @ node_values[:, start:stop]
        out = out.view(key_heads, rows, shared, -1).transpose(0, 1)
        return out.reshape(1, rows, heads, -1).to(query.dtype)

    def _buffers(
        self,
        held: dict[int, tuple[torch.Tensor, torch.Tensor]],
        layer: int,
        key: torch.Tensor,
        value: torch.Tensor,
        *,
        answers: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if layer not in held:
            nodes, rows, longest = self._sizes
            key_heads, _, size = key.shape
            shape = (rows, key_heads, longest) if answers else (key_heads, nodes)
            held[layer] = key.new_empty(*shape, size), value.new_empty(*shape, value.shape[-1])
        return held[layer]


def cut(ends: torch.Tensor, start: int, stop: int) -> list[Block]:
    """As `tree_attention.cut`, for the queries of the nodes start … stop - 1, counted from `start`."""
    nodes = torch.arange(stop, device=ends.device)
    size = BLOCK.get(ends.device.type, 128)
    blocks = []
    for first in range(start, stop, size):
        queries = nodes[first : min(first + size, stop)]
        keys = torch.nonzero((nodes <= queries[-1]) & (ends[:stop] > first))[:, 0]
        mask = (keys[None, :] <= queries[:, None]) & (queries[:, None] < ends[keys][None, :])
        blocks.append(Block(first - start, first - start + len(queries), keys, mask))
    return blocks


def starts_of_chains(tree: PrefixTree) -> Ints:
    """The nodes that are not the only child of the node before them."""
    follows = (tree.depths[1:] == tree.depths[:-1] + 1) & (tree.ends[1:] == tree.ends[:-1])
    return np.concatenate([[0], 1 + np.flatnonzero(~follows)])


def chains(tree: PrefixTree, starts: Ints, leaves: Ints) -> list[Chain]:
    """The chains that answers growing out of `leaves` (ascending) see; what none of them sees is left out."""
    stops = np.append(starts[1:], len(tree))
    firsts = np.searchsorted(leaves, starts)
    lasts = np.searchsorted(leaves, tree.ends[starts])
    found = []
    for start, stop, first, last in zip(starts.tolist(), stops.tolist(), firsts.tolist(), lasts.tolist(), strict=True):
        if first < last:
            seen = min(stop, int(leaves[last - 1]) + 1)
            found.append(Chain(start, seen, int(tree.depths[start]), first, last))
    return found


def attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_store: TreeStore,
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    return tree_store.attend(module, query, key, value, scaling), None


AttentionInterface.register(IMPLEMENTATION, attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
