"""Intervals are computed when scores are shown, so another confidence scores nothing again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from snapshot_writer import write_rows
from stage_examples import small_recipe
from tiny import tiny_choice_rows

from rightcall.measurement import metrics
from rightcall.recipe.schema import Recipe
from rightcall.rows.vocabulary import BEHAVIOURS
from tasks.results.scores import read_scores
from tasks.stages.score import score_model
from tasks.store.folder_store import Store


def recipe_with(confidence: float, bootstrap_samples: int) -> Recipe:
    evaluation = {"dtype": "float32", "generation_items": 0}
    evaluation |= {"confidence": confidence, "bootstrap_samples": bootstrap_samples}
    return small_recipe(model={"chat_template": "chatml-tools"}, compute={"threads": 1}, evaluation=evaluation)


def test_another_confidence_reuses_the_scores_and_shows_other_intervals(tmp_path: Path, tiny_model: Path) -> None:
    store = Store(tmp_path / "store")
    work = store.workdir("base", "tiny")
    shutil.copytree(tiny_model, work / "model")
    model = store.commit("base", "tiny", "model", work, {"result": {}})
    work = store.workdir("ingest", "tiny")
    write_rows(work, "choice", tiny_choice_rows(12))
    snapshot = store.commit("ingest", "tiny", "snapshot", work, {"result": {}})
    wide, narrow = recipe_with(0.99, 200), recipe_with(0.6, 300)
    first = score_model.run(wide, store=store, model=model, snapshot=snapshot)
    made = (store.path(first) / "manifest.json").stat().st_mtime_ns
    again = score_model.run(narrow, store=store, model=model, snapshot=snapshot)
    assert again == first
    assert (store.path(again) / "manifest.json").stat().st_mtime_ns == made
    shown = [read_scores(store, first, recipe.evaluation).metrics for recipe in (wide, narrow)]
    for name in ("acc_norm", "macro_f1"):
        outer, inner = shown[0][name], shown[1][name]
        assert outer.value == inner.value
        assert outer.low < inner.low <= inner.value <= inner.high < outer.high
    # what lies in the store says nothing that only one of the two recipes asked for
    scores = json.loads((store.path(first) / "output" / "scores.json").read_text())
    assert {name: entry["value"] for name, entry in scores["metrics"].items()} == pytest.approx(
        {name: metric.value for name, metric in shown[0].items()}
    )
    assert {key for entry in scores["metrics"].values() for key in entry} == {"value", "n"}
    assert {key for entry in scores["baseline_rule"]["metrics"].values() for key in entry} == {"value", "n"}


def test_plain_values_are_those_beside_the_intervals() -> None:
    golds = [BEHAVIOURS[number % 4] for number in range(10)]
    items = [
        {"gold": gold, "prediction": "tool_call", "prediction_norm": gold, "has_tools": number % 3 > 0}
        for number, gold in enumerate(golds)
    ]
    measured = metrics.summarise(items, confidence=0.95, bootstrap_samples=50, seed=1)
    plain = metrics.plain_values(items)
    assert plain == {name: {"value": metric.value, "n": metric.n} for name, metric in measured.items()}
    assert list(plain) == list(measured)
