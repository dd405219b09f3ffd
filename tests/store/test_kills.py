"""Real processes, really killed: the same command goes on, ends with the same result, and leaves no orphan."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from killable_run import run_small
from prefect_fixture import prefect_server  # noqa: F401
from processes import PROGRAMS, PYTHONPATH, comes_true

from tasks.machine.child_processes import marked
from tasks.store.folder_store import Store
from tasks.store.leases import EXPIRY_SECONDS
from tasks.store.manifests import ArtifactRef

ROOT = Path(__file__).resolve().parents[2]
STEPS, SECONDS = 40, 0.02
# A server that has imported everything and forks in milliseconds: killing ten orchestrators costs no ten starts.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["killable_run"])


@pytest.fixture(scope="module")
def forks() -> None:
    """Starts the server; Python 3.11 does not tell it sys.path, and it ignores modules that it cannot import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PYTHONPATH)
        first = processes.Process(target=time.sleep, args=(0,))
        first.start()
        first.join()


@pytest.fixture
def store(tmp_path: Path, forks: None) -> Iterator[Store]:
    store = Store(tmp_path / "store")
    store.root.mkdir()
    yield store
    assert orphans(store) == []


def start(store: Store, answer: Path | None = None, steps: int = STEPS) -> BaseProcess:
    process = processes.Process(
        target=run_small, args=(str(store.root), steps, SECONDS, str(answer) if answer else None)
    )
    process.start()
    return process


def finish(process: BaseProcess, seconds: float = 60) -> int | None:
    process.join(seconds)
    return process.exitcode


def orphans(store: Store) -> list[int]:
    """Processes of any job of this store that still live, after the moment that the kernel needs."""
    roots = [str(path / "scratch" / "job") for path in store.root.glob(".work/*/*")]
    comes_true(lambda: not any(marked(root) for root in roots), 3)
    return [pid for root in roots for pid in marked(root)]


def job_root(store: Store, stage: str = "killable") -> Path | None:
    return next(iter(store.root.glob(f".work/{stage}/*/scratch/job")), None)


def has_checkpoint(store: Store, stage: str = "killable") -> bool:
    root = job_root(store, stage)
    return root is not None and any(root.glob("checkpoints/*/COMPLETE"))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, forks: None) -> ArtifactRef:
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "store").mkdir()
    assert finish(start(Store(folder / "store"), folder / "ref")) == 0
    return ArtifactRef.model_validate_json((folder / "ref").read_text())


def test_after_ten_kills_at_random_moments_the_result_is_that_of_an_undisturbed_run(
    store: Store, undisturbed: ArtifactRef, tmp_path: Path
) -> None:
    moments = random.Random(7)
    for _ in range(10):
        process = start(store)
        time.sleep(moments.uniform(0.05, 0.7))
        process.kill()
        assert finish(process) in (-signal.SIGKILL, 0)
        # The program dies at once; the worker that left its session is found and ended by the next run.
        assert comes_true(lambda: len(marked(str(job_root(store)))) <= 1, 3)
    assert finish(start(store, tmp_path / "ref")) == 0
    ref = ArtifactRef.model_validate_json((tmp_path / "ref").read_text())
    assert ref == undisturbed
    store.verify(ref)
    assert list((store.root / ".leases").glob("*.lease")) == []


def test_a_killed_program_is_a_failure_and_the_next_run_resumes(
    store: Store, undisturbed: ArtifactRef, tmp_path: Path
) -> None:
    process = start(store)
    assert comes_true(lambda: has_checkpoint(store), 30)
    for pid in marked(str(job_root(store))):
        os.kill(pid, signal.SIGKILL)
    assert finish(process) == 1
    assert finish(start(store, tmp_path / "ref")) == 0
    ref = ArtifactRef.model_validate_json((tmp_path / "ref").read_text())
    assert ref == undisturbed
    assert store.manifest(ref)["result"]["first"] >= 5


def test_two_runs_started_together_compute_a_stage_once(store: Store, tmp_path: Path) -> None:
    both = [start(store, tmp_path / "one"), start(store, tmp_path / "two")]
    assert [finish(process) for process in both] == [0, 0]
    assert (tmp_path / "one").read_text() == (tmp_path / "two").read_text()
    assert (store.root / "bodies").read_text() == "ran\n"


def test_who_waits_for_a_killed_run_does_not_wait_for_its_lease_to_expire(
    store: Store, undisturbed: ArtifactRef, tmp_path: Path
) -> None:
    first = start(store)
    assert comes_true(lambda: has_checkpoint(store), 30)
    second = start(store, tmp_path / "ref")
    time.sleep(0.3)
    first.kill()
    assert comes_true(lambda: (store.root / "bodies").read_text() == "ran\nran\n", EXPIRY_SECONDS / 2)
    assert finish(second) == 0
    assert ArtifactRef.model_validate_json((tmp_path / "ref").read_text()) == undisturbed
    first.join()


def command(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(PROGRAMS / "killable_run.py"), *arguments],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, **environment},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_a_flow_that_is_asked_to_stop_saves_a_checkpoint_and_goes_on_next_time(
    store: Store,
    undisturbed: ArtifactRef,
    prefect_server: None,  # noqa: F811
    signal_number: signal.Signals,
) -> None:
    from prefect.settings import PREFECT_API_URL

    server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    stopped = command("flow", str(store.root), "4000", "0.02", **server)
    assert comes_true(lambda: has_checkpoint(store), 180)
    time.sleep(0.3)
    stopped.send_signal(signal_number)
    said, _ = stopped.communicate(timeout=60)
    assert stopped.returncode != 0, said
    assert orphans(store) == []
    assert list((store.root / ".leases").glob("*.lease")) == []
    root = job_root(store)
    assert root is not None
    steps = {int(path.parent.name.rpartition("-")[2]) for path in root.glob("checkpoints/*/COMPLETE")}
    lines = (root / "output/data/metrics.jsonl").read_text().splitlines()
    assert max(steps) == json.loads(lines[-1])["step"], "the last step done is the one saved"


def test_a_flow_killed_with_its_lease_is_resumed_by_the_same_command(
    store: Store,
    undisturbed: ArtifactRef,
    prefect_server: None,  # noqa: F811
) -> None:
    from prefect.settings import PREFECT_API_URL

    server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
    killed = command("flow", str(store.root), str(STEPS), "0.2", **server)
    assert comes_true(lambda: has_checkpoint(store), 180)
    killed.kill()
    killed.communicate()
    assert len(list((store.root / ".leases").glob("*.lease"))) == 1
    said, _ = command("flow", str(store.root), str(STEPS), "0.0", **server).communicate(timeout=60)
    assert ArtifactRef.model_validate_json(said.splitlines()[-1]) == undisturbed, said
    assert store.manifest(undisturbed)["result"]["first"] >= 5


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Store:
    """A store with the tiny model and a snapshot of tiny rows."""
    from snapshot_writer import write_rows
    from tiny import tiny_sft_rows

    store = Store(tmp_path_factory.mktemp("inputs") / "store")
    work = store.workdir("base", "tiny")
    shutil.copytree(tiny_model, work / "model")
    store.commit("base", "tiny", "model", work, {"result": {}})
    work = store.workdir("ingest", "tiny")
    write_rows(work, "sft", [row | {"n_tokens": 1} for row in tiny_sft_rows(24)])
    store.commit("ingest", "tiny", "snapshot", work, {"result": {}})
    return store


def losses(store: Store, ref: ArtifactRef) -> list[float]:
    return [json.loads(line)["loss"] for line in (store.path(ref) / "output/metrics.jsonl").read_text().splitlines()]


def test_sft_killed_in_the_middle_resumes_and_ends_with_the_same_weights(
    inputs: Store, store: Store, tmp_path: Path
) -> None:
    shutil.copytree(inputs.root, store.root, dirs_exist_ok=True)
    tracking = {"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}"}
    first = command("sft", str(store.root), "base/tiny", "ingest/tiny", **tracking)
    whole = command("sft", str(inputs.root), "base/tiny", "ingest/tiny", **tracking)
    assert comes_true(lambda: has_checkpoint(store, "sft") or first.poll() is not None, 120)
    first.kill()
    text, _ = first.communicate()
    assert orphans(store) == []
    assert first.returncode == -signal.SIGKILL, text
    assert store.refs("sft") == [], "it was killed too late to show anything"
    said, _ = whole.communicate(timeout=120)
    again, _ = command("sft", str(store.root), "base/tiny", "ingest/tiny", **tracking).communicate(timeout=120)
    expected = ArtifactRef.model_validate_json(said.splitlines()[-1])
    resumed = ArtifactRef.model_validate_json(again.splitlines()[-1])
    assert resumed == expected, again
    assert losses(store, resumed) == pytest.approx(losses(inputs, expected), abs=1e-6)
    assert len(losses(store, resumed)) == 30
    assert "resumes from checkpoint-" in (store.path(resumed) / "job.log").read_text()
