"""What prefect.yaml and the README promise of the deployments, on a real server with a real worker, in this order."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from deployed_project import ROOT, DeployedProject, deployed_project
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Scheduled
from processes import is_running
from tiny import write_tiny_sources

from rightcall.recipe.loading import load_recipe
from tasks.machine.child_processes import marked

FLOWS = [deployment["name"] for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]]
APPROVED = ["gate.approval=required", "register.name=approved"]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[DeployedProject]:
    folder = tmp_path_factory.mktemp("deployed")
    with deployed_project(folder, improving_recipe(folder, tiny_model)) as running:
        yield running


def improving_recipe(folder: Path, model: Path) -> Path:
    """DPO alone, and a policy by which the tiny model gets a GO: a random one has learned something after these steps."""
    rows = {kind: [{"uri": str(path)}] for kind, path in write_tiny_sources(folder / "rows").items()}
    recipe = {
        "name": "tiny",
        "model": {"source": str(model), "chat_template": "chatml-tools"},
        "data": {
            "sft": rows["sft"], "preference": rows["preference"], "evaluation": rows["choice"],
            "near_duplicate_threshold": 1.0, "tolerance": 0.5,
        },
        "sft": {"max_steps": 0, "learning_rate": 1e-3},
        "dpo": {
            "start_from": "base", "max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 2,
            "max_length": 512, "bf16": False,
        },
        "evaluation": {"dtype": "float32", "generation_items": 0, "bootstrap_samples": 200, "confidence": 0.6},
        "gate": {"must_improve": ["acc_norm"], "must_not_drop": {}},
        "compute": {"threads": 1},
    }  # fmt: skip
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


@pytest.fixture(scope="module")
def scheduled(project: DeployedProject) -> tuple[FlowRun, FlowRun]:
    """The first two runs of a schedule, at their ends; the second was due while the first one was at work."""
    project.prefect("deployment", "schedule", "create", "pipeline/pipeline", "--interval", "10", "-y")
    both = {"Running", "AwaitingConcurrencySlot"}
    project.waits(lambda: both <= {str(run.state_name) for run in project.runs("pipeline")}, "no second run waits")
    deployment = project.client.read_deployment(project.deployment("pipeline"))
    for schedule in deployment.schedules:
        project.client.update_deployment_schedule(deployment.id, schedule.id, active=False)
    (first,) = [run for run in project.runs("pipeline") if run.state_name == "Running"]
    second, *others = [run for run in project.runs("pipeline") if run.id != first.id]
    for run in others:
        project.client.delete_flow_run(run.id)
    return project.until(first.id, "Completed"), project.until(second.id, "Completed")


def test_every_schedule_can_be_switched_on_and_off(project: DeployedProject) -> None:
    assert not any(project.runs(flow) for flow in FLOWS)
    project.prefect("deployment", "schedule", "resume", "--all")
    project.waits(lambda: all(project.runs(flow) for flow in FLOWS), "an active schedule gives no run")
    for flow in FLOWS:
        (schedule,) = project.client.read_deployment(project.deployment(flow)).schedules
        hour = int(str(getattr(schedule.schedule, "cron", "")).split()[1])
        assert {run.expected_start_time.hour for run in project.runs(flow) if run.expected_start_time} == {hour}
    project.prefect("deployment", "schedule", "pause", "--all")
    project.waits(
        lambda: not any(project.runs(flow) for flow in FLOWS), "runs of a schedule that is off are still there"
    )


def test_a_schedule_gives_runs_that_start_and_complete(
    project: DeployedProject, scheduled: tuple[FlowRun, FlowRun]
) -> None:
    first, _ = scheduled
    assert first.auto_scheduled
    stages = project.task_states(first.id)
    assert {"base", "ingest", "dpo", "score", "gate", "register", "report"} <= set(stages)
    assert set(stages.values()) == {"Completed"}


def test_the_next_scheduled_run_computes_nothing(project: DeployedProject, scheduled: tuple[FlowRun, FlowRun]) -> None:
    _, second = scheduled
    assert second.auto_scheduled
    states = project.task_states(second.id)
    assert {stage for stage, state in states.items() if state != "Cached"} == {"register"}


def test_one_run_goes_at_a_time_and_the_second_waits(
    project: DeployedProject, scheduled: tuple[FlowRun, FlowRun]
) -> None:
    first, second = scheduled
    assert first.end_time is not None
    assert second.start_time is not None
    assert second.start_time >= first.end_time
    names = [state.name for state in project.client.read_flow_run_states(second.id)]
    assert "AwaitingConcurrencySlot" in names


def test_a_run_is_named_by_its_recipe_and_leaves_its_artifacts(
    project: DeployedProject, scheduled: tuple[FlowRun, FlowRun]
) -> None:
    digest = load_recipe(str(project.folder / "tiny.yaml"), ()).digest
    assert [run.name for run in scheduled] == [f"pipeline-tiny-{digest}"] * 2
    for run in scheduled:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        keys = {artifact.key for artifact in project.client.read_artifacts(artifact_filter=only)}
        assert {"ingest-summary", "ingest-classes", "dpo-summary", "dpo-curves", "scores", "verdict", "report"} <= keys


@pytest.mark.parametrize(
    ("flow", "given", "said"),
    [
        ("pipeline", {"recipe": 5}, "recipe"),
        ("ingest", {"overrides": "dpo.beta=0.2"}, "overrides"),
        ("train", {"stage": "gdpo"}, "stage"),
        ("score", {"model": None}, "model"),
        ("publish", {"approve": "three"}, "approve"),
    ],
)
def test_the_server_refuses_what_a_form_does_not_take(
    project: DeployedProject, flow: str, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(PrefectHTTPStatusError) as refused:
        project.start(flow, **given)
    assert refused.value.response.is_client_error
    assert said in refused.value.response.text


def test_a_misspelt_parameter_is_refused_at_the_command(project: DeployedProject) -> None:
    with pytest.raises(AssertionError, match="recipie"):
        project.prefect("deployment", "run", "pipeline/pipeline", "--param", "recipie=recipes/quickstart.yaml")


@pytest.mark.parametrize(
    ("flow", "given"),
    [
        ("pipeline", {"recipe": None, "overrides": ["dpo.beta=0.2"], "store": "s3://bucket/prefix"}),
        ("ingest", {"store": "results"}),
        ("train", {"stage": "sft"}),
        ("score", {"model": "models:/rightcall@champion", "suite": "items.jsonl"}),
        ("publish", {"approve": 3}),
    ],
)
def test_the_server_takes_what_a_form_is_for(project: DeployedProject, flow: str, given: dict[str, Any]) -> None:
    later = Scheduled(scheduled_time=datetime.now(UTC) + timedelta(days=1))
    run = project.client.create_flow_run_from_deployment(project.deployment(flow), parameters=given, state=later)
    assert given.items() <= run.parameters.items()
    project.client.delete_flow_run(run.id)


@pytest.mark.usefixtures("scheduled")
@pytest.mark.parametrize(("approve", "alias"), [(False, "challenger"), (True, "champion")])
def test_a_version_waits_for_a_person_and_the_form(project: DeployedProject, approve: bool, alias: str) -> None:
    run = project.start("publish", recipe=str(project.folder / "tiny.yaml"), overrides=APPROVED)
    project.until(run, "Suspended")
    answer = {"approve": approve, "approved_by": "Ada"}
    project.client.resume_flow_run(run, run_input=answer)
    project.until(run, "Completed")
    assert registered(project, "approved") == alias


def registered(project: DeployedProject, name: str) -> str:
    """The alias of a model's newest version."""
    from mlflow import MlflowClient

    address = f"sqlite:///{project.folder / 'mlflow.db'}"
    (model,) = MlflowClient(address, address).search_registered_models(f"name = '{name}'")
    newest = max(model.aliases.items(), key=lambda item: int(item[1]))
    return str(newest[0])


@pytest.mark.usefixtures("scheduled")
def test_cancelling_ends_the_run_and_its_training(project: DeployedProject) -> None:
    run = project.start("train", recipe=str(project.folder / "tiny.yaml"), overrides=["dpo.max_steps=1000000"])
    training: list[int] = []

    def trains() -> bool:
        logs = [*project.store.glob(".work/dpo/*/scratch/job")]
        training[:] = [pid for log in logs for pid in marked(str(log))]
        return bool(training) and any((log / "output/data/metrics.jsonl").exists() for log in logs)

    project.waits(trains, "the training did not start")
    project.prefect("flow-run", "cancel", str(run))
    project.until(run, "Cancelled")
    project.waits(
        lambda: not any(is_running(pid) for pid in training), f"{training!r} run on after the run was cancelled"
    )
    assert "Running" not in project.task_states(run).values()
    assert re.search("cancel", project.log(), re.IGNORECASE)
