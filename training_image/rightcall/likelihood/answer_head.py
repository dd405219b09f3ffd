"""Log-probabilities of answer tokens for TRL's trainers, at the cost of what is really new in a batch.

TRL feeds every sequence of a padded batch, and without CUDA it computes the logits of every position. Here the rows of
a batch are laid into one prefix tree (`prefix_tree.py`): the prompt that chosen and rejected share, and the tools that
rows share, are computed once, padding is never computed, and only the positions that predict an answer token reach the
head. The numbers are the same.
"""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel
from trl.trainer.utils import FusedCausalLMOutput

from rightcall.likelihood.prefix_tree import PrefixTree
from rightcall.likelihood.scorer import is_whole
from rightcall.likelihood.tree_attention import IMPLEMENTATION, computed_dtype, cut

HEAD_ROWS = 512  # positions whose logits are held at once while training: 512 × 150,000 × 4 bytes = 300 MiB
CACHED_ROWS = 128  # the same where a gradient is computed at once: what a CPU's cache can still hold
IGNORED = -100


class Computed:
    """Counts the tokens that went through the model: nodes of trees, or positions of padded batches."""

    tokens = 0

    def take(self) -> int:
        """How many since the last call."""
        taken, self.tokens = self.tokens, 0
        return taken


def install(model: PreTrainedModel, *, uses_trees: bool) -> Computed:
    """Replaces what `model(…, labels=…, fused_lm_head=True)` computes; call it after the trainer was made.

    `row_factors` is one more argument from now on: a factor on the log-probabilities of each row (rows,), or of each
    token of `input_ids` (rows, seq).
    Without trees TRL's own computation stays, and only the factors are added.
    """
    stock: Callable[..., Any] = model.forward
    computed = Computed()
    if uses_trees:
        model.set_attn_implementation(IMPLEMENTATION)

    def forward(
        self: PreTrainedModel,
        *args: Any,
        fused_lm_head: bool = False,
        row_factors: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if not fused_lm_head:
            return stock(*args, **kwargs)
        if uses_trees:
            out, nodes = tree_forward(self, kwargs["input_ids"], kwargs["attention_mask"], kwargs["labels"])
        else:
            out, nodes = stock(*args, fused_lm_head=True, **kwargs), kwargs["input_ids"].numel()
        computed.tokens += nodes
        if row_factors is not None:
            log_probs: torch.Tensor = out.log_probs  # type: ignore[assignment]
            # position i predicts token i + 1
            out.log_probs = log_probs * (row_factors[:, None] if row_factors.dim() == 1 else row_factors[:, 1:])
        return out

    model.forward = types.MethodType(forward, model)
    return computed


def tree_forward(
    model: PreTrainedModel, input_ids: torch.Tensor, attention_mask: torch.Tensor, labels: torch.Tensor
) -> tuple[FusedCausalLMOutput, int]:
    """Per-token fields of shape (rows, seq - 1), zero where the next token's label is -100, and the tree's nodes.

    Rows are padded right.
    """
    device = input_ids.device
    lengths = attention_mask.sum(1).tolist()
    sequences = [row[:length] for row, length in zip(input_ids.tolist(), lengths, strict=True)]
    tree = PrefixTree.build(sequences)
    hidden = model.get_decoder()(
        input_ids=torch.as_tensor(tree.tokens, device=device)[None],
        position_ids=torch.as_tensor(tree.depths, device=device)[None],
        # four dimensions: transformers then makes no mask of its own; the blocks hold the real one
        attention_mask=torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
        tree_blocks=cut(torch.as_tensor(tree.ends, device=device)),
        use_cache=False,
    ).last_hidden_state[0]
    mask = labels[:, 1:] != IGNORED
    rows, positions = (part.cpu().numpy() for part in torch.nonzero(mask, as_tuple=True))
    nodes = np.array([tree.paths[row][position] for row, position in zip(rows, positions, strict=True)], dtype=np.int64)
    picked = hidden.index_select(0, torch.as_tensor(nodes, device=device))
    fields = _through_head(model, picked, labels[:, 1:][mask])
    spread = (value.new_zeros(mask.shape).masked_scatter(mask, value) for value in fields)
    log_probs, entropy, log_sum_sq_probs, mean_logits, is_top1 = spread
    out = FusedCausalLMOutput(
        loss=-log_probs.sum() / mask.sum().clamp(min=1), log_probs=log_probs, entropy=entropy,
        log_sum_sq_probs=log_sum_sq_probs, mean_logits=mean_logits, is_top1=is_top1, label_mask=mask,
    )  # fmt: skip
    return out, len(tree)


def _through_head(model: PreTrainedModel, hidden: torch.Tensor, targets: torch.Tensor) -> list[torch.Tensor]:
    head: Any = model.get_output_embeddings()
    if hidden.requires_grad and hidden.device.type == "cpu" and _is_frozen(head):
        return list(_FrozenHead.apply(hidden, head.weight, targets))
    parts = []
    for some, wanted in zip(hidden.split(HEAD_ROWS), targets.split(HEAD_ROWS), strict=True):
        if len(hidden) > HEAD_ROWS and torch.is_grad_enabled():  # the logits are computed again in the backward pass
            parts.append(checkpoint(_score, head, some, wanted, use_reentrant=False))
        else:
            parts.append(_score(head, some, wanted))
    return [torch.cat(values) for values in zip(*parts, strict=True)]


def _is_frozen(head: Any) -> bool:
    """And whole: else only the module's own forward sees all of its weights."""
    if type(head) is not torch.nn.Linear or head.bias is not None or head.weight.requires_grad:
        return False
    return is_whole(head)


class _FrozenHead(torch.autograd.Function):
    """`_score` through a head that is not trained, whose gradient is one more product while the logits are there.

    d log p(target) / d hidden = weight[target] - probabilities @ weight: nothing as wide as the vocabulary is kept, or
    computed again, for the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        parts = []
        # logits want float32; a gradient is as exact as autocast's others
        rows = weight.to(computed_dtype(weight))
        with torch.autocast(hidden.device.type, enabled=False):
            for some, wanted in zip(hidden.split(CACHED_ROWS), targets.split(CACHED_ROWS), strict=True):
                logits = (some.to(weight.dtype) @ weight.T).float()
                slope = weight[wanted] - logits.softmax(-1).to(rows.dtype) @ rows
                parts.append((*_fields(logits, wanted), slope))
        *fields, slopes = (torch.cat(values) for values in zip(*parts, strict=True))
        ctx.save_for_backward(slopes)
        ctx.dtype = hidden.dtype
        ctx.mark_non_differentiable(*fields[1:])
        return tuple(fields)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor, *others: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (slopes,) = ctx.saved_tensors
        return (slopes * grad[:, None].to(slopes.dtype)).to(ctx.dtype), None, None


def _score(head: Any, hidden: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """`_fields` of each target, which the hidden state before it predicts."""
    # bf16 logits are off by up to 0.06; on a CPU the few answer rows cost next to nothing in fp32
    with torch.autocast(hidden.device.type, enabled=hidden.device.type != "cpu"):
        logits = head(hidden.to(head.weight.dtype)).float()
    return _fields(logits, targets)


def _fields(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Per target (log-probability, entropy, log of the sum of squared probabilities, mean logit, hit).

    All but the first are what TRL logs or weighs by.
    """
    normaliser = logits.logsumexp(-1)
    log_probs = logits.gather(-1, targets[:, None])[:, 0] - normaliser
    with torch.no_grad():
        fixed = logits.detach()
        lse = normaliser.detach()
        entropy = lse - (torch.softmax(fixed, -1) * fixed).sum(-1)
        log_sum_sq = (2 * fixed).logsumexp(-1) - 2 * lse
        mean, hit = fixed.mean(-1), fixed.argmax(-1) == targets
    return log_probs, entropy, log_sum_sq, mean, hit
