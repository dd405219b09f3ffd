"""Which tokens of a conversation are trained, and with which factor."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from snapshot_writer import write_rows
from tiny import TOOLS, call_message, text_message, tiny_sft_rows
from training_jobs import make_job, metrics, run_job, summary
from transformers import AutoModelForCausalLM
from trl.trainer.utils import add_fused_lm_head

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.job import folders
from rightcall.likelihood.answer_head import IGNORED, install
from rightcall.rows.conversations import steps_of
from rightcall.training import encoding

TURNS = [[1, "request_for_info"], [3, "tool_call"], [5, "direct"]]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def conversation(number: int = 0, trained: list[Any] | None = TURNS) -> dict[str, Any]:
    """Three assistant turns: a question, a call, what the tool's result means."""
    messages = [
        {"role": "user", "content": f"Weather? (case {number})"}, text_message("In which city?"),
        {"role": "user", "content": "Rome"}, call_message("get_weather", {"city": "Rome"}),
        {"role": "tool", "tool_call_id": "call_0", "name": "get_weather", "content": "sunny"},
        text_message("It is sunny."),
    ]  # fmt: skip
    row = {"id": f"c{number}", "source": "tiny", "behaviour": "tool_call", "messages": messages, "tools": TOOLS}
    return {**row, "trained": trained}


def last_turns(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of `train_on: last`."""
    last = ((step, len(step["messages"]) - 1) for step in steps_of(row))
    return [{**step, "trained": [[index, step["behaviour"]]]} for step, index in last]


def answer(row: dict[str, Any], template: ChatTemplate) -> str:
    return template.decode([label for label in row["labels"] if label != IGNORED])


def test_the_mask_of_a_last_turn_holds_that_turn_only(template: ChatTemplate) -> None:
    """Every answer token once: as whole conversations with all turns, never again with each later step."""
    whole = encoding.encode_conversations([conversation()], template, 1024, {})
    steps = encoding.encode_conversations(last_turns(conversation()), template, 1024, {})
    again = encoding.encode_conversations(
        [{**row, "trained": None} for row in steps_of(conversation())], template, 1024, {}
    )
    messages = conversation()["messages"]
    texts = [template.answer_text(messages[index]) + template.end_of_turn for index, _ in TURNS]
    assert [answer(row, template) for row in steps.rows] == texts
    assert [answer(row, template) for row in whole.rows] == ["".join(texts)]
    assert [answer(row, template) for row in again.rows] == ["".join(texts[: count + 1]) for count in range(3)]
    assert steps.trained_tokens == whole.trained_tokens
    assert whole.trained_tokens == {
        behaviour: len(template.tokenize(text)) for (_, behaviour), text in zip(TURNS, texts, strict=True)
    }
    assert [found.trained_turns for found in (whole, steps, again)] == [3, 3, 6]


def test_a_behaviours_weight_is_for_its_turns_not_for_the_row(tiny_model: Path, template: ChatTemplate) -> None:
    """The sum over a conversation with weights is that of its turns, each times its weight; packed or padded alike."""
    rows = [conversation(1), conversation(2, TURNS[:1]), *tiny_sft_rows(3)]
    weights = {"tool_call": 3.0, "request_for_info": 0.5}

    def total(some: list[dict[str, Any]], factors: dict[str, float]) -> float:
        encoded = encoding.encode_conversations(some, template, 1024, factors).rows
        batch = encoding.ConversationCollator(template.pad_id)(
            [{"rows": members} for members in encoding.pack(encoded, 4096)]
        )
        model = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
        add_fused_lm_head(model)
        install(model, uses_trees=True)
        return model(**batch, fused_lm_head=True).log_probs.sum().item()

    steps = [*last_turns(rows[0]), *last_turns(rows[1]), *rows[2:]]
    expected = sum(weights.get(row["behaviour"], 1.0) * total([row], {}) for row in steps)
    assert total(rows, weights) == pytest.approx(expected, rel=1e-4)
    assert total(steps, weights) == pytest.approx(expected, rel=1e-4)


def test_a_factor_is_one_number_where_no_row_needs_more(template: ChatTemplate) -> None:
    same = encoding.encode_conversations([conversation(), *tiny_sft_rows(2)], template, 1024, {}).rows
    assert [row["row_factors"] for row in same] == [1.0, 1.0, 1.0]
    mixed = encoding.encode_conversations([conversation(), *tiny_sft_rows(2)], template, 1024, {"tool_call": 2.0}).rows
    assert [len(row["row_factors"]) for row in mixed] == [len(row["labels"]) for row in mixed]
    batch = encoding.ConversationCollator(template.pad_id)(mixed)
    assert batch["row_factors"].shape == batch["labels"].shape
    twice = (batch["row_factors"] == 2.0) & (batch["labels"] != IGNORED)
    call = template.answer_text(conversation()["messages"][3]) + template.end_of_turn
    assert template.decode(batch["input_ids"][0][twice[0]].tolist()) == call
    assert twice.sum(1).tolist()[2] == 0


def test_the_first_token_of_every_turn_has_a_weight_of_its_own(template: ChatTemplate) -> None:
    (row,) = encoding.encode_conversations([conversation()], template, 1024, {"tool_call": 2.0}, 4.0).rows
    trained = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
    first = [place for place in trained if place - 1 not in trained]
    behaviours = [behaviour for _, behaviour in TURNS]
    assert [row["row_factors"][place] for place in first] == [8.0 if it == "tool_call" else 4.0 for it in behaviours]
    assert {row["row_factors"][place] for place in trained if place not in first} == {1.0, 2.0}


@pytest.mark.parametrize("packing", [False, True])
def test_conversations_of_many_behaviours_are_trained(tiny_model: Path, tmp_path: Path, packing: bool) -> None:
    section = {"behaviour_weights": {"tool_call": 3.0}, "first_token_weight": 4.0, "packing": packing, "max_steps": 3}
    job = make_job(tmp_path, tiny_model, "sft", sft=section)
    write_rows(job.channel("dataset"), "sft", [conversation(number) for number in range(12)])
    run_job(job)
    lines, facts = metrics(job), summary(job)
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert facts["turns"] == 3 * facts["rows"]
    assert facts["turns_hidden"] == 0
    assert set(facts["trained_tokens"]) == {"direct", "request_for_info", "tool_call"}
    assert facts["warnings"] == []


def agents_job(folder: Path, model: Path, mark: list[Any] | None) -> folders.Job:
    """Two agents with 8 conversations each, in batches of 4; the seventh step is in the second epoch."""
    policies = [{"role": "system", "content": f"You are agent {name}. " + "Be polite. " * 30} for name in "ab"]
    section = {"per_device_train_batch_size": 4, "max_steps": 7, "save_steps": 3}
    job = make_job(folder, model, "sft", sft=section)
    rows = [conversation(number, mark) for number in range(16)]
    for number, row in enumerate(rows):
        row["messages"] = [policies[number % 2], *row["messages"]]
        row["trained"] = [[index + 1, behaviour] for index, behaviour in mark] if mark else None
    write_rows(job.channel("dataset"), "sft", rows)
    return job


def test_conversations_of_one_agent_stand_in_one_batch_and_share_its_policy(tiny_model: Path, tmp_path: Path) -> None:
    """Computed once a batch; and a run that goes on in the middle of an epoch takes the batches that are left."""
    together, mixed = (agents_job(tmp_path / str(mark is None), tiny_model, mark) for mark in (TURNS, None))
    for job in (together, mixed):
        run_job(job)
    one, other = metrics(together), metrics(mixed)
    assert [line["tokens"] for line in one][3] == [line["tokens"] for line in other][3]  # an epoch
    assert one[-1]["tokens_computed"] < 0.9 * other[-1]["tokens_computed"]
    assert other[-1]["tokens_computed"] < other[-1]["tokens"]
    assert summary(together)["tokens_computed"] == one[-1]["tokens_computed"]
    written = load_file(together.model / "model.safetensors")
    shutil.rmtree(together.checkpoints / "checkpoint-7")
    run_job(together)
    again = load_file(together.model / "model.safetensors")
    assert all(torch.equal(written[name], again[name]) for name in written)
    assert [line["loss"] for line in metrics(together)] == [line["loss"] for line in one]


def test_bins_hold_rows_of_one_group() -> None:
    rows = [{"input_ids": [1] * (5 + number), "shared": "ab"[number % 2]} for number in range(20)]
    bins = encoding.pack(rows, 40)
    assert sum(map(len, bins)) == 20
    assert all(len({row["shared"] for row in members}) == 1 for members in bins)


def test_turns_that_a_template_rewrites_are_counted_and_said(tiny_model: Path, tmp_path: Path) -> None:
    rewrites = (
        "{{ tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n"
        "{{ '<think>' if m.role == 'assistant' and loop.last }}{{ m.content }}{{ m.tool_calls | tojson if m.tool_calls }}"
        "<|im_end|>\n{% endfor %}{{ '<|im_start|>assistant\n<think>' if add_generation_prompt }}"
    )
    folder = tmp_path / "model"
    folder.mkdir()
    for path in tiny_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    (folder / "chat_template.jinja").write_text(rewrites)
    template = ChatTemplate.load(folder)
    encoded = encoding.encode_conversations([conversation(number) for number in range(4)], template, 1024, {})
    assert (encoded.trained_turns, encoded.hidden_turns) == (4, 8)
    (warning,) = encoded.warnings()
    assert warning.startswith("8 of 12 turns are not trained")
    assert warning.endswith("set data.train_on: last")
    steps = [step for number in range(4) for step in last_turns(conversation(number))]
    assert encoding.encode_conversations(steps, template, 1024, {}).warnings() == []


def test_a_row_without_a_turn_to_train_is_named(template: ChatTemplate) -> None:
    with pytest.raises(DataError, match="row 'c0' has no assistant turn to train"):
        encoding.encode_conversations([conversation(trained=[])], template, 1024, {})
