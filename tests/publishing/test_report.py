"""The report and the closing table: complete, self-contained, safe with untrusted text, honest about failures."""

from __future__ import annotations

import html.parser
import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny_choice_rows

from rightcall.measurement.metrics import CLASSES
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.rows.snapshots import write_rows
from tasks.reporting.closing_table import closing_table
from tasks.reporting.page import gather, render
from tasks.reporting.page_data import stage_sentences
from tasks.results.files import report_path
from tasks.results.scores import Scores, compare, read_scores
from tasks.stages.gate import decide_verdict
from tasks.stages.report import write_report
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


@dataclass
class MadeUpRun:
    """A finished pipeline run in a store, with made-up but realistic numbers."""

    store: Store
    n: int = 96
    models: dict[str, ArtifactRef] = field(default_factory=dict)
    scores: dict[str, ArtifactRef] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.recipe: Recipe = load_recipe(None, ["evaluation.bootstrap_samples=300"])
        self.rows = tiny_choice_rows(self.n)
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
        counts = {"in": 2_000, "kept": 690, "quarantined": 31, "sampled_out": 1_279, "critical": 4}
        reason = {"count": 22, "severity": "critical", "kinds": {"sft": 22}, "example": f"sft.jsonl line 7: {HOSTILE}"}
        checks = {
            "rows": {"choice": {**counts, "kept": self.n}, "sft": counts, "preference": counts},
            "reasons": {"tool_not_offered": reason, "near_duplicate": reason | {"count": 9, "severity": "warning"}},
            "classes": {kind: dict.fromkeys(CLASSES, 172) for kind in ("choice", "sft", "preference")},
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
                "seconds": step * 2.0, **(_preference(step) if label == "dpo" else {}),
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
        items, generations = [], []
        for number, row in enumerate(self.rows):
            chance = random.Random(f"{label}-{number % 7}-{number}")
            gold = row["correct_answer"]
            right = chance.random() < SKILLS[label][gold] if number else label == "dpo"
            chosen = gold if right else chance.choice([name for name in CLASSES if name != gold])
            both = {"prediction": chosen, "prediction_norm": chosen}
            items.append({"id": row["id"], "gold": gold, **both, "has_tools": bool(row["tools"])})
            if number % 3 == 0:
                kind = None if right else MISTAKES.get(chosen, "did_not_call")
                text = HOSTILE if number == 0 else row["answers"][chosen]
                called = right if gold == "tool_call" else None
                verdict = {"ok": right, "valid_call": right, "right_behaviour": right}
                verdict |= {"right_tool": called, "right_arguments": called}
                line = {"id": row["id"], "gold": gold, "text": f"{text} ({label})", "verdict": verdict}
                generations.append({**line, "parsed": {}, "error_kind": kind})
        (folder / "output/items.jsonl").write_text(lines(items))
        (folder / "output/generations.jsonl").write_text(lines(generations))
        return self._commit("score", "scores", folder, 47.0)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    return MadeUpRun(Store(tmp_path_factory.mktemp("report") / "store"))


@pytest.fixture(scope="module")
def page(run: MadeUpRun) -> str:
    return run.page()


class Reader(html.parser.HTMLParser):
    """Tags that are open, those with an address, and the text as a reader sees it."""

    VOID = ("meta", "br", "img", "path", "use", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_asks_for_nothing_from_outside(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not {"script", "img", "iframe", "link"} & set(reader.tags)


def test_ids_are_unique_on_the_page(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_untrusted_text_is_shown_not_run(page: str) -> None:
    """In a question, in a model's answer, in a quarantined row: three sources, one string."""
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert Reader(page).text.count(HOSTILE) >= 3


def test_every_part_is_there(page: str, run: MadeUpRun) -> None:
    text = Reader(page).text
    parts = ("Verdict", "What each stage added", "Scores", "Recall per behaviour", "Training", "Data", "Lineage",
             "Where the models differ", "Time and cost", "keyword rule", "SFT+DPO", "acc_norm", "Leakage",
             "gen_right_behaviour", "tool_not_offered", "chosen answers become less likely",
             run.snapshot.uri[:24], run.models["dpo"].digest[:16])  # fmt: skip
    assert [part for part in parts if part not in text] == []
    assert page.count("<svg") == 5
    assert f"name: {run.recipe.name}" in text


def test_the_report_is_a_stage_and_small(run: MadeUpRun) -> None:
    ref = write_report.run(run.recipe, store=run.store, **run.refs())
    assert ref.kind == "report"
    assert report_path(run.store, ref).stat().st_size < 400_000
    assert write_report.run(run.recipe, store=run.store, **run.refs()) == ref


def test_the_page_shows_significant_changes_as_such(run: MadeUpRun, page: str) -> None:
    """Made so that SFT buys calls and DPO adds judgement: .95 against .55, .75 against .35 of 24 items each."""
    gaps = compare(*(read_scores(run.store, run.scores[label], run.recipe.evaluation) for label in ("dpo", "base")),
                   run.recipe.evaluation)  # fmt: skip
    assert gaps["acc_norm"].low > 0
    assert f"▲ {gaps['acc_norm'].value:+.3f}" in Reader(page).text


def scored(right: int, n: int = 60) -> Scores:
    items = []
    for index in range(n):
        answer = "tool_call" if index < right else "direct"
        items.append(
            {"id": str(index), "gold": "tool_call", "prediction": answer, "prediction_norm": answer, "has_tools": True}
        )
    return Scores(items, [], {})


@pytest.mark.parametrize(
    ("before", "after", "tone", "words"),
    [
        (20, 50, "better", "adds something on every headline metric"),
        (20, 21, "unclear", "cannot be told from chance"),
        (20, 20, "unclear", "cannot be told from chance"),
        (50, 20, "worse", "makes the model worse"),
    ],
)
def test_a_stage_that_adds_nothing_is_said_to_add_nothing(before: int, after: int, tone: str, words: str) -> None:
    evaluation = load_recipe(None, ["evaluation.bootstrap_samples=300"]).evaluation
    names = {"base": "base", "sft": "SFT"}
    [(title, found, sentence)] = stage_sentences({"base": scored(before), "sft": scored(after)}, names, evaluation)
    assert (title, found) == ("base → SFT", tone)
    assert words in sentence


def without(run: MadeUpRun, *labels: str) -> Mapping[str, Any]:
    """The run's refs as they are when stages were skipped: the label stays, its model and scores are its input's."""
    refs = run.refs()
    return refs | {
        "models": {label: run.models["base"] if label in labels else ref for label, ref in run.models.items()},
        "scores": {label: run.scores["base"] if label in labels else ref for label, ref in run.scores.items()},
    }


def test_a_run_without_training_has_a_report(run: MadeUpRun) -> None:
    text = Reader(render(gather(run.recipe, run.store, **without(run, "sft", "dpo")))).text
    assert "Nothing was trained" in text


def test_a_base_model_alone_has_a_report(run: MadeUpRun) -> None:
    refs = run.refs() | {"models": {"base": run.models["base"]}, "scores": {"base": run.scores["base"]}}
    assert "No stage trained a model" in render(gather(run.recipe, run.store, **refs))


def test_the_closing_table_fits_a_terminal_and_says_where_to_look(run: MadeUpRun) -> None:
    commands = {"Prefect UI": "make ui", "model": "mlflow.pyfunc.load_model('models:/rightcall@champion')"}
    text = closing_table(
        run.recipe, run.scores, run.verdict, store=run.store, report=Path("/somewhere/report.html"), commands=commands
    )
    rows = text.split("\n")
    assert max(map(len, rows)) <= 100
    assert rows[0].split() == ["n", "base", "SFT", "SFT+DPO"]
    assert any(re.match(r"acc_norm +96 +\.\d{3} \[\.\d{3}, \.\d{3}\] +\.\d{3} \[", row) for row in rows)
    assert re.search(r"\n +[+-]\.\d{3} \[[+-]\.\d{3}, [+-]\.\d{3}\]", text)
    assert "verdict: " in text
    assert "report: /somewhere/report.html" in text
    assert "Prefect UI  make ui" in text


def test_scores_on_different_items_are_not_compared(run: MadeUpRun) -> None:
    from rightcall.errors import ScoringError

    with pytest.raises(ScoringError):
        compare(scored(5, n=10), scored(5, n=9), run.recipe.evaluation)
