"""Files in NVIDIA's schemas on their way through ingestion: the prompts stay theirs, and a file without calls is no fault."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from ingest_examples import ingest_recipe, snapshot_of, write_lines, write_tiny_sources
from scoring_examples import IP_ROW, LOCATE
from tiny import tiny_choice_rows

from rightcall.errors import DataError
from rightcall.evaluation.when2call_prompts import prompt_and_answers
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import BEHAVIOURS

STYLES = ("when2call", "when2call-qwen2_5", "when2call-llama3_2")
# As published: types of Python, spaces that json.dumps would not write, a letter escaped and one not.
PING = '{"name":"ping",  "description": "P\\u00efng of pîng", "parameters": {"type": "dict", "properties": {}}}'
ITEM: dict[str, Any] = {
    "uuid": "ip",
    "source": "BFCL v2 Live Multiple",
    "question": IP_ROW["question"],
    "tools": [json.dumps(LOCATE), PING],
    "answers": IP_ROW["answers"],
    "correct_answer": "tool_call",
    "target_tool": json.dumps(LOCATE),
}


def items_of(folder: Path, records: list[dict[str, Any]], adapter: str = "auto") -> dict[str, dict[str, Any]]:
    folder.mkdir()
    path = write_lines(folder / "mcq.jsonl", records)
    recipe = ingest_recipe({"choice": path}, evaluation=[{"uri": str(path), "adapter": adapter}])
    return {row["id"]: row for row in read_snapshot(snapshot_of(recipe, folder)[0], "choice")}


@pytest.mark.parametrize("adapter", ["auto", "when2call"])
@pytest.mark.parametrize("style", STYLES)
def test_an_item_from_a_snapshot_has_nvidias_prompt_to_the_character(tmp_path: Path, style: str, adapter: str) -> None:
    """The expected text is made of the record itself; tests/evaluation/test_scoring.py holds it equal to NVIDIA's utils.py."""
    bare = ITEM | {"uuid": "bare", "question": "What is it?", "tools": [], "correct_answer": "cannot_answer"}
    row = items_of(tmp_path / "mcq", [ITEM, bare], adapter)
    expected = prompt_and_answers(ITEM | {"id": "ip", "raw_tools": ITEM["tools"]}, style)
    assert prompt_and_answers(row["ip"], style) == expected
    assert row["ip"]["tools"][0]["function"]["parameters"]["type"] == "object"
    assert "raw_tools" not in row["bare"]


def test_a_snapshot_of_canonical_items_has_no_column_for_the_files_text(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    rows = items_of(tmp_path / "canonical", tiny_choice_rows(8))
    assert len(rows) == 8
    assert not any("raw_tools" in row for row in rows.values())
    names = pq.read_schema(tmp_path / "canonical" / "snapshot" / "choice.parquet").names
    assert "raw_tools" not in names
    assert "group" in names


def test_one_item_in_two_spellings_is_one_item(tmp_path: Path) -> None:
    again = ITEM | {"uuid": "again", "tools": [json.dumps(json.loads(text), indent=1) for text in ITEM["tools"]]}
    assert list(items_of(tmp_path / "mcq", [ITEM, again])) == ["ip"]


def train_sft(n: int, *behaviours: str) -> list[dict[str, Any]]:
    """Records of train_sft, whose answers name no class."""
    answers = {
        "request_for_info": "Which IP address do you mean?",
        "cannot_answer": "I'm unable to do that: none of the tools can.",
        "direct": "An address is a number.",
        "tool_call": '<TOOLCALL>[{"name": "locate_ip", "arguments": {"ip": "8.8.8.8"}}]</TOOLCALL>',
    }
    records = []
    for number in range(n):
        question = f"Question {number} about machine number {number * 7919}"
        answer = {"role": "assistant", "content": answers[behaviours[number % len(behaviours)]]}
        records.append({"tools": [json.dumps(LOCATE)], "messages": [{"role": "user", "content": question}, answer]})
    return records


@pytest.mark.parametrize("adapter", ["auto", "when2call"])
@pytest.mark.parametrize("sft_rows", [None, 8])
def test_a_training_file_without_a_single_call_passes(tmp_path: Path, adapter: str, sft_rows: int | None) -> None:
    """What is published of train_sft may hold none: the calls are then learnt from pairs, or not at all."""
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], train_sft(20, "request_for_info", "cannot_answer", "request_for_info", "direct"))
    recipe = ingest_recipe(paths, sft=[{"uri": str(paths["sft"]), "adapter": adapter}], sft_rows=sft_rows)
    folder, checks = snapshot_of(recipe, tmp_path)
    kept = Counter(row["behaviour"] for row in read_snapshot(folder, "sft"))
    assert set(kept) == set(BEHAVIOURS) - {"tool_call"}
    assert kept == checks["classes"]["sft"]
    assert sum(kept.values()) == (sft_rows or 20)
    assert checks["gx"]["success"]
    assert checks["rows"]["sft"]["quarantined"] == 0


def test_a_training_file_of_one_behaviour_stops_the_flow_and_names_it(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], train_sft(12, "cannot_answer"))
    with pytest.raises(
        DataError, match="all 12 trained turns of 12 sft rows are 'cannot_answer': there is no decision"
    ):
        snapshot_of(ingest_recipe(paths), tmp_path)
