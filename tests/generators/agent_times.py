"""Minutes and dollars by model size, for docs/your-agent.md, from the assumptions of tasks/costs.

python tests/generators/agent_times.py --write     # after a change of prices or assumptions
"""

from __future__ import annotations

import math
import sys

from field_list import main

from rightcall.recipe.loading import load_recipe
from tasks.costs.prices import price_of
from tasks.costs.throughput import CPU_FLOPS_PER_VCPU, START_SECONDS, Work, duration, flops_per_token

SIZES = {
    "135M (SmolLM2)": (134_515_008, 30),
    "0.6B": (596_000_000, 28),
    "1.7B": (1_721_000_000, 28),
    "3B": (3_213_000_000, 28),
}
MACHINES = {
    "1 × A10G (24 GB)": "ml.g5.2xlarge",
    "1 × L40S (48 GB)": "ml.g6e.2xlarge",
    "1 × H100 (80 GB)": "ml.p5.4xlarge",
}
CONVERSATIONS, TOKENS, PASSES = 1000, 3000, 2
LAPTOP_VCPUS = 4  # 2 cores


def agent_times() -> str:
    names = [*MACHINES]
    lines = [f"| model | 2 CPU cores | {' | '.join(names)} |", "|---" * (2 + len(names)) + "|"]
    overrides = ["sft.max_steps=-1", f"sft.num_train_epochs={PASSES}", "sft.frozen_layers=0", "sft.method=lora"]
    recipe = load_recipe(None, overrides)
    for size, (parameters, layers) in SIZES.items():
        work = Work(CONVERSATIONS * TOKENS, CONVERSATIONS, parameters, layers)
        hours = work.tokens * PASSES * flops_per_token(recipe.sft, work) / (LAPTOP_VCPUS * CPU_FLOPS_PER_VCPU) / 3600
        cells = [_hours(hours)]
        for instance in MACHINES.values():
            found = duration("sft", recipe, work, instance, 1)
            price = price_of(instance)
            if found is None:
                cells.append("–")
                continue
            seconds = found.seconds - START_SECONDS
            usd = f", {price.usd_per_hour * found.seconds / 3600:,.2f} USD" if price else ""
            cells.append(f"{max(1, math.ceil(seconds / 60))} min{usd}")
        lines.append(f"| {size} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _hours(hours: float) -> str:
    return f"{hours:,.0f} h" if hours < 100 else f"{hours / 24:,.0f} days"


if __name__ == "__main__":
    sys.exit(main("agent_times", agent_times))
