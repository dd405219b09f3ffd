"""Logged conversations: what becomes a row, what is refused and why, and that nobody stands on both sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from conversation_examples import conversation_recipe, logged, write_log
from ingest_examples import quarantined, snapshot_of

from rightcall.rows.snapshots import read_snapshot

Row = dict[str, Any]


def test_a_log_becomes_training_rows_and_steps_of_other_groups(tmp_path: Path) -> None:
    folder, checks = snapshot_of(conversation_recipe(write_log(tmp_path, logged(40))), tmp_path)
    sft, steps = read_snapshot(folder, "sft"), read_snapshot(folder, "step")
    assert quarantined(folder) == []
    assert checks["rows"]["conversation"] == {
        "in": 40, "kept": 40, "quarantined": 0, "sampled_out": 0, "critical": 0,
    }  # fmt: skip
    assert {row["group"] for row in sft}.isdisjoint(row["group"] for row in steps)
    assert len(sft) + len({step["conversation"] for step in steps}) == 40
    for row in sft:
        assert row["trained"] == [[i, b] for i, b in row["trained"] if row["messages"][i]["role"] == "assistant"]
        assert len(row["trained"]) == sum(message["role"] == "assistant" for message in row["messages"])
    assert all(step["messages"][-1]["role"] == "assistant" for step in steps)
    assert sum(checks["classes"]["step"].values()) == len(steps)
