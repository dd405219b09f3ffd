"""What every recipe asks of SageMaker: equal to the files under tests/generators/golden, valid for the service, and right in itself."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from golden_requests import GOLDEN, RECIPES, ROOT, SETTINGS, STAGES, golden_path, rendered, requests_of

from rightcall.recipe.loading import load_recipe

NAMES = [str(path.relative_to(ROOT / "recipes")) for path in RECIPES]


@pytest.fixture(scope="module")
def requests() -> dict[Path, dict[str, Any]]:
    return {path: requests_of(path) for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_recipes_requests_equal_its_golden_file(path: Path, requests: dict[Path, dict[str, Any]]) -> None:
    """A change that is meant: `python tests/generators/golden_requests.py --write`, and the diff goes into the review."""
    golden = golden_path(path).read_text(encoding="utf-8")
    assert requests[path] == json.loads(golden), (
        "run `python tests/generators/golden_requests.py --write` and read the diff"
    )
    assert rendered(requests[path]) == golden


def test_every_recipe_has_a_golden_file_and_none_is_left_over() -> None:
    assert {golden_path(path) for path in RECIPES} == set(GOLDEN.glob("*.json"))


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_every_golden_request_is_one_that_the_service_would_parse(path: Path) -> None:
    """botocore's own model of CreateTrainingJob: names, types, ranges, required fields."""
    import botocore.session
    from botocore.validate import ParamValidator

    shape = (
        botocore.session.get_session().get_service_model("sagemaker").operation_model("CreateTrainingJob").input_shape
    )
    for stage, request in json.loads(golden_path(path).read_text()).items():
        report = ParamValidator().validate(request, shape)
        assert not report.has_errors(), (stage, report.generate_report())


@pytest.mark.parametrize("path", RECIPES, ids=NAMES)
def test_a_request_says_what_the_recipe_says(path: Path, requests: dict[Path, dict[str, Any]]) -> None:
    settings = load_recipe(path).compute.sagemaker
    assert tuple(requests[path]) == STAGES
    for stage, request in requests[path].items():
        chosen = settings.score_instance_type or settings.instance_type if stage == "score" else settings.instance_type
        assert request["ResourceConfig"]["InstanceType"] == chosen
        assert request["ResourceConfig"]["InstanceCount"] == (1 if stage == "score" else settings.instance_count)
        assert request["StoppingCondition"]["MaxRuntimeInSeconds"] == settings.max_runtime_minutes * 60
        assert request["EnableManagedSpotTraining"] is settings.spot
        assert ("MaxWaitTimeInSeconds" in request["StoppingCondition"]) is settings.spot
        assert request["HyperParameters"] == {}, "the SDK's driver sources hyperparameters as shell"
        assert request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
        assert len(request["TrainingJobName"]) <= 63


def test_nothing_of_the_environment_gets_into_a_request(
    requests: dict[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "not-for-anyone")
    monkeypatch.setenv("RIGHTCALL_IMAGE", "mine")
    assert requests_of(RECIPES[0]) == requests[RECIPES[0]]
    text = "".join(map(rendered, requests.values()))
    assert SETTINGS["AWS_SECRET_ACCESS_KEY"] not in text
    assert "not-for-anyone" not in text
