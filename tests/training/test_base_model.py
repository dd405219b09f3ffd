"""Stage `base`: GGUF files and model folders become the folder that training starts from, or a clear error."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from rightcall.errors import SourceError
from rightcall.training import base


def write_gguf(model: Path, target: Path, pre: str = "smollm") -> None:
    """The tiny model as llama.cpp's converter writes it: fp32, with query and key rows in rotary pairs."""
    config = json.loads((model / "config.json").read_text())
    tokenizer = json.loads((model / "tokenizer.json").read_text())["model"]
    writer = gguf.GGUFWriter(target, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    tokens = sorted(tokenizer["vocab"], key=tokenizer["vocab"].__getitem__)
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges([" ".join(merge) for merge in tokenizer["merges"]])
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_chat_template((model / "chat_template.jinja").read_text())
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    for name, tensor in load_file(model / "model.safetensors").items():
        values = tensor.numpy()
        for kind, count in heads.items():
            if kind in name:
                halves = values.reshape(count, 2, values.shape[0] // count // 2, values.shape[1])
                values = np.ascontiguousarray(halves.swapaxes(1, 2).reshape(values.shape))
        short = names.get_name(name, try_suffixes=(".weight",))
        assert short is not None
        writer.add_tensor(short, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def gguf_source(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gguf")
    (folder / "llm").mkdir()  # as in the wheel: one folder down
    write_gguf(tiny_model, folder / "llm" / "tiny.gguf")
    return folder


@pytest.fixture(scope="module")
def converted(gguf_source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("converted")
    base.prepare(gguf_source, target)
    return target


def test_a_converted_gguf_computes_what_the_original_computes(tiny_model: Path, converted: Path) -> None:
    ids = torch.tensor([[5, 9, 300, 17, 4]])
    with torch.no_grad():
        original, ours = (
            AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)(ids).logits
            for folder in (tiny_model, converted)
        )
    torch.testing.assert_close(ours, original, atol=1e-5, rtol=0)


def test_a_converted_gguf_splits_digits_again(tiny_model: Path, converted: Path) -> None:
    text = "<|im_start|>user\nCall 12345 for 2 people é<|im_end|>"
    ids = [AutoTokenizer.from_pretrained(folder)(text)["input_ids"] for folder in (tiny_model, converted)]
    assert ids[0] == ids[1]
    assert len(AutoTokenizer.from_pretrained(converted).tokenize("12345")) == 5


def test_a_converted_gguf_is_a_plain_folder(tiny_model: Path, converted: Path) -> None:
    names = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert set(digests(converted)) == names | {"chat_template.jinja"}
    config = json.loads((converted / "config.json").read_text())
    assert not [key for key in config if key.startswith("_") or key == "quantization_config"]
    assert (converted / "chat_template.jinja").read_text() == (tiny_model / "chat_template.jinja").read_text()
    generation = json.loads((converted / "generation_config.json").read_text())
    assert generation["eos_token_id"] == config["eos_token_id"]


def test_the_same_gguf_gives_the_same_bytes(gguf_source: Path, converted: Path, tmp_path: Path) -> None:
    base.prepare(gguf_source, tmp_path / "again")
    assert digests(tmp_path / "again") == digests(converted)


def test_a_model_folder_is_copied_byte_for_byte(tiny_model: Path, tmp_path: Path) -> None:
    base.prepare(tiny_model, tmp_path / "model")
    assert digests(tmp_path / "model") == digests(tiny_model)


def spoil(name: str, folder: Path) -> None:
    if name == "truncated":
        weights = folder / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-10])
    elif name == "pickle":
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif name == "code":
        config = json.loads((folder / "config.json").read_text()) | {"auto_map": {"AutoModel": "evil.Model"}}
        (folder / "config.json").write_text(json.dumps(config))
    elif name == "shard":
        index = {"weight_map": {"a": "model-00001-of-00002.safetensors"}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    elif name == "config":
        (folder / "config.json").write_text("{")
    elif name == "several":
        (folder / "config.json").unlink()
        (folder / "a.gguf").touch()
        (folder / "b.gguf").touch()
    else:
        (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("tokenizer.json", "has no tokenizer.json; save the fast tokenizer"),
        ("model.safetensors", "has no weights; convert the weights to safetensors"),
        ("config.json", "holds neither config.json nor a .gguf file"),
        ("config", "'config.json' of the model folder cannot be read"),
        ("truncated", "the weights 'model.safetensors' are broken"),
        ("pickle", r"only \['pytorch_model.bin'\], which can run code when loaded"),
        ("code", "runs its own code"),
        ("shard", r"lacks the shards \['model-00001-of-00002.safetensors'\]"),
        ("several", r"several GGUF files, \['a.gguf', 'b.gguf'\]"),
    ],
)
def test_an_unusable_model_folder_is_a_clear_error_and_survives(
    tiny_model: Path, tmp_path: Path, damage: str, message: str
) -> None:
    source = shutil.copytree(tiny_model, tmp_path / "source")
    spoil(damage, source)
    before = digests(source)
    with pytest.raises(SourceError, match=message):
        base.prepare(source, tmp_path / "target")
    assert digests(source) == before
