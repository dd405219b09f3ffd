"""The training program as a SageMaker training job: find or create it, wait, take its result.

The job's name is made of the work, so there is never a second one for the same: what an earlier run of this command has
left is used (its result, or the running job itself), and what ended without a result is followed by the next attempt,
``-r1`` …, with the same checkpoints.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError
from rightcall.job.stage_table import STAGES, training_section
from rightcall.recipe.schema import Recipe
from tasks.aws import clients, errors, s3, transfers
from tasks.costs import estimates
from tasks.costs.bills import manifest_fields
from tasks.jobs.contract import Input, JobResult
from tasks.jobs.progress import Progress
from tasks.jobs.sagemaker import request
from tasks.jobs.sagemaker.archives import LostResult, collect
from tasks.jobs.sagemaker.endings import ENDED, classify
from tasks.jobs.sagemaker.logs import JobLog
from tasks.jobs.sagemaker.request import FLOW_RUN_TAG, JobPlan, region_of, role_of
from tasks.jobs.sagemaker.service import passes, service_errors
from tasks.jobs.sagemaker.waiting import Waiting, delays, describe_job
from tasks.machine.hashing import hash_files
from tasks.results.files import read_summary
from tasks.runtime.cancellation import FlowRunWatch
from tasks.runtime.stage import StageRun

MAX_RETRIES = 3  # in one run, for failures that may not happen again
PAUSE_SECONDS = 30.0  # before the first of them; twice as long before each next one
CREATE_TRIES = 5
GPU_TYPES = re.compile(r"ml\.(p\d|g\d)")


@dataclass
class Attempts:
    """The jobs for one stage's work, the first and its retries, in this run of the command."""

    plan: JobPlan
    run: StageRun
    region: str
    waiting: Callable[[str], Waiting]
    watch: FlowRunWatch
    ended: list[dict[str, Any]] = field(default_factory=list)  # descriptions, for the bill
    retries: int = 0


def run_job(
    stage: str,
    recipe: Recipe,
    channels: Mapping[str, Path | Input],
    run: StageRun,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
) -> JobResult:
    """Runs one job to its end and brings its model/, output/ and log into ``run.folder``.

    Raises:
        BackendError: the job could not be started, or ended without a result; it says whether it goes on.
        RightcallError: the program's own error, as the type it had there.
        StoreError: S3 refused, or an input was deleted.
    """
    started = time.monotonic()
    require_gpu(stage, recipe)
    role_of(recipe)
    region, watch = region_of(recipe), FlowRunWatch()
    plan = plan_of(stage, recipe, channels, run, {FLOW_RUN_TAG: watch.root_id} if watch.root_id else {})
    log = run.scratch / "job.log"
    log.unlink(missing_ok=True)  # CloudWatch has it all
    progress = Progress(run.title, run.logger, on_metrics)

    several_hosts = estimates.instance_of(stage, recipe)[1] > 1

    def waiting(name: str) -> Waiting:
        lines = JobLog(clients.logs(region), name, log, several_hosts=several_hosts)
        return Waiting(name, region, run.logger, progress, lines, watch)

    attempts = Attempts(plan, run, region, waiting, watch)
    _until_done(attempts, log, lambda: check_cost(stage, recipe, channels, run))
    progress.update(_lines(run.folder / "output" / "metrics.jsonl"), final=True)
    summary = read_summary(run.folder) | manifest_fields(attempts.ended, recipe)
    return JobResult(summary, round(time.monotonic() - started, 3))


def plan_of(
    stage: str,
    recipe: Recipe,
    channels: Mapping[str, Path | Input],
    run: StageRun,
    tags: Mapping[str, str] | None = None,
) -> JobPlan:
    """The job's channels as addresses in S3, and where its own files go.

    Raises:
        BackendError: the store is a folder, or a channel is a local path: a job reads S3 alone.
    """
    store = run.store
    local = [name for name, source in channels.items() if not isinstance(source, Input)]
    if not store.address.startswith("s3://") or local:
        raise BackendError(
            f"SageMaker jobs read and write S3, but the store is {store.address!r}"
            + (f" and {local!r} lie on this machine" if local else "")
            + "; use --store s3://<bucket>/<prefix> (or RIGHTCALL_STORE)"
        )
    urls = {name: store.url(source.ref, source.part) for name, source in channels.items() if isinstance(source, Input)}
    key = run.job_key or run.key
    return JobPlan(stage, key, recipe, urls, f"{store.address}/.jobs/{stage}/{key}", tags=dict(tags or {}))


def require_gpu(stage: str, recipe: Recipe) -> None:
    """Compares the recipe with the instance type before an hour is spent on waiting for one.

    Raises:
        BackendError: the recipe needs a GPU and the instance type has none.
    """
    instance_type, _ = estimates.instance_of(stage, recipe)
    if is_gpu_instance(instance_type) or not STAGES[stage].shares_work:
        return
    reasons = [f"{stage}.method qlora"] if training_section(stage, recipe).method == "qlora" else []
    reasons += [f"compute.parallel {recipe.compute.parallel}"] if recipe.compute.parallel.startswith("zero") else []
    if reasons:
        raise BackendError(
            f"{' and '.join(reasons)} need GPUs, and compute.sagemaker.instance_type {instance_type!r} has none; choose one such "
            "as ml.g5.2xlarge, ml.g6e.2xlarge or ml.p4d.24xlarge"
        )


def is_gpu_instance(instance_type: str) -> bool:
    """By the family: ml.g4dn … ml.g7e and ml.p2 … ml.p6e have NVIDIA GPUs."""
    return GPU_TYPES.match(instance_type) is not None


def check_cost(stage: str, recipe: Recipe, channels: Mapping[str, Path | Input], run: StageRun) -> None:
    """Logs the estimate of this job.

    Raises:
        BackendError: it alone is above compute.max_cost_usd.
    """
    model, snapshot = channels.get("model"), channels.get("dataset")
    if isinstance(model, Input) and isinstance(snapshot, Input):
        work = estimates.work_of(stage, run.store, model=model.ref, snapshot=snapshot.ref)
        estimate = estimates.estimate_job(stage, recipe, work)
        run.logger.info("%s", estimates.estimate_line(run.title, estimate))
        estimates.require_affordable(recipe, {stage: estimate})


def _until_done(attempts: Attempts, log: Path, check: Callable[[], None]) -> None:
    checked = False
    while True:
        plan, run = attempts.plan, attempts.run
        found = describe_job(plan.name, attempts.region)
        status = found["TrainingJobStatus"] if found else None
        if found is None:
            if not checked:
                check()
            checked = True
            _create(plan, run, attempts)
        elif status not in ENDED:
            _attach(found, attempts)
        else:
            run.logger.info("%s: job %s of an earlier run is %s", run.title, plan.name, status)
        without_result = found is not None and status in ("Failed", "Stopped")
        description = found if without_result and found else attempts.waiting(plan.name).until_end()
        attempts.ended.append(description)
        if _took(description, attempts, log, of_earlier_run=status in (*ENDED, "Stopping")):
            return
        attempts.plan = plan.next()


def _took(description: dict[str, Any], attempts: Attempts, log: Path, *, of_earlier_run: bool) -> bool:
    """True = the result is here; False = another attempt is needed.

    Raises:
        RightcallError: the end of a job of this run that another attempt would not change.
    """
    run, end = attempts.run, classify(description)
    try:
        if end.error is None:
            collect(attempts.plan.stage, description, run, log)
            return True
    except LostResult as err:
        if not of_earlier_run:
            raise
        run.logger.warning("%s: %s; the next attempt begins", run.title, err)
        return False
    if of_earlier_run:
        return False
    if not end.retry:
        raise end.error
    if attempts.retries >= MAX_RETRIES:
        raise BackendError(f"{end.error}; {attempts.retries + 1} attempts ended so") from end.error
    attempts.retries += 1
    run.logger.warning("%s: attempt %d of %d ended: %s; the next one resumes from its checkpoints", run.title,
                       attempts.retries, MAX_RETRIES + 1, end.error)  # fmt: skip
    _pause(attempts)
    return False


def _pause(attempts: Attempts) -> None:
    """Waits before the next attempt, because capacity does not come back at once; RIGHTCALL_POLL_SECONDS replaces it.

    Raises:
        RunCancelled: the run was cancelled in Prefect meanwhile.
    """
    seconds = PAUSE_SECONDS * 2 ** (attempts.retries - 1)
    until = time.monotonic() + float(os.environ.get("RIGHTCALL_POLL_SECONDS") or seconds)
    for step in delays():
        if attempts.watch.cancelled():
            raise attempts.watch.cancel(f"no job of {attempts.run.title} is running; its checkpoints are kept")
        if time.monotonic() >= until:
            return
        time.sleep(step)


def _attach(found: Mapping[str, Any], attempts: Attempts) -> None:
    """An earlier run's job goes on; from now on it also belongs to this one."""
    name = str(found["TrainingJobName"])
    attempts.run.logger.info(
        "%s: job %s is %s already, waiting for it", attempts.run.title, name, found["TrainingJobStatus"]
    )
    tags = [{"Key": key, "Value": value} for key, value in attempts.plan.tags.items()]
    try:
        with service_errors(name, attempts.region):
            if tags:
                clients.sagemaker(attempts.region).add_tags(ResourceArn=found["TrainingJobArn"], Tags=tags)
    except BackendError as err:
        attempts.run.logger.warning("%s: a worker that is killed will not stop the job: %s", attempts.run.title, err)


def _create(plan: JobPlan, run: StageRun, attempts: Attempts) -> None:
    """CreateTrainingJob; a job of that name that another run has just created is used as well."""
    from botocore.exceptions import BotoCoreError, ClientError

    place = s3.parse_address(plan.inputs)
    job = {"stage": plan.stage, "recipe": plan.recipe.model_dump(mode="json", by_alias=True)}
    s3.put(place, "job/job.json", json.dumps(job, indent=1, ensure_ascii=False).encode())
    for number, seconds in enumerate(islice(delays(), CREATE_TRIES), 1):
        with service_errors(plan.name, attempts.region):
            try:
                request.send(plan, upload_folder)
                break
            except (ClientError, BotoCoreError) as err:
                if errors.code_of(err) == "ResourceInUse":
                    return
                if not passes(err) or number == CREATE_TRIES:
                    raise
                run.logger.warning("%s: SageMaker does not take the job yet (%s), asking again", run.title, err)
        time.sleep(seconds)
    run.logger.info("%s: job %s created in %s", run.title, plan.name, attempts.region)


def upload_folder(folder: Path, url: str) -> None:
    """The program's files, without what Python left beside them."""
    relatives = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    )
    parent, _, name = url.rstrip("/").rpartition("/")
    transfers.upload(folder, s3.parse_address(parent), f"{name}/", hash_files(folder, relatives))


def _lines(path: Path) -> list[str]:
    """metrics.jsonl of the finished job: what CloudWatch has not delivered."""
    return path.read_text(encoding="utf-8").splitlines() if path.exists() else []
