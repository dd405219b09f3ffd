"""What gold accepts besides its call goes from the sources through the snapshot to the verdict."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation, conversation_recipe, write_log
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import tiny_choice_rows, tiny_sft_rows

from rightcall.chat.template import ChatTemplate
from rightcall.evaluation.score import read_rows
from rightcall.evaluation.steps import read_prompts, steps_to_write
from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.judging import judge_step

WEATHER = {"name": "get_weather", "description": "Weather.", "parameters": {"type": "dict", "required": ["place"], "properties": {
    "place": {"type": "string", "description": "Where."}, "unit": {"type": "string", "description": "Unit.", "default": None},
    "days": {"type": "integer", "description": "Days."},
}}}  # fmt: skip


def bfcl_folder(root: Path) -> Path:
    """One live case; the other files are there and hold next to nothing."""
    accepted = {"place": ["Linz, Austria", "Linz"], "unit": ["", None, "celsius"], "days": ["", 1]}
    question = {
        "question": [[{"role": "user", "content": "What is the weather in Linz, please?"}]],
        "function": [WEATHER],
    }
    (root / "possible_answer").mkdir(parents=True)
    for name in (
        "simple_python",
        "multiple",
        "parallel",
        "live_simple",
        "live_multiple",
        "irrelevance",
        "live_irrelevance",
    ):
        live = name == "live_simple"
        path = Path(f"BFCL_v4_{name}.json")
        (root / path).write_text(json.dumps({"id": "live_0", **question}) + "\n" if live else "")
        gold = json.dumps({"id": "live_0", "ground_truth": [{"get_weather": accepted}]}) + "\n" if live else ""
        if "irrelevance" not in name:
            (root / "possible_answer" / path).write_text(gold)
    return root


def steps_of(folder: Path) -> list[dict[str, Any]]:
    choices, steps = read_rows(folder)
    return [step for step in steps_to_write(steps, choices, 100, 42) if step["behaviour"] == "tool_call"]


def kinds(step: dict[str, Any], *arguments: dict[str, Any]) -> list[str | None]:
    name = step["messages"][-1]["tool_calls"][0]["function"]["name"]
    return [judge_step(step, json.dumps({"name": name, "arguments": each}))["error_kind"] for each in arguments]


def test_an_item_made_of_bfcl_keeps_what_bfcl_accepts_and_how_it_compares(tmp_path: Path) -> None:
    sources = {"sft": write_lines(tmp_path / "sft.jsonl", tiny_sft_rows())}
    evaluation = [{"uri": str(bfcl_folder(tmp_path / "bfcl")), "adapter": "bfcl"}]
    folder, _ = snapshot_of(ingest_recipe(sources, evaluation=evaluation), tmp_path)
    (step,) = steps_of(folder)
    right = [
        {"place": "Linz"}, {"place": "linz-austria"}, {"place": "Linz", "unit": None}, {"place": "Linz", "unit": "celsius", "days": 1},
    ]  # fmt: skip
    assert kinds(step, *right) == [None] * 4
    wrong = [{"place": "Wels"}, {"place": "Linz", "unit": ""}, {"unit": "celsius"}, {"place": "Linz", "days": None}]
    assert kinds(step, *wrong) == ["wrong_value", "wrong_value", "missing_argument", "wrong_type"]


def test_a_users_items_and_conversations_may_say_what_else_is_right(tmp_path: Path, template: ChatTemplate) -> None:
    items = tiny_choice_rows()
    item = next(row for row in items if row["correct_answer"] == "tool_call")
    gold = json.loads(item["answers"]["tool_call"])["arguments"]["city"]
    item["accepted"] = {"city": ["Roma"], "unit": ["celsius"]}
    recipe = ingest_recipe({
        "sft": write_lines(tmp_path / "sft.jsonl", tiny_sft_rows()), "choice": write_lines(tmp_path / "items.jsonl", items),
    })  # fmt: skip
    step, *others = steps_of(snapshot_of(recipe, tmp_path)[0])
    assert kinds(step, {"city": gold}, {"city": "roma"}, {"city": "Roma", "unit": "celsius"}) == [None] * 3
    assert kinds(step, {"city": "Ro-ma"}, {"city": "Roma", "unit": "fahrenheit"}) == ["wrong_value"] * 2
    assert kinds(others[0], {"city": "Roma"}) == ["wrong_value"]

    record = conversation(0)
    record["messages"][3]["accepted"] = [{"city": ["Roma"]}]
    log = write_log(tmp_path / "logs", [record, *(conversation(number) for number in range(2, 8))])
    folder, _ = snapshot_of(conversation_recipe({"uri": str(log), "use": "evaluation"}), tmp_path, "conversations")
    step, *others = steps_of(folder)
    assert kinds(step, {"city": "Roma"}) == [None]
    assert kinds(others[0], {"city": "Roma"}) == ["wrong_value"]
    # the model is not told
    later = [
        each
        for each in read_snapshot(folder, "step")
        if any("accepted" in message for message in each["messages"][:-1])
    ]
    assert later
    assert not any("Roma" in template.decode(prompt) for prompt in read_prompts(template, later))


@pytest.mark.parametrize("accepted", ["celsius", {"unit": "celsius"}, [{"unit": ["celsius"]}], 7])
def test_an_accepted_that_cannot_be_read_is_named(accepted: Any, tmp_path: Path) -> None:
    items = tiny_choice_rows()
    items[0] |= {"accepted": accepted}
    items[1] |= {"string_rule": "loose"}
    recipe = ingest_recipe({
        "sft": write_lines(tmp_path / "sft.jsonl", tiny_sft_rows()), "choice": write_lines(tmp_path / "items.jsonl", items),
    }, tolerance=0.5)  # fmt: skip
    folder, _ = snapshot_of(recipe, tmp_path)
    assert [entry["reasons"] for entry in quarantined(folder)] == [["bad_accepted"]] * 2
    assert all("accepted is" in entry["detail"] or "string_rule is" in entry["detail"] for entry in quarantined(folder))


@pytest.mark.parametrize("accepted", [[{}, {}], {"city": ["Roma"]}, [["Roma"]]])
def test_an_accepted_of_a_message_has_an_object_for_each_of_its_calls(accepted: Any, tmp_path: Path) -> None:
    record = conversation(0)
    record["messages"][3]["accepted"] = accepted
    log = write_log(tmp_path / "logs", [record, *(conversation(number) for number in range(2, 8))])
    folder, _ = snapshot_of(conversation_recipe({"uri": str(log), "use": "evaluation"}, tolerance=0.5), tmp_path)
    assert [entry["reasons"] for entry in quarantined(folder)] == [["bad_accepted"]]


def test_a_password_among_the_accepted_values_is_redacted(tmp_path: Path) -> None:
    record = conversation(0)
    record["messages"][3]["accepted"] = [{"password": ["hunter22!", "two words"]}]
    log = write_log(tmp_path / "logs", [record, *(conversation(number) for number in range(2, 8))])
    folder, _ = snapshot_of(conversation_recipe({"uri": str(log), "use": "evaluation"}), tmp_path)
    texts = [json.dumps(row) for row in read_snapshot(folder, "step")]
    assert any("[REDACTED:password]" in text for text in texts)
    assert not any("hunter22!" in text or "two words" in text for text in texts)
