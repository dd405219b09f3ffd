"""The emulated service seen through boto3, as every client sees it: what its own tests share."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from sagemaker_service import Service, ServiceProcess
from sagemaker_service.api.logs import GROUP

ROOT = Path(__file__).resolve().parents[3]
BUCKET = "jobs"
SCALE = 0.05  # MaxRuntimeInSeconds=60 is three seconds here, the two minutes' grace are six
# sh as PID 1 ends at once on SIGTERM, and leaves a marker; `steps` writes a checkpoint of every step and resumes from the last
STOPPABLE = "trap 'echo stopped in order > /opt/ml/model/weights; exit 0' TERM; echo ready; while :; do sleep 0.1; done"
STEPS = """
import json, os, pathlib, signal, sys, time
def stop(*_): sys.exit(0)
signal.signal(signal.SIGTERM, stop)
folder = pathlib.Path("/opt/ml/checkpoints")
done = sorted(int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*"))
step = done[-1] if done else 0
print("starts at", step, sorted(path.name for path in pathlib.Path("/opt/ml").iterdir()), flush=True)
while step < int(sys.argv[1]):
    step += 1
    print("step", step, flush=True)
    target = folder / f"checkpoint-{step}"
    target.mkdir()
    (target / "weights").write_text("x" * step)
    (target / "COMPLETE").touch()
    time.sleep(0.2)
pathlib.Path("/opt/ml/model/weights").write_text(str(step))
"""


@pytest.fixture(scope="module", name="running")
def running_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with Service(tmp_path_factory.mktemp("sagemaker"), limit_scale=SCALE) as service:
        service.make_bucket(BUCKET)
        service.s3.put_object(Bucket=BUCKET, Key="in/rows.txt", Body=b"a row\n")
        yield service


@pytest.fixture(name="service")
def fresh_service(running: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    use(running, monkeypatch)
    if not running.plant.contained:
        pytest.skip("these programs name /opt/ml, and no user namespace can be made here")
    running.faults.reset()
    running.calls.clear()
    yield running
    running.faults.reset()


def use(service: Service | ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in service.environment.items():
        monkeypatch.setenv(name, value)


def request(name: str, *command: str, program: str | None = None, **changes: Any) -> dict[str, Any]:
    """`program`: text of a Python program, which travels in a channel (an entrypoint's words have 256 characters at most)."""
    account = os.environ["RIGHTCALL_SAGEMAKER_ROLE"].split(":")[4]
    channels = {"train": f"s3://{BUCKET}/in/"}
    if program is not None:
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"programs/{name}/main.py", Body=program.encode())
        channels["code"] = f"s3://{BUCKET}/programs/{name}/"
        command = ("sh", "-c", 'exec python "${SM_ML_ROOT:-/opt/ml}/input/data/code/main.py" "$@"', "sh", *command)
    whole = {
        "TrainingJobName": name,
        "RoleArn": os.environ["RIGHTCALL_SAGEMAKER_ROLE"],
        "AlgorithmSpecification": {
            "TrainingImage": f"{account}.dkr.ecr.us-east-1.amazonaws.com/rightcall:latest",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": list(command) or ["true"],
        },
        "InputDataConfig": [channel(*item) for item in channels.items()],
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 10},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    } | changes
    return {name: value for name, value in whole.items() if value is not None}


def channel(name: str, uri: str) -> dict[str, Any]:
    return {"ChannelName": name, "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri}}}


SPOT: dict[str, Any] = {
    "EnableManagedSpotTraining": True,
    "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 3600},
}


def client(**config: Any) -> Any:
    return boto3.client("sagemaker", config=Config(**({"retries": {"max_attempts": 0}} | config)))


def described(name: str) -> dict[str, Any]:
    return dict(client().describe_training_job(TrainingJobName=name))


def finished(service: Service, name: str) -> dict[str, Any]:
    assert service.jobs[name].finished.wait(120), "the job did not end"
    return described(name)


def run(service: Service, name: str, *command: str, **changes: Any) -> dict[str, Any]:
    """To its end; the description then."""
    client().create_training_job(**request(name, *command, **changes))
    return finished(service, name)


def streams(name: str) -> dict[str, list[str]]:
    logs = boto3.client("logs")
    found = logs.describe_log_streams(logGroupName=GROUP, logStreamNamePrefix=f"{name}/")["logStreams"]
    read = {}
    for stream in sorted(found, key=lambda item: item["logStreamName"]):
        events = logs.get_log_events(logGroupName=GROUP, logStreamName=stream["logStreamName"], startFromHead=True)
        read[stream["logStreamName"]] = [event["message"] for event in events["events"]]
    return read


def said(name: str) -> list[str]:
    try:
        return [line for lines in streams(name).values() for line in lines]
    except ClientError:  # the group appears with the first line of the first job
        return []


def wait_for(name: str, line: str) -> None:
    deadline = time.monotonic() + 60
    while line not in said(name):
        assert time.monotonic() < deadline, f"{line!r} was never logged: {said(name)}"
        time.sleep(0.1)


def stored(key: str) -> bytes:
    return bytes(boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())


def keys(prefix: str) -> list[str]:
    return [
        item["Key"] for item in boto3.client("s3").list_objects_v2(Bucket=BUCKET, Prefix=prefix).get("Contents", [])
    ]


def refused(error: pytest.ExceptionInfo[ClientError]) -> tuple[str, str]:
    return error.value.response["Error"]["Code"], error.value.response["Error"]["Message"]
