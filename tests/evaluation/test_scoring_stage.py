"""The stage `score`: what it writes, and that a job that was stopped or moved goes on where it was."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from scoring_examples import SETTINGS, conversation_steps
from snapshot_writer import write_rows
from tiny import tiny_choice_rows

from rightcall.decoding import decoder
from rightcall.errors import ScoringError
from rightcall.evaluation import model, score
from rightcall.evaluation.multiple_choice import Plan
from rightcall.job import metrics_log
from rightcall.job.folders import load_job
from rightcall.recipe.loading import load_recipe


def make_job(
    root: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: tuple[str, ...] = ("choice", "step"),
    **changes: Any,
) -> Any:
    recipe = load_recipe(None).model_dump(mode="json", by_alias=True)
    recipe["evaluation"] |= SETTINGS | {"policy": None} | changes
    recipe["model"]["chat_template"] = "chatml-tools"
    channels = root / "input/data"
    for name in ("job", "dataset"):
        (channels / name).mkdir(parents=True)
    (channels / "job/job.json").write_text(json.dumps({"stage": "score", "recipe": recipe}))
    (channels / "model").symlink_to(tiny_model)
    if "choice" in rows:
        write_rows(channels / "dataset", "choice", tiny_choice_rows(12))
    if "step" in rows:
        write_rows(channels / "dataset", "step", conversation_steps())
    monkeypatch.setenv("SM_ML_ROOT", str(root))
    return load_job()


RESULTS = ("items.jsonl", "written.jsonl", "scores.json")


def lines(job: Any, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output / name).read_text().splitlines()]


def results(job: Any) -> dict[str, str]:
    return {name: (job.output / name).read_text() for name in RESULTS}


STEPS = 12 + 12 + 4  # items, steps of conversations, items that are answered freely too


def test_the_stage_writes_items_written_turns_and_scores(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch)
    score.run(job)
    items, written = lines(job, "items.jsonl"), lines(job, "written.jsonl")
    scores = json.loads((job.output / "scores.json").read_text())
    assert [item["id"] for item in items] == [row["id"] for row in tiny_choice_rows(12)]
    assert [line["id"] for line in written[:12]] == [row["id"] for row in conversation_steps()]
    assert {line["id"] for line in written[12:]} < {item["id"] for item in items}
    assert [line["conversation"] for line in written[:5]] == ["talk-0"] * 4 + ["talk-1"]
    assert all(line["conversation"] == line["group"] == line["id"] for line in written[12:])
    assert (scores["n"], scores["n_written"]) == (12, 16)
    assert {"acc", "acc_norm", "macro_f1", "recall_direct", "right", "right_grammar", "overcall"} <= set(
        scores["metrics"]
    )
    assert set(scores["metrics"]["acc_norm"]) == set(scores["metrics"]["right"]) == {"value", "n"}
    strictly = [line["verdict"]["ok"] and line["verdict"]["strict"] for line in written]
    assert scores["metrics"]["right_strict"] == {"value": sum(strictly) / 16, "n": 16}
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == 12
    assert scores["baseline_rule"]["metrics"]["acc_norm"]["n"] == 12
    assert 0 < scores["tokens_forward"] < scores["tokens_naive"]
    assert sum(counts["free"] for counts in scores["faults"].values()) >= 16 * (1 - scores["metrics"]["right"]["value"])
    summary = json.loads((job.output / "summary.json").read_text())
    assert (summary["steps"], summary["warnings"]) == (STEPS + 16, [])
    assert min(summary["seconds"], summary["tokens"]) > 0
    assert list(job.checkpoints.iterdir()) == []


def test_progress_goes_over_all_of_scoring_and_ends_at_nothing_left(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch, max_tree_tokens=400)
    score.run(job)
    progress = lines(job, "metrics.jsonl")
    steps = [line["step"] for line in progress]
    assert steps == sorted(set(steps))
    assert {line["total_steps"] for line in progress} == {STEPS + 16}
    assert list(dict.fromkeys(line["part"] for line in progress)) == ["choice", "free", "grammar"]
    assert progress[-1]["step"] == STEPS + 16
    assert [line["eta_seconds"] for line in progress if line["eta_seconds"] == 0] == [0], "only the last says so"


@pytest.mark.parametrize("kind", ["choice", "step"])
def test_one_kind_of_rows_is_enough(
    kind: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=(kind,), generation_items=0)
    score.run(job)
    metrics = json.loads((job.output / "scores.json").read_text())["metrics"]
    assert ("acc_norm" in metrics, "right" in metrics) == (kind == "choice", kind == "step")
    assert (len(lines(job, "items.jsonl")), len(lines(job, "written.jsonl"))) == (
        (12, 0) if kind == "choice" else (0, 12)
    )
    assert lines(job, "metrics.jsonl")[-1]["step"] == lines(job, "metrics.jsonl")[-1]["total_steps"]


def test_without_a_grammar_there_is_no_second_answer(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=("step",), grammar=False)
    score.run(job)
    assert {line["grammar"] for line in lines(job, "written.jsonl")} == {None}
    assert not any(
        name.endswith("_grammar") for name in json.loads((job.output / "scores.json").read_text())["metrics"]
    )


def test_an_answer_that_the_grammar_allows_is_the_same_twice(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A random model writes no calls: all its answers are text, which the grammar leaves alone."""
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=("step",))
    score.run(job)
    for line in lines(job, "written.jsonl"):
        assert line["grammar"] == {name: line[name] for name in ("text", "verdict", "error_kind", "faults", "cut")}


def test_a_snapshot_with_nothing_to_evaluate_is_refused(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ScoringError, match="nothing to evaluate: 0 multiple-choice items and 0 steps"):
        score.run(make_job(tmp_path, tiny_model, monkeypatch, rows=()))


def test_steps_that_leave_no_room_to_write_are_refused_before_anything_is_scored(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=())
    rows = conversation_steps(2)
    rows[5]["messages"][0]["content"] = "word " * 2_000
    write_rows(job.channel("dataset"), "step", rows)
    with pytest.raises(ScoringError, match=r"[1-4] of 8 steps leave .* 'talk-1/\d' with \d+ tokens.*data.too_long"):
        score.run(job)
    assert not (job.output / "metrics.jsonl").exists()


def test_a_warning_about_writing_needs_something_to_write(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder.Decoder, "_can_grow", lambda self: False)
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=("choice",), generation_items=0)
    score.run(job)
    assert json.loads((job.output / "summary.json").read_text())["warnings"] == []


def test_policy_tools_that_nobody_offers_are_a_warning(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = {"authenticate": ["get_weather"], "write": ["cancel_ordre"]}
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=("step",), policy=policy)
    score.run(job)
    (warning,) = json.loads((job.output / "summary.json").read_text())["warnings"]
    assert "['cancel_ordre']" in warning


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


SMALL: dict[str, Any] = {"max_tree_tokens": 400, "dtype": "bfloat16"}


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
    whole = len([line for line in lines(undisturbed, "metrics.jsonl") if line["part"] == "choice"])
    assert len(scored) == whole + 1 > 4, "the second tree was begun twice, no other"
    steps = [line["step"] for line in lines(job, "metrics.jsonl")]
    assert steps == [line["step"] for line in lines(undisturbed, "metrics.jsonl")][1 if moved else 0 :]
    assert results(job) == results(undisturbed)
    assert list(job.checkpoints.iterdir()) == []


@pytest.mark.parametrize("moved", [False, True], ids=["here", "in a new container"])
def test_a_stage_stopped_while_it_writes_answers_goes_on_and_ends_with_the_same_bytes(
    moved: bool, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_ANSWERS", 3)
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch)
    batches = ask_to_stop_at(0, decoder._Trees, "answer", undisturbed, monkeypatch)
    score.run(undisturbed)
    whole = len(batches)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch)
    stopped = ask_to_stop_at(3, decoder._Trees, "answer", job, monkeypatch)
    trees = ask_to_stop_at(0, Plan, "score", job, monkeypatch)
    with pytest.raises(SystemExit, match="143"):
        score.run(job)
    done = len(trees)
    assert len((job.checkpoints / "free.partial.jsonl").read_text().splitlines()) == 2
    with (job.checkpoints / "free.partial.jsonl").open("a") as partial:
        partial.write('{"plan": "cut off by a ki')
    job.stop_flag.unlink()
    if moved:
        job = elsewhere(job, tmp_path / "c", monkeypatch)
    score.run(job)
    assert len(stopped) == whole + 1, "the third batch was begun twice, no other"
    assert len(trees) == done
    assert results(job) == results(undisturbed)
    assert list(job.checkpoints.iterdir()) == []


KILLED = """
import os, signal
from rightcall.decoding import decoder
from rightcall.evaluation import score
from rightcall.job.folders import load_job
calls, answer = [], decoder._Trees.answer
def answer_or_die(self, batch):
    calls.append(batch)
    if len(calls) == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(self, batch)
decoder.MAX_ANSWERS, decoder._Trees.answer = 3, answer_or_die
score.run(load_job())
"""


def test_a_killed_stage_goes_on_after_the_batches_that_were_written(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoder, "MAX_ANSWERS", 3)
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch, rows=("step",))
    score.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch, rows=("step",))
    environment = os.environ | {"PYTHONPATH": str(Path(score.__file__).parents[2])}
    killed = subprocess.run([sys.executable, "-c", KILLED], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-2000:]
    assert len((job.checkpoints / "free.partial.jsonl").read_text().splitlines()) == 2
    batches = ask_to_stop_at(0, decoder._Trees, "answer", job, monkeypatch)
    score.run(job)
    assert len(batches) == 2, "two of the four were there"
    assert results(job) == results(undisturbed)
    assert [line["step"] for line in lines(job, "metrics.jsonl")] == [
        line["step"] for line in lines(undisturbed, "metrics.jsonl")
    ]


def test_a_stop_is_obeyed_within_a_batch(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch takes minutes on a slow machine: the flag is looked at before every pass of the model."""
    job = make_job(tmp_path, tiny_model, monkeypatch, rows=("step",), max_new_tokens=64)
    passes = ask_to_stop_at(5, decoder.Decoder, "forward", job, monkeypatch)
    with pytest.raises(SystemExit, match="143"):
        score.run(job)
    assert len(passes) in (5, 6)


@pytest.mark.parametrize("name", ["items.partial.jsonl", "free.partial.jsonl", "grammar.partial.jsonl"])
def test_what_another_plan_has_finished_is_not_taken_over(
    name: str, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch)
    score.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch)
    piece = {"items": [], "tokens": 1} if name.startswith("items") else [[0, 1], [[7], [8]]]
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
        model.model_folder(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ScoringError, match=r"cannot be loaded.*model.safetensors"):
        model.load_model(model.model_folder(broken))


def test_a_stages_folder_in_the_store_is_a_model_channel_too(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    assert model.model_folder(tmp_path) == tmp_path / "model"
