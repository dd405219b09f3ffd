"""Ingestion and checks: rows per second and peak memory, of a file and of the same rows repeated with changed ids.

    python bench/ingestion.py /work/shared/data/sgd_sft_large.jsonl.gz --rows 1000000

Each measurement is a process of its own (peak memory is its resident set) over the code that the flow runs: reading,
canonical form, token counts, schemas, duplicates, leakage, Great Expectations, Parquet. It prints one JSON line a run
and the ratio of the two speeds. Repeated rows are exact duplicates: found by a hash of their content, ids left out. With
--distinct every repetition has other words in its user turns, so that each row goes all the way.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from itertools import cycle
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("rows_file", type=Path, help="SFT rows, .jsonl or .jsonl.gz")
    parser.add_argument(
        "--evaluation", type=Path, help="multiple-choice items (default: sgd_eval_dev.jsonl.gz beside the rows)"
    )
    parser.add_argument(
        "--model", type=Path, help="folder with a tokenizer (default: the newest base model in the store)"
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--distinct", action="store_true", help="other words in every repetition")
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    evaluation = given.evaluation or given.rows_file.with_name("sgd_eval_dev.jsonl.gz")
    model = given.model or newest_base()
    if given.measure:
        print(json.dumps(measure(given.rows_file, evaluation, model)))
        return
    with tempfile.TemporaryDirectory(prefix="rightcall-bench-") as folder:
        repeated = Path(folder) / "repeated.jsonl"
        write_repeated(given.rows_file, repeated, given.rows, distinct=given.distinct)
        once = measure_in_child(given.rows_file, evaluation, model)
        print("once    ", json.dumps(once))
        many = measure_in_child(repeated, evaluation, model)
        print("repeated", json.dumps(many))
    speed = many["rows_per_second"] / once["rows_per_second"]
    memory = many["peak_memory_mib"] / once["peak_memory_mib"]
    print(
        f"{many['rows']:,} rows against {once['rows']:,}: {speed:.2f} times the rows/s, "
        f"{memory:.2f} times the peak memory"
    )


def newest_base() -> Path:
    store = Path(os.environ.get("RIGHTCALL_HOME") or ROOT / ".rightcall") / "store"
    found = sorted(store.glob("base/*/model"), key=lambda path: path.stat().st_mtime)
    if not found:
        sys.exit(f"no base model in {store}; run make quickstart first, or name a folder with a tokenizer by --model")
    return found[-1]


def write_repeated(rows_file: Path, target: Path, count: int, *, distinct: bool = False) -> None:
    """The same rows again and again; every row has an id of its own, so nothing is equal byte by byte."""
    with gzip.open(rows_file, "rt") if rows_file.suffix == ".gz" else rows_file.open() as stream:
        records = [json.loads(line) for line in stream]
    words = sorted({word for record in records for turn in user_turns(record) for word in turn["content"].split()})
    generator = random.Random(20261121)
    with target.open("w") as out:
        for number, record in zip(range(count), cycle(records), strict=False):
            if distinct:  # the record itself: each time around its turns get new words
                for turn in user_turns(record):
                    turn["content"] = " ".join(generator.choices(words, k=max(8, len(turn["content"].split()))))
            out.write(json.dumps({**record, "id": f"row-{number}"}) + "\n")


def user_turns(record: dict[str, Any]) -> list[dict[str, Any]]:
    return [message for message in record["messages"] if message["role"] == "user"]


def measure_in_child(rows_file: Path, evaluation: Path, model: Path) -> dict[str, float]:
    command = [
        sys.executable,
        __file__,
        str(rows_file),
        "--evaluation",
        str(evaluation),
        "--model",
        str(model),
        "--measure",
    ]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "training_image")])}
    output = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(output.splitlines()[-1])


def measure(rows_file: Path, evaluation: Path, model: Path) -> dict[str, float]:
    from rightcall.chat.template import ChatTemplate
    from rightcall.recipe.schema import Recipe
    from tasks.data.snapshot import build_snapshot

    section = {"max_steps": 1, "learning_rate": 1e-5, "max_length": 2048}
    data = {
        "sft": [{"uri": str(rows_file)}],
        "preference": [],
        "evaluation": [{"uri": str(evaluation)}],
        "tolerance": 1.0,
    }
    model_section = {"source": str(model), "chat_template": "chatml-tools"}
    recipe = Recipe.model_validate(
        {"name": "bench", "model": model_section, "data": data, "sft": section, "dpo": {**section, "max_steps": 0}}
    )
    with tempfile.TemporaryDirectory(prefix="rightcall-bench-") as folder:
        output, scratch = Path(folder) / "out", Path(folder) / "scratch"
        output.mkdir()
        started = time.perf_counter()
        template = ChatTemplate.load(model, "chatml-tools")
        counts = build_snapshot(recipe, template, output, scratch, Path(folder) / "cache")["rows"]
        seconds = time.perf_counter() - started
    rows = sum(each["in"] for each in counts.values())
    return {
        "rows": rows,
        "kept": sum(each["kept"] for each in counts.values()),
        "seconds": round(seconds, 2),
        "rows_per_second": round(rows / seconds, 1),
        "peak_memory_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
    }


if __name__ == "__main__":
    main()
