"""Written lines of models whose true skill is known, drawn from one process.

A conversation is hard or easy for every model, and a little harder or easier for one of them; a step's answer is then a throw
of a coin. So two models without a difference still differ on each evaluation, and steps of one conversation go together.
"""

from __future__ import annotations

from typing import Any

import numpy as np

BEHAVIOURS = {"tool_call": 0.4, "direct": 0.25, "request_for_info": 0.2, "cannot_answer": 0.15}
SKILL = 0.6
OVERCALLS = 0.3  # share of the wrong answers to steps without a call that are calls
SHARED, OWN = 0.15, 0.08  # standard deviations of a conversation's effect: on both models, on each one


def two_models(steps: int, better_by: float, generator: np.random.Generator) -> tuple[list[dict[str, Any]], ...]:
    """The lines of a candidate and of a baseline on the same steps; the candidate's chance to be right is higher by that."""
    sizes: list[int] = []
    while sum(sizes) < steps:
        sizes.append(min(int(generator.integers(2, 9)), steps - sum(sizes)))
    owner = np.repeat(np.arange(len(sizes)), sizes)
    golds = generator.choice(list(BEHAVIOURS), size=steps, p=list(BEHAVIOURS.values()))
    shared = generator.normal(0, SHARED, len(sizes))
    found = []
    for gain in (better_by, 0.0):
        own = generator.normal(0, OWN, len(sizes))
        chance = np.clip(SKILL + (shared + own)[owner], 0.05, 0.9) + gain
        right = generator.random(steps) < chance
        called = ~right & (golds != "tool_call") & (generator.random(steps) < OVERCALLS)
        found.append([
            _line(f"c{owner[i]}", i, str(golds[i]), right=bool(right[i]), called=bool(called[i])) for i in range(steps)
        ])  # fmt: skip
    return tuple(found)


def _line(conversation: str, step: int, gold: str, *, right: bool, called: bool) -> dict[str, Any]:
    call = right if gold == "tool_call" else None
    verdict = {
        "ok": right, "valid_call": True if called else call, "right_tool": call, "right_arguments": call,
        "right_behaviour": right,
    }  # fmt: skip
    return {
        "id": f"{conversation}/{step}", "conversation": conversation, "group": conversation, "behaviour": gold,
        "text": "", "verdict": verdict, "error_kind": None if right else "did_not_call", "faults": [], "grammar": None,
    }  # fmt: skip
