"""Fixtures that several subjects share; everything else stands in the test file that uses it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from s3_fixture import running_s3, s3_bucket, s3_server  # noqa: F401  fixtures
from store_roots import any_root  # noqa: F401  a fixture

if TYPE_CHECKING:
    from rightcall.chat.template import ChatTemplate

# Before torch or tokenizers are loaded by any test: two OpenMP threads on a busy machine are slower than one.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
# No test may reach a model hub by accident.
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a tiny random Llama whose own chat template ignores tools. Shared: copy it before changing it."""
    from tiny import build_tiny_model

    return build_tiny_model(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def tiny_sources(tmp_path: Path) -> dict[str, Path]:
    """sft.jsonl, preference.jsonl and choice.jsonl in the canonical format."""
    from tiny import write_tiny_sources

    return write_tiny_sources(tmp_path / "sources")


@pytest.fixture(scope="session")
def template(tiny_model: Path) -> ChatTemplate:
    from rightcall.chat.template import ChatTemplate

    return ChatTemplate.load(tiny_model, "chatml-tools")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model with weights ten times as large: with the usual ones it finds all tokens about equally likely."""
    import torch
    from transformers import AutoModelForCausalLM

    loaded = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return loaded
