"""Cancelling in Prefect stops the job of a run, whoever notices first; everything else leaves it."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import boto3
import pytest
from prefect import flow, task
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.context import FlowRunContext
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelling
from prefect_fixture import prefect_server  # noqa: F401
from sagemaker_jobs import Cloud, cloud, running_service, sagemaker_recipe  # noqa: F401

from flows.parameters import stop_its_jobs
from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import Input
from tasks.jobs.sagemaker.backend import run_job
from tasks.jobs.sagemaker.stopping import jobs_of
from tasks.runtime.cancellation import RunCancelled
from tasks.runtime.stage import StageRun, stage
from tasks.store.manifests import ArtifactRef

# ruff: noqa: F811
pytestmark = pytest.mark.usefixtures("prefect_server")
FOREVER = 10_000


@pytest.fixture(autouse=True)
def survive_sigterm() -> Iterator[None]:
    """Prefect sends the signal to the process again when it has noted the run's state, as flows/command_line.py knows."""

    def terminate(number: int, frame: Any) -> None:
        raise TerminationSignal(number)

    before = signal.signal(signal.SIGTERM, terminate)
    yield
    signal.signal(signal.SIGTERM, before)


def cancel(flow_run_id: UUID) -> None:
    """What the button in the UI and `prefect flow-run cancel` do."""
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(flow_run_id, Cancelling())


def training_flow(cloud: Cloud, at_step_3: Callable[[UUID], None], *, nested: bool = False) -> tuple[Any, list[UUID]]:
    """A flow that trains for ever and does something in step 3; and the ids of its runs, the outer one first."""
    seen: list[UUID] = []

    def note() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        seen.append(context.flow_run.id)

    def on_metrics(line: dict[str, Any]) -> None:
        cloud.metrics.append(line)
        if line["step"] == 3:
            at_step_3(seen[0])

    @task(persist_result=False)
    def train() -> None:
        channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.1))}
        run_job("sft", sagemaker_recipe(FOREVER), channels, cloud.run, on_metrics)

    @flow(persist_result=False)
    def inner() -> None:
        note()
        train()

    @flow(persist_result=False)
    def outer() -> None:
        note()
        inner()

    return (outer if nested else inner), seen


def states(flow_run_ids: list[UUID]) -> list[str]:
    with get_client(sync_client=True) as client:
        return [str(client.read_flow_run(each).state_name) for each in flow_run_ids]


def wait_for_end(cloud: Cloud) -> str:
    assert cloud.service.jobs[cloud.name()].finished.wait(60)
    return str(cloud.service.jobs[cloud.name()].status)


@pytest.mark.parametrize("nested", [False, True])
def test_cancelling_stops_the_job_within_two_looks_and_the_run_ends_cancelled(cloud: Cloud, nested: bool) -> None:
    calls_before: list[int] = []

    def note_and_cancel(flow_run_id: UUID) -> None:
        cancel(flow_run_id)
        calls_before.append(len(cloud.service.calls))

    run_flow, ids = training_flow(cloud, note_and_cancel, nested=nested)
    with pytest.raises(RunCancelled, match=f"job {cloud.name()!r} was told to stop"):
        run_flow()
    assert states(ids) == ["Cancelled"] * (1 + nested)
    after = [call.operation for call in cloud.service.calls[calls_before[0] :]]
    assert after[: after.index("StopTrainingJob")].count("DescribeTrainingJob") <= 2
    assert wait_for_end(cloud) == "Stopped"
    assert cloud.jobs == [cloud.name()]


def test_nothing_of_a_cancelled_run_is_shown_as_running(cloud: Cloud) -> None:
    run_flow, ids = training_flow(cloud, cancel)
    with pytest.raises(RunCancelled):
        run_flow()
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=ids)))
    assert [found.state_name for found in tasks] == ["Cancelled"]
    assert wait_for_end(cloud) == "Stopped"


def test_a_worker_that_ends_a_cancelled_run_stops_its_job(cloud: Cloud) -> None:
    def end(flow_run_id: UUID) -> None:
        cancel(flow_run_id)
        raise TerminationSignal(15)

    run_flow, _ = training_flow(cloud, end)
    with pytest.raises(TerminationSignal):
        run_flow()
    assert wait_for_end(cloud) == "Stopped"


def test_a_worker_that_is_shut_down_leaves_the_job(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    def end(_: UUID) -> None:
        raise TerminationSignal(15)

    run_flow, _ = training_flow(cloud, end)
    with caplog.at_level(logging.INFO), pytest.raises(TerminationSignal):
        run_flow()
    assert cloud.calls("StopTrainingJob") == 0
    assert cloud.service.jobs[cloud.name()].status == "InProgress"
    assert "The job goes on without this process" in caplog.text
    boto3.client("sagemaker").stop_training_job(TrainingJobName=cloud.name())
    assert wait_for_end(cloud) == "Stopped"


def test_the_hook_stops_the_jobs_of_its_run_and_no_others_and_says_so_in_its_log(
    cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    def end(_: UUID) -> None:
        raise TerminationSignal(15)  # as if the process were gone: it stops nothing itself

    run_flow, ids = training_flow(cloud, end)
    with pytest.raises(TerminationSignal):
        run_flow()
    cloud_recipe = ["compute.backend=sagemaker", "compute.sagemaker.instance_type=ml.c5.xlarge"]
    with get_client(sync_client=True) as client:
        killed = client.read_flow_run(ids[0])
    killed = killed.model_copy(update={"parameters": {"recipe": None, "overrides": cloud_recipe}})
    stop_its_jobs(run_flow, killed.model_copy(update={"id": uuid4()}), None)
    stop_its_jobs(run_flow, killed.model_copy(update={"parameters": {"recipe": "absent"}}), None)
    assert cloud.calls("StopTrainingJob") == 0
    assert jobs_of(str(ids[0]), "us-east-1") == [cloud.name()]
    with caplog.at_level(logging.INFO):
        stop_its_jobs(run_flow, killed, None)
    said = [vars(record)["flow_run_id"] for record in caplog.records if "was told to stop" in record.getMessage()]
    assert said == [str(ids[0])]
    assert cloud.calls("StopTrainingJob") == 1
    assert wait_for_end(cloud) == "Stopped"


def test_a_job_that_was_attached_to_belongs_to_both_runs(cloud: Cloud) -> None:
    stopped = threading.Event()

    def end(_: UUID) -> None:
        if not stopped.is_set():
            stopped.set()
            raise TerminationSignal(15)

    first, _ = training_flow(cloud, end)
    with pytest.raises(TerminationSignal):
        first()
    cloud.metrics.clear()
    second, ids = training_flow(cloud, cancel)
    with pytest.raises(RunCancelled):
        second()
    assert jobs_of(str(ids[0]), "us-east-1") == []  # nothing of it is in progress any more
    assert wait_for_end(cloud) == "Stopped"
    assert cloud.calls("CreateTrainingJob") == 1


def test_a_cancelled_run_keeps_no_lease(cloud: Cloud) -> None:
    """Else the same command would wait for the lease to expire before it attaches."""
    rows = cloud.rows(seconds=0.1)

    @stage(name="sft", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: cloud.key)
    def train(run: StageRun, recipe: Recipe, model: ArtifactRef) -> dict[str, Any]:
        """Trains for ever."""
        channels = {"model": Input(model, "model/"), "dataset": Input(rows)}
        return run_job("sft", recipe, channels, run, lambda line: cancel(ids[0]) if line["step"] == 3 else None).summary

    @flow(persist_result=False)
    def run_flow() -> None:
        context = FlowRunContext.get()
        assert context is not None
        assert context.flow_run is not None
        ids.append(context.flow_run.id)
        train(sagemaker_recipe(FOREVER), store=cloud.store, model=cloud.model)

    ids: list[UUID] = []
    with pytest.raises(RunCancelled):
        run_flow()
    key = train.key(sagemaker_recipe(FOREVER), {"model": cloud.model}, store=cloud.store)
    assert not cloud.store.locks().is_locked(f"sft-{key}")
    assert states(ids) == ["Cancelled"]
    (name,) = [name for name in cloud.service.jobs if key in name]
    assert cloud.service.jobs[name].finished.wait(60)
