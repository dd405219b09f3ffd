"""Our verdicts beside those of BFCL's own checker, on gold and on seeded changes of it; see bench/README.md.

python bench/bfcl_agreement.py --data …/bfcl_eval/data --official OTHER_VENV/bin/python [--seed 42] [--rounds 2]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "training_image"))

from bfcl_perturbed import chosen, first, least, perturbed

from rightcall.rows.tool_schemas import normalise_tools
from rightcall.toolcalls.verifier import compare, parse

Json = dict[str, Any]
CATEGORIES = (
    "simple_python", "multiple", "parallel", "parallel_multiple",
    "live_simple", "live_multiple", "live_parallel", "live_parallel_multiple",
)  # fmt: skip


def cases(data: Path, seed: int, rounds: int) -> Iterator[Json]:
    for category in CATEGORIES:
        name = f"BFCL_v4_{category}.json"
        truths = {each["id"]: each["ground_truth"] for each in read(data / "possible_answer" / name)}
        for record in read(data / name):
            rng = random.Random(f"{seed} {record['id']}")
            truth, functions = truths[record["id"]], record["function"]
            base = {"id": record["id"], "category": category, "functions": functions, "truth": truth}
            yield base | {"changed": "gold, all arguments", "calls": chosen(truth, first)}
            yield base | {"changed": "gold, fewest arguments", "calls": chosen(truth, least)}
            for _ in range(rounds):
                answer = chosen(truth, rng.choice)
                yield base | {"changed": "gold, any accepted values", "calls": answer}
                for changed, other in perturbed(answer, functions, rng):
                    yield base | {"changed": changed, "calls": other}


def read(path: Path) -> list[Json]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def our_verdict(case: Json) -> str:
    """Empty = right, or the error kind, and whether the tool's own schema refuses the call."""
    golds = [
        {"name": name, "accepted": fields, "string_rule": "bfcl"}
        for call in case["truth"]
        for name, fields in call.items()
    ]
    calls = [{"name": name, "arguments": given} for call in case["calls"] for name, given in call.items()]
    verdict = compare(parse(json.dumps(calls)), golds, normalise_tools(case["functions"]), "tool_call")
    return f"{verdict.error_kind or ''}{', its own schema' * (verdict.valid_call is False)}"


def official_verdicts(path: Path, python: str) -> list[str]:
    command = [python, str(Path(__file__).with_name("bfcl_official.py"))]
    with path.open(encoding="utf-8") as lines:
        done = subprocess.run(command, stdin=lines, capture_output=True, text=True, check=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="bfcl_eval/data of the wheel")
    parser.add_argument("--official", required=True, help="a Python that has bfcl-eval==2026.3.23")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--rounds", type=int, default=2, help="changed answers of each kind and question")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path, ours, shown = Path(folder) / "cases.jsonl", [], []
        with path.open("w", encoding="utf-8") as out:
            for case in cases(given.data, given.seed, given.rounds):
                out.write(json.dumps(case) + "\n")
                ours.append(our_verdict(case))
                shown.append((case["id"], case["changed"], json.dumps(case["calls"])[:300]))
        theirs = official_verdicts(path, given.official)
    say = sys.stdout.write
    gold = [index for index, case in enumerate(shown) if case[1].startswith("gold")]
    for name, indices in (("gold", gold), ("changed", sorted(set(range(len(ours))) - set(gold)))):
        both = Counter((not ours[index], not theirs[index]) for index in indices)
        say(f"{name}: {len(indices)} answers, both right {both[True, True]}, both wrong {both[False, False]}, ")
        say(f"we accept and they refuse {both[True, False]}, we refuse and they accept {both[False, True]}\n")
    kinds: Counter[tuple[str, str, str]] = Counter()
    examples: dict[tuple[str, str, str], tuple[str, str, str]] = {}
    for our, their, seen in zip(ours, theirs, shown, strict=True):
        if bool(our) != bool(their):
            kind = ("we refuse" if our else "we accept", our or their, seen[1])
            kinds[kind] += 1
            examples.setdefault(kind, seen)
    for kind, count in kinds.most_common():
        say(f"{count:6d}  {' | '.join(kind)}  e.g. {examples[kind][0]} {examples[kind][2]}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
