"""prefect.yaml: every flow is deployed, every entrypoint loads for real and takes the parameters beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect import Flow
from prefect.flows import load_flow_from_entrypoint
from prefect.utilities.callables import parameter_schema

import flows  # noqa: F401  before Prefect: it names the folders that Prefect reads at import
from rightcall.recipe.loading import load_recipe

ROOT = Path(__file__).parents[2]
PROJECT = yaml.safe_load((ROOT / "prefect.yaml").read_text())
DEPLOYMENTS = PROJECT["deployments"]
NOT_FLOWS = {"__init__", "command_line", "parameters"}
NOT_FLOWS |= {
    "init"
}  # writes a recipe for files on the reader's own disk: nothing to schedule, nothing that a worker could see


def loaded(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Flow[..., Any]:
    monkeypatch.chdir(ROOT)  # what the pull step does on a worker
    return load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)


@pytest.fixture(params=DEPLOYMENTS, ids=lambda deployment: deployment["name"])
def deployment(request: pytest.FixtureRequest) -> dict[str, Any]:
    return request.param


def test_every_flow_file_has_its_deployment_of_the_same_name() -> None:
    names = {path.stem for path in (ROOT / "flows").glob("*.py")} - NOT_FLOWS
    assert {deployment["name"] for deployment in DEPLOYMENTS} == names
    assert all(deployment["entrypoint"].startswith(f"flows/{deployment['name']}.py:") for deployment in DEPLOYMENTS)


def test_an_entrypoint_loads_and_takes_its_parameters(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = loaded(deployment, monkeypatch)
    flow.validate_parameters(deployment["parameters"])
    assert set(deployment["parameters"]) <= set(flow.parameters.properties)
    assert set(flow.parameters.required or ()) <= set(deployment["parameters"])


def test_the_recipe_of_a_deployment_loads_with_its_overrides(deployment: dict[str, Any]) -> None:
    given = deployment["parameters"]
    load_recipe(ROOT / given.get("recipe", "recipes/quickstart.yaml"), given.get("overrides", ()))


def test_the_form_says_what_every_parameter_means(deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    schema = parameter_schema(loaded(deployment, monkeypatch).fn)
    silent = [name for name, field in schema.properties.items() if not field.get("description")]
    assert not silent


def test_a_run_is_named_by_recipe_and_digest_and_has_a_description(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow = loaded(deployment, monkeypatch)
    assert flow.description
    assert callable(flow.flow_run_name)


def test_a_failed_run_keeps_no_artifact_without_a_name(
    deployment: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert [hook.__name__ for hook in loaded(deployment, monkeypatch).on_failure_hooks] == ["remove_unnamed"]


def test_schedules_are_there_and_inactive_and_one_run_goes_at_a_time(deployment: dict[str, Any]) -> None:
    assert deployment["schedules"]
    assert not any(schedule["active"] for schedule in deployment["schedules"])
    assert deployment["concurrency_limit"]["limit"] == 1
    assert deployment["tags"]


def test_a_worker_runs_the_checkout_that_was_deployed() -> None:
    assert PROJECT["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}]
