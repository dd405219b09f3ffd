"""Attention to a part of the keys, and parts put together: softmax over all keys is a mean of softmaxes over the parts.

out = Σ outᵢ · exp(lseᵢ - lse),   lse = log Σ exp(lseᵢ)      lse: log of the sum of the exponentials of the scores
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

Part = tuple[torch.Tensor, torch.Tensor]  # out (key heads, queries, size), lse (key heads, queries) in float32

# The kernel behind scaled_dot_product_attention on a CPU, which also gives the lse: a third of the time of two products
# with a softmax between them, whose table of scores goes through memory five times.
_fused: Any = getattr(torch.ops.aten, "_scaled_dot_product_flash_attention_for_cpu", None)


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float, bias: torch.Tensor | None = None
) -> Part:
    """query (key heads, queries, size), key and value (key heads, keys, size); bias (queries, keys) is -inf or 0.

    Every query sees some key.
    """
    if query.device.type == "cpu" and _fused is not None:
        mask = None if bias is None else bias[None, None]
        out, lse = _fused(query[None], key[None], value[None], attn_mask=mask, scale=scaling)
        return out[0], lse[0]
    scores = (query @ key.transpose(-1, -2)).float() * scaling
    if bias is not None:
        scores += bias
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp_().to(value.dtype) @ value, lse


def merge(whole: Part, parts: Iterable[tuple[slice, Part]]) -> torch.Tensor:
    """`whole` is over all queries, each other part over the queries of its slice; in float32."""
    found = list(parts)
    out, lse = whole
    total = lse.clone()
    for some, part in found:
        total[:, some] = torch.logaddexp(total[:, some], part[1])
    merged = out.float() * (lse - total).exp()[..., None]
    for some, part in found:
        merged[:, some] += part[0].float() * (part[1] - total[:, some]).exp()[..., None]
    return merged
