"""Jobs of the emulated service that run tests/support/programs/killable_program.py, and a store in its S3."""

from __future__ import annotations

import json
import logging
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from processes import PROGRAMS
from sagemaker_service import Service
from stage_examples import small_recipe

from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import Input, JobResult
from tasks.jobs.sagemaker.backend import run_job
from tasks.jobs.sagemaker.request import job_name
from tasks.runtime.stage import StageRun
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store

PROGRAM = PROGRAMS / "killable_program.py"
logger = logging.getLogger("rightcall.test")


def sagemaker_recipe(steps: int = 12, *, parallel: str = "auto", method: str = "full", **settings: Any) -> Recipe:
    """``settings``: of compute.sagemaker."""
    settings = {"instance_type": "ml.c5.xlarge", "max_runtime_minutes": 60} | settings
    compute = {"backend": "sagemaker", "parallel": parallel, "sagemaker": settings}
    return small_recipe(sft={"max_steps": steps, "method": method}, compute=compute)


@dataclass
class Cloud:
    """One piece of work (a key of its own) on the service."""

    service: Service
    store: Store
    model: ArtifactRef
    key: str = field(default_factory=lambda: uuid.uuid4().hex)
    metrics: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run(self) -> StageRun:
        folder, scratch = self.store.workdir("sft", self.key, empty=True), self.store.scratch("sft", self.key)
        return StageRun("sft", self.key, self.store, folder, scratch, logger)

    def rows(self, **settings: Any) -> ArtifactRef:
        """What shall happen in the program."""
        key = uuid.uuid4().hex
        work = self.store.workdir("ingest", key)
        (work / "settings.json").write_text(json.dumps(settings))
        return self.store.commit("ingest", key, "snapshot", work, {"result": {}})

    def job(self, steps: int = 12, recipe: Recipe | None = None, **settings: Any) -> JobResult:
        channels = {"model": Input(self.model, "model/"), "dataset": Input(self.rows(**settings))}
        return run_job("sft", recipe or sagemaker_recipe(steps), channels, self.run, self.metrics.append)

    def name(self, attempt: int = 0) -> str:
        return job_name("sft", self.key, attempt)

    @property
    def jobs(self) -> list[str]:
        """Names of this work's jobs, in the order of their creation."""
        return [name for name in self.service.jobs if self.key in name]

    def calls(self, operation: str) -> int:
        return sum(call.operation == operation for call in self.service.calls)

    @property
    def folder(self) -> Path:
        return self.store.root / ".work/sft" / self.key / "result"


@pytest.fixture(scope="session")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root = tmp_path_factory.mktemp("sagemaker")
    with Service(root, program=(sys.executable, str(PROGRAM)), limit_scale=0.01) as service:
        yield service


@pytest.fixture
def cloud(running_service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cloud]:
    for name, value in running_service.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("RIGHTCALL_POLL_SECONDS", "0.1")
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    running_service.calls.clear()
    bucket = f"team-{uuid.uuid4().hex[:8]}"
    running_service.make_bucket(bucket)
    store = open_store(f"s3://{bucket}/rightcall")
    key = uuid.uuid4().hex
    work = store.workdir("base", key)
    (work / "model").mkdir()
    (work / "model" / "config.json").write_text("{}")
    yield Cloud(running_service, store, store.commit("base", key, "model", work, {"result": {}}))
    running_service.faults.reset()
    for job in list(running_service.jobs.values()):  # what a test has left running would take the next test's faults
        if not job.finished.is_set():
            job.stop()
            assert job.finished.wait(60)
