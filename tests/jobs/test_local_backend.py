"""The local backend, with real child processes: what they get, what they tell, how they end."""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterTaskRunId
from prefect.context import TaskRunContext
from prefect_fixture import prefect_server  # noqa: F401
from processes import PROGRAMS
from stage_examples import small_recipe

from rightcall.errors import BackendError, StoreError, TrainingError
from rightcall.job.folders import Folders, folders
from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import JobResult
from tasks.jobs.local import resume_point, run_job
from tasks.jobs.progress import Tail, progress_line
from tasks.machine.child_processes import marked
from tasks.runtime.stage import StageRun
from tasks.store.folder_store import Store

PROGRAM = PROGRAMS / "killable_program.py"


@pytest.fixture
def run(tmp_path: Path) -> StageRun:
    store = Store(tmp_path / "store")
    logger = logging.getLogger("rightcall.test")
    return StageRun("sft", "k" * 32, store, store.workdir("sft", "k"), store.scratch("sft", "k"), logger)


def recipe(steps: int = 12) -> Recipe:
    return small_recipe(sft={"max_steps": steps})


def job(run: StageRun, steps: int = 12, on_metrics: Any = None, **settings: Any) -> JobResult:
    """``settings``: what shall happen in tests/support/programs/killable_program.py."""
    dataset = run.scratch / "dataset"
    dataset.mkdir(exist_ok=True)
    (dataset / "settings.json").write_text(json.dumps(settings))
    return run_job("sft", recipe(steps), {"dataset": dataset}, run, on_metrics, entry=PROGRAM)


def log_of(run: StageRun) -> str:
    return (run.scratch / "job.log").read_text()


def test_a_job_leaves_its_model_its_output_and_its_log(run: StageRun) -> None:
    steps: list[int] = []
    result = job(run, 12, lambda line: steps.append(line["step"]))
    assert result.summary == {"steps": 12, "first": 0}
    assert steps == list(range(1, 13))
    names = sorted(path.relative_to(run.folder).as_posix() for path in run.folder.rglob("*") if path.is_file())
    assert names == ["job.log", "model/config.json", "model/weights", "output/metrics.jsonl", "output/summary.json"]


def test_the_folder_is_that_of_a_sagemaker_container(run: StageRun, tmp_path: Path) -> None:
    dataset = tmp_path / "rows"
    dataset.mkdir()
    (dataset / "sft.parquet").write_text("rows")
    run_job("sft", recipe(), {"dataset": dataset}, run, entry=PROGRAM)
    where: Folders = folders({"SM_ML_ROOT": str(run.scratch / "job")})
    assert json.loads((where.config / "resourceconfig.json").read_text())["hosts"] == ["algo-1"]
    assert json.loads((where.config / "hyperparameters.json").read_text()) == {}
    assert (where.root / "input/data/dataset/sft.parquet").read_text() == "rows"
    description = json.loads((where.root / "input/data/job/job.json").read_text())
    assert description["stage"] == "sft"
    assert Recipe.model_validate(description["recipe"]) == recipe()


def test_secrets_stay_with_the_orchestrator(run: StageRun, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_URI", "SM_MODEL_DIR"):
        monkeypatch.setenv(name, "secret")
    job(run, 1)
    names = json.loads(
        next(line for line in log_of(run).splitlines() if line.startswith("environment")).partition(" ")[2]
    )
    assert {"SM_ML_ROOT", "RIGHTCALL_CACHE", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "PATH"} <= set(names)
    assert not {
        name for name in names if name.startswith(("AWS_", "MLFLOW_", "PREFECT_")) or "TOKEN" in name.split("_")
    }
    assert "WANDB_API_KEY" not in names
    assert "SM_MODEL_DIR" not in names


def test_the_recipe_says_how_many_threads(run: StageRun) -> None:
    from tasks.jobs.local import _environment

    given = small_recipe(compute={"threads": 3})
    assert _environment(run.scratch, given, run)["OMP_NUM_THREADS"] == "3"
    assert _environment(run.scratch, recipe(), run)["OMP_NUM_THREADS"] == str(len(os.sched_getaffinity(0)))


def test_a_talkative_job_does_not_flood_the_log(run: StageRun, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "rightcall.test"):
        job(run, 20, noise=3000, seconds=0.02)
    assert len(caplog.records) < 10
    assert "step 20/20" in caplog.text
    assert log_of(run).count("a line of noise") == 3000


def test_a_failure_keeps_the_type_it_had_in_the_program(run: StageRun) -> None:
    with pytest.raises(
        TrainingError, match=r"^the loss is nan at step 3; lower it \(stage 'sft'; its log: .*job.log\)$"
    ):
        job(run, fail_at=3, failure="TrainingError: the loss is nan at step 3; lower it\nTraceback …")


def test_a_foreign_failure_is_a_backend_error_with_its_text(run: StageRun) -> None:
    with pytest.raises(
        BackendError, match=r"failed with exit code 1; the same command resumes from checkpoint-5.*(?s:.*)KeyError: 'x'"
    ):
        job(run, fail_at=6, failure="KeyError: 'x'")


def test_a_full_disk_in_the_program_is_a_store_error(run: StageRun) -> None:
    with pytest.raises(StoreError, match=r"is full: .*Nothing was lost"):
        job(run, fail_at=6, failure="OSError: [Errno 28] No space left on device: 'weights'")


def test_a_killed_program_says_so_and_the_next_run_resumes(run: StageRun) -> None:
    expected = r"was killed by signal 9 \(SIGKILL\); the same command resumes from checkpoint-5(?s:.*)the last words"
    with pytest.raises(BackendError, match=expected):
        job(run, die_at=7)
    steps: list[int] = []
    result = job(run, 12, lambda line: steps.append(line["step"]))
    assert result.summary["first"] == 5
    assert steps == list(range(1, 13))


def test_an_exit_without_a_model_is_not_a_success(run: StageRun) -> None:
    with pytest.raises(BackendError, match=r"exit code 0 but left no 'model/config.json'"):
        job(run, no_model=True)


def test_a_program_that_is_not_there_is_an_error(run: StageRun, tmp_path: Path) -> None:
    with pytest.raises(BackendError, match=r"exit code 2(?s:.*)No such file"):
        run_job("sft", recipe(), {}, run, entry=tmp_path / "nothing.py")


class Interrupted(BaseException):
    """Stands where Prefect's TerminationSignal or KeyboardInterrupt would be raised."""


def test_an_interrupted_job_saves_a_checkpoint_and_leaves_no_process(run: StageRun) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        if line["step"] >= 7:
            raise Interrupted

    started = time.monotonic()
    with pytest.raises(Interrupted):
        job(run, 1000, interrupt, seconds=0.02, worker=True)
    assert time.monotonic() - started < 10
    root = run.scratch / "job"
    assert marked(str(root)) == []
    checkpoint = resume_point(root)
    assert checkpoint is not None
    assert int(checkpoint.rpartition("-")[2]) % 5 != 0 or (root / f"checkpoints/{checkpoint}/COMPLETE").exists()
    assert job(run, 30).summary["first"] >= 7


def test_workers_of_a_killed_program_are_ended_too(run: StageRun) -> None:
    with pytest.raises(BackendError, match="killed by signal 9"):
        job(run, die_at=6, worker=True)
    assert marked(str(run.scratch / "job")) == []


@pytest.mark.parametrize("seconds", [0.0, 0.05])
def test_a_flow_shows_one_progress_artifact_that_ends_at_100_percent(
    run: StageRun,
    prefect_server: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    seconds: float,
) -> None:
    monkeypatch.setattr("tasks.jobs.progress.INTERVAL_SECONDS", 0.1)

    @task(persist_result=False)
    def train() -> str:
        job(run, 20, seconds=seconds)
        context = TaskRunContext.get()
        assert context is not None
        return str(context.task_run.id)

    task_run_id = flow(train)()
    with get_client(sync_client=True) as client:
        of_run = ArtifactFilter(task_run_id=ArtifactFilterTaskRunId(any_=[task_run_id]))
        artifacts = client.read_artifacts(artifact_filter=of_run)
    assert [(artifact.type, artifact.key, artifact.data) for artifact in artifacts] == [
        ("progress", "progress-sft-kkkkkkkk", 100.0)
    ]
    assert "step 20/20, loss" in str(artifacts[0].description)


def test_only_complete_checkpoints_count_and_ten_comes_after_nine(tmp_path: Path) -> None:
    for name in ("checkpoint-9", "checkpoint-10", "checkpoint-11"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert resume_point(tmp_path) is None
    (tmp_path / "checkpoints" / "items.partial.jsonl").touch()
    assert resume_point(tmp_path) == "the items that are finished"
    for name in ("checkpoint-9", "checkpoint-10"):
        (tmp_path / "checkpoints" / name / "COMPLETE").touch()
    assert resume_point(tmp_path) == "checkpoint-10"


def test_a_tail_gives_whole_lines_once(tmp_path: Path) -> None:
    path = tmp_path / "log"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text("one\ntw")
    assert tail.read() == ["one"]
    path.write_text("one\ntwo\nthree\n")
    assert tail.read() == ["two", "three"]
    path.write_text("new\n")
    assert tail.read() == ["new"]


def test_progress_is_described_with_what_is_known() -> None:
    line = {"step": 12, "total_steps": 40, "loss": 2.3104, "tokens_per_second": 1236.4, "eta_seconds": 192}
    assert progress_line(line) == "step 12/40, loss 2.3104, 1,236 tokens/s, 3.2 min left"
    assert progress_line({"step": 1}) == "step 1/?"
    assert (
        progress_line({"step": 0, "total_steps": 40, "probe_n": 32, "probe_right": 0.25})
        == "step 0/40, probe right 0.25"
    )
