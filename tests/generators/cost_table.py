"""The table of recipes/README.md that says what each recipe's jobs would take and cost on SageMaker.

python tests/generators/cost_table.py --write     # after a change of recipes, prices or assumptions
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rightcall.recipe.loading import load_recipe
from tasks.costs.estimates import clock, estimate_job
from tasks.costs.throughput import Work

ROOT = Path(__file__).parents[2]
README = ROOT / "recipes" / "README.md"
BEGIN, END = "<!-- costs: tests/generators/cost_table.py --write -->", "<!-- /costs -->"
SIZES = {"qwen3-0.6b": (596_000_000, 28), "qwen3-1.7b": (1_721_000_000, 28), "llama-3.2-3b": (3_213_000_000, 28)}
# When2Call: rows of its files; tokens a row are assumed, of a pair for its longer side.
ROWS = {"sft": (15_000, 600), "dpo": (9_000, 700), "score": (3_652, 1_060)}


def table() -> str:
    lines = [
        "| recipe | jobs on | parallel | spot | SFT | DPO | score one model | USD in all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model, (parameters, layers) in SIZES.items():
        for path in sorted((ROOT / "recipes" / model).glob("*.yaml")):
            recipe = load_recipe(path, ["compute.backend=sagemaker"])
            found = {
                stage: estimate_job(stage, recipe, Work(rows * tokens, rows, parameters, layers))
                for stage, (rows, tokens) in ROWS.items()
            }
            settings = recipe.compute.sagemaker
            # base, SFT and SFT+DPO are scored
            usd = sum((estimate.usd or 0) * (3 if stage == "score" else 1) for stage, estimate in found.items())
            scored = settings.score_instance_type
            kinds = f"{settings.instance_type}, scoring on {scored}" if scored else settings.instance_type
            times = " | ".join(clock(estimate.seconds) for estimate in found.values())
            spot = "yes" if settings.spot else "no"
            lines.append(
                f"| `{model}/{path.name}` | {kinds} | {recipe.compute.parallel} | {spot} | {times} | {usd:,.0f} |"
            )
    return "\n".join(lines)


def in_readme() -> str:
    text = README.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)].strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Print the table, or write it into recipes/README.md.")
    parser.add_argument("--write", action="store_true")
    if parser.parse_args().write:
        before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    sys.stdout.write(table() + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
