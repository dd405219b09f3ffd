"""The stage `score`: what it writes, and that a job that was stopped or moved goes on where it was."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from scoring_examples import SETTINGS
from snapshot_writer import write_rows
from tiny import tiny_choice_rows

from rightcall.errors import ScoringError
from rightcall.evaluation import generation, score
from rightcall.evaluation.multiple_choice import Plan
from rightcall.job import metrics_log
from rightcall.job.folders import load_job
from rightcall.recipe.loading import load_recipe


def make_job(root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    recipe = load_recipe(None).model_dump(mode="json", by_alias=True)
    recipe["evaluation"] |= SETTINGS | changes
    recipe["model"]["chat_template"] = "chatml-tools"
    channels = root / "input/data"
    for name in ("job", "dataset"):
        (channels / name).mkdir(parents=True)
    (channels / "job/job.json").write_text(json.dumps({"stage": "score", "recipe": recipe}))
    (channels / "model").symlink_to(tiny_model)
    write_rows(channels / "dataset", "choice", tiny_choice_rows(12))
    monkeypatch.setenv("SM_ML_ROOT", str(root))
    return load_job()


RESULTS = ("items.jsonl", "generations.jsonl", "scores.json")


def lines(job: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output / name).read_text().splitlines()]


def results(job: Any) -> dict[str, str]:
    return {name: (job.output / name).read_text() for name in RESULTS}


def test_the_stage_writes_items_generations_and_scores(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch)
    score.run(job)
    items = [json.loads(line) for line in (job.output / "items.jsonl").read_text().splitlines()]
    scores = json.loads((job.output / "scores.json").read_text())
    assert [item["id"] for item in items] == [row["id"] for row in tiny_choice_rows(12)]
    assert scores["n"] == 12
    assert {"acc", "acc_norm", "macro_f1", "recall_direct", "gen_right_behaviour"} <= set(scores["metrics"])
    assert set(scores["metrics"]["acc_norm"]) == {"value", "n"}
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == 12
    assert scores["baseline_rule"]["metrics"]["acc_norm"]["n"] == 12
    assert 0 < scores["tokens_forward"] < scores["tokens_naive"]
    assert len((job.output / "generations.jsonl").read_text().splitlines()) == 4
    progress = [json.loads(line) for line in (job.output / "metrics.jsonl").read_text().splitlines()]
    assert progress[-1]["step"] == progress[-1]["total_steps"] == 12
    assert progress[-1]["eta_seconds"] == 0
    assert json.loads((job.output / "summary.json").read_text())["seconds"] > 0
    assert list(job.checkpoints.iterdir()) == []


def ask_to_stop_at(number: int, owner: Any, name: str, job: Any, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Sets the job's stop flag in the call `number` of owner.name, which goes on; gives the list of all calls."""
    calls: list[Any] = []
    original = getattr(owner, name)

    def call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == number:
            job.stop_flag.write_text("")
        return original(*arguments)

    monkeypatch.setattr(owner, name, call)
    return calls


def elsewhere(job: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The same job in a new container: the inputs as before, and nothing else than the checkpoints."""
    shutil.copytree(job.folders.root / "input", root / "input", symlinks=True)
    shutil.copytree(job.checkpoints, root / "checkpoints")
    monkeypatch.setenv("SM_ML_ROOT", str(root))
    return load_job()


SMALL = {"max_tree_tokens": 400, "dtype": "bfloat16"}


@pytest.mark.parametrize("moved", [False, True], ids=["here", "in a new container"])
def test_a_stopped_stage_goes_on_and_ends_with_the_same_bytes(
    moved: bool, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch, **SMALL)
    score.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch, **SMALL)
    scored = ask_to_stop_at(2, Plan, "score", job, monkeypatch)
    with pytest.raises(SystemExit, match="143"):
        score.run(job)
    assert len(scored) == 2
    assert not (job.output / "items.jsonl").exists()
    job.stop_flag.unlink()
    with (job.checkpoints / "items.partial.jsonl").open("a") as partial:
        partial.write('{"plan": "cut off by a ki')
    with (job.output / "metrics.jsonl").open("a") as progress:
        progress.write('{"step": 3, "total')
    if moved:
        job = elsewhere(job, tmp_path / "c", monkeypatch)
    score.run(job)
    assert len(scored) == len(lines(undisturbed, "metrics.jsonl")) > 3
    steps = [line["step"] for line in lines(job, "metrics.jsonl")]
    assert steps == [line["step"] for line in lines(undisturbed, "metrics.jsonl")][2 if moved else 0 :]
    assert results(job) == results(undisturbed)
    assert list(job.checkpoints.iterdir()) == []


@pytest.mark.parametrize("moved", [False, True], ids=["here", "in a new container"])
def test_a_stage_stopped_while_it_writes_answers_goes_on_and_ends_with_the_same_bytes(
    moved: bool, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "BATCH_ROWS", 2)
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch, generation_items=7)
    score.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch, generation_items=7)
    batches = ask_to_stop_at(2, generation, "_decode", job, monkeypatch)
    trees = ask_to_stop_at(0, Plan, "score", job, monkeypatch)
    with pytest.raises(SystemExit, match="143"):
        score.run(job)
    done = len(trees)
    job.stop_flag.unlink()
    if moved:
        job = elsewhere(job, tmp_path / "c", monkeypatch)
    score.run(job)
    assert len(batches) == 4
    assert len(trees) == done
    assert results(job) == results(undisturbed)
    assert list(job.checkpoints.iterdir()) == []


@pytest.mark.parametrize("name", ["items.partial.jsonl", "generations.partial.jsonl"])
def test_what_another_plan_has_finished_is_not_taken_over(
    name: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch)
    score.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch)
    piece = {"items": [], "tokens": 1} if name.startswith("items") else [[1], [2], [3], [4]]
    (job.checkpoints / name).write_text(json.dumps({"plan": "of other rows", "number": 0, "piece": piece}) + "\n")
    score.run(job)
    assert results(job) == results(undisturbed)


def test_progress_goes_to_the_log_where_the_environment_asks_for_it(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    score.run(make_job(tmp_path / "a", tiny_model, monkeypatch, **SMALL))
    assert metrics_log.MARK not in capsys.readouterr().out
    monkeypatch.setenv(metrics_log.VARIABLE, "1")
    job = make_job(tmp_path / "b", tiny_model, monkeypatch, **SMALL)
    score.run(job)
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("RIGHTCALL_METRICS {")]
    assert [json.loads(line.removeprefix(metrics_log.MARK)) for line in said] == lines(job, "metrics.jsonl")


def test_bad_models_are_clear_errors(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ScoringError, match="holds no model"):
        score.model_folder(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ScoringError, match=r"cannot be loaded.*model.safetensors"):
        score.load_model(score.model_folder(broken))


def test_a_stages_folder_in_the_store_is_a_model_channel_too(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    assert score.model_folder(tmp_path) == tmp_path / "model"
