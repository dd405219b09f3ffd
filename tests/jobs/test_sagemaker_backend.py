"""The SageMaker backend against a service that runs the program: what is created, watched, retried and taken."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import boto3
import pytest
from processes import PYTHONPATH, until
from s3_fixture import Fault
from sagemaker_jobs import Cloud, cloud, running_service, sagemaker_recipe  # noqa: F401

from rightcall.errors import BackendError, StoreError, TrainingError
from tasks.jobs.contract import Input
from tasks.jobs.sagemaker.backend import plan_of, run_job
from tasks.jobs.sagemaker.request import training_request

# ruff: noqa: F811
STEPS = list(range(1, 13))
ROOT = Path(__file__).parents[2]
ORCHESTRATOR = """
import json, logging, sys
from pathlib import Path
from sagemaker_jobs import sagemaker_recipe
from tasks.jobs.contract import Input
from tasks.jobs.sagemaker.backend import run_job
from tasks.runtime.stage import StageRun
from tasks.store.manifests import ArtifactRef; from tasks.store.opening import open_store
store, (key, model, rows) = open_store(sys.argv[1]), sys.argv[2:5]
refs = [ArtifactRef.model_validate_json(text) for text in (model, rows)]
run = StageRun("sft", key, store, store.workdir("sft", key), store.scratch("sft", key), logging.getLogger())
run_job("sft", sagemaker_recipe(12), {"model": Input(refs[0], "model/"), "dataset": Input(refs[1])}, run)
"""


def steps(cloud: Cloud) -> list[int]:
    return [line["step"] for line in cloud.metrics]


def test_a_job_leaves_what_a_local_one_leaves(cloud: Cloud) -> None:
    result = cloud.job(12)
    names = sorted(path.relative_to(cloud.folder).as_posix() for path in cloud.folder.rglob("*") if path.is_file())
    assert names == ["job.log", "model/config.json", "model/weights", "output/metrics.jsonl", "output/summary.json"]
    assert (result.summary["steps"], result.summary["first"]) == (12, 0)
    assert steps(cloud) == STEPS
    assert cloud.jobs == [cloud.name()]
    assert (result.summary["instance"], result.summary["attempts"]) == ("ml.c5.xlarge", 1)
    assert result.summary["billable_seconds"] >= 1


def test_what_is_sent_is_what_the_golden_files_show(cloud: Cloud) -> None:
    rows = cloud.rows()
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}
    recipe = sagemaker_recipe(12, tags={"team": "tools"}, spot=True, max_wait_minutes=90)
    run_job("sft", recipe, channels, cloud.run)
    sent = [call.request for call in cloud.service.calls if call.operation == "CreateTrainingJob"]
    assert sent == [training_request(plan_of("sft", recipe, channels, cloud.run))]


def test_metrics_arrive_while_the_job_runs(cloud: Cloud) -> None:
    running: list[str] = []
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.15))}
    run_job(
        "sft",
        sagemaker_recipe(12),
        channels,
        cloud.run,
        lambda _: running.append(cloud.service.jobs[cloud.name()].status),
    )
    assert len(running) == 12
    assert running[0] == "InProgress"


def test_an_orchestrator_killed_while_the_job_runs_leaves_it_and_the_rerun_attaches(cloud: Cloud) -> None:
    rows = cloud.rows(seconds=0.3)
    arguments = [cloud.store.address, cloud.key, cloud.model.model_dump_json(), rows.model_dump_json()]
    first = subprocess.Popen(
        [sys.executable, "-c", ORCHESTRATOR, *arguments], env=os.environ | {"PYTHONPATH": PYTHONPATH}
    )
    try:
        until(lambda: cloud.jobs and cloud.service.jobs[cloud.name()].secondary == "Training")
        assert first.poll() is None
    finally:
        first.kill()
        first.wait()
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}
    result = run_job("sft", sagemaker_recipe(12), channels, cloud.run, cloud.metrics.append)
    assert result.summary["first"] == 0
    assert steps(cloud) == STEPS
    assert cloud.jobs == [cloud.name()]
    assert cloud.calls("CreateTrainingJob") == 1


def test_the_result_of_an_earlier_run_is_taken_without_a_job(cloud: Cloud) -> None:
    cloud.job(12)
    cloud.metrics.clear()
    assert cloud.job(12).summary["steps"] == 12
    assert cloud.calls("CreateTrainingJob") == 1
    assert (cloud.folder / "model/weights").exists()
    assert "from step 0" in (cloud.folder / "job.log").read_text()
    assert steps(cloud) == STEPS


def test_a_deleted_result_of_an_earlier_run_is_made_again(cloud: Cloud) -> None:
    cloud.job(12)
    empty(cloud, f".jobs/sft/{cloud.key}/output/")
    assert cloud.job(12).summary["first"] == 10  # from the last checkpoint
    assert cloud.jobs == [cloud.name(), cloud.name(1)]


def test_an_end_that_may_pass_is_tried_again_and_resumes(cloud: Cloud) -> None:
    result = cloud.job(12, fail_at=5, failure="RuntimeError: NCCL error: unhandled system error")
    assert cloud.jobs == [cloud.name(), cloud.name(1)]
    assert (result.summary["first"], result.summary["attempts"]) == (5, 2)
    assert steps(cloud) == STEPS


def test_capacity_that_never_comes_ends_after_three_more_attempts(cloud: Cloud) -> None:
    for _ in range(5):
        cloud.service.faults.end_next_job("CapacityError")
    with pytest.raises(
        BackendError, match=r"Unable to provision requested ML compute capacity(?s:.*); 4 attempts ended so"
    ):
        cloud.job(12)
    assert cloud.jobs == [cloud.name(number) for number in range(4)]


def test_the_programs_own_error_is_not_tried_again_until_the_next_run(cloud: Cloud) -> None:
    with pytest.raises(TrainingError, match=r"^the loss is nan at step 5; lower it \(SageMaker job 'rightcall-sft-"):
        cloud.job(12, fail_at=5, failure='TrainingError: the loss is nan at step 5; lower it\n\n  File "x.py", line 1')
    assert cloud.jobs == [cloud.name()]
    assert cloud.job(12).summary["first"] == 5
    assert cloud.jobs == [cloud.name(), cloud.name(1)]


def test_a_job_stopped_by_hand_is_no_success_and_the_next_run_resumes(cloud: Cloud) -> None:
    def stop(line: dict[str, Any]) -> None:
        cloud.metrics.append(line)
        if line["step"] == 3:
            boto3.client("sagemaker").stop_training_job(TrainingJobName=cloud.name())

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.15))}
    with pytest.raises(BackendError, match="the job was stopped, by someone with the console"):
        run_job("sft", sagemaker_recipe(40), channels, cloud.run, stop)
    assert cloud.job(12).summary["first"] >= 3


def test_a_job_that_takes_too_long_says_which_setting_ended_it(cloud: Cloud) -> None:
    with pytest.raises(BackendError, match=r"reached compute.sagemaker.max_runtime_minutes and was ended"):
        cloud.job(recipe=sagemaker_recipe(1000, max_runtime_minutes=4), seconds=0.05)
    assert cloud.jobs == [cloud.name()]


def test_a_spot_interruption_loses_no_line_and_tells_none_twice(cloud: Cloud) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        cloud.metrics.append(line)
        if line["step"] == 7:
            cloud.service.interrupt(cloud.name(), warned=False)

    recipe = sagemaker_recipe(12, spot=True, max_wait_minutes=60)
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.2))}
    result = run_job("sft", recipe, channels, cloud.run, interrupt)
    assert (result.summary["first"], result.summary["attempts"]) == (5, 1)
    assert steps(cloud) == STEPS
    log = (cloud.folder / "job.log").read_text().splitlines()
    assert [line for line in log if line.startswith("from step")] == ["from step 0", "from step 5"]
    assert len([line for line in log if '"step": 12' in line]) == 1


def test_the_lines_of_several_hosts_say_whose_they_are(cloud: Cloud) -> None:
    cloud.job(recipe=sagemaker_recipe(12, instance_count=2))
    log = (cloud.folder / "job.log").read_text().splitlines()
    assert {line.partition("]")[0] for line in log} == {"[algo-1", "[algo-2"}


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalFailure", "ServiceUnavailable"])
def test_a_service_that_is_busy_during_the_wait_is_asked_again(
    cloud: Cloud, code: str, caplog: pytest.LogCaptureFixture
) -> None:
    def disturb(line: dict[str, Any]) -> None:
        cloud.metrics.append(line)
        if line["step"] == 2:
            cloud.service.faults.fail("DescribeTrainingJob", code, count=7)

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.1))}
    with caplog.at_level(logging.INFO):
        run_job("sft", sagemaker_recipe(12), channels, cloud.run, disturb)
    assert steps(cloud) == STEPS
    assert caplog.text.count("cannot be watched right now") == 1
    assert cloud.calls("CreateTrainingJob") == 1


def test_a_network_that_goes_away_during_the_wait_comes_back(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    def disturb(line: dict[str, Any]) -> None:
        cloud.metrics.append(line)
        if line["step"] == 2:
            cloud.service.faults.network_away(3)

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.1))}
    with caplog.at_level(logging.INFO):
        run_job("sft", sagemaker_recipe(12), channels, cloud.run, disturb)
    assert steps(cloud) == STEPS
    assert caplog.text.count("cannot be watched right now") == 1
    assert "the service answers again" in caplog.text


def test_a_network_that_stays_away_leaves_the_job_at_last(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    def disturb(line: dict[str, Any]) -> None:
        if line["step"] == 2:
            monkeypatch.setattr("tasks.jobs.sagemaker.waiting.AWAY_SECONDS", 0.5)
            cloud.service.faults.network_away(6)

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.1))}
    with pytest.raises(BackendError, match=r"no answer about job .*The job goes on without this process"):
        run_job("sft", sagemaker_recipe(12), channels, cloud.run, disturb)
    assert cloud.jobs == [cloud.name()]
    until(lambda: not cloud.service.faults.network_is_away())


@pytest.mark.parametrize("code", ["ThrottlingException", "InternalFailure"])
def test_a_service_that_is_busy_at_the_start_is_asked_again(cloud: Cloud, code: str) -> None:
    cloud.service.faults.fail("CreateTrainingJob", code, count=3)
    assert cloud.job(12).summary["steps"] == 12
    assert cloud.jobs == [cloud.name()]


def test_a_service_that_stays_busy_is_an_error_that_prefect_tries_again(cloud: Cloud) -> None:
    from tasks.runtime.retries import is_transient

    cloud.service.faults.fail("CreateTrainingJob", "ThrottlingException", count=None)
    with pytest.raises(BackendError, match=r"SageMaker is busy \(ThrottlingException: Rate exceeded") as caught:
        cloud.job(12)
    assert is_transient(caught.value)
    assert cloud.jobs == []


def test_a_job_deleted_by_hand_is_said_and_made_again(cloud: Cloud) -> None:
    def delete(line: dict[str, Any]) -> None:
        if line["step"] == 6:
            cloud.service.forget(cloud.name())

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.2))}
    with pytest.raises(
        BackendError, match=r"is gone: someone deleted it while it was running; the same command starts"
    ):
        run_job("sft", sagemaker_recipe(40), channels, cloud.run, delete)
    assert cloud.job(12).summary["first"] >= 5


def test_expired_credentials_during_the_wait_leave_the_job(cloud: Cloud) -> None:
    def expire(line: dict[str, Any]) -> None:
        if line["step"] == 2:
            cloud.service.faults.fail("DescribeTrainingJob", "ExpiredTokenException", count=None)

    rows = cloud.rows(seconds=0.1)
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}
    with pytest.raises(
        BackendError, match=r"have expired; log in again(?s:.*)goes on without this process(?s:.*)stop-training-job"
    ):
        run_job("sft", sagemaker_recipe(12), channels, cloud.run, expire)
    cloud.service.faults.reset()
    run_job("sft", sagemaker_recipe(12), channels, cloud.run, cloud.metrics.append)
    assert steps(cloud) == STEPS
    assert cloud.jobs == [cloud.name()]


def test_ctrl_c_leaves_the_job_and_says_how_to_stop_it(cloud: Cloud, caplog: pytest.LogCaptureFixture) -> None:
    def interrupt(line: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(cloud.rows(seconds=0.1))}
    with caplog.at_level(logging.INFO), pytest.raises(KeyboardInterrupt):
        run_job("sft", sagemaker_recipe(12), channels, cloud.run, interrupt)
    assert f"stop-training-job --region us-east-1 --training-job-name {cloud.name()}" in caplog.text
    run_job("sft", sagemaker_recipe(12), channels, cloud.run, cloud.metrics.append)
    assert steps(cloud) == STEPS
    assert cloud.jobs == [cloud.name()]


@pytest.mark.parametrize(
    ("how", "reads"), [("truncated", "is cut off or no tar.gz"), ("climbing", "outside of its folder")]
)
def test_a_broken_archive_is_said_and_the_next_run_makes_another(cloud: Cloud, how: Any, reads: str) -> None:
    cloud.service.faults.break_next_archive(how)
    with pytest.raises(BackendError, match=reads):
        cloud.job(12)
    assert not (cloud.folder / "model").exists()
    assert not list(cloud.store.root.rglob("escaped*"))
    assert cloud.job(12).summary["steps"] == 12
    assert cloud.jobs == [cloud.name(), cloud.name(1)]


def test_no_credentials_are_said_before_anything_is_uploaded(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, run = cloud.rows(), cloud.run
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreError, match="no AWS credentials for 's3://.*; run `aws configure` or `aws sso login`"):
        run_job("sft", sagemaker_recipe(), {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}, run)


@pytest.mark.parametrize(
    ("code", "reads"),
    [
        ("ExpiredTokenException", "the AWS credentials have expired; log in again"),
        ("UnrecognizedClientException", "AWS does not know the credentials"),
        ("AccessDeniedException", "Your own role needs sagemaker:CreateTrainingJob"),
    ],
)
def test_credentials_that_do_not_work_are_said_before_anything_is_uploaded(cloud: Cloud, code: str, reads: str) -> None:
    rows = cloud.rows()
    cloud.service.faults.fail("DescribeTrainingJob", code, count=None)
    with pytest.raises(BackendError, match=reads):
        run_job("sft", sagemaker_recipe(), {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}, cloud.run)
    assert cloud.calls("DescribeTrainingJob") == 1  # nothing of that is worth a second try
    assert below(cloud, ".jobs/") == []


def refused(cloud: Cloud, reads: str, **settings: Any) -> None:
    with pytest.raises(BackendError, match=reads):
        cloud.job(recipe=sagemaker_recipe(**settings))
    assert cloud.calls("CreateTrainingJob") <= 1
    assert cloud.jobs == []


def test_a_region_without_the_bucket_is_said(cloud: Cloud) -> None:
    refused(cloud, r"No S3 objects found under(?s:.*)bucket is in the job's region", region="eu-west-1")


def test_a_region_that_does_not_exist_is_said(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", "http://127.0.0.1:9")
    refused(cloud, r"could not be reached for job .* in region 'mars-north-1'(?s:.*)check the network and that the region exists",
            region="mars-north-1")  # fmt: skip


def test_a_role_that_sagemaker_may_not_assume_is_said(cloud: Cloud) -> None:
    refused(
        cloud, r"Could not assume role .*role/nobody(?s:.*)trust policy", role="arn:aws:iam::123456789012:role/nobody"
    )


def test_an_image_that_does_not_exist_is_said(cloud: Cloud) -> None:
    image = "123456789012.dkr.ecr.us-east-1.amazonaws.com/nothing:1"
    refused(cloud, r"Cannot find repository: nothing(?s:.*)Check compute.sagemaker.image", image=image)


def test_a_quota_that_is_too_low_is_said_by_its_name(cloud: Cloud) -> None:
    cloud.service.faults.set_quota("ml.p4d.24xlarge", 0)
    refused(cloud, r"quota 'ml.p4d.24xlarge for training job usage' is too low(?s:.*)request-service-quota-increase",
            instance_type="ml.p4d.24xlarge")  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "reads"),
    [({"method": "qlora"}, "sft.method qlora need GPUs"), ({"parallel": "zero3"}, "compute.parallel zero3 need GPUs")],
)
def test_a_gpu_recipe_on_an_instance_without_one_is_refused_at_once(cloud: Cloud, settings: Any, reads: str) -> None:
    refused(cloud, reads + r", and compute.sagemaker.instance_type 'ml.c5.xlarge' has none", **settings)
    assert cloud.calls("DescribeTrainingJob") == 0


def test_a_limit_on_the_cost_is_kept_before_a_job_is_created(cloud: Cloud) -> None:
    recipe = sagemaker_recipe(instance_type="ml.p4d.24xlarge", max_runtime_minutes=600)
    recipe = recipe.model_copy(update={"compute": recipe.compute.model_copy(update={"max_cost_usd": 1.0})})
    with pytest.raises(BackendError, match=r"above compute.max_cost_usd 1; nothing was started"):
        cloud.job(recipe=recipe)
    assert cloud.jobs == []


def test_an_input_that_was_deleted_is_said_before_a_job_is_created(cloud: Cloud) -> None:
    rows = cloud.rows()
    empty(cloud, rows.uri)
    with pytest.raises(StoreError, match=rows.uri):
        run_job("sft", sagemaker_recipe(), {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}, cloud.run)
    assert cloud.calls("CreateTrainingJob") == 0


def test_a_store_in_a_folder_is_refused(cloud: Cloud, tmp_path: Path) -> None:
    from dataclasses import replace

    from tasks.store.opening import open_store

    run = replace(cloud.run, store=open_store(tmp_path / "store"))
    with pytest.raises(
        BackendError, match=r"SageMaker jobs read and write S3, but the store is '.*store'; use --store s3://"
    ):
        run_job("sft", sagemaker_recipe(), {"model": Input(cloud.model, "model/")}, run)


def test_s3_that_slows_down_is_waited_for(cloud: Cloud, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cloud.service.clouds is not None
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "6")
    rows = cloud.rows()
    cloud.service.clouds.s3.faults.append(Fault(r"PUT .*job\.json", 503, "SlowDown", times=2))
    cloud.service.clouds.s3.faults.append(Fault(r"GET .*output\.tar\.gz", 503, "SlowDown", times=2))
    channels = {"model": Input(cloud.model, "model/"), "dataset": Input(rows)}
    assert run_job("sft", sagemaker_recipe(12), channels, cloud.run).summary["steps"] == 12
    cloud.service.clouds.s3.faults.clear()


def test_credentials_are_nowhere(
    cloud: Cloud, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import os

    hidden = [os.environ["AWS_SECRET_ACCESS_KEY"], os.environ["AWS_ACCESS_KEY_ID"], "hf_hiddenhiddenhiddenhidden"]
    monkeypatch.setenv("HF_TOKEN", hidden[2])
    with caplog.at_level(logging.DEBUG, "rightcall"), caplog.at_level(logging.DEBUG, "tasks"):
        cloud.job(12)
    stored = [read(cloud, key) for key in below(cloud, f".jobs/sft/{cloud.key}/{cloud.name()}/")]
    assert stored
    requests = json.dumps([call.request for call in cloud.service.calls])
    texts = [requests, caplog.text, (cloud.folder / "job.log").read_text(), *stored]
    assert not [value for value in hidden for text in texts if value in text]


def below(cloud: Cloud, prefix: str) -> list[str]:
    """Keys in the store's bucket."""
    bucket = cloud.store.address.removeprefix("s3://").partition("/")[0]
    answer = boto3.client("s3").list_objects_v2(Bucket=bucket, Prefix=f"rightcall/{prefix}")
    return [item["Key"] for item in answer.get("Contents", [])]


def read(cloud: Cloud, key: str) -> str:
    bucket = cloud.store.address.removeprefix("s3://").partition("/")[0]
    return boto3.client("s3").get_object(Bucket=bucket, Key=key)["Body"].read().decode(errors="replace")


def empty(cloud: Cloud, prefix: str) -> None:
    bucket = cloud.store.address.removeprefix("s3://").partition("/")[0]
    for key in below(cloud, prefix):
        boto3.client("s3").delete_object(Bucket=bucket, Key=key)
