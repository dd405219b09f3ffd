"""A tiny random Llama folder and a few dozen canonical rows: real files, small enough for every test to use."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

Row = dict[str, Any]

# SmolLM2's own template in short: it never looks at `tools`, which is what the product has to notice.
NO_TOOLS_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
CITIES = ("Paris", "Oslo", "Rome", "Lima", "Cairo", "Tokyo", "Bern", "Quito")
NUMBERS = (2, 3, 4, 5, 6, 7, 8)


def _tool(name: str, description: str, required: list[str], **properties: dict[str, Any]) -> Row:
    parameters = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


WEATHER = _tool(
    "get_weather", "Weather of a city.", ["city"],
    city={"type": "string"}, unit={"type": "string", "enum": ["celsius", "fahrenheit"]},
)  # fmt: skip
TABLE = _tool(
    "book_table", "Book a table.", ["city", "people"],
    city={"type": "string"}, people={"type": "integer"},
)  # fmt: skip
MONEY = _tool(
    "convert_money", "Convert money.", ["amount", "to"],
    amount={"type": "number"}, to={"type": "string"},
)  # fmt: skip
TOOLS = [WEATHER, TABLE, MONEY]


def call_message(name: str, arguments: dict[str, Any]) -> Row:
    function = {"name": name, "arguments": arguments}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
    }


def text_message(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _situations() -> Iterator[tuple[str, str, dict[str, Row], list[Row]]]:
    """(question, behaviour, answer message per behaviour, tools), endlessly, each question different."""
    number = 0
    while True:
        city, people = CITIES[number % len(CITIES)], NUMBERS[number % len(NUMBERS)]
        label = f"case {number}"
        refusal = text_message(f"Sorry, I cannot do that: no tool fits {label}.")
        yield (
            f"What is the weather in {city}? ({label})", "tool_call",
            {"tool_call": call_message("get_weather", {"city": city}),
             "direct": text_message(f"It is sunny in {city}."),
             "request_for_info": text_message("Which unit do you want?"), "cannot_answer": refusal}, TOOLS,
        )  # fmt: skip
        yield (
            f"Book a table for {people}. ({label})", "request_for_info",
            {"tool_call": call_message("book_table", {"city": "Rome", "people": people}),
             "direct": text_message(f"Your table for {people} is booked."),
             "request_for_info": text_message("In which city should I book the table?"),
             "cannot_answer": refusal}, TOOLS,
        )  # fmt: skip
        yield (
            f"Sing a song about {city}. ({label})", "cannot_answer",
            {"tool_call": call_message("get_weather", {"city": city}), "direct": text_message(f"La la {city}."),
             "request_for_info": text_message("Which song?"), "cannot_answer": refusal},
            [] if number % 4 == 3 else TOOLS[:2],
        )  # fmt: skip
        yield (
            f"What is {people} plus {people}? ({label})", "direct",
            {"tool_call": call_message("convert_money", {"amount": people, "to": "euro"}),
             "direct": text_message(f"It is {2 * people}."),
             "request_for_info": text_message("Which numbers?"), "cannot_answer": refusal}, TOOLS,
        )  # fmt: skip
        number += 1


def tiny_sft_rows(n: int = 24) -> list[Row]:
    rows = []
    for index, (question, behaviour, answers, tools) in zip(range(n), _situations(), strict=False):
        messages = [{"role": "user", "content": question}, answers[behaviour]]
        rows.append(
            {"id": f"sft-{index}", "source": "tiny", "messages": messages, "tools": tools, "behaviour": behaviour}
        )
    return rows


def tiny_preference_rows(n: int = 24) -> list[Row]:
    rows = []
    for index, (question, behaviour, answers, tools) in zip(range(n), _situations(), strict=False):
        others = [name for name in answers if name != behaviour]
        rejected_kind, rejected = others[index % 3], answers[others[index % 3]]
        if behaviour == "tool_call" and index % 8 == 0:
            rejected_kind, rejected = "missing_argument", call_message("get_weather", {})
        rows.append({
            "id": f"preference-{index}", "source": "tiny", "tools": tools,
            "prompt": [{"role": "user", "content": question}],
            "chosen": answers[behaviour], "rejected": rejected, "behaviour": behaviour, "rejected_kind": rejected_kind,
        })  # fmt: skip
    return rows


def tiny_choice_rows(n: int = 16) -> list[Row]:
    rows = []
    for index, (question, behaviour, answers, tools) in zip(range(n), _situations(), strict=False):
        call = answers["tool_call"]["tool_calls"][0]["function"]
        texts = {name: message["content"] for name, message in answers.items()} | {"tool_call": json.dumps(call)}
        rows.append({
            "id": f"choice-{index}", "source": "tiny", "question": question.replace("case", "item"), "tools": tools,
            "answers": {name: texts[name] for name in ("direct", "tool_call", "request_for_info", "cannot_answer")},
            "correct_answer": behaviour,
        })  # fmt: skip
    return rows


def write_tiny_sources(folder: Path) -> dict[str, Path]:
    """sft.jsonl, preference.jsonl and choice.jsonl in the canonical format, by row kind."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {}
    for kind, rows in (
        ("sft", tiny_sft_rows()),
        ("preference", tiny_preference_rows()),
        ("choice", tiny_choice_rows()),
    ):
        paths[kind] = folder / f"{kind}.jsonl"
        paths[kind].write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return paths


@cache
def _trained_tokenizer() -> str:
    """tokenizer.json of a byte-level BPE like SmolLM2's (digits apart), trained on the rows above."""
    tokenizer = Tokenizer(BPE())
    digits, byte_level = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=900, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(text, special=True) for text in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")],
    )  # fmt: skip
    templates = Path(__file__).parents[2] / "training_image/rightcall/chat/templates"
    texts = [path.read_text(encoding="utf-8") for path in sorted(templates.glob("*.jinja"))]
    texts += [json.dumps(row) for row in tiny_preference_rows(64)]
    texts += [json.dumps(row, separators=(",", ":")) for row in tiny_sft_rows(64)] * 4  # as tools stand in a prompt
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer.to_str()


def build_tiny_tokenizer(folder: Path) -> Path:
    """tokenizer.json, tokenizer_config.json and chat_template.jinja (without a tools branch) only: no weights."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(_trained_tokenizer(), encoding="utf-8")
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<|im_start|>", "eos_token": "<|im_end|>",
        "pad_token": "<|im_end|>", "model_max_length": 1024, "clean_up_tokenization_spaces": False,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(NO_TOOLS_TEMPLATE, encoding="utf-8")
    return folder


def build_tiny_model(folder: Path, seed: int = 0) -> Path:
    """A random Llama of two layers, hidden size 32, fp32, tied embeddings: written with numpy, without torch."""
    build_tiny_tokenizer(folder)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    vocabulary, hidden, intermediate, layers = tokenizer.get_vocab_size(), 32, 64, 2
    end = tokenizer.token_to_id("<|im_end|>")
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden,
        "intermediate_size": intermediate, "num_hidden_layers": layers, "num_attention_heads": 2,
        "num_key_value_heads": 1, "head_dim": 16, "hidden_act": "silu", "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "initializer_range": 0.02,
        "bos_token_id": tokenizer.token_to_id("<|im_start|>"), "eos_token_id": end, "pad_token_id": end,
        "dtype": "float32",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    shapes = {"self_attn.q_proj": (32, hidden), "self_attn.k_proj": (16, hidden), "self_attn.v_proj": (16, hidden),
              "self_attn.o_proj": (hidden, 32), "mlp.gate_proj": (intermediate, hidden),
              "mlp.up_proj": (intermediate, hidden), "mlp.down_proj": (hidden, intermediate)}  # fmt: skip
    random = np.random.default_rng(seed)
    weights = {
        "model.embed_tokens.weight": random.normal(0, 0.02, (vocabulary, hidden)),
        "model.norm.weight": np.ones(hidden),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name, shape in shapes.items():
            weights[f"{prefix}{name}.weight"] = random.normal(0, 0.02, shape)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}{name}.weight"] = np.ones(hidden)
    tensors = {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in weights.items()}
    save_file(tensors, str(folder / "model.safetensors"), metadata={"format": "pt"})
    return folder


def tiny_recipe(folder: Path, model: Path) -> Path:
    rows = write_tiny_sources(folder / "rows")
    training = {
        "max_steps": 4,
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "max_length": 512,
        "bf16": False,
    }
    recipe = {
        "name": "tiny",
        "model": {"source": str(model), "chat_template": "chatml-tools"},
        "data": {
            "sft": [{"uri": str(rows["sft"])}],
            "preference": [{"uri": str(rows["preference"])}],
            "evaluation": [{"uri": str(rows["choice"])}],
            "near_duplicate_threshold": 1.0,
            "tolerance": 0.5,
        },
        "sft": training,
        "dpo": training,
        "evaluation": {"dtype": "float32", "generation_items": 2, "max_new_tokens": 4, "bootstrap_samples": 200},
        "compute": {"threads": 1},
    }
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
