"""The probe: what the model writes on turns that are set aside, and the weights that it chooses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from parallel_jobs import launch, lines, logs, make_hosts, wait
from pydantic import ValidationError
from safetensors.torch import load_file
from tiny import call_message, tiny_preference_rows, tiny_sft_rows
from training_jobs import make_job, make_recipe, metrics, run_job, summary

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError
from rightcall.recipe.schema import Recipe
from rightcall.training import checkpoints
from rightcall.training.health import Health
from rightcall.training.probe import STEPS_OF_GROUP, numbers, set_aside

PROBE = {"probe_steps": 2, "probe_rows": 4, "max_steps": 6}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def grouped_rows(rows: int = 60, users: int = 20) -> list[dict[str, Any]]:
    return [{**row, "group": f"u{number % users}"} for number, row in enumerate(tiny_sft_rows(rows))]


@pytest.mark.parametrize("probe_rows", [3, 5, 32])
def test_whole_groups_are_set_aside(template: ChatTemplate, probe_rows: int) -> None:
    section = make_recipe(sft={"probe_steps": 2, "probe_rows": probe_rows}).sft
    rows = grouped_rows()
    aside = set_aside(rows, section, template)
    held = {row["group"] for row in aside.held}
    assert held.isdisjoint(row["group"] for row in aside.rows)
    assert len(aside.rows) + len(aside.held) == len(rows)
    assert len(aside.steps) == min(probe_rows, 6)  # a tenth of 20 users with 3 turns each, no more
    assert {step["group"] for step in aside.steps} == held
    assert max(sum(step["group"] == name for step in aside.steps) for name in held) <= STEPS_OF_GROUP
    assert aside == set_aside(rows, section, template)
    assert aside.rows != set_aside(rows, section.model_copy(update={"seed": 1}), template).rows


def test_one_group_alone_is_never_set_aside(template: ChatTemplate) -> None:
    section = make_recipe(sft=PROBE).sft
    with pytest.raises(DataError, match="all rows belong to one group, 'u0'"):
        set_aside(grouped_rows(users=1), section, template)
    with pytest.raises(DataError, match="no turn of the 1 groups that were set aside .* max_length=5"):
        set_aside(grouped_rows(users=5), section.model_copy(update={"max_length": 5}), template)


def test_a_pair_that_asks_for_a_held_turn_is_not_trained_on(template: ChatTemplate) -> None:
    aside = set_aside(tiny_sft_rows(24), make_recipe(dpo=PROBE).dpo, template)
    pairs = tiny_preference_rows(24)  # of the same questions
    left = aside.without(pairs)
    assert len(pairs) - len(left) == len(aside.held) == 2
    assert not {pair["prompt"][0]["content"] for pair in left} & {row["messages"][0]["content"] for row in aside.held}


def test_the_shares_are_of_the_steps_that_they_ask_about(template: ChatTemplate) -> None:
    """Call right, question asked as it should be, a call where none fits, a song: 2 of 4, 1 of 1 calls, 1 of 3 overcalls."""
    steps = tiny_sft_rows(4)
    texts = [template.answer_text(row["messages"][-1]) for row in steps]
    assert numbers(steps, texts) == {"probe_n": 4, "probe_right": 1, "probe_right_call": 1, "probe_overcall": 0}
    texts[2:] = [template.answer_text(call_message("get_weather", {"city": "Bern"})), "Which numbers?"]
    assert numbers(steps, texts) == {
        "probe_n": 4, "probe_right": 0.5, "probe_right_call": 1, "probe_overcall": pytest.approx(1 / 3),
    }  # fmt: skip
    assert "probe_overcall" not in numbers(steps[:1], texts[:1])


@pytest.mark.parametrize("section", [
    {"method": "full"}, {"method": "lora", "lora": {"dropout": 0.1}, "activation_checkpointing": True, "bf16": True},
], ids=["full", "lora"])  # fmt: skip
def test_a_probe_is_written_down_and_changes_nothing(tiny_model: Path, tmp_path: Path, section: dict[str, Any]) -> None:
    found = {}
    for every in (2, 4):
        job = make_job(tmp_path / str(every), tiny_model, "sft", sft={**PROBE, "logging_steps": 3, **section,
                                                                      "probe_steps": every})  # fmt: skip
        run_job(job)
        found[every] = job
    curves = {every: metrics(job) for every, job in found.items()}
    assert [line["step"] for line in curves[2]] == [0, 2, 3, 4, 6]
    assert ["probe_right" in line for line in curves[2]] == [True, True, False, True, True]
    assert [line["step"] for line in curves[4]] == [0, 3, 4, 6]
    assert all(line["probe_n"] == 2 for line in curves[4] if line["step"] in (0, 4, 6))
    assert curves[2][-1]["tokens"] == curves[4][-1]["tokens"]
    weights = [load_file(job.model / "model.safetensors") for job in found.values()]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    facts = summary(found[2])
    assert (facts["rows_set_aside"], facts["probe_n"], facts["kept_step"]) == (2, 2, 6)
    assert facts["probe_right_start"] == curves[2][0]["probe_right"]


def test_the_best_probes_weights_are_the_result(tiny_model: Path, tmp_path: Path) -> None:
    """Resumed after its last step, with a progress that says which probe was best."""
    section = {**PROBE, "keep": "best", "save_steps": 2}
    job = make_job(tmp_path, tiny_model, "sft", sft=section)
    run_job(job)
    kept = {step: load_file(job.checkpoints / f"checkpoint-{step}" / checkpoints.WEIGHTS) for step in (4, 6)}
    assert summary(job)["kept_step"] in (0, 2, 4, 6)
    for best in (4, 6, 0):
        folder = job.checkpoints / "checkpoint-6"
        progress = checkpoints.read_progress(folder)
        for step, found in progress["probes"].items():
            found["probe_right"] = float(int(step) == best)
        (folder / checkpoints.PROGRESS).write_text(json.dumps(progress))
        checkpoints.finish(folder, keeps_best=True)
        run_job(job)
        written = load_file(job.model / "model.safetensors")
        expected = kept.get(best) or load_file(tiny_model / "model.safetensors")
        assert all(torch.equal(value, expected[name]) for name, value in written.items()), best
        facts = summary(job)
        assert (facts["kept_step"], facts["probe_right"]) == (best, 1.0)
        assert any("the model is as it came" in warning for warning in facts["warnings"]) == (best == 0)


def test_an_adapter_of_the_best_probe_is_merged(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={**PROBE, "keep": "best", "method": "lora"})
    run_job(job)
    folder = job.checkpoints / "checkpoint-6"
    progress = checkpoints.read_progress(folder)
    progress["probes"]["0"]["probe_right"] = 2.0
    (folder / checkpoints.PROGRESS).write_text(json.dumps(progress))
    checkpoints.finish(folder, keeps_best=True)
    run_job(job)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(job.model / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_best_probes_checkpoint_outlives_newer_ones(tmp_path: Path) -> None:
    """Each checkpoint that stays keeps the one that it calls the best, should the run go on from it."""
    right = {0: 0.1, 2: 0.5, 4: 0.3, 6: 0.2, 8: 0.5, 10: 0.1}
    left = {}
    for step in (2, 4, 6, 8, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        probes = {str(at): {"probe_right": value} for at, value in right.items() if at <= step}
        (folder / checkpoints.PROGRESS).write_text(json.dumps({"probes": probes}))
        checkpoints.finish(folder, keeps_best=True)
        left[step] = sorted(int(path.name[11:]) for path in tmp_path.iterdir())
    assert left == {2: [2], 4: [2, 4], 6: [2, 4, 6], 8: [2, 6, 8], 10: [8, 10]}


def test_a_probe_that_a_stop_cut_off_is_made_when_the_run_goes_on(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={**PROBE, "probe_steps": 1, "max_steps": 2})
    job.stop_flag.parent.mkdir(parents=True, exist_ok=True)
    job.stop_flag.touch()
    with pytest.raises(SystemExit):
        run_job(job)
    assert [line["step"] for line in metrics(job)] == [1]
    assert "probe_right" not in metrics(job)[0]
    job.stop_flag.unlink()
    run_job(job)
    curve = metrics(job)
    assert [(line["step"], "probe_right" in line, "loss" in line) for line in curve] == [
        (1, True, True),
        (2, True, True),
    ]


def test_two_processes_choose_what_one_chooses(tiny_model: Path, tmp_path: Path) -> None:
    """Rank 0 writes, the other waits and takes the same decisions."""
    section = {**PROBE, "keep": "best", "max_steps": 3}
    alone = make_job(tmp_path / "alone", tiny_model, "sft", sft=section)
    run_job(alone)
    (together,) = make_hosts(
        tmp_path / "together", tiny_model, "sft", section, hosts=1, rows=24, parallel="ddp", processes=2
    )
    assert wait(launch([together])) == [0], logs([together])
    probes = [[line for line in found if "probe_right" in line] for found in (metrics(alone), lines(together))]
    assert [line["step"] for line in probes[1]] == [0, 2, 3]
    for name in ("probe_n", "probe_right", "probe_overcall"):
        assert [line.get(name) for line in probes[0]] == [line.get(name) for line in probes[1]]
    expected, found = (load_file(root / "model/model.safetensors") for root in (alone.folders.root, together))
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3)


def test_dpo_asks_the_held_turns_of_the_sft_rows(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "a", tiny_model, "dpo", dpo={**PROBE, "probe_steps": 3})
    run_job(job)
    assert [line["step"] for line in metrics(job) if "probe_right" in line] == [0, 3, 6]
    without = make_job(tmp_path / "b", tiny_model, "dpo", dpo=PROBE)
    (without.channel("dataset") / "sft.parquet").unlink()
    with pytest.raises(RecipeError, match=r"dpo.probe_steps is 2, but the probe's turns come from SFT rows"):
        run_job(without)


def test_health_says_when_fewer_written_answers_are_right_though_the_loss_falls() -> None:
    health = Health(beta=0.1, tokens_per_logprob=20)
    health.see_probe({"probe_right": 0.5})
    health.see({"loss": 0.7})
    for loss, right in ((0.6, 0.45), (0.5, 0.38)):
        assert health.warnings() == []
        health.see({"loss": loss})
        health.see_probe({"probe_right": right})
    (warning,) = health.warnings()
    assert "right written answers fell from 0.50 to 0.38 while the loss fell" in warning
    resumed = Health(beta=0.1, tokens_per_logprob=20)
    resumed.restore(json.loads(json.dumps(health.state())))
    assert resumed.warnings() == [warning]
    health.see_probe({"probe_right": 0.42})
    assert health.warnings() == []


def test_a_recipe_that_cannot_probe_is_refused() -> None:
    with pytest.raises(ValidationError, match="'best' needs probes to choose by: set sft.probe_steps"):
        make_recipe(sft={"keep": "best"})
    for parallel in ("zero3", "fsdp2"):
        content = make_recipe(dpo=PROBE).model_dump(by_alias=True) | {"compute": {"parallel": parallel}}
        with pytest.raises(ValidationError, match=f"{parallel} gives no process a whole model to write with"):
            Recipe.model_validate(content)
