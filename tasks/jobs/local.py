"""The training program as a child process over a folder shaped like a SageMaker container's /opt/ml.

The folder lies in the stage's scratch, so checkpoints survive kills and the next run of the same key resumes. The child
has a session and a log file of its own, dies with this process (PR_SET_PDEATHSIG), and is ended in ``finally``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError, RightcallError, StoreError
from rightcall.job.parent_death import die_with_parent
from rightcall.job.stage_table import STAGES
from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import JobResult, program_error
from tasks.jobs.progress import Progress, Tail, last_lines
from tasks.machine.checkout import CHECKOUT
from tasks.machine.child_processes import end_group, end_marked
from tasks.machine.full_disk import full_disk_message
from tasks.results.files import read_summary
from tasks.runtime.stage import StageRun

ENTRY = CHECKOUT / "training_image" / "entry.py"
POLL_SECONDS = 0.3
STOP_SECONDS = 25.0  # for a last checkpoint; Prefect's runner kills the orchestrator 30 s after its SIGTERM
# What the program may know of this machine. Secrets (AWS_*, *_TOKEN, *_KEY) stay here: it works on local folders.
PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "TZ", "TMPDIR", "VIRTUAL_ENV", "PYTHONPATH", "LD_LIBRARY_PATH", "HF_HOME",
    "CUDA_HOME", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES",
    "PYTORCH_CUDA_ALLOC_CONF", "TRITON_CACHE_DIR", "XDG_CACHE_HOME", "OMP_PROC_BIND", "MKL_NUM_THREADS",
)  # fmt: skip


def run_job(
    stage: str,
    recipe: Recipe,
    channels: Mapping[str, Path],
    run: StageRun,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
    *,
    entry: Path = ENTRY,
) -> JobResult:
    """Runs one job to its end and moves its ``model/`` and ``output/`` into ``run.folder``.

    Raises:
        BackendError: the program could not be started, was killed, or ended without a result.
        RightcallError: the program's own error, as the type it had there.
        StoreError: the disk is full.
    """
    root = run.scratch / "job"
    log = run.scratch / "job.log"
    end_marked(str(root))
    _prepare(root, stage, recipe, channels)
    started = time.monotonic()
    resumed = resume_point(root)
    run.logger.info(
        "%s starts %s%s; its log: %s", run.title, entry.name, f", resumes from {resumed}" if resumed else "", log
    )
    metrics, lines = Tail(root / "output/data/metrics.jsonl"), Tail(log, from_end=True)
    progress = Progress(run.title, run.logger, on_metrics)

    def tell(final: bool) -> None:
        progress.update(metrics.read(), lines.read(), final=final)

    code = _run_child(entry, _environment(root, recipe, run), log, tell)
    if code != 0:
        raise _error_of(stage, code, root, log)
    _collect(stage, root, log, run.folder)
    return JobResult(read_summary(run.folder), round(time.monotonic() - started, 3))


def resume_point(root: Path) -> str | None:
    """What the next run goes on from: the newest complete checkpoint, as in "checkpoint-40", or a scoring's finished items."""
    complete = [path.parent.name for path in root.glob("checkpoints/checkpoint-*/COMPLETE")]
    if complete:
        return max(complete, key=lambda name: int(name.rpartition("-")[2]))
    return "the items that are finished" if any(root.glob("checkpoints/*.partial.jsonl")) else None


def _prepare(root: Path, stage: str, recipe: Recipe, channels: Mapping[str, Path]) -> None:
    """Writes the inputs anew; checkpoints and metrics of an earlier attempt stay."""
    for stale in ("model", "input"):
        shutil.rmtree(root / stale, ignore_errors=True)
    for folder in ("input/config", "input/data/job", "model", "checkpoints", "output/data"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    (root / "output" / "failure").unlink(missing_ok=True)
    names = ["job", *channels]
    files: dict[str, Any] = {
        "input/config/resourceconfig.json": {
            "current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo",
        },
        # No user text in hyperparameters: SageMaker's driver sources them as shell.
        "input/config/hyperparameters.json": {},
        "input/config/inputdataconfig.json": {name: {"TrainingInputMode": "File"} for name in names},
        "input/data/job/job.json": {"stage": stage, "recipe": recipe.model_dump(mode="json", by_alias=True)},
    }  # fmt: skip
    for name, content in files.items():
        (root / name).write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    for name, path in channels.items():
        (root / "input" / "data" / name).symlink_to(path.absolute())


def _environment(root: Path, recipe: Recipe, run: StageRun) -> dict[str, str]:
    passed_on = {name: value for name, value in os.environ.items() if name in PASSED_ON or name.startswith("LC_")}
    return passed_on | {
        "SM_ML_ROOT": str(root),
        "OMP_NUM_THREADS": str(recipe.compute.threads or len(os.sched_getaffinity(0))),
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "RIGHTCALL_CACHE": str(run.store.cache),
        "PYTHONUNBUFFERED": "1",
    }


def _run_child(entry: Path, environment: dict[str, str], log: Path, tell: Callable[[bool], None]) -> int:
    """Exit code of the program, negative for the signal that killed it; nothing of it runs on after this."""
    with log.open("ab") as sink:
        try:
            child = subprocess.Popen(
                [sys.executable, str(entry)],
                env=environment, cwd=environment["SM_ML_ROOT"], stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True, preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509  one system call, no locks
            )  # fmt: skip
        except OSError as err:
            raise BackendError(
                f"the training program {str(entry)!r} could not be started: {err}; check the checkout"
            ) from err
    try:
        while (code := child.poll()) is None:
            tell(False)
            time.sleep(POLL_SECONDS)
        tell(True)
        return code
    finally:
        end_group(child, STOP_SECONDS)
        end_marked(environment["SM_ML_ROOT"])


def _error_of(stage: str, code: int, root: Path, log: Path) -> RightcallError:
    failure = root / "output" / "failure"
    text = failure.read_text(encoding="utf-8", errors="replace").strip() if failure.exists() else ""
    tail = last_lines(log)
    if "No space left on device" in text or (not text and "No space left on device" in tail):
        return StoreError(full_disk_message(root))
    checkpoint = resume_point(root)
    resume = f"the same command resumes from {checkpoint}" if checkpoint else "the same command starts it again"
    if (error := program_error(text, f"stage {stage!r}; its log: {log}")) is not None:
        return error
    if code < 0:
        what = f"was killed by signal {-code} ({signal.Signals(-code).name})"
    elif code == 128 + signal.SIGTERM:
        what = "was asked to stop (SIGTERM) and stopped"
    else:
        what = f"failed with exit code {code}"
    said = text or f"it left no failure file; the last lines of its log:\n{tail}"
    return BackendError(f"the training program of stage {stage!r} {what}; {resume}. Its log: {log}\n{said}")


def _collect(stage: str, root: Path, log: Path, folder: Path) -> None:
    expected = STAGES[stage].leaves
    if not (root / expected).exists():
        raise BackendError(
            f"the training program of stage {stage!r} ended with exit code 0 but left no {expected!r} in "
            f"{str(root)!r}; this is a mistake of the program, the last lines of its log:\n{last_lines(log)}"
        )
    if STAGES[stage].makes_model:
        os.rename(root / "model", folder / "model")
    os.rename(root / "output" / "data", folder / "output")
    shutil.copyfile(log, folder / "job.log")
