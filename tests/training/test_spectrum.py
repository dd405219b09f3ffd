"""Spectrum's ranking: equal to the formula on a direct SVD, finds what was planted, and refuses to guess."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from rightcall.errors import TrainingError
from rightcall.training import spectrum


class Layer(nn.Module):
    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)
        self.norm = nn.LayerNorm(hidden)


class Stack(nn.Module):
    """The shape of a decoder as far as names go: embeddings, numbered layers, a head."""

    def __init__(self, layers: int = 6, hidden: int = 24, inner: int = 40, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed_tokens = nn.Embedding(50, hidden)
        self.layers = nn.ModuleList(Layer(hidden, inner) for _ in range(layers))
        self.lm_head = nn.Linear(hidden, 50, bias=False)


def ratio_by_svd(weight: torch.Tensor) -> float:
    """The paper's formula, on singular values in float64."""
    values = torch.linalg.svdvals(weight.detach().double())
    lower, upper = torch.quantile(values, torch.tensor([0.25, 0.75], dtype=torch.float64)).tolist()
    n, m = sorted(weight.shape)
    edge = (upper - lower) / 1.349 * (1 + math.sqrt(n / m))
    return (values[values > edge].sum() / values[values <= edge].sum() / values.max()).item()


@settings(max_examples=30, deadline=None)
@given(rows=st.integers(8, 40), columns=st.integers(8, 40), seed=st.integers(0, 10_000), scale=st.floats(1e-3, 10))
def test_gram_eigenvalues_in_fp32_give_the_ratio_of_a_direct_svd(
    rows: int, columns: int, seed: int, scale: float
) -> None:
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * scale
    direct = ratio_by_svd(weight)
    if not math.isfinite(direct) or direct == 0:
        return
    assert spectrum.signal_to_noise(weight, "w") == pytest.approx(direct, rel=2e-2)


def test_the_top_set_equals_that_of_a_direct_svd() -> None:
    model = Stack(layers=9, seed=3)
    by_svd = {name: ratio_by_svd(weight) for name, weight in spectrum.projections(model).items()}
    assert set(spectrum.select(model, 0.5)) == spectrum.top(by_svd, 0.5)


def test_layers_with_a_planted_low_rank_signal_rank_first() -> None:
    """Two layers get eight directions as strong as the others' strongest, over a tenth of their Gaussian noise."""
    model = Stack(layers=6, hidden=64, inner=96)
    generator = torch.Generator().manual_seed(1)
    planted = {"layers.1.up_proj.weight", "layers.4.up_proj.weight"}
    with torch.no_grad():
        for name, weight in spectrum.projections(model).items():
            noise = torch.randn(weight.shape, generator=generator)
            strongest = torch.linalg.matrix_norm(noise, 2)
            left = torch.linalg.qr(torch.randn(weight.shape[0], 8, generator=generator))[0]
            right = torch.linalg.qr(torch.randn(weight.shape[1], 8, generator=generator))[0]
            weight.copy_(0.1 * noise + strongest * left @ right.T if name in planted else noise)
    chosen = spectrum.select(model, 2 / 6)
    assert {name for name in chosen if "up_proj" in name} == planted


def test_only_projections_of_numbered_layers_are_chosen_and_each_type_gets_its_share() -> None:
    chosen = spectrum.select(Stack(layers=6), 0.5)
    assert all(name.endswith(("up_proj.weight", "down_proj.weight")) for name in chosen)
    assert sum("up_proj" in name for name in chosen) == sum("down_proj" in name for name in chosen) == 3


def test_every_type_keeps_at_least_one_module_and_a_fraction_of_one_keeps_all() -> None:
    model = Stack(layers=4)
    assert len(spectrum.select(model, 0.01)) == 2
    assert spectrum.select(model, 1.0) == list(spectrum.projections(model))


def test_a_ranking_is_read_back_for_the_same_weights_and_serves_every_fraction(tmp_path: Path) -> None:
    model = Stack()
    first = spectrum.select(model, 0.5, tmp_path, "abc")
    (cached,) = tmp_path.iterdir()
    with torch.no_grad():  # shows that the file is used: ranking these weights would fail
        model.layers[0].up_proj.weight.fill_(math.nan)
    assert spectrum.select(model, 0.5, tmp_path, "abc") == first
    assert len(spectrum.select(model, 1.0, tmp_path, "abc")) == 12
    with pytest.raises(TrainingError, match="NaN"):
        spectrum.select(model, 0.5, tmp_path, "other weights")
    assert json.loads(cached.read_text())["version"] == spectrum.VERSION


@pytest.mark.parametrize("text", ["{", '{"version": 0, "ratios": {}}', "[]", '{"version": 1, "ratios": {"x": 1.0}}'])
def test_a_broken_or_foreign_ranking_is_ranked_again(tmp_path: Path, text: str) -> None:
    model = Stack()
    expected = spectrum.select(model, 0.5, tmp_path, "abc")
    (cached,) = tmp_path.iterdir()
    cached.write_text(text)
    assert spectrum.select(model, 0.5, tmp_path, "abc") == expected


def test_nan_weights_are_an_error_that_names_the_weight() -> None:
    model = Stack()
    with torch.no_grad():
        model.layers[2].down_proj.weight[0, 0] = math.nan
    with pytest.raises(TrainingError, match=r"'layers\.2\.down_proj\.weight' has NaN"):
        spectrum.select(model, 0.5)


def test_a_tie_at_the_border_is_an_error_and_one_inside_is_not() -> None:
    with pytest.raises(TrainingError, match="tie"):
        spectrum.top({"l.0.q.weight": 2.0, "l.1.q.weight": 1.0, "l.2.q.weight": 1.0}, 2 / 3)
    assert spectrum.top({"l.0.q.weight": 2.0, "l.1.q.weight": 2.0, "l.2.q.weight": 1.0}, 2 / 3) == {
        "l.0.q.weight",
        "l.1.q.weight",
    }


def test_copied_layers_and_empty_weights_are_errors() -> None:
    model = Stack()
    with torch.no_grad():
        for layer in model.layers:
            layer.up_proj.weight.copy_(model.layers[0].up_proj.weight)
    with pytest.raises(TrainingError, match="copies"):
        spectrum.select(model, 0.5)
    with torch.no_grad():
        model.layers[0].up_proj.weight.zero_()
    with pytest.raises(TrainingError, match="no noise"):
        spectrum.select(model, 0.5)


def test_a_model_without_numbered_projections_is_an_error() -> None:
    with pytest.raises(TrainingError, match="nothing to rank"):
        spectrum.select(nn.Sequential(nn.Embedding(4, 4)), 0.5)
