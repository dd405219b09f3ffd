"""Free-written answers of conversation steps: prefix trees against transformers' `generate` in left-padded batches of 16 without reuse.

    python bench/decoding.py --model MODEL_FOLDER --conversations retail_dev.jsonl.gz --tools retail_tools.json \
        --system retail_policy.md --steps 48
    python bench/decoding.py … --samples 4     answers/s of mining: as many answers are drawn for each step

Every assistant turn is a step, greedily answered after all that was said before it; all steps share policy and tools. Tool results
are cut to `--result-characters`, so that prompts stay inside the window. In float32 both sides must write the same; bfloat16 counts
how many answers differ. Both sides load the same weights in one process; loading is not counted.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from pathlib import Path
from typing import Any

BATCH = 16


def prompts_of(arguments: argparse.Namespace, template: Any) -> list[list[int]]:
    from rightcall.records.reading import to_canonical

    path: Path = arguments.conversations
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        records = [json.loads(line) for line in lines]
    tools = json.loads(arguments.tools.read_text()) if arguments.tools else None
    system = [{"role": "system", "content": arguments.system.read_text()}] if arguments.system else []
    prompts: list[list[int]] = []
    for number, record in enumerate(records):
        messages = [message for message in record["messages"] if not system or message["role"] != "system"]
        for message in messages:
            if message["role"] == "tool":
                message["content"] = str(message["content"])[: arguments.result_characters]
        for index, message in enumerate(messages):
            if message["role"] == "assistant" and len(prompts) < arguments.steps:
                turns = {"messages": system + messages[: index + 1], "tools": tools or record.get("tools")}
                row = to_canonical(turns, "sft", path.name, number)
                prompts.append(template.encode_prompt(row["messages"][:-1], row["tools"]))
    return prompts


def plainly(model: Any, template: Any, prompts: list[list[int]], new: int, low_precision: bool) -> list[list[int]]:
    """As transformers' documentation shows it; batches of like lengths, so that little is padding."""
    import torch
    from transformers import GenerationConfig

    settings = GenerationConfig(
        max_new_tokens=new, do_sample=False, eos_token_id=template.eos_ids, pad_token_id=template.pad_id
    )
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    found: dict[int, list[int]] = {}
    device = next(model.parameters()).device
    for start in range(0, len(order), BATCH):
        batch = order[start : start + BATCH]
        longest = max(len(prompts[index]) for index in batch)
        ids = [[template.pad_id] * (longest - len(prompts[index])) + prompts[index] for index in batch]
        mask = [[0] * (longest - len(prompts[index])) + [1] * len(prompts[index]) for index in batch]
        with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=low_precision):
            out = model.generate(
                input_ids=torch.tensor(ids, device=device), attention_mask=torch.tensor(mask, device=device),
                generation_config=settings,
            )  # fmt: skip
        for index, answer in zip(batch, out[:, longest:].tolist(), strict=True):
            ends = [at for at, token in enumerate(answer) if token in template.eos_ids]
            found[index] = answer[: ends[0]] if ends else answer
    return [found[index] for index in range(len(prompts))]


def load(folder: Path) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    return model.to("cuda") if torch.cuda.is_available() else model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="folder with safetensors")
    parser.add_argument("--template", default="chatml-tools", help="name of a chat template; empty = the model's own")
    parser.add_argument("--conversations", type=Path, required=True, help="JSON lines with messages, may be .gz")
    parser.add_argument("--tools", type=Path, help="JSON file of the tools that all are offered")
    parser.add_argument("--system", type=Path, help="text file of the policy")
    parser.add_argument("--result-characters", type=int, default=300)
    parser.add_argument("--steps", type=int, default=48)
    parser.add_argument("--max-new-tokens", type=int, default=96)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument(
        "--samples", type=int, default=0, help="answers drawn for each step; 0 = the comparison instead"
    )
    parser.add_argument("--ours-only", action="store_true", help="without transformers' side")
    arguments = parser.parse_args()

    from rightcall.chat.template import ChatTemplate
    from rightcall.decoding.decoder import Decoder
    from rightcall.decoding.next_token import Sampling

    template = ChatTemplate.load(arguments.model, arguments.template or None)
    prompts = prompts_of(arguments, template)
    model = load(arguments.model)
    decoder = Decoder(model, template.eos_ids, template.pad_id)
    new, low = arguments.max_new_tokens, arguments.dtype == "bfloat16"
    lengths = sorted(map(len, prompts))
    print(f"{len(prompts)} steps, prompts of {lengths[0]} to {lengths[-1]} tokens, {sum(lengths)} together", flush=True)
    started, busy = time.perf_counter(), time.process_time()
    if arguments.samples:
        many = [prompt for prompt in prompts for _ in range(arguments.samples)]
        drawn = decoder.decode(
            many, max_new_tokens=new, low_precision=low, sampling=Sampling(0.8, seeds=range(len(many)))
        )
        seconds = time.perf_counter() - started
        print(f"{len(drawn)} answers drawn in {seconds:.1f} s: {len(drawn) / seconds:.2f} answers/s, "
              f"{sum(map(len, drawn)) / seconds:.1f} new tokens/s, {arguments.dtype}")  # fmt: skip
        return
    ours = decoder.decode(prompts, max_new_tokens=new, low_precision=low)
    seconds, processor = time.perf_counter() - started, time.process_time() - busy
    print(f"prefix trees: {seconds:.1f} s, {processor:.1f} s of processor time, {sum(map(len, ours))} new tokens, "
          f"{arguments.dtype}", flush=True)  # fmt: skip
    if arguments.ours_only:
        return
    started, busy = time.perf_counter(), time.process_time()
    theirs = plainly(model, template, prompts, new, low)
    baseline, theirs_processor = time.perf_counter() - started, time.process_time() - busy
    same = sum(mine == other for mine, other in zip(ours, theirs, strict=True))
    print(f"generate, batches of {BATCH}: {baseline:.1f} s, {theirs_processor:.1f} s of processor time")
    print(f"same answers: {same} of {len(prompts)}; speed {baseline / seconds:.2f}×, by processor time (a busy machine) "
          f"{theirs_processor / processor:.2f}×")  # fmt: skip


if __name__ == "__main__":
    main()
