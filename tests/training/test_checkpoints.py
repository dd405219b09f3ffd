"""Kills for real, at random moments: what comes out afterwards is what an undisturbed run gives, bit for bit."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from processes import children, is_running, until
from training_jobs import make_job, make_root, metrics, run_job, start

from rightcall.errors import TrainingError
from rightcall.job import folders, metrics_log
from rightcall.training import checkpoints
from rightcall.training import weights as models
from rightcall.training.loop import STOPPED

ENTRY = Path(folders.__file__).parents[2] / "entry.py"
TIMINGS = ("seconds", "tokens_per_second", "memory_bytes", "eta_seconds")
STAGES: dict[str, dict[str, Any]] = {
    "sft": {
        "gradient_accumulation_steps": 2, "logging_steps": 4, "method": "spectrum",
        "probe_steps": 5, "probe_rows": 2, "keep": "best",
    },
    "dpo": {"method": "lora", "lora": {"dropout": 0.1}, "loss_type": ["sigmoid", "sft"]},
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def result(job: folders.Job) -> tuple[dict[str, str], list[dict[str, Any]]]:
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(job.model.iterdir())}
    return files, [{key: line[key] for key in line if key not in TIMINGS} for line in metrics(job)]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_a_run_killed_at_random_moments_ends_like_an_undisturbed_one(
    tiny_model: Path, tmp_path: Path, stage: str
) -> None:
    section = {"max_steps": 24, "save_steps": 3, **STAGES[stage]}
    undisturbed = make_job(tmp_path / "undisturbed", tiny_model, stage, **{stage: section})
    killed = make_job(tmp_path / "killed", tiny_model, stage, **{stage: section})
    run_job(undisturbed)  # once here, so that what is imported late is there before the forks
    expected = result(undisturbed)
    started = time.monotonic()
    again = start(make_job(tmp_path / "timed", tiny_model, stage, **{stage: section}))
    again.join()
    duration = time.monotonic() - started
    moments = random.Random(7)
    for _ in range(10):
        process = start(killed)
        process.join(moments.uniform(0.05, 0.6) * duration)
        process.kill()
        process.join()
    final = start(killed)
    final.join()
    assert final.exitcode == 0
    assert result(killed) == expected
    assert not torch.equal(*(embedding_or_projection(folder) for folder in (tiny_model, killed.model)))


def embedding_or_projection(folder: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    weights = load_file(folder / "model.safetensors")
    return torch.cat([weights[name].flatten() for name in sorted(weights)])


def test_unfinished_checkpoints_are_deleted_and_never_resumed_from(tmp_path: Path) -> None:
    for step, complete in ((2, True), (10, True), (12, False)):
        (tmp_path / f"checkpoint-{step}").mkdir()
        if complete:
            checkpoints.finish(tmp_path / f"checkpoint-{step}")
    newest = checkpoints.newest(tmp_path)
    assert newest == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()


def test_a_checkpoint_whose_files_have_not_all_come_back_is_not_resumed_from(tmp_path: Path) -> None:
    """As after a Spot interruption: S3 has COMPLETE of step 10 already, but not, or not all of, its optimiser."""
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"12345678")
        checkpoints.finish(tmp_path / f"checkpoint-{step}")
    torn = tmp_path / "checkpoint-10" / "optimizer.pt"
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-10"
    torn.write_bytes(b"1234")
    assert not checkpoints.is_complete(torn.parent)
    torn.unlink()
    assert checkpoints.newest(tmp_path) == tmp_path / "checkpoint-5"
    (tmp_path / "checkpoint-5" / checkpoints.COMPLETE).write_text('{"optimizer.pt"')  # torn itself
    assert checkpoints.newest(tmp_path) is None


def test_the_last_two_checkpoints_are_kept(tmp_path: Path) -> None:
    for step in (8, 9, 10, 11):
        (tmp_path / f"checkpoint-{step}").mkdir()
        checkpoints.finish(tmp_path / f"checkpoint-{step}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]


def test_checkpoints_hold_only_what_is_trained(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={"method": "spectrum", "max_steps": 1})
    run_job(job)
    saved = (job.checkpoints / "checkpoint-1" / checkpoints.WEIGHTS).stat().st_size
    assert saved < 0.3 * (tiny_model / "model.safetensors").stat().st_size
    assert (job.checkpoints / "checkpoint-1" / checkpoints.COMPLETE).is_file()


def test_a_checkpoint_of_another_method_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path / "a", tiny_model, "sft", sft={"max_steps": 1})
    run_job(job)
    other = make_job(tmp_path / "b", tiny_model, "sft", sft={"max_steps": 2, "method": "spectrum"})
    (job.checkpoints / "checkpoint-1").rename(other.checkpoints / "checkpoint-1")
    with pytest.raises(TrainingError, match=r"checkpoint-1 trained other parameters.*delete the checkpoints"):
        run_job(other)


def test_a_checkpoint_is_also_saved_by_the_clock(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={"max_steps": 3, "save_steps": 1000, "save_minutes": 1e-6})
    run_job(job)
    assert sorted(path.name for path in job.checkpoints.iterdir()) == ["checkpoint-2", "checkpoint-3"]


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_stop_flag_saves_the_step_and_leaves_no_model(tiny_model: Path, tmp_path: Path, stage: str) -> None:
    job = make_job(tmp_path, tiny_model, stage, **{stage: {"save_steps": 1000}})
    run = start(job)
    while not (job.output / "metrics.jsonl").exists() and run.is_alive():
        time.sleep(0.005)
    job.stop_flag.touch()
    run.join()
    assert run.exitcode == 143
    assert checkpoints.newest(job.checkpoints)
    assert not list(job.model.iterdir())


def test_metrics_behind_the_checkpoint_and_torn_lines_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps({"step": step}) + "\n" for step in range(1, 6)) + '{"step": 6, "lo')
    metrics_log.cut(path, 3)
    assert path.read_text() == "".join(json.dumps({"step": step}) + "\n" for step in range(1, 4))


def test_a_full_disk_is_named_as_such(tmp_path: Path) -> None:
    full = checkpoints._explained(OSError(28, "No space left on device"), tmp_path)
    assert type(full).__name__ == "StoreError"
    assert "No space left on device" in str(full)
    other = PermissionError(13, "Permission denied")
    assert checkpoints._explained(other, tmp_path) is other


def test_the_whole_program_stops_dies_and_resumes_as_promised(tiny_model: Path, tmp_path: Path) -> None:
    """entry.py for real: its child killed, itself killed, and asked to stop; each attempt is a new process."""
    root = make_root(tmp_path / "job", tiny_model, "sft", sft={"max_steps": 400, "save_steps": 5})
    checkpoint_folder, failure = root / "checkpoints", root / "output/failure"

    def newest_step() -> int:
        return max((checkpoints._step(path.parent) for path in checkpoint_folder.glob("*/COMPLETE")), default=0)

    def launch() -> subprocess.Popen[bytes]:
        """The program, once it has written another checkpoint."""
        seen = newest_step()
        with (tmp_path / "log").open("ab") as log:
            environment = os.environ | {"SM_ML_ROOT": str(root)}
            process = subprocess.Popen([sys.executable, str(ENTRY)], env=environment, stdout=log, stderr=log)
        until(lambda: newest_step() > seen, seconds=60)
        return process

    process = launch()
    os.kill(children(process.pid)[0], signal.SIGKILL)
    assert process.wait(30) == 1
    assert "killed by signal 9 (SIGKILL)" in failure.read_text()

    process = launch()
    assert not failure.exists()
    child = children(process.pid)[0]
    process.kill()
    process.wait(30)
    until(lambda: not is_running(child), seconds=5)

    process = launch()
    process.terminate()
    assert process.wait(60) == STOPPED
    assert not failure.exists()
    assert checkpoints.newest(checkpoint_folder)
    assert not list((root / "model").iterdir())


def test_a_program_that_has_not_trained_yet_stops_at_once(tiny_model: Path, tmp_path: Path) -> None:
    """While it imports its libraries, for half a minute on a busy machine (here for as long as it may), there is nothing to save.

    Whoever starts it may ignore the signal that ends it: a process inherits that.
    """
    root = make_root(tmp_path / "job", tiny_model, "sft", sft={"max_steps": 1})
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, time, types\n"
        "find = lambda name, *more: time.sleep(600) if name == 'trl' else None\n"
        "sys.meta_path.insert(0, types.SimpleNamespace(find_spec=find))\n"
    )
    with (tmp_path / "log").open("ab") as log:
        environment = os.environ | {"SM_ML_ROOT": str(root), "PYTHONPATH": str(tmp_path)}
        before = signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        process = subprocess.Popen([sys.executable, str(ENTRY)], env=environment, stdout=log, stderr=log)
        signal.signal(signal.SIGUSR1, before)
    until(lambda: bool(children(process.pid)), seconds=60)
    child = Path(f"/proc/{children(process.pid)[0]}/maps")
    until(lambda: "libtorch" in child.read_text(), seconds=60)
    process.terminate()
    assert process.wait(60) == STOPPED, (tmp_path / "log").read_text()
    assert not (root / "output/failure").exists()
    assert not list((root / "checkpoints").glob("*"))
    assert not (root / "output/data/metrics.jsonl").exists()


def test_prepared_torch_is_deterministic_on_the_cpu() -> None:
    models.prepare_torch(1)
    assert torch.get_num_threads() == 1
    if not torch.cuda.is_available():
        assert torch.are_deterministic_algorithms_enabled()
