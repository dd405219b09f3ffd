"""Attention over a flattened prefix tree, registered with transformers as one more attention implementation.

A dense mask over all nodes makes the cost grow with the square of the tree, though a node looks only at its path. So
the queries are cut into blocks of neighbours, and each block is given just the keys that one of its nodes looks at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import sdpa_mask

IMPLEMENTATION = "rightcall_tree"
BLOCK = {"cpu": 256, "cuda": 1024}  # queries a block; a GPU wants fewer and larger kernels


@dataclass(frozen=True)
class Block:
    start: int
    stop: int
    keys: torch.Tensor  # (seen,) nodes that some query of the block looks at
    mask: torch.Tensor  # (queries, seen) boolean
    _biases: dict[tuple[int, torch.dtype], torch.Tensor] = field(default_factory=dict, repr=False)

    def bias(self, shared: int, dtype: torch.dtype) -> torch.Tensor:
        """(1, 1, shared * queries, seen), zero or minus infinity: made once for all layers, which else keep a copy each."""
        if (shared, dtype) not in self._biases:
            zero = torch.zeros(self.mask.shape, dtype=dtype, device=self.mask.device)
            bias = zero.masked_fill_(~self.mask, float("-inf")).repeat(shared, 1)[None, None]
            self._biases[shared, dtype] = bias
        return self._biases[shared, dtype]


def cut(ends: torch.Tensor) -> list[Block]:
    """Blocks of a tree from `PrefixTree.ends`: node j is seen by node i when j <= i < ends[j]."""
    nodes = torch.arange(len(ends), device=ends.device)
    size = BLOCK.get(ends.device.type, 128)
    blocks = []
    for start in range(0, len(ends), size):
        queries = nodes[start : start + size]
        keys = torch.nonzero((nodes <= queries[-1]) & (ends > start))[:, 0]
        mask = (keys[None, :] <= queries[:, None]) & (queries[:, None] < ends[keys][None, :])
        blocks.append(Block(start, start + len(queries), keys, mask))
    return blocks


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    tree_blocks: list[Block],
    scaling: float | None = None,
    **ignored: Any,
) -> tuple[torch.Tensor, None]:
    """query (1, heads, nodes, size), key and value (1, key heads, nodes, size) → (1, nodes, heads, size).

    Query heads that share a key head are stacked as further queries, so that keys are never copied per head.
    """
    heads, key_heads = query.shape[1], key.shape[1]
    shared = heads // key_heads
    rows = [block.stop - block.start for block in tree_blocks]
    seen = torch.cat([block.keys for block in tree_blocks])
    # cut and joined in one go: the gradient of a slice is as large as what it was cut from
    counts = [len(block.keys) for block in tree_blocks]
    queries = query.split(rows, 2)
    keys, values = (part.index_select(2, seen).split(counts, 2) for part in (key, value))
    out = []
    for block, asking, its_keys, its_values in zip(tree_blocks, queries, keys, values, strict=True):
        stacked = asking.reshape(1, key_heads, shared * asking.shape[2], -1)
        bias = block.bias(shared, computed_dtype(query))
        found = scaled_dot_product_attention(stacked, its_keys, its_values, attn_mask=bias, scale=scaling)
        out.append(found.reshape(1, heads, asking.shape[2], -1).transpose(1, 2))
    return torch.cat(out, 1), None


def computed_dtype(tensor: torch.Tensor) -> torch.dtype:
    """What autocast makes of the tensor in a product."""
    kind = tensor.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else tensor.dtype


AttentionInterface.register(IMPLEMENTATION, tree_attention)
AttentionMaskInterface.register(IMPLEMENTATION, sdpa_mask)
