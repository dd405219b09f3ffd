"""The whole pipeline, stopped in every one of its stages: the same command goes on and ends with the same results."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect_fixture import prefect_server  # noqa: F401
from processes import PROGRAMS, PYTHONPATH, until
from tiny import tiny_recipe

from tasks.store.folder_store import Store

ROOT = Path(__file__).resolve().parents[2]
# Where each stage is stopped: (part of a path, its end, how often it was written): the file that it is about to write.
MOMENTS = {
    "base": ("/.work/base/", "data/summary.json", 1),
    "ingest": ("/.work/ingest/", "checks.json", 1),
    "sft": ("/.work/sft/", "checkpoint-{step}/progress.json", 1),
    "mine": ("/.work/mine/", "mined.partial.jsonl", 2),
    "dpo": ("/.work/dpo/", "checkpoint-{step}/progress.json", 1),
    "score": ("/.work/score/", "items.partial.jsonl", 2),
    "gate": ("/.work/gate/", "verdict.json", 1),
    "register": ("", "MLmodel", 1),
    "report": ("/.work/report/", "report.html", 1),
}
RESUMED = {
    "sft": "resumes from checkpoint-5",
    "mine": "going on after ",
    "dpo": "resumes from checkpoint-5",
    "score": "going on after ",
}
STOPPED = "Stopped. Nothing is lost: the same command goes on"
TERMINATED = "Terminated. Nothing is lost: the same command goes on"
# signal → (the checkpoint that is being written when it comes, exit code, what the run says). Asked to stop at that moment
# a job does one more step and saves that; the next run goes on behind it.
ENDS = {
    signal.SIGKILL: (2, -9, ""),
    signal.SIGINT: (2, 130, STOPPED),
    signal.SIGTERM: (4, 143, TERMINATED),
}
SECONDS = 240  # longest wait for anything, on a machine that does other things too


class Runs:
    """The process that starts runs, and the folder by which they are made to wait."""

    def __init__(self, folder: Path) -> None:
        from prefect.settings import PREFECT_API_URL

        self.hook = folder / "hook"
        self.hook.mkdir()
        shutil.copyfile(PROGRAMS / "pausing.py", self.hook / "sitecustomize.py")
        self.paths = f"{self.hook}{os.pathsep}{PYTHONPATH}"
        self.server = {"PREFECT_API_URL": str(PREFECT_API_URL.value())}
        self.process = subprocess.Popen(
            [sys.executable, str(PROGRAMS / "killable_pipeline.py")],
            env=os.environ | self.server | {"PYTHONPATH": self.paths},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def start(self, place: Place, what: str = "pipeline") -> int:
        """Gives the pid; `end` waits."""
        command = {"what": what, "recipe": str(place.recipe), "log": str(place.log), "environment": place.environment}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(command) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def end(self) -> int:
        return self._answer()

    def _answer(self) -> int:
        assert self.process.stdout is not None
        return int(self.process.stdout.readline())

    def wait_in(self, stage: str, step: int) -> None:
        part, name, count = MOMENTS[stage]
        self.reached.unlink(missing_ok=True)
        wanted = {"part": part, "name": name.format(step=step), "count": count}
        (self.hook / "wanted.json").write_text(json.dumps(wanted))

    def let_go(self) -> None:
        (self.hook / "wanted.json").unlink(missing_ok=True)

    @property
    def reached(self) -> Path:
        return self.hook / "reached"


@dataclass(frozen=True)
class Place:
    """A store and an MLflow database of their own."""

    folder: Path
    recipe: Path

    @property
    def store(self) -> Store:
        return Store(self.folder / "store")

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def database(self) -> Path:
        return self.folder / "mlflow.db"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RIGHTCALL_STORE": str(self.folder / "store"),
            "MLFLOW_TRACKING_URI": f"sqlite:///{self.database}",
            "RIGHTCALL_HOME": str(self.folder),
        }

    def said(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def results(self) -> dict[str, str]:
        """Digest of every result; the report's page holds timings."""
        stages = ("base", "ingest", "sft", "mine", "dpo", "score", "gate", "report")
        refs = [ref for stage in stages for ref in self.store.refs(stage)]
        return {ref.uri: ref.digest if ref.kind != "report" else "" for ref in refs}

    def versions(self) -> list[tuple[int, str]]:
        """(version, digest) of what is registered."""
        from mlflow import MlflowClient

        uri = f"sqlite:///{self.database}"  # the registry's is another setting, which other tests have set in this process
        found = MlflowClient(uri, registry_uri=uri).search_model_versions("name = 'rightcall'")
        return [(int(version.version), version.tags["rightcall.digest"]) for version in found]

    def jobs(self) -> dict[int, str]:
        """Living processes of the training program for this store: pid → command line."""
        mark = f"SM_ML_ROOT={self.folder}/".encode()
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if any(entry.startswith(mark) for entry in (process / "environ").read_bytes().split(b"\0")):
                    found[int(process.name)] = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, prefect_server: None) -> Iterator[Runs]:  # noqa: F811
    runs = Runs(tmp_path_factory.mktemp("runs"))
    yield runs
    assert runs.process.stdin is not None
    runs.process.stdin.close()
    runs.process.wait(SECONDS)


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    path = tiny_recipe(tmp_path_factory.mktemp("recipe"), tiny_model)
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    values["sft"] |= {"max_steps": 6, "save_steps": 1}
    values["dpo"] |= {"max_steps": 6, "save_steps": 1}
    # 144 answers are three batches: the one in which a kill comes, the one after which a stopped job ends, and one more
    values["mine"] = {"samples": 6, "max_new_tokens": 6}
    values["evaluation"] |= {"max_tree_tokens": 400}
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, runs: Runs) -> Path:
    """An empty MLflow database: making its tables takes longer than a run does."""
    place = Place(tmp_path_factory.mktemp("database"), Path("none"))
    runs.start(place, "database")
    assert runs.end() == 0, place.said()
    return place.database


def new_place(folder: Path, recipe: Path, database: Path) -> Place:
    made = Place(folder, recipe)
    made.store.root.mkdir()
    shutil.copyfile(database, made.database)
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, recipe: Path, database: Path, runs: Runs) -> Place:
    """Where two runs of the same command, started together, were left alone; the log holds what both said."""
    made = new_place(tmp_path_factory.mktemp("undisturbed"), recipe, database)
    command = [sys.executable, "-m", "flows.pipeline", str(recipe)]
    environment = os.environ | runs.server | {"PYTHONPATH": runs.paths} | made.environment
    with made.log.open("w") as log:
        both = [
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT) for _ in range(2)
        ]
        assert [run.wait(2 * SECONDS) for run in both] == [0, 0], made.said()
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, recipe: Path, database: Path, undisturbed: Place) -> Place:
    """Shared by this module's tests in their order: each goes on where the one before it was stopped.

    The later two scores are there from the start: it is enough to stop one of three.
    """
    made = new_place(tmp_path_factory.mktemp("stopped"), recipe, database)
    _, *later = reversed(undisturbed.store.refs("score"))
    for ref in later:
        shutil.copytree(undisturbed.store.path(ref), made.store.root / ref.uri)
    return made


def start_until(stage: str, step: int, runs: Runs, place: Place) -> int:
    """Starts a run, which then waits in that stage; gives its pid."""
    place.log.unlink(missing_ok=True)
    runs.wait_in(stage, step)
    pid = runs.start(place)
    until(lambda: runs.reached.exists() or not (Path("/proc") / str(pid)).exists(), f"no {stage}: {place.said()}")
    assert runs.reached.exists(), f"it ended before {stage}: {place.said()}"
    return pid


def test_two_pipelines_started_together_compute_every_stage_once(undisturbed: Place) -> None:
    done = re.findall(r"\b(\w+)-[0-9a-f]{8}(?: \([^)]*\))? done in", undisturbed.said())
    assert sorted(done) == sorted(["base", "ingest", "sft", "mine", "dpo", "score", "score", "score", "gate", "report"])
    assert len(undisturbed.results()) == len(done)
    assert len(undisturbed.versions()) == 1


@pytest.mark.parametrize("number", ENDS, ids=lambda number: number.name)
@pytest.mark.parametrize("stage", MOMENTS)
def test_a_run_that_is_stopped_says_so_and_leaves_no_process(
    stage: str, number: signal.Signals, runs: Runs, place: Place
) -> None:
    step, code, sentence = ENDS[number]
    pid = start_until(stage, step, runs, place)
    os.kill(pid, number)
    if stage in RESUMED and number != signal.SIGKILL:  # the job looks at its flag when this piece of work is done
        flag = f".work/{stage}/*/scratch/job/output/STOP"
        until(lambda: list(place.store.root.glob(flag)), f"{stage} was not asked to stop: {place.said()}")
        runs.let_go()
    assert runs.end() == code, place.said()
    runs.let_go()
    assert sentence in place.said()
    assert "Traceback" not in place.said()
    until(lambda: place.jobs() == {}, f"{stage} goes on without its run: {place.jobs()}")


def test_a_killed_training_process_is_named_with_what_the_next_run_resumes_from(runs: Runs, place: Place) -> None:
    shutil.move(place.store.root / "sft", place.folder / "aside")
    start_until("sft", 2, runs, place)
    (trainer,) = [pid for pid, command in place.jobs().items() if "train.py" in command]
    os.kill(trainer, signal.SIGKILL)
    assert runs.end() == 1
    runs.let_go()
    shutil.rmtree(place.store.root / "sft", ignore_errors=True)
    shutil.move(place.folder / "aside", place.store.root / "sft")
    assert re.search(
        r"BackendError: the training program of stage 'sft' failed.*resumes from checkpoint-1", place.said()
    )
    assert "was killed by signal 9 (SIGKILL)" in place.said()
    assert place.jobs() == {}


def test_after_all_that_the_results_are_those_of_an_undisturbed_run(
    runs: Runs, place: Place, undisturbed: Place
) -> None:
    place.log.unlink(missing_ok=True)
    runs.start(place)
    assert runs.end() == 0, place.said()
    assert place.results() == undisturbed.results()
    assert place.versions() == undisturbed.versions()
    assert len(place.versions()) == 1
    for stage, text in RESUMED.items():
        logs = [(place.store.path(ref) / "job.log").read_text() for ref in place.store.refs(stage)]
        assert any(text in log for log in logs), f"{stage} began again from its start"
