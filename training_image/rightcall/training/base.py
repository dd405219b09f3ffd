"""Stage `base`: a GGUF file or a Hugging Face folder becomes the checked folder that training starts from."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

from rightcall.errors import SourceError
from rightcall.job.folders import Job

logger = logging.getLogger(__name__)

# What transformers' GGUF conversion drops, by the file's own name for its pre-tokenizer (llama.cpp, llama-vocab.cpp).
PRE_TOKENIZERS: dict[str, dict[str, Any]] = {
    "smollm": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Digits", "individual_digits": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        ],
    }
}
COPIED = ("*.safetensors", "*.safetensors.index.json", "config.json", "generation_config.json", "tokenizer*",
          "special_tokens_map.json", "chat_template.jinja", "vocab.json", "merges.txt", "added_tokens.json",
          "LICENSE*")  # fmt: skip
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")


def run(job: Job) -> None:
    """Writes the base model to the job's model folder."""
    prepare(job.channel("model"), job.model, trust_remote_code=job.recipe.model.trust_remote_code)
    write_summary(job)


def prepare(source: Path, target: Path, *, trust_remote_code: bool = False) -> None:
    """Writes a safetensors folder to `target`; the same source gives the same bytes.

    Raises:
        SourceError: the source is neither a GGUF file nor a complete folder of safetensors.
    """
    ggufs = sorted(path for path in source.rglob("*.gguf") if path.is_file())
    if (source / "config.json").is_file():
        copy_folder(source, target, trust_remote_code=trust_remote_code)
    elif len(ggufs) == 1:
        convert_gguf(ggufs[0], target)
    elif ggufs:
        names = [path.name for path in ggufs]
        raise SourceError(f"the model source holds several GGUF files, {names!r}; leave the one to train from")
    else:
        raise SourceError(f"the model source {str(source)!r} holds neither config.json nor a .gguf file; name a model")


def copy_folder(source: Path, target: Path, *, trust_remote_code: bool) -> None:
    """Checks and copies a Hugging Face folder (a copy, not a link: the store must survive edits of the source)."""
    check_folder(source, trust_remote_code=trust_remote_code)
    target.mkdir(parents=True, exist_ok=True)
    patterns = (*COPIED, "*.py") if trust_remote_code else COPIED
    names = sorted({path.name for pattern in patterns for path in source.glob(pattern) if path.is_file()})
    for name in names:
        shutil.copyfile(source / name, target / name)
    logger.info("copied the base model: %d files", len(names))


def check_folder(source: Path, *, trust_remote_code: bool = False) -> None:
    """Checks a Hugging Face folder before it is used.

    Raises:
        SourceError: it has no tokenizer or no whole safetensors weights, or brings code that may not run.
    """
    config = _json(source / "config.json")
    if "auto_map" in config and not trust_remote_code:
        raise SourceError(
            f"the model runs its own code, auto_map={config['auto_map']!r}; "
            "set model.trust_remote_code and pin a revision"
        )
    if not (source / "tokenizer.json").is_file():
        raise SourceError(f"the model folder {str(source)!r} has no tokenizer.json; save the fast tokenizer into it")
    _json(source / "tokenizer.json")
    shards = sorted(path.name for path in source.glob("*.safetensors"))
    if not shards:
        pickles = sorted(path.name for pattern in PICKLES for path in source.glob(pattern))
        found = f"only {pickles!r}, which can run code when loaded" if pickles else "no weights"
        raise SourceError(f"the model folder {str(source)!r} has {found}; convert the weights to safetensors")
    index = source / "model.safetensors.index.json"
    missing = sorted(set(_json(index).get("weight_map", {}).values()) - set(shards)) if index.is_file() else []
    if missing:
        raise SourceError(f"the model folder lacks the shards {missing!r} that its index names; download it again")
    for name in shards:
        _check_weights(source / name)


def _check_weights(path: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt"):
            pass
    except SafetensorError as err:
        raise SourceError(f"the weights {path.name!r} are broken: {err}; download the model again") from err


def convert_gguf(path: Path, target: Path) -> None:
    """Dequantises a GGUF file to fp32: 4-bit blocks do not survive bf16, and training starts from fp32 anyway."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    folder, name = str(path.parent), path.name
    loaded = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    config = AutoConfig.for_model(**_plain_config(loaded.config.to_dict()))
    # save_pretrained of the loaded model fails, because it still counts as quantised
    fresh = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    fresh.load_state_dict(loaded.state_dict())
    fresh.tie_weights()
    fresh.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    fresh.save_pretrained(target)
    convert_tokenizer(path, target, max_length=config.max_position_embeddings)
    logger.info("converted %s: %d parameters in fp32", name, fresh.num_parameters())


def _plain_config(config: dict[str, Any]) -> dict[str, Any]:
    dropped = ("quantization_config", "transformers_version")
    return {key: value for key, value in config.items() if key not in dropped and not key.startswith("_")}


def convert_tokenizer(path: Path, target: Path, max_length: int) -> None:
    """Writes tokenizer.json with the pre-tokenizer that the GGUF names, and the chat template beside it."""
    from gguf import GGUFReader
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(path.parent), gguf_file=path.name)
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    field = GGUFReader(path).get_field("tokenizer.ggml.pre")
    named = field.contents() if field else None
    if named in PRE_TOKENIZERS:
        content["pre_tokenizer"] = PRE_TOKENIZERS[named]
    else:
        logger.warning("pre-tokenizer %r is as transformers converts it; compare its ids with the original's", named)
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings["model_max_length"] = max_length
    settings |= {key: value for key, value in tokenizer.special_tokens_map.items() if isinstance(value, str)}
    _write_json(target / "tokenizer.json", content, indent=None)
    _write_json(target / "tokenizer_config.json", settings)
    if tokenizer.chat_template:
        (target / "chat_template.jinja").write_text(tokenizer.chat_template, encoding="utf-8")


def write_summary(job: Job) -> None:
    """summary.json of this stage: the size of the model, which says what training it will cost."""
    from safetensors import safe_open

    parameters = 0
    for path in sorted(job.model.glob("*.safetensors")):
        with safe_open(path, "pt") as weights:
            for name in weights.keys():  # noqa: SIM118  (safe_open is no mapping)
                shape = weights.get_slice(name).get_shape()
                size = 1
                for length in shape:
                    size *= length
                parameters += size
    layers = _json(job.model / "config.json").get("num_hidden_layers")
    sizes = {"total_parameters": parameters, **({"layers": layers} if layers else {})}
    _write_json(job.output / "summary.json", {"stage": "base", **sizes, "warnings": []})


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as err:
        raise SourceError(f"{path.name!r} of the model folder cannot be read: {err}; download the model again") from err


def _write_json(path: Path, content: dict[str, Any], indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=indent) + "\n", encoding="utf-8")
