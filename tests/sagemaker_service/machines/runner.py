"""The life of one job: instances, channels, the program, its end, the upload; again after an interruption."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from sagemaker_service.api.faults import ENDS, Faults
from sagemaker_service.api.jobs import Job
from sagemaker_service.api.logs import LogStream, stream_name
from sagemaker_service.api.rules import no_objects
from sagemaker_service.machines.hosts import Host
from sagemaker_service.machines.storage import CheckpointSync, archive, download, remove, split, upload_results

log = logging.getLogger(__name__)

TICK_SECONDS = 0.1
GRACE_SECONDS = 120.0  # between SIGTERM and SIGKILL
OTHERS_GRACE_SECONDS = 10.0  # for the other hosts, when one has failed


@dataclass
class Plant:
    """What all jobs share."""

    root: Path
    s3: Any
    logs: Any
    faults: Faults
    contained: bool
    program: Sequence[str]  # of an image that has its own entrypoint
    environment: dict[str, str]  # what the service gives every container that may reach the network
    region: str
    limit_scale: float = 1.0  # of MaxRuntime, MaxWait and the grace: 0.01 makes a minute 0.6 s
    start_seconds: float = 0.0  # that an instance takes to start
    sync_seconds: float = 0.5
    keep_folders: bool = False
    closed: threading.Event = field(default_factory=threading.Event)


class Ended(Exception):
    def __init__(self, status: str, secondary: str, reason: str | None = None) -> None:
        super().__init__(status, secondary, reason)
        self.status, self.secondary, self.reason = status, secondary, reason


class Interrupted(Exception):
    """The instance is gone; the job goes on on another."""


class Runner(threading.Thread):
    def __init__(self, job: Job, plant: Plant) -> None:
        super().__init__(daemon=True, name=f"job {job.name}")
        self.job, self.plant = job, plant
        self.hosts: list[Host] = []
        self._failed: Host | None = None  # the first one; the others are killed for it
        self._retries = job.request.get("RetryStrategy", {}).get("MaximumRetryAttempts", 0)

    def run(self) -> None:
        try:
            self._live()
        except Ended as end:
            self.job.finish(end.status, end.secondary, end.reason)
        except Exception:
            log.exception("job %s", self.job.name)
            self.job.finish("Failed", "Failed", ENDS["InternalServerError"])

    def _live(self) -> None:
        while True:
            self._wait_for_capacity()
            self.job.attempts += 1
            try:
                self._attempt()
            except Interrupted:
                self.job.interruption = None
                self.job.enter("Interrupted")
            except Ended as end:
                if not (end.reason or "").startswith("InternalServerError") or self._retries == 0:
                    raise
                self._retries -= 1
                self.job.enter("Restarting")
            self.job.enter("Starting")

    def _wait_for_capacity(self) -> None:
        stopping = self.job.request["StoppingCondition"]
        limit = stopping.get("MaxWaitTimeInSeconds", float("inf")) * self.plant.limit_scale
        ready = time.monotonic() + self.plant.start_seconds
        while not self.plant.faults.capacity_is_there() or time.monotonic() < ready:
            self._rest()
            if self.job.stop_asked.is_set():
                raise Ended("Stopped", "Stopped")
            if time.time() - self.job.created > limit:
                raise Ended("Stopped", "MaxWaitTimeExceeded")

    def _rest(self) -> None:
        if self.plant.closed.wait(TICK_SECONDS):
            raise Ended("Stopped", "Stopped")

    def _attempt(self) -> None:
        ending = self.plant.faults.take_end()
        if ending and ending.startswith("CapacityError"):
            raise Ended("Failed", "Failed", ending)
        folder = self.plant.root / self.job.name / str(self.job.attempts)
        count = self.job.instances
        names = [f"algo-{n}" if self.plant.contained else f"127.0.0.{n}" for n in range(1, count + 1)]
        self.hosts = [
            Host(
                self.job, n, names, folder=folder / f"algo-{n}", contained=self.plant.contained,
                stream=LogStream(self.plant.logs, stream_name(self.job.name, f"algo-{n}")),
            )
            for n in range(1, count + 1)
        ]  # fmt: skip
        self._failed = None
        began = time.monotonic()
        try:
            self._download()
            self.job.enter("Training")
            cause = self._train(began, ending)
            self._leave(cause, ending)
        finally:
            for host in self.hosts:
                host.end()
                host.stream.ship()
            self.job.training_seconds += time.monotonic() - began
            if not self.plant.keep_folders:
                remove(folder)

    def _download(self) -> None:
        self.job.enter("Downloading")
        request, s3 = self.job.request, self.plant.s3
        torn = self.job.attempts > 1 and self.plant.faults.take_torn_checkpoint()
        for host in self.hosts:
            host.prepare()
            for channel in request.get("InputDataConfig", []):
                source = channel["DataSource"]["S3DataSource"]
                sharded = source.get("S3DataDistributionType") == "ShardedByS3Key"
                shard = (host.number - 1, len(self.hosts)) if sharded else (0, 1)
                try:
                    count = download(s3, source["S3Uri"], host.channel(channel["ChannelName"]), shard)
                except (BotoCoreError, ClientError) as err:
                    raise Ended("Failed", "Failed", f"ClientError: Data download failed:{err}") from err
                if count == 0 and not sharded:
                    text = no_objects(source["S3Uri"], split(source["S3Uri"])[0], self.plant.region, request["RoleArn"])
                    raise Ended("Failed", "Failed", f"ClientError: {text}")
            if "CheckpointConfig" in request:
                uri = request["CheckpointConfig"]["S3Uri"]
                host.sync = CheckpointSync(s3, host.checkpoints, uri, self.plant.sync_seconds)
                host.sync.restore(torn and host.number == 1)
            if self.job.stop_asked.is_set():
                raise Ended("Stopped", "Stopped")

    def _train(self, began: float, ending: str | None) -> str:
        """Why the programs have ended: "exit", "stop", "runtime", "interruption" or "fault"; none runs on after this."""
        for host in self.hosts:
            host.start(self._command(), self._environment())
            if host.sync is not None:
                host.sync.start()
        limit = self.job.request["StoppingCondition"].get("MaxRuntimeInSeconds", 86_400) * self.plant.limit_scale
        while any(host.exit_code is None for host in self.hosts):
            self._rest()
            for host in self.hosts:
                host.stream.ship()
            self._failed = next((host for host in self.hosts if host.exit_code), None)
            if self._failed is not None:
                self._ask_to_end(OTHERS_GRACE_SECONDS)
                return "exit"
            cause = self._cause(began, limit, ending)
            if cause is not None:
                self._ask_to_end(0 if cause == "fault" or self.job.interruption == "killed" else GRACE_SECONDS)
                return cause
        return "exit"

    def _cause(self, began: float, limit: float, ending: str | None) -> str | None:
        if self.job.interruption:
            return "interruption"
        if self.job.stop_asked.is_set():
            return "stop"
        if self.job.training_seconds + time.monotonic() - began > limit:
            return "runtime"
        return "fault" if ending and time.monotonic() - began > 1 else None

    def _ask_to_end(self, grace_seconds: float) -> None:
        """SIGTERM, time, SIGKILL; no time, no SIGTERM."""
        deadline = time.monotonic() + grace_seconds * self.plant.limit_scale
        for host in self.hosts:
            if grace_seconds:
                host.ask_to_end()
        while any(host.exit_code is None for host in self.hosts) and time.monotonic() < deadline:
            if self.plant.closed.wait(TICK_SECONDS):
                break
            for host in self.hosts:
                host.stream.ship()
        for host in self.hosts:
            host.end()

    def _leave(self, cause: str, ending: str | None) -> None:
        """The last sync, the upload, and the end; returns only by an exception."""
        abrupt = cause == "fault" or self.job.interruption == "killed"
        for host in self.hosts:
            host.end()
            host.stream.ship()
            if host.sync is not None:
                host.sync.close(last=not abrupt)
        if cause == "interruption":
            raise Interrupted
        if cause == "fault":
            raise Ended("Failed", "Failed", ending)
        self._upload()
        if cause == "runtime":
            raise Ended("Stopped", "MaxRuntimeExceeded")
        if cause == "stop" or self.job.stop_asked.is_set():
            raise Ended("Stopped", "Stopped")
        failed = self._failed or next((host for host in self.hosts if host.exit_code), None)
        if failed is not None:
            raise Ended("Failed", "Failed", f"AlgorithmError: {failed.failure()}, exit code: {failed.exit_code}")
        raise Ended("Completed", "Completed")

    def _upload(self) -> None:
        self.job.enter("Uploading")
        output, s3 = self.job.request["OutputDataConfig"], self.plant.s3
        base = self.job.model_uri.removesuffix("/").rpartition("/")[0]
        try:
            for name, part in (("model", "model"), ("output", "output/data")):
                folders = [host.root / part for host in self.hosts]
                if output.get("CompressionType") == "NONE":
                    for folder in reversed(folders):
                        upload_results(
                            s3, folder, f"{base}/{'model' if name == 'model' else 'data'}", output.get("KmsKeyId")
                        )
                    continue
                broken = (
                    self.plant.faults.take_broken_archive() if name == "model" and any(folders[0].iterdir()) else None
                )
                packed = archive(folders, self.hosts[0].folder / f"{name}.tar.gz", broken)
                if packed is not None:
                    upload_results(s3, packed, f"{base}/{name}.tar.gz", output.get("KmsKeyId"))
        except (BotoCoreError, ClientError, OSError) as err:
            raise Ended("Failed", "Failed", f"ClientError: Artifact upload failed:{err}") from err

    def _command(self) -> list[str]:
        algorithm = self.job.request["AlgorithmSpecification"]
        entrypoint = algorithm.get("ContainerEntrypoint") or self.plant.program
        return [*entrypoint, *algorithm.get("ContainerArguments", [])]

    def _environment(self) -> dict[str, str]:
        job = self.job
        given = {
            "TRAINING_JOB_NAME": job.name,
            "TRAINING_JOB_ARN": job.arn,
            "AWS_REGION": self.plant.region,
            "PYTHONUNBUFFERED": "1",  # as in our Dockerfile and in AWS's containers
        }
        network = {} if job.request.get("EnableNetworkIsolation") else self.plant.environment
        return given | network | job.request.get("Environment", {})
