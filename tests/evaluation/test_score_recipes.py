"""Scoring takes any recipe: without its training rows it is still a valid one, and its items are those of the run."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from ingest_examples import snapshot_of, write_tiny_sources

from rightcall.errors import DataError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.rows.snapshots import iter_snapshot
from rightcall.rows.vocabulary import REJECTED_KINDS
from tasks.runs.model_names import suite_overrides

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
MODELS = ("dpo", "a folder", "models:/rightcall@champion")


def users_recipe(folder: Path) -> Path:
    """Every field of `data` is set, as is what only fits a recipe that trains."""
    rows = write_tiny_sources(folder / "rows")
    training = {"learning_rate": 1e-4, "max_steps": 10, "warmup_steps": 5, "max_length": 512}
    recipe = {
        "name": "mine",
        "model": {"source": str(folder), "chat_template": "chatml-tools"},
        "data": {
            "sft": [{"uri": str(rows["sft"])}], "sft_rows": 12,
            "preference": [{"uri": str(rows["preference"])}], "preference_rows": 12,
            "rejected_kinds": list(REJECTED_KINDS),
            "evaluation": [{"uri": str(rows["choice"])}], "evaluation_rows": 8,
            "max_prompt_tokens": 511, "tolerance": 0.5, "near_duplicate_threshold": 1.0,
        },
        "sft": training,
        "dpo": training,
    }  # fmt: skip
    path = folder / "mine.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def items(folder: Path) -> list[dict[str, Any]]:
    return list(iter_snapshot(folder, "choice"))


@pytest.mark.parametrize("suite", [False, True], ids=["no suite", "suite"])
@pytest.mark.parametrize("path", [*RECIPES, None], ids=[str(path.relative_to(ROOT)) for path in RECIPES] + ["a user's"])
def test_every_recipe_scores_every_kind_of_model_with_and_without_a_suite(
    path: Path | None, suite: bool, tmp_path: Path
) -> None:
    rows = write_tiny_sources(tmp_path / "items")["choice"]
    given = path or users_recipe(tmp_path)
    experiments: dict[str, Recipe] = {}
    for model in MODELS:
        name = str(tmp_path) if model == "a folder" else model
        experiments[model] = load_recipe(given, suite_overrides(rows if suite else None, name))
        assert (experiments[model].sft.max_steps, experiments[model].dpo.max_steps) == (0, 0)
    assert experiments["a folder"].model.source == str(tmp_path)
    assert experiments["dpo"].data == experiments["a folder"].data == experiments[MODELS[2]].data
    if not suite:  # the recipe's own items lie on the Hub: its rules are tried on rows that are here
        experiments["dpo"] = load_recipe(given, [
            *suite_overrides(None, "dpo"), f"data.evaluation={json.dumps([{'uri': str(rows)}])}", "data.conversations=[]",
            "data.group_by=null", "data.step_rows=null",
        ])  # fmt: skip
    _, checks = snapshot_of(experiments["dpo"], tmp_path)
    assert checks["rows"]["choice"]["kept"] == (8 if path is None and not suite else 16)
    assert checks["rows"]["sft"]["kept"] == checks["rows"]["preference"]["kept"] == 0


def test_without_a_suite_the_items_are_those_that_the_recipes_run_is_measured_on(tmp_path: Path) -> None:
    path = users_recipe(tmp_path)
    short = sorted(item["n_tokens"] for item in items(snapshot_of(load_recipe(path), tmp_path, "all")[0]))[-1] - 1
    limit = f"data.max_prompt_tokens={short}"
    run, _ = snapshot_of(load_recipe(path, [limit]), tmp_path, "run")
    alone, _ = snapshot_of(load_recipe(path, [limit, *suite_overrides(None, "dpo")]), tmp_path, "alone")
    assert items(alone) == items(run)
    whole, _ = snapshot_of(
        load_recipe(path, [limit, *suite_overrides(tmp_path / "rows/choice.jsonl", "dpo")]), tmp_path, "whole"
    )
    assert len(items(whole)) == 16


def test_a_recipe_that_names_kinds_of_pairs_and_no_pairs_trains_on_what_it_has(tmp_path: Path) -> None:
    overrides = ["data.preference=[]", "dpo.max_steps=0"]
    _, checks = snapshot_of(load_recipe(users_recipe(tmp_path), overrides), tmp_path)
    assert checks["rows"]["sft"]["kept"] == 12


def test_pairs_that_are_all_refused_are_the_reason_that_is_told(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{}\n")
    pairs = json.dumps([{"uri": str(tmp_path / "broken.jsonl")}])
    with pytest.raises(DataError, match="1 of 1 preference rows"):
        snapshot_of(load_recipe(users_recipe(tmp_path), [f"data.preference={pairs}"]), tmp_path)


def talks(folder: Path, name: str = "talks.jsonl") -> Path:
    turns = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "In which city?"}]
    path = folder / name
    text = "".join(json.dumps({"id": f"c{n}", "messages": turns}) + "\n" for n in range(3))
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


@pytest.mark.parametrize("name", ["talks.jsonl", "talks.jsonl.gz"])
def test_a_suite_of_conversations_is_held_out_whole_with_its_tools_and_policy(name: str, tmp_path: Path) -> None:
    suite, tools, policy = talks(tmp_path, name), tmp_path / "tools.json", tmp_path / "policy.md"
    for path in (*RECIPES, None):
        given = path or users_recipe(tmp_path)
        found = load_recipe(given, suite_overrides(suite, "dpo", str(tools), policy)).data
        assert (found.evaluation, found.sft, found.preference) == ((), (), ())
        assert (found.group_by, found.step_rows) == (None, None)
        (source,) = found.conversations
        assert (source.uri, source.use) == (str(suite), "evaluation")
        assert (source.tools, source.system) == (str(tools), str(policy))
    (alone,) = load_recipe(None, suite_overrides(suite, "dpo")).data.conversations
    assert (alone.tools, alone.system) == (None, None)


def test_a_suite_of_items_leaves_no_conversations(tmp_path: Path) -> None:
    items_file = write_tiny_sources(tmp_path / "items")["choice"]
    overrides = ["data.conversations=[{uri: talks.jsonl}]", "data.group_by=user_id", "data.step_rows=5"]
    found = load_recipe(None, [*overrides, *suite_overrides(items_file, "dpo")]).data
    assert (found.conversations, found.group_by, found.step_rows) == ((), None, None)
    assert found.evaluation[0].uri == str(items_file)


def test_tools_for_a_suite_that_has_its_own_are_a_clear_error(tmp_path: Path) -> None:
    items_file = write_tiny_sources(tmp_path / "items")["choice"]
    with pytest.raises(DataError, match=r"--tools says what conversations share, but the suite '.*' holds none"):
        suite_overrides(items_file, "dpo", tmp_path / "tools.json")
    with pytest.raises(DataError, match="--system says what conversations share"):
        suite_overrides(None, "dpo", None, tmp_path / "policy.md")


def test_a_suite_that_cannot_be_read_is_left_to_ingestion_to_explain(tmp_path: Path) -> None:
    (tmp_path / "broken.jsonl").write_text("{broken\n[1]\n")
    for name in ("broken.jsonl", "missing.jsonl"):
        assert f'"uri": "{tmp_path / name}"' in "".join(suite_overrides(tmp_path / name, "dpo"))
    mixed = talks(tmp_path)
    mixed.write_text("{broken\n" + mixed.read_text())
    assert load_recipe(None, suite_overrides(mixed, "dpo")).data.conversations


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'models ö 📁 "new": #1'
    folder.mkdir()
    suite = folder / "items.jsonl"
    found = load_recipe(None, suite_overrides(suite, str(folder)))
    assert (found.model.source, found.data.evaluation[0].uri) == (str(folder), str(suite))
