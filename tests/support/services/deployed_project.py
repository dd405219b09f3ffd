"""This project on a real Prefect server: its prefect.yaml deployed as the README says, with a worker that runs it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import yaml
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter, FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun
from processes import comes_true, until

from rightcall.job.parent_death import die_with_parent
from tasks.machine.child_processes import end_group
from tasks.machine.environment import DEFAULTS

ROOT = Path(__file__).parents[3]
# Prefect's own are 60, 30 and 10 seconds.
SOONER = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
    "PREFECT_WORKER_QUERY_SECONDS": "2",
}


class DeployedProject:
    """What a person does with it: commands in a terminal, and what the pages of the UI ask of the API."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.folder, self.environment = folder, environment
        self.store = folder / "store"
        self.client = SyncPrefectClient(environment["PREFECT_API_URL"])

    def prefect(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *arguments]
        ended = subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return ended.stdout

    def start(self, flow: str, **parameters: Any) -> UUID:
        """The Quick run of a deployment with other values in its form."""
        return self.client.create_flow_run_from_deployment(self.deployment(flow), parameters=parameters).id

    def deployment(self, flow: str) -> UUID:
        return self.client.read_deployment_by_name(f"{flow}/{flow}").id

    def run(self, run_id: UUID) -> FlowRun:
        return self.client.read_flow_run(run_id)

    def runs(self, flow: str) -> list[FlowRun]:
        """In the order of their scheduled times."""
        only = DeploymentFilter.model_validate({"id": {"any_": [self.deployment(flow)]}})
        found = self.client.read_flow_runs(deployment_filter=only)
        return sorted(found, key=lambda run: str(run.expected_start_time))

    def until(self, run_id: UUID, *names: str) -> FlowRun:
        """Waits until the run is in one of these states, and fails when it has ended in another."""
        ends = {*names, "Completed", "Failed", "Crashed", "Cancelled"}
        self.waits(lambda: self.run(run_id).state_name in ends, f"the run did not become {names!r}")
        run = self.run(run_id)
        assert run.state_name in names, self.log()
        return run

    def task_states(self, run_id: UUID) -> dict[str, str]:
        """State names by stage, as in {"sft": "Cached"}."""
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
        found = self.client.read_task_runs(flow_run_filter=only)
        return {run.name.split("-")[0]: str(run.state_name) for run in found}

    def waits(self, condition: Callable[[], object], what: str) -> None:
        """``what`` is said, with the worker's last lines, when it does not come true."""

        def asked() -> object:
            time.sleep(0.3)  # every question is work for the server and its database
            return condition()

        assert comes_true(asked, 300), f"{what}; {self.log()}"

    def log(self) -> str:
        return (self.folder / "worker.log").read_text()[-6000:]


@contextmanager
def deployed_project(folder: Path, recipe: Path) -> Iterator[DeployedProject]:
    """All of prefect.yaml with ``recipe`` in place of the quickstart; everything is kept in ``folder``."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "RIGHTCALL_", "MLFLOW_TRACKING"))
    }
    environment = inherited | SOONER | {
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api", "PREFECT_HOME": str(folder / "prefect"),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false", "RIGHTCALL_HOME": str(folder), "NO_COLOR": "1",
        "PREFECT_SERVER_DATABASE_TIMEOUT": DEFAULTS["PREFECT_SERVER_DATABASE_TIMEOUT"],
        "PWD": str(ROOT),  # a shell sets it; prefect.yaml's pull step is filled from it
    }  # fmt: skip
    (folder / "prefect").mkdir(parents=True)
    project = DeployedProject(folder, environment)
    with ExitStack() as stack:
        listen = ("server", "start", "--host", "127.0.0.1", "--port", str(port))
        stack.enter_context(_running(listen, environment, folder / "server.log"))
        until(lambda: _answers(f"http://127.0.0.1:{port}/api/health"), "Prefect's server did not start")
        project.prefect("work-pool", "create", "rightcall", "--type", "process")
        project.prefect("deploy", "--all", "--prefect-file", str(_with_recipe(folder / "prefect.yaml", recipe)))
        worker = ("worker", "start", "--pool", "rightcall")
        stack.enter_context(_running(worker, environment, folder / "worker.log"))
        yield project


def _with_recipe(path: Path, recipe: Path) -> Path:
    project = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for deployment in project["deployments"]:
        deployment["parameters"]["recipe"] = str(recipe)
    path.write_text(json.dumps(project))
    return path


def _answers(address: str) -> bool:
    try:
        return httpx.get(address).is_success
    except httpx.HTTPError:
        return False


@contextmanager
def _running(arguments: Sequence[str], environment: dict[str, str], log: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", *arguments]
    with log.open("ab") as sink:
        die = die_with_parent(parent=os.getpid())
        child = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=sink, stderr=sink, start_new_session=True,
            preexec_fn=die,  # noqa: PLW1509
        )  # fmt: skip
    try:
        yield
    finally:
        end_group(child, 20.0)
