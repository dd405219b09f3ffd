"""Parquet, Arrow and JSON arrays go in as JSON lines do; CSV is refused; four schemas give one trained model."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_lines
from pyarrow import feather
from tiny import tiny_sft_rows, write_tiny_sources
from training_jobs import make_job, run_job, summary

from rightcall.errors import SourceError
from rightcall.rows.snapshots import read_snapshot
from tasks.files import lines, tables
from tasks.files.lines import files_of, read_lines

Row = dict[str, Any]
ROWS = tiny_sft_rows(24)


def with_text(row: Row) -> Row:
    """Arguments and tools as JSON text, as most datasets on the Hub keep them."""
    messages = json.loads(json.dumps(row["messages"]))
    for message in messages:
        for call in message.get("tool_calls", ()):
            call["function"]["arguments"] = json.dumps(call["function"]["arguments"])
    return row | {"messages": messages, "tools": json.dumps(row["tools"])}


def write_stream(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)


def write_file(table: pa.Table, path: Path) -> None:
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)


WRITERS = {
    "rows.parquet": lambda table, path: pq.write_table(table, path, row_group_size=5),
    "stream.arrow": write_stream,
    "file.arrow": write_file,
    "rows.feather": feather.write_feather,
    "part-0000": pq.write_table,
}


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("written", ["structs", "text"])
def test_a_table_gives_the_rows_that_were_put_into_it(
    name: str, written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As structs, every tool and call gets the fields of all others with null in them: none of that is left."""
    monkeypatch.setattr(tables, "BATCH_ROWS", 7)
    table = pa.Table.from_pylist([row if written == "structs" else with_text(row) for row in ROWS])
    if written == "structs":
        padded = table.to_pylist()[0]
        assert set(padded["messages"][1]["tool_calls"][0]["function"]["arguments"]) == {"city"}
        assert padded["tools"][0]["function"]["parameters"]["properties"]["people"] is None
    paths = write_tiny_sources(tmp_path / "sources")
    plain, _ = snapshot_of(ingest_recipe(paths), tmp_path, "plain")
    paths["sft"] = tmp_path / name
    WRITERS[name](table, paths["sft"])
    folder, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert quarantined(folder) == []
    assert read_snapshot(folder, "sft") == read_snapshot(plain, "sft")
    assert checks["rows"]["sft"]["kept"] == len(ROWS)


def test_a_folder_of_tables_is_one_source(tmp_path: Path) -> None:
    for number in range(2):
        pq.write_table(pa.Table.from_pylist(ROWS[number * 12 : number * 12 + 12]), tmp_path / f"train-{number}.parquet")
    (tmp_path / "README.md").write_text("What it is.")
    (tmp_path / "also.csv").write_text("a,b\n")
    found = files_of(tmp_path)
    assert [path.name for path in found] == ["train-0.parquet", "train-1.parquet"]
    assert [json.loads(line.content)["id"] for path in found for line in read_lines(path)] == [
        row["id"] for row in ROWS
    ]


def test_maps_dates_decimals_and_texts_as_bytes_have_a_place_in_json(tmp_path: Path) -> None:
    import datetime

    schema = pa.schema([
        ("arguments", pa.map_(pa.string(), pa.int64())), ("day", pa.date32()), ("price", pa.decimal128(5, 2)),
        ("text", pa.binary()), ("gone", pa.string()), ("list", pa.list_(pa.string())),
    ])  # fmt: skip
    row = {
        "arguments": [("a", 1)],
        "day": datetime.date(2026, 1, 2),
        "price": Decimal("1.50"),
        "text": b"[]",
        "list": ["x", None],
    }
    pq.write_table(pa.Table.from_pylist([row, row | {"text": b"\xff"}], schema=schema), tmp_path / "a.parquet")
    first, second = read_lines(tmp_path / "a.parquet")
    assert json.loads(first.content) == {
        "arguments": {"a": 1}, "day": "2026-01-02", "price": "1.50", "text": "[]", "list": ["x", None],
    }  # fmt: skip
    assert second.problem is not None
    assert second.problem.reason == "not_json"


@pytest.mark.parametrize("name", ["rows.parquet", "stream.arrow", "file.arrow"])
def test_a_table_that_ends_in_the_middle_is_said_to(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](pa.Table.from_pylist(ROWS), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    *_, last = read_lines(path)
    assert last.problem is not None
    assert last.problem.reason == "broken_table"
    assert "fetch or write the file again" in str(last.problem)


@pytest.mark.parametrize("name", ["rows.csv", "rows.tsv", "rows.CSV", "rows.csv.gz"])
def test_csv_is_refused_with_what_to_write_instead(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("prompt,completion\n")
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(SourceError, match=r"is CSV.*write the rows as JSON lines"):
            files_of(path)


def test_every_ending_is_named_where_a_folder_has_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\.jsonl.*\.parquet"):
        files_of(tmp_path)
    assert set(tables.ENDINGS) < set(lines.ENDINGS)


def shares(row: Row) -> Row:
    turns = [{"from": "human", "value": row["messages"][0]["content"]}]
    for message in row["messages"][1:]:
        calls = [call["function"] for call in message.get("tool_calls", ())]
        turns.append(
            {"from": "function_call", "value": json.dumps(calls)}
            if calls
            else {"from": "gpt", "value": message["content"]}
        )
    return {"id": row["id"], "conversations": turns, "tools": json.dumps(row["tools"])}


def asks(row: Row) -> Row:
    calls = [call["function"] for call in row["messages"][-1]["tool_calls"]]
    tools = json.dumps([tool["function"] for tool in row["tools"]])
    return {"id": row["id"], "query": row["messages"][0]["content"], "tools": tools, "answers": json.dumps(calls)}


def openai(row: Row) -> Row:
    return {name: with_text(row)[name] for name in ("id", "messages")} | {
        "tools": row["tools"],
        "parallel_tool_calls": True,
    }


def test_an_openai_a_sharegpt_an_xlam_and_a_parquet_file_are_ingested_and_trained_on(
    tmp_path: Path, tiny_model: Path
) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = tiny_sft_rows(48)
    files = {
        "openai.jsonl": [openai(row) for row in rows[:12]],
        "sharegpt.json": [shares(row) for row in rows[12:24]],
        "xlam.jsonl": [asks(row) for row in rows[24:36] if "tool_calls" in row["messages"][-1]],
    }
    for name, records in files.items():
        write_lines(tmp_path / name, records) if name.endswith("l") else (tmp_path / name).write_text(
            json.dumps(records)
        )
    pq.write_table(pa.Table.from_pylist(rows[36:]), tmp_path / "rows.parquet")
    sources = [{"uri": str(tmp_path / name)} for name in (*files, "rows.parquet")]
    folder, checks = snapshot_of(ingest_recipe(paths, sft=sources), tmp_path)
    assert (quarantined(folder), checks["not_used"]) == ([], {})
    kept = {row["id"]: row for row in read_snapshot(folder, "sft")}
    wanted = [*rows[:24], *(row for row in rows[24:36] if row["behaviour"] == "tool_call"), *rows[36:]]
    assert list(kept) == [row["id"] for row in wanted]
    for row in wanted:
        assert (kept[row["id"]]["messages"], kept[row["id"]]["tools"]) == (row["messages"], row["tools"])
    job = make_job(tmp_path / "job", tiny_model, "sft", sft={"max_steps": 1, "per_device_train_batch_size": len(kept)})
    (tmp_path / "job/input/data/dataset/sft.parquet").write_bytes((folder / "sft.parquet").read_bytes())
    run_job(job)
    assert summary(job)["rows"] == len(kept)
