"""The model of a training stage: how it is loaded, which of its parameters are trained, and how it is written."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any, Literal

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from rightcall.chat.template import ChatTemplate
from rightcall.errors import TrainingError
from rightcall.job.folders import Job
from rightcall.parallel import processes
from rightcall.recipe.sections import TrainingSection
from rightcall.training import spectrum

logger = logging.getLogger(__name__)

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt",
                   "added_tokens.json", "generation_config.json")  # fmt: skip


def prepare_torch(threads: int | None) -> None:
    """Fixed threads, and on the CPU only deterministic algorithms: a resumed run must give the same result."""
    torch.set_num_threads(threads or os.cpu_count() or 1)
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        # filling new memory costs time, and nothing here reads what it has not written
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def load(job: Job, section: TrainingSection, *, on_gpu: bool = True) -> PreTrainedModel:
    """The model of the channel, in the precision that the device and the method ask for.

    Raises:
        TrainingError: QLoRA is asked for without CUDA and bitsandbytes.
    """
    folder = job.channel("model")
    arguments: dict[str, Any] = {
        "dtype": precision(section), "attn_implementation": "sdpa", "local_files_only": True,
        "trust_remote_code": job.recipe.model.trust_remote_code,
    }  # fmt: skip
    if section.method == "qlora":
        arguments["quantization_config"] = four_bit()
    if torch.cuda.is_available() and on_gpu:
        arguments["device_map"] = {"": torch.cuda.current_device()}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(folder, **arguments)
    model.config.use_cache = False
    return model


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """Only for TRL, which wants the pad token; text goes through rightcall.chat."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return tokenizer


def precision(section: TrainingSection) -> torch.dtype:
    """fp32, whatever the model's size; bf16 on a GPU for what an adapter leaves frozen.

    Steps added to bf16 weights are lost in their rounding, unless fp32 copies are kept, as ZeRO and FSDP do and one
    process does not: the result would depend on how processes share the work.
    """
    adapter = section.method in ("lora", "qlora")
    return torch.bfloat16 if adapter and section.bf16 and torch.cuda.is_available() else torch.float32


def stored_dtype(folder: Path) -> torch.dtype:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, str(config.get("dtype") or config.get("torch_dtype") or "float32"), None)
    return dtype if isinstance(dtype, torch.dtype) else torch.float32


def four_bit() -> BitsAndBytesConfig:
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as err:
        raise TrainingError("method 'qlora' needs bitsandbytes, which is not installed; use method: lora") from err
    if not torch.cuda.is_available():
        raise TrainingError("method 'qlora' needs a CUDA GPU, and this machine has none; use method: lora")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def choose_parameters(model: PreTrainedModel, section: TrainingSection, folder: Path, cache: Path | None) -> Any | None:
    """Freezes what the method does not train; the adapter's config for LoRA, None for the other methods."""
    if section.method in ("lora", "qlora"):
        from peft import LoraConfig

        lora = section.lora
        frozen = "|".join(str(number) for number in range(section.frozen_layers))
        targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
        return LoraConfig(
            r=lora.r,
            lora_alpha=lora.alpha,
            lora_dropout=lora.dropout,
            target_modules=targets,
            task_type="CAUSAL_LM",
            exclude_modules=rf".*\.layers\.({frozen})\..*" if frozen else None,
        )
    if section.method == "spectrum":
        rankings = cache / "spectrum" if cache else None
        digest = weights_digest(folder) if rankings else None
        names = set(_ranked(model, section.spectrum_top_fraction, rankings, digest))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in names)
    if section.frozen_layers:
        freeze_lowest(model, section.frozen_layers)
    return None


def _ranked(model: PreTrainedModel, top_fraction: float, cache: Path | None, digest: str | None) -> list[str]:
    """One process ranks for all: on another kind of processor a near tie could fall the other way."""
    names = spectrum.select(model, top_fraction, cache, digest) if processes.world().first else None
    found: list[str] = processes.from_first(names)
    return found


def freeze_lowest(model: PreTrainedModel, layers: int) -> None:
    """Freezes the embeddings and the lowest `layers` layers; what was frozen above them stays so.

    Raises:
        TrainingError: the model has no layer left to train.
    """
    if layers >= model.config.num_hidden_layers:
        raise TrainingError(
            f"frozen_layers is {layers!r}, but the model has {model.config.num_hidden_layers} layers; leave some to train"
        )
    for parameter in (*model.get_input_embeddings().parameters(), *model.get_output_embeddings().parameters()):
        parameter.requires_grad_(False)
    for name, parameter in model.named_parameters():
        found = re.search(r"\.layers\.(\d+)\.", name)
        if found and int(found[1]) < layers:
            parameter.requires_grad_(False)


def weights_digest(folder: Path) -> str:
    """sha256 over the weight files' names and content."""
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            digest.update(path.name.encode() + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def parameter_counts(model: torch.nn.Module) -> dict[str, int]:
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    return {
        "trained_parameters": trained,
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def rebuild(job: Job, section: TrainingSection, weights: dict[str, torch.Tensor]) -> Any:
    """A whole model from one that processes share: the channel's, with the weights that were trained."""
    unset_hf_deepspeed_config()  # transformers would partition this one as well
    model: Any = load(job, section, on_gpu=False)
    if section.method == "lora":
        from peft import get_peft_model

        adapter: Any = choose_parameters(model, section, job.channel("model"), None)
        model = get_peft_model(model, adapter)
    parameters = dict(model.named_parameters())
    for name, value in weights.items():
        parameters[name].data.copy_(value)
    return model


def as_it_came(model: Any, job: Job, section: TrainingSection) -> Any:
    """The model before its first step: an adapter starts as one that changes nothing."""
    if section.method == "qlora":  # cannot be loaded beside itself
        for name, parameter in model.named_parameters():
            if ".lora_B." in name:
                parameter.data.zero_()
        return model
    return rebuild(job, section, {})


def save(model: Any, job: Job, template: ChatTemplate) -> None:
    """Writes a plain safetensors folder: adapters merged, the tokenizer as it came, the template of the training."""
    source, target = job.channel("model"), job.model
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    if getattr(model.config, "quantization_config", None) is not None:
        model = model.dequantize()
    model.config.use_cache = True
    model.to(stored_dtype(source)).save_pretrained(target)
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    settings = target / "tokenizer_config.json"
    if settings.is_file():  # a second template in there could one day differ from the one that was trained with
        content = json.loads(settings.read_text(encoding="utf-8"))
        content.pop("chat_template", None)
        settings.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    (target / "chat_template.jinja").write_text(template.source, encoding="utf-8")


def device_name() -> Literal["cuda", "cpu"]:
    return "cuda" if torch.cuda.is_available() else "cpu"
