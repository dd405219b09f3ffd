"""The model that is scored, loaded from a channel."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rightcall.errors import ScoringError

logger = logging.getLogger(__name__)

FLOAT32_SHARE = 0.4  # of the GPU's free memory that float32 weights may take; casts to bf16 take half as much again


def model_folder(channel: Path) -> Path:
    """The channel itself, or its `model` folder (a stage's folder in the store).

    Raises:
        ScoringError: neither holds a config.json.
    """
    for folder in (channel, channel / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise ScoringError(
        f"{str(channel)!r} holds no model: neither config.json nor model/config.json is there; name a model folder"
    )


def load_model(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """In float32 (near-ties need it), on the GPU if there is one.

    Raises:
        ScoringError: the model cannot be loaded.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as err:
        raise ScoringError(
            f"the model in {str(folder)!r} cannot be loaded: {err}; check config.json and model.safetensors"
        ) from err
    if not torch.cuda.is_available():
        return model.float()
    free, _ = torch.cuda.mem_get_info()
    if 4 * model.num_parameters() > FLOAT32_SHARE * free:
        logger.warning(
            "float32 weights do not fit beside the work in %.1f GiB of free GPU memory: near-ties stay in bf16",
            free / 2**30,
        )
        return model.to("cuda")
    return model.float().to("cuda")
