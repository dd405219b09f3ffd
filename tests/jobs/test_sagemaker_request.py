"""The CreateTrainingJob request of a recipe: complete, without secrets, and the one that really leaves."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import ParamValidator
from sagemaker_jobs import sagemaker_recipe

from rightcall.errors import BackendError
from rightcall.job import metrics_log
from tasks.jobs.sagemaker import request as sagemaker_request
from tasks.jobs.sagemaker.request import PROJECT, JobPlan, job_name, training_request

IMAGE = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/rightcall:1"
ROLE = "arn:aws:iam::123456789012:role/training"
SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:hub-AbCdEf"
KEY = "0123456789abcdef" * 2


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment without credentials, without a network, and with keys that must not be seen anywhere."""
    for name in ("AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "RIGHTCALL_IMAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("RIGHTCALL_SAGEMAKER_ROLE", ROLE)


def plan(stage: str = "sft", **settings: Any) -> JobPlan:
    channels = {"model": "s3://team/rc/base/1/model/", "dataset": "s3://team/rc/ingest/2/"}
    return JobPlan(stage, KEY, sagemaker_recipe(**settings), channels, f"s3://team/rc/.jobs/{stage}/{KEY}")


def channels(request: dict[str, Any]) -> dict[str, str]:
    return {entry["ChannelName"]: entry["DataSource"]["S3DataSource"]["S3Uri"] for entry in request["InputDataConfig"]}


def problems(request: dict[str, Any]) -> str:
    """What botocore's own model of the API says."""
    model = ServiceModel(Loader().load_service_model("sagemaker", "service-2"), "sagemaker")
    return str(
        ParamValidator().validate(request, model.operation_model("CreateTrainingJob").input_shape).generate_report()
    )


def test_our_own_image_keeps_its_entrypoint() -> None:
    request = training_request(plan(image=IMAGE))
    algorithm = request["AlgorithmSpecification"]
    assert algorithm["TrainingImage"] == IMAGE
    assert {"ContainerEntrypoint", "ContainerArguments"}.isdisjoint(algorithm)
    assert channels(request) == {
        "job": f"s3://team/rc/.jobs/sft/{KEY}/rightcall-sft-{KEY}/job/",
        "model": "s3://team/rc/base/1/model/",
        "dataset": "s3://team/rc/ingest/2/",
    }
    assert problems(request) == ""


def test_the_image_may_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RIGHTCALL_IMAGE", IMAGE)
    assert training_request(plan())["AlgorithmSpecification"]["TrainingImage"] == IMAGE


def test_an_aws_container_gets_the_program_as_a_channel_and_becomes_it(tmp_path: Path) -> None:
    sent: dict[str, list[str]] = {}
    scripts: list[str] = []

    def upload(folder: Path, url: str) -> None:
        sent[url.rstrip("/").rpartition("/")[2]] = sorted(path.name for path in folder.iterdir())
        scripts.extend(path.read_text() for path in folder.glob("sm_train.sh"))

    request = training_request(plan(instance_type="ml.g5.2xlarge"))
    image = "763104351884.dkr.ecr.eu-central-1.amazonaws.com/pytorch:2.13-cu133-amzn2023-sagemaker"
    assert request["AlgorithmSpecification"]["TrainingImage"] == image  # with the torch of requirements.txt
    assert set(channels(request)) == {"job", "model", "dataset", "code", "sm_drivers"}
    assert problems(request) == ""
    sagemaker_request._trainer(plan(instance_type="ml.g5.2xlarge"), upload)._create_training_job_args()
    assert {"entry.py", "train.py", "rightcall", "requirements.txt"} <= set(sent["code"])
    assert "exec python entry.py" in scripts[0]  # a shell as PID 1 would keep SIGTERM to itself


def test_nothing_of_the_recipe_is_a_hyperparameter() -> None:
    assert training_request(plan(image=IMAGE))["HyperParameters"] == {}


def test_every_setting_of_the_recipe_is_in_the_request() -> None:
    request = training_request(plan(
        image=IMAGE, instance_type="ml.p4d.24xlarge", instance_count=2, volume_gb=500, max_runtime_minutes=90,
        warm_pool_minutes=15, training_plan="arn:aws:sagemaker:eu-central-1:123456789012:training-plan/ours",
        subnets=["subnet-1", "subnet-2"], security_group_ids=["sg-1"], network_isolation=True, encrypt_between_hosts=True,
        output_kms_key="key-out", volume_kms_key="key-disk", tags={"team": "tools"}, environment={"NCCL_DEBUG": "WARN"},
        secrets={"HF_TOKEN": SECRET}, role="arn:aws:iam::123456789012:role/other",
    ))  # fmt: skip
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.p4d.24xlarge", "InstanceCount": 2, "VolumeSizeInGB": 500, "VolumeKmsKeyId": "key-disk",
        "KeepAlivePeriodInSeconds": 900,
        "TrainingPlanArn": "arn:aws:sagemaker:eu-central-1:123456789012:training-plan/ours",
    }  # fmt: skip
    assert request["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert (request["EnableNetworkIsolation"], request["EnableInterContainerTrafficEncryption"]) == (True, True)
    assert request["OutputDataConfig"]["KmsKeyId"] == "key-out"
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 5400}
    assert request["RoleArn"] == "arn:aws:iam::123456789012:role/other"
    assert request["Environment"]["NCCL_DEBUG"] == "WARN"
    assert request["Environment"]["RIGHTCALL_SECRET_HF_TOKEN"] == SECRET
    tags = {tag["Key"]: tag["Value"] for tag in request["Tags"]}
    assert tags == {
        "team": "tools", f"{PROJECT}:project": PROJECT, f"{PROJECT}:stage": "sft", f"{PROJECT}:key": KEY,
        f"{PROJECT}:recipe": "small",
    }  # fmt: skip
    assert problems(request) == ""


def test_spot_waits_as_long_as_the_recipe_says() -> None:
    request = training_request(plan(image=IMAGE, spot=True, max_wait_minutes=120))
    assert request["EnableManagedSpotTraining"] is True
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200}


def test_scoring_takes_one_host_of_its_own_type() -> None:
    given = plan(
        "score", image=IMAGE, instance_type="ml.p4d.24xlarge", instance_count=4, score_instance_type="ml.g5.xlarge"
    )
    resources = training_request(given)["ResourceConfig"]
    assert (resources["InstanceType"], resources["InstanceCount"]) == ("ml.g5.xlarge", 1)


def test_the_console_finds_the_metrics_in_the_lines_that_the_program_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = training_request(plan(image=IMAGE))
    monkeypatch.setenv("RIGHTCALL_METRICS_TO_LOG", request["Environment"]["RIGHTCALL_METRICS_TO_LOG"])
    metrics_log.append(tmp_path / "metrics.jsonl", {"step": 4, "loss": 2.25, "learning_rate": 5e-07, "grad_norm": 0.5})
    log = capsys.readouterr().out
    patterns = {entry["Name"]: entry["Regex"] for entry in request["AlgorithmSpecification"]["MetricDefinitions"]}
    found = {name: re.findall(pattern, log) for name, pattern in patterns.items()}
    assert (found["loss"], found["learning_rate"], found["grad_norm"]) == (["2.25"], ["5e-07"], ["0.5"])


def test_the_same_work_has_one_name_and_its_attempts_share_the_checkpoints() -> None:
    first, second = plan(image=IMAGE), plan(image=IMAGE).next()
    assert (first.name, second.name) == (f"rightcall-sft-{KEY}", f"rightcall-sft-{KEY}-r1")
    requests = training_request(first), training_request(second)
    assert requests[0]["CheckpointConfig"] == requests[1]["CheckpointConfig"] == {
        "S3Uri": f"s3://team/rc/.jobs/sft/{KEY}/checkpoints", "LocalPath": "/opt/ml/checkpoints",
    }  # fmt: skip


@pytest.mark.parametrize("attempt", [0, 9, 123])
@pytest.mark.parametrize("stage", ["sft", "a_stage.with odd--characters", "x" * 80])
def test_a_name_is_always_one_that_the_service_takes(stage: str, attempt: int) -> None:
    name = job_name(stage, KEY, attempt)
    assert re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}", name)
    assert name.endswith(f"-r{attempt}") == (attempt > 0)


def test_no_role_and_no_region_are_said_before_anything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIGHTCALL_SAGEMAKER_ROLE")
    with pytest.raises(BackendError, match="no execution role for SageMaker: set RIGHTCALL_SAGEMAKER_ROLE"):
        training_request(plan(image=IMAGE))
    with pytest.raises(
        BackendError, match="'training' is not the ARN of a role; write arn:aws:iam::<account>:role/<name>"
    ):
        training_request(plan(image=IMAGE, role="training"))
    monkeypatch.delenv("AWS_DEFAULT_REGION")
    monkeypatch.delenv("AWS_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with pytest.raises(BackendError, match="no AWS region: compute.sagemaker.region is None"):
        training_request(plan(image=IMAGE, role=ROLE))


def test_a_variable_that_is_too_long_is_refused_here() -> None:
    with pytest.raises(BackendError, match=r"\['LONG'\]: SageMaker takes 512 characters"):
        training_request(plan(image=IMAGE, environment={"LONG": "x" * 513}))


def test_credentials_are_nowhere_in_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    hidden = {"AWS_ACCESS_KEY_ID": "AKIAHIDDENHIDDENHIDE", "AWS_SECRET_ACCESS_KEY": "hidden-secret", "AWS_SESSION_TOKEN":
              "hidden-session", "HF_TOKEN": "hf_hiddenhiddenhiddenhidden", "WANDB_API_KEY": "hidden-wandb"}  # fmt: skip
    for name, value in hidden.items():
        monkeypatch.setenv(name, value)
    text = json.dumps(training_request(plan(image=IMAGE, secrets={"HF_TOKEN": SECRET})))
    assert not [value for value in hidden.values() if value in text]


def test_equal_plans_give_equal_requests() -> None:
    assert training_request(plan()) == training_request(replace(plan()))
