"""What flows.score prints: written answers first, then what goes wrong in them, then the choices among given answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rightcall.errors import ScoringError
from rightcall.recipe.loading import load_recipe
from tasks.results.score_text import score_text
from tasks.results.scores import compare, read_scores
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

RECIPE = load_recipe(None, ["evaluation.bootstrap_samples=200"])


def written(number: int, *, ok: bool, grammar: bool) -> dict[str, Any]:
    called = {"valid_call": True, "right_tool": True, "right_arguments": ok, "strict": number % 2 > 0}
    answer = {
        "text": "", "verdict": {"ok": ok, "right_behaviour": True, **called}, "error_kind": None if ok else "wrong_value",
        "faults": [] if ok else ["ungrounded_value"], "cut": number == 0,
    }  # fmt: skip
    line = {"id": f"c{number // 2}/{number}", "conversation": f"c{number // 2}", "group": "g", "behaviour": "tool_call"}
    return line | answer | {"grammar": answer if grammar else None}


def scores(store: Store, name: str, *, steps: int = 0, items: int = 0, grammar: bool = True) -> ArtifactRef:
    folder = store.workdir("score", name)
    (folder / "output").mkdir()
    lines = {
        "written": [written(number, ok=number % 4 > 0, grammar=grammar) for number in range(steps)],
        "items": [
            {"id": str(n), "gold": "direct", "prediction": "direct", "prediction_norm": "direct", "has_tools": True}
            for n in range(items)
        ],
    }  # fmt: skip
    for kind, found in lines.items():
        (folder / f"output/{kind}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in found))
    return store.commit("score", name, "scores", folder, {"result": {}})


def test_what_is_written_comes_first(tmp_path: Path) -> None:
    store = Store(tmp_path)
    text = score_text(store, RECIPE, scores(store, "both", steps=20, items=8))
    order = ["free", "under the grammar", "right ", "right_call", "wrong in how many of 20", "ungrounded_value", "wrong_value",
             "1 free answers are as long", "chosen among given answers", "acc_norm", "count 10 conversations"]  # fmt: skip
    places = [text.index(part) for part in order]
    assert places == sorted(places)
    row = next(line for line in text.splitlines() if line.startswith("right "))
    assert row.count(".750 [") == row.count("n=20") == 2
    strict = next(line for line in text.splitlines() if line.startswith("right_strict"))
    assert strict.count(".500 [") == strict.count("n=20") == 2
    fault = next(line for line in text.splitlines() if line.startswith("ungrounded_value"))
    assert fault.split() == ["ungrounded_value", "5", "5"]


def test_what_was_not_measured_is_not_shown(tmp_path: Path) -> None:
    store = Store(tmp_path)
    text = score_text(store, RECIPE, scores(store, "items", items=8))
    assert "right" not in text
    assert "acc_norm" in text
    text = score_text(store, RECIPE, scores(store, "steps", steps=8, grammar=False))
    assert "acc_norm" not in text
    assert "under the grammar" not in text


def test_models_are_compared_on_steps_and_on_items(tmp_path: Path) -> None:
    store = Store(tmp_path)
    refs = [scores(store, name, steps=20, items=8) for name in ("a", "b")]
    first, second = (read_scores(store, ref, RECIPE.evaluation) for ref in refs)
    gaps = compare(first, second, RECIPE.evaluation)
    assert {"right", "right_grammar", "acc_norm"} <= set(gaps)
    assert gaps["right"].value == gaps["acc_norm"].value == 0
    other = read_scores(store, scores(store, "c", steps=16, items=8), RECIPE.evaluation)
    with pytest.raises(ScoringError, match="cannot pair 20 written answers with 16"):
        compare(first, other, RECIPE.evaluation)
