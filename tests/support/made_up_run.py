"""A finished pipeline run in a store, with made-up numbers."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from snapshot_writer import write_rows
from tiny import tiny_choice_rows, tiny_sft_rows

from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.rows.vocabulary import BEHAVIOURS
from tasks.reporting.page import gather, render
from tasks.stages.gate import decide_verdict
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind

HOSTILE = "</pre><script>alert('x')</script><img src=x onerror=alert(1)> & \"quotes\" {{ 7*7 }}"
# Probability of the right behaviour per gold behaviour: base, SFT (buys calls with judgement), SFT+DPO.
SKILLS: dict[str, dict[str, float]] = {
    "base": {"direct": 0.5, "tool_call": 0.55, "request_for_info": 0.35, "cannot_answer": 0.4},
    "sft": {"direct": 0.4, "tool_call": 0.95, "request_for_info": 0.3, "cannot_answer": 0.3},
    "dpo": {"direct": 0.7, "tool_call": 0.9, "request_for_info": 0.75, "cannot_answer": 0.7},
}
MISTAKES = {
    "tool_call": "wrong_value",
    "request_for_info": "asked_when_should_call",
    "cannot_answer": "refused_when_should_call",
}


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _preference(step: int) -> dict[str, float]:
    logprobs = {"chosen_logprob": -40 - step / 8, "rejected_logprob": -42 - step / 3}
    return {"margin": step / 40, "rewards_accuracy": min(1.0, 0.5 + step / 100), **logprobs}


SITUATIONS = ("missing value", "tool error", "denied by policy")


def step_rows(n: int) -> list[dict[str, Any]]:
    """Conversations of three steps, each an SFT row's question and answer put after the ones before."""
    rows: list[dict[str, Any]] = []
    for number, row in enumerate(tiny_sft_rows(n)):
        before = rows[-1]["messages"] if number % 3 else [{"role": "system", "content": "Be kind."}]
        conversation = f"c{number // 3}"
        question, answer = row["messages"]
        question = question | {"content": HOSTILE} if number == 0 else question
        rows.append(
            {"id": f"{conversation}/{number % 3}", "source": "tiny", "behaviour": row["behaviour"], "group": conversation,
             "conversation": conversation, "messages": [*before, question, answer], "tools": row["tools"]}
        )  # fmt: skip
    return rows


@dataclass
class MadeUpRun:
    """A finished pipeline run in a store, with made-up but realistic numbers."""

    store: Store
    n: int = 96
    steps: int = 120  # written ones; 0 = the recipe has items alone
    models: dict[str, ArtifactRef] = field(default_factory=dict)
    scores: dict[str, ArtifactRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipe: Recipe = load_recipe(None, ["evaluation.bootstrap_samples=300", "evaluation.policy=null"])
        self.step_rows = step_rows(self.steps)
        self.rows = tiny_choice_rows(self.n)
        if self.rows:
            self.rows[0]["question"] = HOSTILE
        self.snapshot = self._snapshot()
        for label in SKILLS:
            self.models[label] = self._model(label)
            self.scores[label] = self._scores(label)
        self.verdict = decide_verdict.run(
            self.recipe, store=self.store, candidate=self.scores["dpo"], baseline=self.scores["base"], champion=None
        )

    def refs(self) -> dict[str, Any]:
        return {"snapshot": self.snapshot, "models": self.models, "scores": self.scores, "verdict": self.verdict}

    def page(self) -> str:
        return render(gather(self.recipe, self.store, **self.refs()))

    def _commit(self, stage: str, kind: Kind, folder: Path, seconds: float) -> ArtifactRef:
        manifest = {"slice": {}, "inputs": {}, "result": {}, "created": "2026-11-21T08:00:00+00:00", "seconds": seconds,
                    "versions": {"python": "3.11.7", "torch": "2.13.0"}}  # fmt: skip
        return self.store.commit(stage, f"{stage}{folder.parent.name}", kind, folder, manifest)

    def _snapshot(self) -> ArtifactRef:
        folder = self.store.workdir("ingest", "rows")
        write_rows(folder, "choice", self.rows)
        write_rows(folder, "step", self.step_rows)
        counts = {"in": 2_000, "kept": 690, "quarantined": 31, "sampled_out": 1_279, "critical": 4}
        reason = {"count": 22, "severity": "critical", "kinds": {"sft": 22}, "example": f"sft.jsonl line 7: {HOSTILE}"}
        checks = {
            "rows": {"choice": {**counts, "kept": self.n}, "sft": counts, "preference": counts},
            "reasons": {"tool_not_offered": reason, "near_duplicate": reason | {"count": 9, "severity": "warning"}},
            "classes": {kind: dict.fromkeys(BEHAVIOURS, 172) for kind in ("choice", "sft", "preference")},
            "leakage": {"checked": 4_000, "found": 3, "evaluation_questions": self.n, "proved_rows": 1_380,
                        "remaining": 0, "live_rows_in_training": 0},
        }  # fmt: skip
        (folder / "checks.json").write_text(json.dumps(checks))
        return self._commit("ingest", "snapshot", folder, 21.4)

    def _model(self, label: str) -> ArtifactRef:
        folder = self.store.workdir(label, label)
        (folder / "output").mkdir()
        (folder / "weights").write_text(label)
        noise = random.Random(label)
        steps = [
            {
                "step": step, "total_steps": 60, "loss": 1.2 * 0.97**step + noise.gauss(0.4, 0.05),
                "grad_norm": noise.uniform(1, 2), "learning_rate": 5e-5 * (1 - step / 60), "tokens_per_second": 236.0,
                "seconds": step * 2.0, **({"probe_right": step / 80} if step % 20 == 0 else {}),
                **(_preference(step) if label == "dpo" else {}),
            }
            for step in range(1, 61)
        ]  # fmt: skip
        warnings = ["chosen answers become less likely: -0.12 nats per token"] if label == "dpo" else []
        summary: dict[str, Any] = {
            "steps": 60,
            "tokens": 28_320,
            "tokens_per_second": 236.0,
            "peak_memory_bytes": 2_900_000_000,
        }
        summary |= {"warnings": warnings}
        if label != "base":
            (folder / "output/metrics.jsonl").write_text(lines(steps))
            (folder / "output/summary.json").write_text(json.dumps(summary))
        return self._commit(label, "model", folder, 3.2 if label == "base" else 120.4)

    def _scores(self, label: str) -> ArtifactRef:
        folder = self.store.workdir("score", label)
        (folder / "output").mkdir()
        items = []
        for number, row in enumerate(self.rows):
            chance = random.Random(f"{label}-{number % 7}-{number}")
            gold = row["correct_answer"]
            right = chance.random() < SKILLS[label][gold] if number else label == "dpo"
            chosen = gold if right else chance.choice([name for name in BEHAVIOURS if name != gold])
            both = {"prediction": chosen, "prediction_norm": chosen}
            items.append({"id": row["id"], "gold": gold, **both, "has_tools": bool(row["tools"])})
        (folder / "output/items.jsonl").write_text(lines(items))
        if self.steps:
            (folder / "output/written.jsonl").write_text(lines([self._written(label, row) for row in self.step_rows]))
        return self._commit("score", "scores", folder, 47.0)

    def _written(self, label: str, row: dict[str, Any]) -> dict[str, Any]:
        """Conversation and model throw the dice together; the grammar mends half of what is no call."""
        gold, chance = row["behaviour"], random.Random(f"{label}-{row['id']}")
        right = chance.random() < SKILLS[label][gold]
        called = True if gold == "tool_call" or (not right and chance.random() < 0.4) else None
        verdict = {"ok": right, "valid_call": called, "right_behaviour": right, "strict": chance.random() < 0.9}
        verdict |= dict.fromkeys(("right_tool", "right_arguments"), right if gold == "tool_call" else None)
        kind = None if right else MISTAKES.get(gold, "did_not_call")
        said = row["messages"][-1].get("content") or "<tool_call>"
        text = HOSTILE if row["id"] == "c0/0" else f"{said} {chance.random():.3f}"
        answer = {"text": f"{text} ({label})", "verdict": verdict, "error_kind": kind,
                  "faults": ["ungrounded_value"] if called and not right else []}  # fmt: skip
        identity = {name: row[name] for name in ("id", "conversation", "group", "behaviour")}
        situation = SITUATIONS[int(row["conversation"][1:]) % len(SITUATIONS)]
        return {**identity, **answer, "situation": situation, "grammar": answer}
