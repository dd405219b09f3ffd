"""Training tokens/s: our SFT stage beside a plain TRL script with the AWS sample's settings, on the same model, rows and machine.

    python bench/training.py --model MODEL_FOLDER --rows sgd_sft_large.jsonl.gz --steps 3
    python bench/training.py --model MODEL_FOLDER --conversations retail_train.jsonl.gz --tools retail_tools.json --max-length 4096

The plain script is what TRL's documentation shows: SFTTrainer on conversational rows, per-device batch 4, gradient accumulation 2,
activation checkpointing, bf16, the upper half of each module type trained (Spectrum), padding to the longest row. TRL tokenises by
the same chat template. Both see the same rows in batches of 8; a token is one that either must train on or condition on, padding not
counted. Each side runs in a process of its own, and its clock starts at its second step: imports and loading are not counted.

Conversations share one set of tools and are cut at the end, by whole turns, to what fits. There the plain script gets our ids and labels:
TRL would train on every token, or ask for a template with generation markers. Both then train on the same tokens.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BATCH, ACCUMULATION = 4, 2


def rows_of(path: Path, count: int) -> list[dict[str, Any]]:
    from rightcall.records.reading import to_canonical

    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        numbered = zip(range(count), lines, strict=False)
        return [to_canonical(json.loads(line), "sft", path.name, number) for number, line in numbered]


def conversations_of(
    path: Path, tools: list[dict[str, Any]], count: int, template: Any, max_length: int
) -> list[dict[str, Any]]:
    from rightcall.records.reading import to_canonical

    found: list[dict[str, Any]] = []
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines):
            messages = json.loads(line)["messages"]
            turns = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
            whole = to_canonical({"messages": messages[: turns[-1] + 1], "tools": tools}, "sft", path.name, number)
            pairs = [(whole["messages"][: turn + 1], whole["tools"]) for turn in turns]
            fitting = [
                turn for turn, length in zip(turns, template.count_tokens(pairs), strict=True) if length <= max_length
            ]
            if fitting:
                trained = [[turn, "direct"] for turn in fitting]
                found.append({**whole, "messages": whole["messages"][: fitting[-1] + 1], "trained": trained})
            if len(found) == count:
                return found
    raise SystemExit(
        f"{path.name} has {len(found)} conversations of at most {max_length} tokens, {count} are needed; fewer --steps"
    )


def encoded(rows: list[dict[str, Any]], template: Any, max_length: int) -> list[dict[str, Any]]:
    """Ids and labels as our stage trains on them, for TRL."""
    from rightcall.training.encoding import encode_conversations

    made = encode_conversations(rows, template, max_length, {}).rows
    return [{"input_ids": row["input_ids"], "labels": row["labels"]} for row in made]


def plain(
    model_folder: Path, examples: list[dict[str, Any]], *, steps: int, template: str, names: list[str], max_length: int
) -> dict[str, float]:
    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    tokenizer.chat_template = template
    model = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    chosen = set(names)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in chosen)
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=steps, per_device_train_batch_size=BATCH, gradient_accumulation_steps=ACCUMULATION,
        learning_rate=5e-5, bf16=True, use_cpu=not torch.cuda.is_available(), gradient_checkpointing=True, max_length=max_length,
        report_to="none", save_strategy="no", disable_tqdm=True, logging_steps=1, seed=42,
        dataset_kwargs={"skip_prepare_dataset": "input_ids" in examples[0]},
    )  # fmt: skip
    trainer = SFTTrainer(
        model=model, args=arguments, train_dataset=Dataset.from_list(examples), processing_class=tokenizer
    )
    marks: list[tuple[float, float]] = []

    class Clock(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            marks.append((time.perf_counter(), float(trainer._total_train_tokens)))

    trainer.add_callback(Clock())
    trainer.train()
    return {"seconds": marks[-1][0] - marks[0][0], "tokens": marks[-1][1] - marks[0][1]}


def ours(model_folder: Path, rows: list[dict[str, Any]], steps: int, max_length: int) -> dict[str, float]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from rightcall.recipe.loading import load_recipe
    from rightcall.rows.snapshots import to_columns

    root = Path(tempfile.mkdtemp())
    data = root / "input" / "data"
    for name in ("job", "dataset"):
        (data / name).mkdir(parents=True)
    (data / "model").symlink_to(model_folder.resolve())
    (root / "input" / "config").mkdir()
    resources = {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    (root / "input" / "config" / "resourceconfig.json").write_text(json.dumps(resources))
    table = pa.Table.from_pylist([{**to_columns({"trained": None, **row}, "sft"), "n_tokens": 0} for row in rows])
    pq.write_table(table, data / "dataset" / "sft.parquet")
    changes = [
        f"sft.max_steps={steps}", f"sft.per_device_train_batch_size={BATCH}", f"sft.gradient_accumulation_steps={ACCUMULATION}",
        f"sft.max_length={max_length}", "sft.learning_rate=5e-5", "sft.method=spectrum",
        # not what the quickstart asks for
        "model.chat_template=chatml-tools", "sft.frozen_layers=0", "sft.warmup_steps=0", "sft.first_token_weight=1",
        "sft.behaviour_weights={}",
        f"compute.threads={os.environ['OMP_NUM_THREADS']}",
    ]  # fmt: skip
    recipe = load_recipe(None, changes).model_dump(mode="json", by_alias=True)
    (data / "job" / "job.json").write_text(json.dumps({"stage": "sft", "recipe": recipe}))
    environment = {**os.environ, "SM_ML_ROOT": str(root), "RIGHTCALL_CACHE": str(root / "cache")}
    subprocess.run(
        [sys.executable, str(ROOT / "training_image" / "entry.py")], env=environment, check=True, capture_output=True
    )
    lines = [json.loads(line) for line in (root / "output" / "data" / "metrics.jsonl").read_text().splitlines()]
    names = ("seconds", "tokens", "tokens_computed")
    return {name: lines[-1][name] - lines[0][name] for name in names}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    rows_from = parser.add_mutually_exclusive_group(required=True)
    rows_from.add_argument("--rows", type=Path)
    rows_from.add_argument("--conversations", type=Path)
    parser.add_argument("--tools", type=Path, help="JSON file of the tools that every conversation is offered")
    parser.add_argument("--max-length", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--plain", type=Path, help=argparse.SUPPRESS)  # the child process: where to write its numbers
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", str(os.cpu_count()))
    from rightcall.chat.template import ChatTemplate

    template, count = ChatTemplate.load(given.model, "chatml-tools"), BATCH * ACCUMULATION * given.steps
    if given.conversations:
        tools = json.loads(given.tools.read_text(encoding="utf-8"))
        rows = conversations_of(given.conversations, tools, count, template, given.max_length)
    else:
        rows = rows_of(given.rows, count)
    if given.plain:
        from transformers import AutoModelForCausalLM

        from rightcall.training import spectrum

        examples = [{"messages": row["messages"], "tools": json.dumps(row["tools"])} for row in rows]
        if given.conversations:
            examples = encoded(rows, template, given.max_length)
        names = spectrum.select(AutoModelForCausalLM.from_pretrained(given.model), 0.5, None, None)
        found = plain(
            given.model, examples, steps=given.steps, template=template.source, names=names, max_length=given.max_length
        )
        given.plain.write_text(json.dumps(found))
        return
    numbers = {"rightcall": ours(given.model, rows, given.steps, given.max_length)}
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "plain.json"
        subprocess.run(
            [sys.executable, __file__, *sys.argv[1:], "--plain", str(answer)], check=True, capture_output=True
        )
        numbers["plain TRL"] = json.loads(answer.read_text())
    rates = {name: number["tokens"] / number["seconds"] for name, number in numbers.items()}
    for name, number in numbers.items():
        print(f"{name:<10} {number['tokens']:8.0f} tokens in {number['seconds']:7.1f} s   {rates[name]:7.1f} tokens/s")
    computed = numbers["rightcall"]["tokens_computed"]
    print(
        f"rightcall computed {computed:.0f} of its tokens, {numbers['rightcall']['tokens'] / computed:.2f} times fewer"
    )
    print(f"ratio {rates['rightcall'] / rates['plain TRL']:.2f}")


if __name__ == "__main__":
    main()
