"""The real training program as jobs of the emulated service: the same numbers as on this machine, whatever interrupts them."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
import pytest
from prefect_fixture import prefect_server  # noqa: F401
from processes import PYTHONPATH, until
from sagemaker_service import Service, ServiceProcess
from stage_examples import small_recipe
from tiny import tiny_recipe

from rightcall.errors import BackendError
from rightcall.recipe.schema import Recipe
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_STEPS = 120, 10
SAGEMAKER = {"backend": "sagemaker", "sagemaker": {"instance_type": "ml.m5.xlarge", "max_runtime_minutes": 60}}
SPOT = {"spot": True, "max_wait_minutes": 60}
# what a machine, a price or a moment decides
NOT_COMPARED = {"seconds", "scoring_seconds", "tokens_per_second", "peak_memory_bytes", "memory_bytes", "eta_seconds", "billable_seconds",
                "cost_usd", "instance", "attempts", "size_bytes", "reference_computed"}  # fmt: skip
ORCHESTRATOR = "import sys, test_sagemaker_pipeline as pipeline; pipeline.train(pipeline.open_store(sys.argv[1]))"


def sft_recipe(**settings: Any) -> Recipe:
    """`settings` of compute.sagemaker; none = a local run."""
    compute = SAGEMAKER | {"sagemaker": SAGEMAKER["sagemaker"] | settings} if settings else {}  # type: ignore[operator]
    sft = {
        "max_steps": STEPS,
        "save_steps": SAVE_STEPS,
        "per_device_train_batch_size": 2,
        "max_length": 512,
        "bf16": False,
    }
    return small_recipe(sft=sft, model={"chat_template": "chatml-tools"}, compute={"threads": 1} | compute)


def train(store: Store, recipe: Recipe | None = None) -> ArtifactRef:
    from tasks.stages.training import train_sft

    base, snapshot = store.resolve("base/tiny"), store.resolve("ingest/tiny")
    return train_sft.run(recipe or sft_recipe(**SPOT), store=store, base=base, snapshot=snapshot)


def put_inputs(store: Store, model: Path) -> Store:
    from snapshot_writer import write_rows
    from tiny import tiny_sft_rows

    work = store.workdir("base", "tiny")
    shutil.copytree(model, work / "model", dirs_exist_ok=True)
    store.commit("base", "tiny", "model", work, {"result": {}})
    work = store.workdir("ingest", "tiny")
    write_rows(work, "sft", [row | {"n_tokens": 1} for row in tiny_sft_rows(24)])
    store.commit("ingest", "tiny", "snapshot", work, {"result": {}})
    return store


def losses(store: Store, ref: ArtifactRef) -> dict[int, float]:
    rows = map(json.loads, (store.path(ref) / "output/metrics.jsonl").read_text().splitlines())
    return {row["step"]: row["loss"] for row in rows}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> tuple[dict[int, float], str]:
    """Losses by step and the model's digest of a run on this machine."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("local")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        store = put_inputs(Store(folder / "store"), tiny_model)
        ref = train(store, sft_recipe())
        assert len(losses(store, ref)) == STEPS
        return losses(store, ref), store.digest(ref, "model/")


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """One a test: equal work has equal job names."""
    with Service(tmp_path / "sagemaker") as service:
        use(service.environment, tmp_path, monkeypatch)
        yield service


def use(environment: dict[str, str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    own = {
        "RIGHTCALL_POLL_SECONDS": "0.2",
        "RIGHTCALL_MIRROR": str(folder / "mirror"),
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
    }
    for name, value in (environment | own).items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def store(service: Service, tiny_model: Path) -> Store:
    bucket = f"team-{uuid.uuid4().hex[:8]}"
    service.make_bucket(bucket)
    return put_inputs(open_store(f"s3://{bucket}/store"), tiny_model)


@pytest.fixture
def background() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as executor:
        yield executor


def reach(service: Service, step: int, running: Future[ArtifactRef] | subprocess.Popen[bytes]) -> str:
    """Waits until the one job has logged this step; its name."""

    def logged() -> bool:
        over = running.done() if isinstance(running, Future) else running.poll() is not None
        assert not over, "the orchestrator ended before the step was reached"
        logs = boto3.client("logs")
        group = "/aws/sagemaker/TrainingJobs"
        if not logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]:
            return False
        for stream in logs.describe_log_streams(logGroupName=group, orderBy="LastEventTime", descending=True)[
            "logStreams"
        ]:
            if stream["logStreamName"].partition("/")[0] in service.jobs:
                events = logs.filter_log_events(logGroupName=group, logStreamNames=[stream["logStreamName"]])["events"]
                if any(f'"step": {step},' in event["message"] for event in events):
                    return True
        return False

    until(logged)
    (name,) = service.jobs
    return name


@pytest.mark.parametrize("warned", [True, False])
def test_a_spot_interruption_at_a_random_step_changes_no_loss(
    warned: bool,
    service: Service,
    store: Store,
    undisturbed: tuple[dict[int, float], str],
    background: ThreadPoolExecutor,
) -> None:
    step = random.randrange(SAVE_STEPS + 2, STEPS - 40)
    running = background.submit(train, store)
    service.interrupt(reach(service, step, running), warned=warned)
    ref = running.result(300)
    (job,) = service.jobs.values()
    assert job.attempts == 2, f"interrupted at step {step}, too late"
    assert losses(store, ref) == pytest.approx(undisturbed[0], abs=1e-4), f"interrupted at step {step}"
    assert store.digest(ref, "model/") == undisturbed[1]
    assert "resumes from checkpoint-" in (store.path(ref) / "job.log").read_text()


def test_a_stopped_job_is_an_error_and_the_rerun_resumes(
    service: Service, store: Store, undisturbed: tuple[dict[int, float], str], background: ThreadPoolExecutor
) -> None:
    step = random.randrange(SAVE_STEPS + 2, STEPS - 40)
    running = background.submit(train, store)
    name = reach(service, step, running)
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    with pytest.raises(BackendError, match="stopped"):
        running.result(300)
    ref = train(store)
    assert list(service.jobs) == [name, f"{name}-r1"]
    assert losses(store, ref) == pytest.approx(undisturbed[0], abs=1e-4), f"stopped at step {step}"
    assert store.digest(ref, "model/") == undisturbed[1]


def test_an_orchestrator_killed_while_the_job_runs_is_followed_by_one_that_attaches(
    service: Service, store: Store, undisturbed: tuple[dict[int, float], str]
) -> None:
    environment = os.environ | {"PYTHONPATH": f"{PYTHONPATH}{os.pathsep}{Path(__file__).parent}"}
    first = subprocess.Popen([sys.executable, "-c", ORCHESTRATOR, store.address], env=environment, cwd=ROOT)
    name = reach(service, 5, first)
    first.kill()
    assert first.wait() == -signal.SIGKILL
    ref = train(store)
    assert list(service.jobs) == [name], "the rerun made a job of its own"
    assert service.jobs[name].attempts == 1
    assert sum(call.operation == "CreateTrainingJob" for call in service.calls) == 1
    assert losses(store, ref) == pytest.approx(undisturbed[0], abs=1e-4)
    assert store.digest(ref, "model/") == undisturbed[1]


def test_two_hosts_find_each_other_and_give_the_losses_of_one(
    service: Service, store: Store, undisturbed: tuple[dict[int, float], str]
) -> None:
    ref = train(store, sft_recipe(instance_count=2))
    (job,) = service.jobs.values()
    assert (job.instances, job.status) == (2, "Completed")
    assert store.manifest(ref)["result"]["processes"] == 2
    assert losses(store, ref) == pytest.approx(undisturbed[0], abs=1e-4)


def manifests(store: Store) -> dict[str, dict[str, Any]]:
    """What the stages that run as jobs recorded, by stage/key."""
    return {ref.uri: store.manifest(ref) for stage in ("sft", "dpo", "score") for ref in store.refs(stage)}


def compared(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: compared(entry) for name, entry in value.items() if name not in NOT_COMPARED}
    return [compared(entry) for entry in value] if isinstance(value, list) else value


def numbers(store: Store, uri: str) -> list[Any]:
    """The result of a stage and every line of its metrics and items, without times."""
    folder = store.path(store.resolve(uri))
    files = [path for path in (folder / "output/metrics.jsonl", folder / "output/items.jsonl") if path.exists()]
    lines = [json.loads(line) for path in files for line in path.read_text().splitlines()]
    return [compared(store.manifest(store.resolve(uri))["result"]), *map(compared, lines)]


def assert_close(one: Any, other: Any, where: str) -> None:
    if isinstance(one, dict):
        assert set(one) == set(other), where
        for name in one:
            assert_close(one[name], other[name], f"{where}.{name}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for number, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_close(left, right, f"{where}[{number}]")
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=1e-4), where
    else:
        assert one == other, where


@pytest.mark.timeout(1200)
def test_the_whole_pipeline_as_jobs_gives_the_manifests_of_a_local_run(
    tmp_path: Path,
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: None,  # noqa: F811
) -> None:
    from flows.pipeline import run_pipeline

    recipe = str(tiny_recipe(tmp_path, tiny_model))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    run_pipeline(recipe=recipe, store=str(tmp_path / "store"))
    with ServiceProcess(tmp_path / "sagemaker", "--bucket", "team") as service:
        use(service.environment, tmp_path / "other", monkeypatch)
        (tmp_path / "other").mkdir()
        text = run_pipeline(
            recipe=recipe,
            overrides=["compute.backend=sagemaker", "compute.sagemaker.instance_type=ml.m5.xlarge"],
            store="s3://team/store",
        )
        local, cloud = Store(tmp_path / "store"), open_store("s3://team/store")
        jobs = service.state()["jobs"]
        assert [job["TrainingJobStatus"] for job in jobs.values()] == ["Completed"] * 5
        assert [name.split("-")[1] for name in jobs] == ["sft", "dpo", "score", "score", "score"]
        assert set(manifests(local)) == set(manifests(cloud)), "the keys differ"
        for uri in manifests(local):
            assert_close(numbers(local, uri), numbers(cloud, uri), uri)
        assert "cost:" in text
