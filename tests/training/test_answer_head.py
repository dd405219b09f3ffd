"""The head that is not trained: its numbers stay float32 in a run of bf16, its gradient is bf16's."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rightcall.likelihood.answer_head import _through_head


def _model() -> LlamaForCausalLM:
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
    )
    model = LlamaForCausalLM(config)
    model.get_output_embeddings().weight.requires_grad_(False).mul_(20)  # so that probabilities differ
    return model


@pytest.mark.parametrize("low", [False, True], ids=["float32", "bf16"])
def test_a_frozen_head_gives_exact_numbers_and_a_gradient_as_exact_as_autocasts(low: bool) -> None:
    model = _model()
    hidden, targets = torch.randn(300, 64), torch.randint(0, 1000, (300,))

    def gradient(*, uses_ours: bool) -> tuple[torch.Tensor, torch.Tensor]:
        taken = hidden.clone().requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low and uses_ours):
            if uses_ours:
                log_probs = _through_head(model, taken, targets)[0]
            else:
                log_probs = model.lm_head(taken).log_softmax(-1).gather(-1, targets[:, None])[:, 0]
        log_probs.sum().backward()
        assert taken.grad is not None
        return log_probs.detach(), taken.grad

    log_probs, ours = gradient(uses_ours=True)
    wanted, exact = gradient(uses_ours=False)
    torch.testing.assert_close(log_probs, wanted, atol=1e-4, rtol=1e-5)  # bf16 logits would be off by some hundredths
    off = (ours - exact).norm() / exact.norm()
    assert off < (0.01 if low else 1e-5)
