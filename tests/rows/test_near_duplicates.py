"""Rows of an agent share a policy, tools and a growing history: none of that makes two of them near duplicates."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import (
    build_tiny_tokenizer,
    call_message,
    text_message,
    tiny_preference_rows,
    tiny_sft_rows,
    write_tiny_sources,
)

from data_checks.duplicates import bands, combined_signatures, near_duplicates, normalise, shingles
from data_checks.row_content import calls_key, row_parts
from rightcall.rows.snapshots import read_snapshot

Row = dict[str, Any]
WORDS = [f"word{number}" for number in range(400)]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": f"change_{number}",
            "description": f"Changes part {number} of an order.",
            "parameters": {"type": "object", "properties": {"order": {"type": "string"}}, "required": ["order"]},
        },
    }
    for number in range(15)
]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def step_rows(conversations: int = 3, turns: int = 4) -> list[Row]:
    """A row per assistant step: a policy of 800 words, all that was said before, another turn and another answer."""
    generator = random.Random(7)
    policy = {"role": "system", "content": " ".join(generator.choices(WORDS, k=800))}
    rows = []
    for number in range(conversations):
        messages = [policy, user(" ".join(generator.choices(WORDS, k=12))), text_message("How can I help?")]
        for turn in range(turns):
            call = call_message(f"change_{turn}", {"order": f"W{number}{turn}"})
            result = {"role": "tool", "tool_call_id": "call_0", "content": f"order W{number}{turn} is changed"}
            messages += [user(f"Please go on with order W{number}{turn}"), call]
            rows.append(row_of(messages, "tool_call"))
            messages += [result, text_message(f"Done: order W{number}{turn} has another part {turn} now.")]
            rows.append(row_of(messages, "direct"))
        messages += [user("No, that's all. Thank you."), text_message("You're welcome. Have a great day!")]
        rows.append(row_of(messages, "direct"))
    return rows


def row_of(messages: list[Row], behaviour: str) -> Row:
    return {"source": "tiny", "messages": copy.deepcopy(messages), "tools": TOOLS, "behaviour": behaviour}


def alike(*rows: Row, kind: Any = "sft") -> bool:
    """Whether the second row is a near duplicate of the first."""
    found = combined_signatures([row_parts(row, kind) for row in rows])
    keys = bands(found, 0.9, [calls_key(row, kind) for row in rows])
    return bool(near_duplicates(found, keys, 0.9)[1] >= 0)


def changed(row: Row, index: int, **fields: Any) -> Row:
    other = copy.deepcopy(row)
    other["messages"][index] |= fields
    return other


@pytest.mark.parametrize("threshold", [0.9, 1.0])
def test_steps_of_an_agent_are_all_kept(threshold: float, tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = step_rows()
    write_lines(paths["sft"], rows)
    config = build_tiny_tokenizer(tmp_path / "tokenizer") / "tokenizer_config.json"
    config.write_text(config.read_text().replace("1024", "100000"))  # the policy alone is longer than its window
    recipe = ingest_recipe(paths, max_length=100_000, near_duplicate_threshold=threshold)
    folder, checks = snapshot_of(recipe, tmp_path)
    assert [entry["reasons"] for entry in quarantined(folder)] == []
    assert checks["rows"]["sft"]["kept"] == len(rows)
    assert checks["warnings"] == []


def test_a_copy_with_another_policy_or_a_word_more_is_a_near_duplicate() -> None:
    long = " ".join(WORDS[:60])
    row = changed(step_rows(1)[-2], -4, content=long)
    assert alike(row, changed(row, 0, content="Quite another policy.") | {"tools": TOOLS[:9]})
    assert alike(row, changed(row, -4, content=f"{long} more"))
    assert not alike(row, changed(row, -4, content=" ".join(WORDS[60:120])))


def test_what_shares_all_but_its_answer_is_another_row() -> None:
    asked = step_rows(1)[0]["messages"][:-1]
    answers = [
        call_message("change_1", {"order": "W1"}), call_message("change_1", {"order": "W2"}),
        call_message("change_2", {"order": "W1"}), text_message("Which part of it?"), text_message("I cannot do that."),
    ]  # fmt: skip
    rows = [row_of([*asked, answer], "x") for answer in answers]
    for first in rows:
        assert [alike(first, other) for other in rows] == [first is other for other in rows]


def test_conversations_that_end_alike_are_different_rows() -> None:
    first, second = (rows[-1] for rows in (step_rows(1), step_rows(2)))
    assert first["messages"][-2:] == second["messages"][-2:]
    assert not alike(first, second)


def test_pairs_are_alike_in_the_last_turn_the_chosen_and_the_rejected_answer() -> None:
    row = tiny_preference_rows(4)[2]
    row["prompt"] = [*step_rows(1)[-1]["messages"], *row["prompt"]]
    assert alike(
        row, row | {"prompt": [{"role": "system", "content": "Short."}, *row["prompt"][1:]]}, kind="preference"
    )
    for side in ("chosen", "rejected"):
        assert not alike(row, row | {side: text_message("Quite another answer than that one.")}, kind="preference")
        assert not alike(row, row | {side: call_message("change_1", {"order": "W9"})}, kind="preference")


def test_a_row_is_as_alike_as_the_product_of_its_parts() -> None:
    """One part equal, the other with 29 of 87 shingles in common: 1/3, however long the equal one is."""
    other = WORDS[:31] + [f"other{number}" for number in range(29)]
    found = combined_signatures([
        [shingles(normalise(" ".join(WORDS * 3))), shingles(" ".join(part))] for part in (WORDS[:60], other)
    ])  # fmt: skip
    assert abs((found[0] == found[1]).mean() - 1 / 3) < 0.15


def test_many_near_duplicates_are_a_warning_with_a_pair_and_the_way_out(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = tiny_sft_rows(24)
    for number, index in enumerate((3, 7, 11)):
        rows[index] = copy.deepcopy(rows[3])
        rows[index]["messages"][0]["content"] = " ".join(["Is it?", *WORDS[:80], *["again"] * number])
    write_lines(paths["sft"], rows)
    _, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert checks["rows"]["sft"]["quarantined"] == 2
    (warning,) = checks["warnings"]
    for part in ("2 of 24 sft rows (8.3%)", "line 8 'Is it?", "line 4 'Is it?", "near_duplicate_threshold", "null"):
        assert part in warning
    off, checks = snapshot_of(ingest_recipe(paths, near_duplicate_threshold=None), tmp_path, "off")
    assert (checks["warnings"], len(read_snapshot(off, "sft"))) == ([], 24)


def test_without_a_threshold_equal_rows_and_equal_questions_are_found_all_the_same(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    rows = tiny_sft_rows(24)
    leak = copy.deepcopy(rows[0])
    leak["messages"][0]["content"] = "what is the WEATHER in paris (item 0)"
    write_lines(paths["sft"], [*rows, rows[1] | {"id": "copy"}, leak])
    folder, _ = snapshot_of(ingest_recipe(paths, near_duplicate_threshold=None, tolerance=0.2), tmp_path)
    assert sorted(entry["reasons"] for entry in quarantined(folder)) == [["exact_duplicate"], ["leaks_evaluation"]]
