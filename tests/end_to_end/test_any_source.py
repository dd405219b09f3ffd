"""A file of any of the field's schemas, or tools of a server, through `flows.ingest` and `flows.train` to a trained step."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from foreign_rows import conversations, jsonl, openai_pair
from prefect_fixture import prefect_server  # noqa: F401
from tiny import call_message, text_message, tiny_choice_rows, tiny_sft_rows

from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import RowKind
from tasks.store.folder_store import Store

Row = dict[str, Any]

SERVER = Path(__file__).parents[1] / "support" / "services" / "mcp_server.py"
STEP = {"max_steps": 1, "learning_rate": 1e-3, "per_device_train_batch_size": 8, "max_length": 1024, "bf16": False}
NONE = {"max_steps": 0, "learning_rate": 1e-3}
ROWS = 24


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Store]:  # noqa: F811
    folder = tmp_path_factory.mktemp("any-source") / "store"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIGHTCALL_STORE", str(folder))
        yield Store(folder)


def refusals(folder: Path) -> Row:
    """Rows beside a file whose rows all end the same way, so that there is a decision to learn."""
    rows = [row for row in tiny_sft_rows(ROWS) if row["behaviour"] == "cannot_answer"]
    return {"uri": str(jsonl(folder / "refusals", rows))}


def from_file(rows: list[Row]) -> list[Row]:
    """The rows of the file that a test is about."""
    return [row for row in rows if row["source"] != "tiny"]


def trained(folder: Path, model: Path, store: Store, **data: list[Row]) -> dict[RowKind, list[Row]]:
    """The rows that `flows.ingest` makes of `data`, after one step of training on each kind of them."""
    from flows.ingest import ingest_rows
    from flows.train import train_model

    items, recipe = jsonl(folder / "items", tiny_choice_rows(ROWS)), folder / "mine.yaml"
    wanted: dict[RowKind, str] = {"sft": "sft"} if data.keys() & {"sft", "conversations"} else {}
    wanted |= {"preference": "dpo"} if "preference" in data else {}
    recipe.write_text(yaml.safe_dump({
        "name": "mine", "model": {"source": str(model), "chat_template": "chatml-tools"},
        "data": {"evaluation": [{"uri": str(items)}], "near_duplicate_threshold": 1.0, **data},
        **{stage: STEP if stage in wanted.values() else NONE for stage in ("sft", "dpo")}, "compute": {"threads": 1},
    }))  # fmt: skip
    ingest_rows(recipe=str(recipe))
    snapshot, *_ = store.refs("ingest")
    train_model(recipe=str(recipe))
    for stage in wanted.values():
        model_made, *_ = store.refs(stage)
        assert store.manifest(model_made)["inputs"]["snapshot"]["uri"] == snapshot.uri
        lines = (store.path(model_made) / "output/metrics.jsonl").read_text().splitlines()
        assert 1 in [json.loads(line).get("step") for line in lines]
        assert list((store.path(model_made) / "model").glob("*.safetensors"))
    assert (store.path(snapshot) / "quarantine.jsonl").read_text() == ""
    return {kind: read_snapshot(store.path(snapshot), kind) for kind in wanted}


@pytest.mark.parametrize("name", ["openai-jsonl", "sharegpt-json", "xlam-jsonl", "openai-parquet"])
def test_a_file_goes_in_and_a_step_of_it_is_trained(name: str, tmp_path: Path, tiny_model: Path, store: Store) -> None:
    sources = [{"uri": str(conversations(name, tmp_path, ROWS))}, refusals(tmp_path)]
    rows = from_file(trained(tmp_path, tiny_model, store, sft=sources)["sft"])
    assert len(rows) == ROWS
    assert all(any(message.get("tool_calls") for message in row["messages"]) and len(row["tools"]) == 3 for row in rows)


def test_tools_of_an_mcp_server_and_conversations_without_any_are_trained_on(
    tmp_path: Path, tiny_model: Path, store: Store
) -> None:
    def booking(number: int) -> Row:
        said = [{"role": "user", "content": f"Please book a desk in room {number} of house {number % 7}."}]
        said += [text_message("In which row shall I book it?"), {"role": "user", "content": f"Row {number}, please."}]
        return {"messages": [*said, call_message("book_desk", {"room": f"Birch {number}", "seat": {"row": number}})]}

    log = jsonl(tmp_path / "log", [booking(number) for number in range(ROWS)])
    source = {"uri": str(log), "tools": f"mcp:{shlex.join([sys.executable, str(SERVER)])}"}
    rows = trained(tmp_path, tiny_model, store, conversations=[source])["sft"]
    assert {tuple(tool["function"]["name"] for tool in row["tools"]) for row in rows} == {("book_desk", "cancel_desk")}


def test_texts_of_glaive_toolace_and_hermes_and_pairs_of_openai_are_trained_on_together(
    tmp_path: Path, tiny_model: Path, store: Store
) -> None:
    names = ("glaive-jsonl", "toolace-arrow", "hermes-jsonl")
    sources = [{"uri": str(conversations(name, tmp_path, 8, 8 * place))} for place, name in enumerate(names)]
    pairs = jsonl(tmp_path / "pairs", [openai_pair(number) for number in range(ROWS)])
    made = trained(tmp_path, tiny_model, store, sft=[*sources, refusals(tmp_path)], preference=[{"uri": str(pairs)}])
    rows = from_file(made["sft"])
    assert len(rows) == ROWS
    assert all(any(message.get("tool_calls") for message in row["messages"]) and len(row["tools"]) == 3 for row in rows)
    assert len(made["preference"]) == ROWS
    assert all(row["chosen"]["tool_calls"] and row["rejected"]["content"] for row in made["preference"])
