"""What goes wrong with the emulated SageMaker on demand, and the service as a process of its own."""

from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from processes import PYTHONPATH, is_running
from sagemaker_client import (  # noqa: F401  two are fixtures, by another name
    BUCKET,
    ROOT,
    STOPPABLE,
    client,
    described,
    finished,
    fresh_service,
    refused,
    request,
    run,
    running_service,
    stored,
    use,
    wait_for,
)
from sagemaker_service import Service, ServiceProcess
from sagemaker_service.machines.storage import files


@pytest.mark.parametrize(
    ("code", "status"),
    [("ThrottlingException", 400), ("InternalFailure", 500), ("ExpiredTokenException", 400), ("UnrecognizedClientException", 400),
     ("InvalidClientTokenId", 403), ("AccessDeniedException", 400), ("ResourceLimitExceeded", 400)],
)  # fmt: skip
def test_a_call_fails_as_often_as_asked(code: str, status: int, service: Service) -> None:
    service.faults.fail("ListTrainingJobs", code, count=2)
    for _ in range(2):
        with pytest.raises(ClientError) as error:
            client().list_training_jobs()
        assert refused(error)[0] == code
        assert error.value.response["ResponseMetadata"]["HTTPStatusCode"] == status
    client().list_training_jobs()
    assert [call.error for call in service.calls] == [code, code, None]


def test_botocore_s_own_retries_get_over_throttling(service: Service) -> None:
    run(service, "patient")
    service.calls.clear()
    service.faults.fail("DescribeTrainingJob", "ThrottlingException", count=2)
    client(retries={"mode": "standard", "max_attempts": 5}).describe_training_job(TrainingJobName="patient")
    assert len(service.calls) == 3


def test_the_network_goes_away_for_all_services_and_comes_back(service: Service) -> None:
    client().create_training_job(**request("offline", "sh", "-c", STOPPABLE))
    wait_for("offline", "ready")
    service.faults.network_away(2)
    for name in ("sagemaker", "s3", "logs"):
        other = boto3.client(name, config=Config(retries={"max_attempts": 0}))
        verb = {"sagemaker": "list_training_jobs", "s3": "list_buckets", "logs": "describe_log_groups"}[name]
        with pytest.raises(BotoCoreError, match=r"(?i)connection"):
            getattr(other, verb)()
    while service.faults.network_is_away():
        time.sleep(0.1)
    assert described("offline")["TrainingJobStatus"] == "InProgress"
    client().stop_training_job(TrainingJobName="offline")
    assert finished(service, "offline")["TrainingJobStatus"] == "Stopped"


@pytest.mark.parametrize("reason", ["CapacityError", "InternalServerError", "AlgorithmError: NCCL error, exit code: 1"])
def test_a_job_ends_with_the_reason_asked_for(reason: str, service: Service) -> None:
    service.faults.end_next_job(reason)
    ended = run(service, f"ends-{reason[:8]}", "sh", "-c", STOPPABLE)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"].startswith(reason)
    assert ("TrainingStartTime" in ended) == (reason != "CapacityError")


def test_the_service_itself_retries_its_internal_errors_when_asked_to(service: Service) -> None:
    service.faults.end_next_job("InternalServerError")
    ended = run(service, "again", "sleep", "2", RetryStrategy={"MaximumRetryAttempts": 1})
    assert ended["TrainingJobStatus"] == "Completed"
    assert "Restarting" in [transition["Status"] for transition in ended["SecondaryStatusTransitions"]]


def test_a_job_deleted_by_hand_is_not_found_and_its_program_ends(service: Service) -> None:
    client().create_training_job(**request("deleted", "sh", "-c", STOPPABLE))
    wait_for("deleted", "ready")
    (pid,) = service.hosts("deleted")
    job = service.jobs["deleted"]
    service.forget("deleted")
    with pytest.raises(ClientError, match="Requested resource not found"):
        described("deleted")
    assert job.finished.wait(60)
    assert pid is not None
    assert not is_running(pid)


def test_archives_can_arrive_broken(service: Service, tmp_path: Path) -> None:
    program = ("sh", "-c", "head -c 100000 /dev/urandom > /opt/ml/model/weights")
    service.faults.break_next_archive("truncated")
    run(service, "cut", *program)
    with (
        pytest.raises((EOFError, tarfile.ReadError)),
        tarfile.open(fileobj=io.BytesIO(stored("out/cut/output/model.tar.gz"))) as tar,
    ):
        tar.extractall(tmp_path, filter="data")
    service.faults.break_next_archive("climbing")
    run(service, "climbs", *program)
    with tarfile.open(fileobj=io.BytesIO(stored("out/climbs/output/model.tar.gz"))) as tar:
        assert "../escaped.txt" in tar.getnames()


def test_a_request_without_credentials_is_refused(service: Service) -> None:
    with pytest.raises(ClientError, match="MissingAuthenticationToken"):
        client(signature_version=UNSIGNED).list_training_jobs()


def test_jobs_are_listed_newest_first_and_page_by_page(service: Service) -> None:
    for name in ("list-a", "list-b", "list-c"):
        run(service, name)
    pages = list(client().get_paginator("list_training_jobs").paginate(NameContains="list-", MaxResults=2))
    names = [[job["TrainingJobName"] for job in page["TrainingJobSummaries"]] for page in pages]
    assert names == [["list-c", "list-b"], ["list-a"]]


def test_tags_are_kept(service: Service) -> None:
    arn = run(service, "tagged", Tags=[{"Key": "team", "Value": "a"}])["TrainingJobArn"]
    client().add_tags(ResourceArn=arn, Tags=[{"Key": "run", "Value": "7"}])
    tags = client().list_tags(ResourceArn=arn)["Tags"]
    assert {tag["Key"]: tag["Value"] for tag in tags} == {"team": "a", "run": "7"}


def test_the_service_s_death_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceProcess(tmp_path, "--bucket", BUCKET) as service:
        use(service, monkeypatch)
        job = request("orphan", "sh", "-c", "sleep 600 & echo $! > $0/pid; wait", str(tmp_path), InputDataConfig=None)
        client().create_training_job(**job)
        deadline = time.monotonic() + 60
        while not (running := [path for path in Path("/proc").glob("[0-9]*/cmdline") if _is(path, "sleep", "600")]):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        pids = [int(path.parent.name) for path in running]
        os.kill(service.pid, signal.SIGKILL)
        while any(is_running(pid) for pid in pids):
            assert time.monotonic() < deadline, f"{pids} outlived the service"
            time.sleep(0.1)


def _is(cmdline: Path, *words: str) -> bool:
    try:
        return cmdline.read_bytes().split(b"\0")[:-1] == [word.encode() for word in words]
    except OSError:
        return False


def test_a_served_process_takes_faults_and_tells_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServiceProcess(tmp_path, "--bucket", BUCKET) as service:
        use(service, monkeypatch)
        service.control("fail", operation="ListTrainingJobs", code="AccessDeniedException")
        with pytest.raises(ClientError, match="not authorized to perform: sagemaker:ListTrainingJobs"):
            client().list_training_jobs()
        client().create_training_job(**request("spoken", InputDataConfig=None))
        deadline = time.monotonic() + 60
        while service.state()["jobs"]["spoken"]["TrainingJobStatus"] == "InProgress":
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert service.state()["calls"] == [["ListTrainingJobs", "AccessDeniedException"], ["CreateTrainingJob", None]]
        with pytest.raises(ValueError, match="is no verb"):
            service.control("take_end")


@pytest.mark.parametrize("span", ["bytes=0-99", "bytes=1048570-1048585", "bytes=2999990-", "bytes=2999990-9999999"])
def test_a_part_of_a_large_object_is_read_without_the_rest(span: str, service: Service) -> None:
    content = os.urandom(3_000_000)
    service.s3.put_object(Bucket=BUCKET, Key="large", Body=content)
    read = service.s3.get_object(Bucket=BUCKET, Key="large", Range=span)
    first, last = span.removeprefix("bytes=").split("-")
    assert read["Body"].read() == content[int(first) : int(last or 3_000_000) + 1]
    assert read["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert read["ContentRange"].endswith("/3000000")
    with pytest.raises(ClientError, match=r"InvalidRange|412|PreconditionFailed"):
        service.s3.get_object(Bucket=BUCKET, Key="large", Range="bytes=3000000-")


def test_the_quickstart_says_the_pipeline_s_error_and_ends_its_service(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "sagemaker_service.quickstart", str(tmp_path / "nowhere.yaml")],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "RIGHTCALL_HOME": str(tmp_path / "home")},
        cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "RecipeError" in done.stderr
    assert "Jobs of the emulated SageMaker: none" in done.stderr
    running = [path for path in Path("/proc").glob("[0-9]*/environ") if f"RIGHTCALL_HOME={tmp_path}" in _read(path)]
    assert not [path for path in running if is_running(int(path.parent.name))]


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def test_two_requests_with_one_name_make_one_job(service: Service) -> None:
    codes: list[str] = []

    def create() -> None:
        try:
            client().create_training_job(**request("twice", "sh", "-c", "sleep 1"))
            codes.append("made")
        except ClientError as err:
            codes.append(err.response["Error"]["Code"])

    threads = [threading.Thread(target=create) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == ["ResourceInUse"] * 3 + ["made"]
    finished(service, "twice")


def test_a_checkpoint_that_is_rotated_away_while_files_are_listed_leaves_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("checkpoint-1/a", "checkpoint-2/a"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan = os.scandir

    def rotating(folder: Any) -> Any:
        if str(folder).endswith("checkpoint-1"):
            shutil.rmtree(folder)
        return scan(folder)

    monkeypatch.setattr(os, "scandir", rotating)
    assert files(tmp_path) == [tmp_path / "checkpoint-2/a"]
