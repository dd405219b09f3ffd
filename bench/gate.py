"""How often the gate is wrong, and whether the n that it asks for does what it says.

    python bench/gate.py --gates 1000

A/A: candidate and baseline are two copies of one model; a GO is wrong. Planted: the candidate is 5 points better; pilots in which
the gate measured just that say how many steps they want, and at that n the gate is asked anew, on other conversations.
Models are drawn as in tests/support/simulated_models.py. Prints the shares with exact 95% intervals.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.stats import beta

sys.path.insert(0, str(Path(__file__).parents[1] / "tests/support"))

from simulated_models import two_models

from rightcall.measurement.gate import Answers, Verdict, decide
from rightcall.measurement.proof import POWER
from rightcall.recipe.sections import GateSection

DEFAULT = GateSection()
ALONE = GateSection(must_improve=("right",), must_not_drop={})
PILOT_STEPS, PILOTS, PLANTED = 400, 20, 0.05


def gate(policy: GateSection, steps: int, better_by: float, seed: int, *, champion: bool = False) -> Verdict:
    generator = np.random.default_rng(seed)
    candidate, baseline = two_models(steps, better_by, generator)
    answers = Answers(lines=candidate), Answers(lines=baseline), Answers(lines=baseline) if champion else None
    return decide(policy, *answers, confidence=0.95, bootstrap_samples=1000, seed=seed)


def share(found: int, of: int) -> str:
    low = beta.ppf(0.025, found, of - found + 1) if found else 0.0
    high = beta.ppf(0.975, found + 1, of - found) if found < of else 1.0
    return f"{found}/{of} = {found / of:.3f} [{low:.3f}, {high:.3f}]"


def pilots() -> list[int]:
    """The n that each of some pilots asks for which measured exactly the planted difference."""
    asked: list[int] = []
    seed = 10_000_000
    while len(asked) < PILOTS:
        seed += 1
        verdict = gate(ALONE, PILOT_STEPS, PLANTED, seed)
        needed = verdict.conditions[0].needed
        if abs(verdict.differences["baseline"]["right"].value - PLANTED) < 1e-9 and needed is not None:
            asked.append(needed)
    return asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--gates", type=int, default=1000)
    gates = parser.parse_args().gates
    begun = time.monotonic()
    for steps in (100, 300, 1000):
        for name, policy, champion in (("right alone", ALONE, False), ("default policy", DEFAULT, steps > 300)):
            outcomes = [gate(policy, steps, 0.0, seed, champion=champion).verdict for seed in range(gates)]
            print(f"A/A, {steps} steps, {name}: GO {share(outcomes.count('GO'), gates)}, "
                  f"NO-GO {share(outcomes.count('NO-GO'), gates)}", flush=True)  # fmt: skip
    asked = pilots()
    print(f"planted +{PLANTED}: {PILOTS} pilots of {PILOT_STEPS} steps ask for {min(asked)} to {max(asked)} steps, "
          f"median {int(np.median(asked))}, and predict a power of {POWER:.0%}", flush=True)  # fmt: skip
    outcomes = [gate(ALONE, asked[seed % PILOTS], PLANTED, 20_000_000 + seed).verdict for seed in range(gates)]
    print(f"at the n asked for, each pilot's own: GO {share(outcomes.count('GO'), gates)}")
    print(f"{time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
