"""`python -m flows.init` knows the files that ingestion reads, and its recipe ingests them; of others it says what they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from foreign_rows import CONVERSATIONS, conversations, jsonl, openai, openai_pair
from ingest_examples import quarantined
from tiny import tiny_choice_rows, tiny_sft_rows

from rightcall.chat.template import ChatTemplate
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.rows.snapshots import read_snapshot
from tasks.data.snapshot import build_snapshot

ROOT = Path(__file__).parents[2]
ONLY_CALLS = {"xlam-jsonl", "trl-arrow"}


def command(*arguments: object) -> tuple[int, str]:
    line = [sys.executable, "-m", "flows.init", *map(str, arguments)]
    found = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=False)
    return found.returncode, found.stdout + found.stderr


@pytest.fixture(autouse=True)
def _own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIGHTCALL_STORE", str(tmp_path / "store"))


def ingested(recipe: Recipe, model: Path, folder: Path) -> Path:
    folder.mkdir()
    template = ChatTemplate.load(model, recipe.model.chat_template)
    build_snapshot(recipe, template, folder, folder.with_suffix(".scratch"), folder.with_suffix(".cache"))
    return folder


@pytest.mark.parametrize("name", CONVERSATIONS)
def test_a_file_of_any_schema_becomes_a_recipe_that_ingests_all_of_it(
    name: str, tmp_path: Path, tiny_model: Path
) -> None:
    path, out = conversations(name, tmp_path, 40), tmp_path / "mine.yaml"
    beside = [jsonl(tmp_path / "items", tiny_choice_rows(24))] if name in ONLY_CALLS else []
    code, said = command(path, *beside, "--model", tiny_model, "--out", out)
    assert code == 0, said
    assert "40 records, conversations" in said
    assert "go to the quarantine" not in said
    recipe = load_recipe(out)
    assert recipe.data.conversations[0].uri == str(path)
    folder = ingested(recipe, tiny_model, tmp_path / "snapshot")
    assert quarantined(folder) == []
    checks = json.loads((folder / "checks.json").read_text())
    assert checks["rows"]["conversation"]["in"] == 40
    rows = read_snapshot(folder, "sft")
    assert {
        call["function"]["name"] for row in rows for each in row["messages"] for call in each.get("tool_calls", ())
    } == {"get_weather"}
    assert {len(row["tools"]) for row in rows} == {3}


def test_pairs_of_openai_and_items_in_a_table_are_recognised(tmp_path: Path) -> None:
    pairs = jsonl(tmp_path / "pairs", [openai_pair(number) for number in range(12)])
    items = tmp_path / "items.parquet"
    rows = [row | {"tools": json.dumps(row["tools"])} for row in tiny_choice_rows(12)]
    pq.write_table(pa.Table.from_pylist(rows), items)
    sft = jsonl(tmp_path / "rows", tiny_sft_rows(12))
    code, said = command(pairs, items, sft, "--out", tmp_path / "mine.yaml")
    assert code == 0, said
    data = load_recipe(tmp_path / "mine.yaml").data
    assert [each.uri for found in (data.preference, data.evaluation, data.sft) for each in found] == [
        str(pairs), str(items), str(sft)
    ]  # fmt: skip


def test_conversations_that_only_call_want_items_beside_them(tmp_path: Path) -> None:
    code, said = command(conversations("xlam-jsonl", tmp_path), "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert "all 24 turns that were looked at in 'xlam-jsonl.jsonl' are 'tool_call'" in said
    assert "give multiple-choice items beside it" in said


def test_conversations_that_only_refuse_are_no_use_beside_items_either(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Weather?"}, {"role": "assistant", "content": "I cannot help with that."}]
    log = jsonl(tmp_path / "log", [{"id": f"c{number}", "messages": turns, "tools": []} for number in range(20)])
    items = jsonl(tmp_path / "items", tiny_choice_rows(12))
    code, said = command(log, items, "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert "all 20 turns that were looked at in 'log.jsonl' are 'cannot_answer'" in said
    assert "give multiple-choice items" not in said
    assert not (tmp_path / "mine.yaml").exists()


def test_what_ingestion_would_refuse_is_counted_and_shown(tmp_path: Path) -> None:
    broken = openai(90) | {"functions": [{"name": "other", "parameters": {}}]}
    path = jsonl(tmp_path / "log", [broken, *(openai(number) for number in range(20))])
    code, said = command(path, "--out", tmp_path / "mine.yaml")
    assert code == 0, said
    assert "1 of the first go to the quarantine, e.g. bad_tools: the record has both functions and tools" in said


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("rows.csv", "prompt,completion\na,b\n", "is CSV"),
        ("rows.jsonl", '{"instruction": "Weather?", "output": "Warm."}\n',
         "have the fields ['instruction', 'output']; a conversation has messages, or conversations, or prompt and completion, "
         "or query and answers, or chat; a pair chosen and rejected, or input and preferred_output and non_preferred_output"),
        ("notes.txt", "Dear all,\n", "can be read: line 1: not_json"),
        ("notes.txt", "Dear all,\n", "end in .jsonl, .jsonl.gz, .json, .json.gz, .ndjson, .parquet, .arrow, .feather"),
        ("broken.parquet", "PAR1 and no more", "broken_table"),
        ("log.jsonl", '{"conversations": [{"from": "narrator", "value": "Once"}, {"from": "gpt", "value": "x"}]}\n', "bad_role"),
    ],
)  # fmt: skip
def test_a_file_of_no_known_schema_is_said_to_be_one_and_what_is_known(
    name: str, content: str, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    code, said = command(path, "--out", tmp_path / "mine.yaml")
    assert code == 1
    assert says in " ".join(said.split())
    assert "Traceback" not in said
    assert not (tmp_path / "mine.yaml").exists()
