"""The emulated SageMaker against what the real one is known to do: containers, hosts, logs, results, the ends of a job."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from sagemaker_client import (  # noqa: F401  two are fixtures, by another name
    BUCKET,
    SCALE,
    SPOT,
    STEPS,
    STOPPABLE,
    channel,
    client,
    described,
    finished,
    fresh_service,
    keys,
    request,
    run,
    running_service,
    said,
    stored,
    streams,
    use,
    wait_for,
)
from sagemaker_service import Service
from sagemaker_service.api.constraints import model
from sagemaker_service.quickstart import own_environment

from tasks.machine.environment import DEFAULTS


def test_a_container_has_its_files_its_environment_and_is_pid_1(service: Service) -> None:
    script = """
import json, os, pathlib, socket
config = {p.name: json.loads(p.read_text()) for p in pathlib.Path("/opt/ml/input/config").iterdir()}
row = pathlib.Path("/opt/ml/input/data/train/rows.txt").read_text()
print(json.dumps([config, row, os.getpid(), socket.gethostname(), dict(os.environ)]))
"""
    settings = {"HyperParameters": {"a": "1"}, "Environment": {"COLOUR": "blue"}}
    assert run(service, "layout", program=script, **settings)["TrainingJobStatus"] == "Completed"
    config, row, pid, name, environment = json.loads(said("layout")[0])
    assert config["hyperparameters.json"] == {"a": "1"}
    assert config["inputdataconfig.json"]["train"]["TrainingInputMode"] == "File"
    resources = config["resourceconfig.json"]
    assert (resources["current_host"], resources["hosts"]) == ("algo-1", ["algo-1"])
    assert (row, pid, name) == ("a row\n", 1, "algo-1")
    assert environment["TRAINING_JOB_NAME"] == "layout"
    assert environment["COLOUR"] == "blue"
    assert "SM_ML_ROOT" not in environment
    assert not {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} & set(environment)


def test_without_namespaces_a_plain_process_gets_the_same_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Service(tmp_path, isolation="process") as service:
        use(service, monkeypatch)
        service.make_bucket(BUCKET)
        service.s3.put_object(Bucket=BUCKET, Key="in/rows.txt", Body=b"a row\n")
        script = "cat $SM_ML_ROOT/input/data/train/rows.txt; cat $SM_ML_ROOT/input/config/resourceconfig.json; echo w > $SM_ML_ROOT/model/w"
        assert run(service, "plain", "sh", "-c", script)["TrainingJobStatus"] == "Completed"
        row, resources = said("plain")
        assert row == "a row"
        assert json.loads(resources)["hosts"] == ["127.0.0.1"]
        assert keys("out/plain") == ["out/plain/output/model.tar.gz"]


@pytest.mark.parametrize("isolation", ["auto", "process"])
def test_hosts_reach_each_other_by_the_names_in_resourceconfig(
    isolation: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
import json, os, socket, time
root = os.environ.get("SM_ML_ROOT", "/opt/ml")
config = json.load(open(root + "/input/config/resourceconfig.json"))
master, port = config["hosts"][0], 39417
if config["current_host"] == master:
    listening = socket.create_server((master, port))
    other, _ = listening.accept()
    print("heard", other.recv(99).decode(), flush=True)
else:
    for _ in range(200):
        try:
            socket.create_connection((master, port)).sendall(config["current_host"].encode())
            break
        except OSError:
            time.sleep(0.05)
"""
    with Service(tmp_path, isolation=isolation) as service:
        use(service, monkeypatch)
        service.make_bucket(BUCKET)
        service.s3.put_object(Bucket=BUCKET, Key="in/rows.txt", Body=b"a row\n")
        resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1}
        ended = run(service, f"pair-{isolation}", program=script, ResourceConfig=resources)
        assert ended["TrainingJobStatus"] == "Completed"
        assert said(f"pair-{isolation}")[0] in ("heard algo-2", "heard 127.0.0.2")
        assert [name.partition("/")[2].rpartition("-")[0] for name in streams(f"pair-{isolation}")] == ["algo-1"]


def test_the_role_s_credentials_come_from_an_address_and_reach_s3(service: Service) -> None:
    script = "import boto3; [print(bucket['Name']) for bucket in boto3.client('s3').list_buckets()['Buckets']]"
    assert run(service, "role", "python", "-c", script)["TrainingJobStatus"] == "Completed"
    assert BUCKET in said("role")  # moto is one for all servers of this process


def test_network_isolation_leaves_a_container_without_endpoints_and_credentials(service: Service) -> None:
    run(service, "isolated", "env", EnableNetworkIsolation=True)
    assert not [line for line in said("isolated") if line.startswith(("AWS_ENDPOINT", "AWS_CONTAINER"))]


def test_a_prefix_without_a_slash_also_fetches_its_siblings(service: Service) -> None:
    for name in ("p/model/weights", "p/model2/weights"):
        service.s3.put_object(Bucket=BUCKET, Key=name, Body=b"w")
    run(
        service,
        "siblings",
        "sh",
        "-c",
        "cd /opt/ml/input/data/model; find . -type f",
        InputDataConfig=[channel("model", f"s3://{BUCKET}/p/model")],
    )
    assert sorted(said("siblings")) == ["./2/weights", "./weights"]


def test_logs_arrive_while_the_job_runs_under_the_service_s_stream_name(service: Service) -> None:
    client().create_training_job(**request("talks", "sh", "-c", STOPPABLE))
    wait_for("talks", "ready")
    assert described("talks")["TrainingJobStatus"] == "InProgress"
    assert [name.rpartition("-")[0] for name in streams("talks")] == ["talks/algo-1"]
    client().stop_training_job(TrainingJobName="talks")
    finished(service, "talks")


def test_a_finished_job_leaves_two_archives_and_bills_its_seconds(service: Service) -> None:
    script = (
        "mkdir /opt/ml/model/sub; echo w > /opt/ml/model/sub/weights; echo 1 > /opt/ml/output/data/metrics; sleep 1"
    )
    ended = run(service, "archives", "sh", "-c", script)
    assert ended["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/archives/output/model.tar.gz"
    names = {}
    for name in ("model", "output"):
        with tarfile.open(fileobj=io.BytesIO(stored(f"out/archives/output/{name}.tar.gz"))) as tar:
            names[name] = tar.getnames()
    assert names == {"model": ["sub/weights"], "output": ["metrics"]}
    statuses = [transition["Status"] for transition in ended["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert ended["BillableTimeInSeconds"] == ended["TrainingTimeInSeconds"] >= 1
    assert ended["TrainingStartTime"] <= ended["TrainingEndTime"]


def test_uncompressed_output_keeps_its_files(service: Service) -> None:
    output = {"S3OutputPath": f"s3://{BUCKET}/out", "CompressionType": "NONE"}
    ended = run(service, "flat", "sh", "-c", "echo w > /opt/ml/model/weights", OutputDataConfig=output)
    assert ended["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://{BUCKET}/out/flat/output/model/"
    assert stored("out/flat/output/model/weights") == b"w\n"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("printf 'TrainingError: the loss is nan' > /opt/ml/output/failure; exit 1",
         "AlgorithmError: TrainingError: the loss is nan, exit code: 1"),
        ("exit 3", "AlgorithmError: , exit code: 3"),
        ("printf 'x%.0s' $(seq 3000) > /opt/ml/output/failure; exit 1", f"AlgorithmError: {'x' * 1024}, exit code: 1"),
        ("python -c 'import os, signal; os.kill(os.getpid(), signal.SIGKILL)'; exit $?", "AlgorithmError: , exit code: 137"),
    ],
)  # fmt: skip
def test_a_failed_program_ends_the_job_with_its_reason(script: str, reason: str, service: Service) -> None:
    name = f"fails-{abs(hash(script))}"
    ended = run(service, name, "sh", "-c", script)
    assert (ended["TrainingJobStatus"], ended["FailureReason"]) == ("Failed", reason)


def test_one_failed_host_ends_the_others(service: Service) -> None:
    resources = {"InstanceType": "ml.m5.xlarge", "InstanceCount": 2, "VolumeSizeInGB": 1}
    script = 'if [ "$(hostname)" = algo-2 ]; then exit 4; fi; sleep 600'
    ended = run(service, "half", "sh", "-c", script, ResourceConfig=resources)
    assert ended["FailureReason"] == "AlgorithmError: , exit code: 4"


def test_the_answer_has_only_members_that_botocore_s_model_knows(service: Service) -> None:
    run(service, "members", CheckpointConfig={"S3Uri": f"s3://{BUCKET}/none"}, **SPOT)
    shape = model().operation_model("DescribeTrainingJob").output_shape
    raw = service.jobs["members"].describe()
    assert set(raw) <= set(shape.members)
    assert set(shape.required_members) <= set(raw)


def test_a_stopped_job_may_finish_in_order_and_its_model_is_kept(service: Service) -> None:
    client().create_training_job(**request("stops", "sh", "-c", STOPPABLE))
    wait_for("stops", "ready")
    client().stop_training_job(TrainingJobName="stops")
    assert described("stops")["TrainingJobStatus"] in ("Stopping", "Stopped")
    ended = finished(service, "stops")
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert keys("out/stops") == ["out/stops/output/model.tar.gz"]


def test_a_program_that_ignores_sigterm_is_killed_after_the_grace(service: Service) -> None:
    client().create_training_job(
        **request("stubborn", "sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    )
    wait_for("stubborn", "ready")
    began = time.monotonic()
    client().stop_training_job(TrainingJobName="stubborn")
    assert finished(service, "stubborn")["TrainingJobStatus"] == "Stopped"
    assert time.monotonic() - began >= 120 * SCALE


def test_a_job_that_runs_too_long_is_stopped_and_says_so(service: Service) -> None:
    # ten seconds: a busy machine takes one to start the program, and it has to hear the signal
    ended = run(service, "slow", "sh", "-c", STOPPABLE, StoppingCondition={"MaxRuntimeInSeconds": 200})
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert keys("out/slow") == ["out/slow/output/model.tar.gz"]


@pytest.mark.parametrize("warned", [True, False])
def test_an_interrupted_spot_job_goes_on_from_its_checkpoints_on_a_new_host(warned: bool, service: Service) -> None:
    name = f"spot-{'warned' if warned else 'killed'}"
    checkpoints = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/{name}"}}
    client().create_training_job(**request(name, "12", program=STEPS, **SPOT, **checkpoints))
    wait_for(name, "step 4")
    service.interrupt(name, warned=warned)
    ended = finished(service, name)
    assert ended["TrainingJobStatus"] == "Completed"
    statuses = [transition["Status"] for transition in ended["SecondaryStatusTransitions"]]
    assert statuses == ["Starting", "Downloading", "Training", "Interrupted", "Starting", "Downloading", "Training",
                        "Uploading", "Completed"]  # fmt: skip
    first, second = streams(name).values()  # two streams: every attempt has its own
    assert first[0] == "starts at 0 ['checkpoints', 'input', 'model', 'output']"
    resumed = int(second[0].split()[2])
    reached = int(first[-1].removeprefix("step "))
    assert resumed == reached if warned else 0 < resumed <= reached
    assert second[0].endswith("['checkpoints', 'input', 'model', 'output']")
    assert ended["BillableTimeInSeconds"] < ended["TrainingTimeInSeconds"]


def test_a_checkpoint_that_was_half_synced_comes_back_half(service: Service) -> None:
    service.faults.tear_next_checkpoint()
    script = STEPS.replace(
        'print("starts at"', 'print(len(list(folder.glob("*/weights"))), "of", len(done)); print("starts at"'
    )
    checkpoints = {"CheckpointConfig": {"S3Uri": f"s3://{BUCKET}/checkpoints/torn"}}
    client().create_training_job(**request("torn", "9", program=script, **SPOT, **checkpoints))
    wait_for("torn", "step 3")
    service.interrupt("torn")
    assert finished(service, "torn")["TrainingJobStatus"] == "Completed"
    first, second = streams("torn").values()
    assert first[0] == "0 of 0"
    whole, of, folders = second[0].split()
    assert (int(whole), of) == (int(folders) - 1, "of")


def test_only_a_spot_job_can_be_interrupted(service: Service) -> None:
    run(service, "demand")
    with pytest.raises(ValueError, match="does not run on Spot"):
        service.interrupt("demand")


def test_waiting_too_long_for_capacity_ends_a_spot_job(service: Service) -> None:
    service.faults.no_capacity(60)
    short = {"MaxRuntimeInSeconds": 10, "MaxWaitTimeInSeconds": 10}
    ended = run(service, "waits", **(SPOT | {"StoppingCondition": short}))
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert "TrainingStartTime" not in ended


def test_the_quickstart_keeps_away_from_the_usual_home_and_from_the_users_account() -> None:
    given = {**DEFAULTS, "PATH": "/bin", "AWS_PROFILE": "mine", "MLFLOW_TRACKING_URI": "http://team"}
    assert own_environment(given) == {"PATH": "/bin", "MLFLOW_TRACKING_URI": "http://team"}
