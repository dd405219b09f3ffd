"""Our scorer beside lm-eval 0.4.13: the same rows, the same model folder, the same machine, in one run.

    git clone https://github.com/NVIDIA/When2Call
    OMP_NUM_THREADS=2 PYTHONPATH=training_image python bench/lm_eval_parity.py \\
        --model MODEL_FOLDER --rows when2call_test_mcq.jsonl --task-dir When2Call --limit 100

lm-eval runs in a virtual environment of its own (made on first use; its pins are not ours) on NVIDIA's official task
files, changed in three places: the data file, no macro_f1 (stock lm-eval has no such metric) and a float32 softmax.
Prints the share of equal predictions, the largest difference of a log-likelihood, and how many times faster we are.
Loading the model is not counted on either side.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TASKS = "evaluation/mcq/lm_eval_harness/when2call"
REQUIREMENTS = ["lm-eval==0.4.13", "torch==2.13.0", "transformers==5.23.0", "accelerate==1.15.0"]
BATCH_SIZE = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="model folder (config.json, model.safetensors, tokenizer.json)"
    )
    parser.add_argument("--rows", type=Path, required=True, help="file in When2Call's mcq schema, .jsonl or .jsonl.gz")
    parser.add_argument("--limit", type=int, default=None, help="first N rows, default all")
    parser.add_argument("--task", default="when2call", help="when2call, when2call-qwen2_5 or when2call-llama3_2")
    parser.add_argument(
        "--task-dir", type=Path, required=True, help="checkout (or bare repository) of NVIDIA/When2Call"
    )
    parser.add_argument(
        "--venv", type=Path, default=Path("/tmp/lmeval-venv"), help="lm-eval's virtual environment, made if absent"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/lm-eval-parity"), help="task files and raw results")
    parser.add_argument(
        "--reuse", action="store_true", help="compare with lm-eval's results of an earlier run in --work"
    )
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    records = read_records(arguments.rows)[: arguments.limit]
    results = arguments.work / f"lm_eval-{arguments.task}-{len(records)}.json"
    if not (arguments.reuse and results.is_file()):
        write_task(arguments.task_dir, arguments.task, records, arguments.work / "task")
        run_lm_eval(make_venv(arguments.venv), arguments.model, arguments.task, arguments.work / "task", results)
    reference = json.loads(results.read_text())
    ours = {dtype: score(arguments.model, records, arguments.task, dtype) for dtype in ("float32", "bfloat16")}
    sys.stdout.write(report(reference, ours) + "\n")


def read_records(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
        return [json.loads(line) for line in lines]


def write_task(checkout: Path, task: str, records: list[dict[str, Any]], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    data = folder / "rows.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in records))
    yaml = official_file(checkout, f"{task}.yaml")
    yaml = re.sub(r"  - metric: macro_f1\n    aggregation: macro_f1\n    higher_is_better: true\n", "", yaml)
    yaml = re.sub(r"data_files: .*", f"data_files: {data}", yaml)
    (folder / f"{task}.yaml").write_text(yaml)
    (folder / "utils.py").write_text(official_file(checkout, "utils.py"))


def official_file(checkout: Path, name: str) -> str:
    path = checkout / TASKS / name
    if path.is_file():
        return path.read_text()
    shown = subprocess.run(
        ["git", "-C", checkout, "show", f"HEAD:{TASKS}/{name}"], capture_output=True, text=True, check=False
    )
    if shown.returncode:
        sys.exit(
            f"{str(checkout)!r} holds no {TASKS}/{name}; clone https://github.com/NVIDIA/When2Call and give --task-dir"
        )
    return shown.stdout


def make_venv(folder: Path) -> Path:
    python = folder / "bin/python"
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        # without the constraint pip takes the CUDA wheels of a newer torch
        constraints = folder / "constraints.txt"
        constraints.write_text("torch==2.13.0\n")
        command = [str(python), "-m", "pip", "install", "-q", *REQUIREMENTS]
        subprocess.run(command, check=True, env=os.environ | {"PIP_CONSTRAINT": str(constraints)})
    return python


def run_lm_eval(python: Path, model: Path, task: str, folder: Path, results: Path) -> None:
    command = [str(python), __file__, "in-lm-eval-venv", str(model), task, str(folder), str(results)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment.pop("PYTHONPATH", None)
    subprocess.run(command, check=True, env=environment)


def in_lm_eval_venv(model: str, task: str, folder: str, results: str) -> None:
    """The only part that runs under lm-eval's own Python."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager

    loaded = HFLM(pretrained=model, dtype="float32", softmax_dtype="float32", device="cpu", batch_size=BATCH_SIZE)
    started = time.monotonic()
    found = lm_eval.simple_evaluate(
        model=loaded,
        tasks=[task],
        task_manager=TaskManager(include_path=folder),
        num_fewshot=0,
        bootstrap_iters=0,
        log_samples=True,
    )
    seconds = time.monotonic() - started
    samples = sorted(found["samples"][task], key=lambda sample: sample["doc_id"])
    items = [
        {
            "id": sample["doc"]["uuid"],
            "loglikelihood": [float(loglik) for loglik, _ in sample["filtered_resps"]],
            "characters": [len(choice) for choice in sample["doc"]["choices"]],
            "acc": sample["acc"],
            "acc_norm": sample["acc_norm"],
        }
        for sample in samples
    ]
    Path(results).write_text(json.dumps({"seconds": seconds, "items": items}))


def score(model: Path, records: list[dict[str, Any]], task: str, dtype: str) -> dict[str, Any]:
    import torch
    from transformers import AutoModelForCausalLM

    from rightcall.chat.template import ChatTemplate
    from rightcall.evaluation.multiple_choice import Plan
    from rightcall.evaluation.questions import read_questions
    from rightcall.likelihood.scorer import Scorer
    from rightcall.recipe.sections import EvaluationSection
    from rightcall.records.reading import to_canonical

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1)))
    # the task's prompts use no chat template, but the loader wants one with a place for tools
    template = ChatTemplate.load(model, "chatml-tools")
    rows = [
        to_canonical(record, "choice", "bench", number) | {"raw_tools": record["tools"]}
        for number, record in enumerate(records)
    ]
    loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    started = time.monotonic()
    plan = Plan(
        Scorer(loaded),
        read_questions(template, rows, task),
        EvaluationSection.model_validate({"prompt": task, "dtype": dtype}),
    )
    items = plan.in_order({number: plan.score(chunk) for number, chunk in enumerate(plan.chunks)})
    return {"seconds": time.monotonic() - started, "items": items}


def report(reference: dict[str, Any], ours: dict[str, dict[str, Any]]) -> str:
    theirs = reference["items"]
    lines = [f"lm-eval 0.4.13 float32  {reference['seconds']:8.1f} s  {len(theirs)} rows"]
    for dtype, run in ours.items():
        pairs = list(zip(theirs, run["items"], strict=True))
        if any(their["id"] != our["id"] or their["characters"] != our["characters"] for their, our in pairs):
            sys.exit("lm-eval and rightcall did not score the same answers; compare --task with the recipe's prompt")
        same = [
            sum(_best(their, norm) == _best(our, norm) for their, our in pairs) / len(pairs) for norm in (False, True)
        ]
        gaps = [
            abs(a - b)
            for their, our in pairs
            for a, b in zip(their["loglikelihood"], our["loglikelihood"], strict=True)
        ]
        faster = reference["seconds"] / run["seconds"]
        lines.append(
            f"rightcall {dtype:8s}      {run['seconds']:8.1f} s  {faster:.2f} times faster, "
            f"same prediction {same[0]:.1%} (acc), {same[1]:.1%} (acc_norm); largest difference of a log-likelihood "
            f"{max(gaps):.2g}; {sum(item['rescored'] for item in run['items'])} near-ties scored again"
        )
    return "\n".join(lines)


def _best(item: dict[str, Any], norm: bool) -> int:
    values = [
        value / length if norm else value
        for value, length in zip(item["loglikelihood"], item["characters"], strict=True)
    ]
    return values.index(max(values))


if __name__ == "__main__":
    if sys.argv[1:2] == ["in-lm-eval-venv"]:
        in_lm_eval_venv(*sys.argv[2:])
    else:
        main()
