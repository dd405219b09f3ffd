"""Spectrum: train only the projections that carry most signal (Hartford et al. 2024, arXiv 2406.06623).

The singular values of a random matrix with noise of scale sigma stay below the Marchenko–Pastur edge; what rises above
it was learnt. Per weight matrix of n × m, with singular values s:

    sigma = IQR(s) / 1.349            edge = sigma · (1 + sqrt(min(n, m) / max(n, m)))
    snr   = (sum of s above the edge / sum of s at or below it) / max(s)

Modules are compared within their type only (all `self_attn.q_proj`, all `mlp.down_proj` …): the top share of each is
trained. The singular values come from the eigenvalues of the smaller Gram matrix in fp32: the same top set as an SVD,
at a third of its cost.
"""

from __future__ import annotations

import json
import logging
import math
import os
import re
import tempfile
import time
from pathlib import Path

import torch

from rightcall.errors import TrainingError

VERSION = 1  # of the formula: a cached ranking of another version is not read
SAME = 1e-6  # relative difference below which two ratios are a tie: fp32 would order them by chance
logger = logging.getLogger(__name__)


def select(
    model: torch.nn.Module, top_fraction: float, cache_dir: Path | None = None, digest: str | None = None
) -> list[str]:
    """Names of the parameters to train: the top share of every projection type, in the model's order.

    Args:
        cache_dir: folder of rankings by weights digest; None = rank every time.
        digest: sha256 of the model's weights; None = do not cache.

    Raises:
        TrainingError: a weight is not finite, or a tie leaves open which modules belong to the top.
    """
    weights = projections(model)
    if not weights:
        raise TrainingError(
            f"{type(model).__name__!r} has no projections in numbered layers: nothing to rank; use method: full"
        )
    cached = cache_dir / f"spectrum-{digest}.json" if cache_dir and digest else None
    ratios = _read(cached, set(weights))
    if ratios is None:
        started = time.monotonic()
        ratios = {name: signal_to_noise(weight, name) for name, weight in weights.items()}
        logger.info("ranked %d projections by signal-to-noise ratio in %.1f s", len(ratios), time.monotonic() - started)
        _write(cached, ratios)
    chosen = top(ratios, top_fraction)
    return [name for name in weights if name in chosen]


def projections(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Weights of the linear modules inside numbered layers: neither embeddings nor the head, and no norms."""
    return {
        f"{name}.weight": module.weight
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module.weight.ndim == 2 and re.search(r"\.\d+\.", name)
    }


def module_type(name: str) -> str:
    """`model.layers.7.mlp.up_proj.weight` → `model.layers.*.mlp.up_proj.weight`"""
    return re.sub(r"\.\d+(?=\.)", ".*", name)


@torch.no_grad()
def signal_to_noise(weight: torch.Tensor, name: str) -> float:
    """Ratio of the formula above.

    Raises:
        TrainingError: the weight is not finite or has no noise at all.
    """
    matrix = weight.detach().to(torch.float32)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    if not torch.isfinite(gram).all():
        raise TrainingError(
            f"weight {name!r} has NaN or infinite values; Spectrum cannot rank it. Check the base model's files"
        )
    values = torch.linalg.eigvalsh(gram).clamp_min(0).sqrt()
    lower, upper = torch.quantile(values, torch.tensor([0.25, 0.75], device=values.device)).tolist()
    edge = (upper - lower) / 1.349 * (1 + math.sqrt(min(matrix.shape) / max(matrix.shape)))
    noise = values[values <= edge].sum().item()
    signal = values[values > edge].sum().item()
    if noise == 0:  # all zeros, or all singular values alike
        raise TrainingError(
            f"weight {name!r} has no noise to compare with; check the base model's files, or use method: full"
        )
    return signal / noise / values.max().item()


def top(ratios: dict[str, float], top_fraction: float) -> set[str]:
    """The top share (at least one) of each module type.

    Raises:
        TrainingError: a ratio is NaN, or the border runs through a tie.
    """
    groups: dict[str, list[str]] = {}
    for name, ratio in ratios.items():
        if not math.isfinite(ratio):
            raise TrainingError(
                f"the signal-to-noise ratio of {name!r} is {ratio!r}; check the base model's files, or use method: full"
            )
        groups.setdefault(module_type(name), []).append(name)
    chosen: set[str] = set()
    for kind, names in groups.items():
        ranked = sorted(names, key=lambda name: ratios[name], reverse=True)
        count = max(1, math.floor(len(ranked) * top_fraction + 0.5))
        if count < len(ranked):
            inside, outside = ranked[count - 1], ranked[count]
            if ratios[inside] - ratios[outside] <= SAME * ratios[inside]:
                raise TrainingError(
                    f"Spectrum's border of {kind!r} runs through a tie: {inside!r} and {outside!r} "
                    f"both have {ratios[inside]!r}; are layers copies? Change spectrum_top_fraction or use full"
                )
        chosen.update(ranked[:count])
    return chosen


def _read(cached: Path | None, names: set[str]) -> dict[str, float] | None:
    """The cached ratios, None where there are none or they belong to another formula or another model."""
    if cached is None or not cached.is_file():
        return None
    try:
        found = json.loads(cached.read_text())
    except (ValueError, OSError):
        logger.warning("%s cannot be read, ranking again", cached)
        return None
    if not isinstance(found, dict) or found.get("version") != VERSION or set(found.get("ratios", ())) != names:
        return None
    return {str(name): float(ratio) for name, ratio in found["ratios"].items()}


def _write(cached: Path | None, ratios: dict[str, float]) -> None:
    if cached is None:
        return
    cached.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=cached.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        json.dump({"version": VERSION, "ratios": ratios}, file, indent=1)
    os.replace(temporary, cached)
