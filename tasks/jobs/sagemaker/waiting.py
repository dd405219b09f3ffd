"""Waiting for a training job: its states, its log, and whether someone has cancelled the run meanwhile.

The job is the service's, not this process's: a crash, Ctrl-C or a network that goes away leave it running, and the same
command attaches to it again. Only cancelling the run in Prefect stops it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from prefect.exceptions import TerminationSignal

from rightcall.errors import BackendError
from tasks.aws import clients
from tasks.jobs.progress import Progress
from tasks.jobs.sagemaker.endings import ENDED
from tasks.jobs.sagemaker.logs import JobLog
from tasks.jobs.sagemaker.service import not_found, passes, service_errors
from tasks.runtime.cancellation import FlowRunWatch
from tasks.runtime.stage import Logger

FIRST_SECONDS, LAST_SECONDS, GROWTH = 2.0, 30.0, 1.4
AWAY_SECONDS = 3600.0  # without one answer; then the job is left to itself
LOOKS_AFTER_THE_END = 3  # CloudWatch delivers the last lines some seconds late


def delays() -> Iterator[float]:
    """Seconds between two looks; RIGHTCALL_POLL_SECONDS is the first and the last."""
    fixed = os.environ.get("RIGHTCALL_POLL_SECONDS")
    seconds, last = (float(fixed), float(fixed)) if fixed else (FIRST_SECONDS, LAST_SECONDS)
    while True:
        yield seconds
        seconds = min(last, seconds * GROWTH)


def describe_job(name: str, region: str) -> dict[str, Any] | None:
    """DescribeTrainingJob's answer, None = there is no such job.

    Raises:
        BackendError: the service does not answer, or not to us.
    """
    from botocore.exceptions import ClientError

    with service_errors(name, region):
        try:
            return dict(clients.sagemaker(region).describe_training_job(TrainingJobName=name))
        except ClientError as err:
            if not_found(err):
                return None
            raise


@dataclass
class Waiting:
    """For one job; ``progress`` and ``watch`` are those of the whole run."""

    name: str
    region: str
    logger: Logger
    progress: Progress
    log: JobLog
    watch: FlowRunWatch
    _told_status: str = ""
    _away_since: float | None = None  # time.monotonic()

    def until_end(self) -> dict[str, Any]:
        """DescribeTrainingJob's last answer.

        Raises:
            BackendError: the job was deleted, or the service did not answer for an hour.
            RunCancelled: the run was cancelled in Prefect; the job is stopping.
        """
        try:
            for seconds in delays():
                description = self._look()
                if description.get("TrainingJobStatus") in ENDED:
                    self._read_the_rest(seconds)
                    return description
                if self.watch.cancelled():
                    raise self.watch.cancel(self._stop())
                time.sleep(seconds)
        except (KeyboardInterrupt, TerminationSignal):
            # A worker sends SIGTERM to a run that is Cancelling: its state says whether the job has to end too.
            if self.watch.cancelled():
                self._stop()
            else:
                self.logger.warning("%s", self._goes_on())
            raise
        raise AssertionError("delays() never ends")

    def _look(self) -> dict[str, Any]:
        """The current description, {} when the service cannot be asked right now."""
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            description = describe_job(self.name, self.region)
        except BackendError as err:
            if not passes(err):
                raise BackendError(f"{err}. {self._goes_on()}") from err
            self._away(err)
            return {}
        if description is None:
            raise BackendError(
                f"job {self.name!r} is gone: someone deleted it while it was running; the same command starts it again and "
                "resumes from its last checkpoint"
            )
        self._back()
        self._tell(description)
        try:
            self.progress.update(*self.log.read())
        except (ClientError, BotoCoreError) as err:
            self.logger.debug("%s: no log lines this time: %s", self.name, err)
        return description

    def _away(self, error: BackendError) -> None:
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            self.logger.warning("%s goes on, but cannot be watched right now, asking again: %s", self.name, error)
        elif now - self._away_since > AWAY_SECONDS:
            raise BackendError(f"no answer about job {self.name!r} for an hour: {error}. {self._goes_on()}") from error

    def _back(self) -> None:
        if self._away_since is not None:
            self.logger.info(
                "%s: the service answers again after %.0f s", self.name, time.monotonic() - self._away_since
            )
            self._away_since = None

    def _tell(self, description: dict[str, Any]) -> None:
        status = str(description.get("SecondaryStatus") or description.get("TrainingJobStatus"))
        if status == self._told_status:
            return
        self._told_status = status
        transitions = description.get("SecondaryStatusTransitions") or [{}]
        said = transitions[-1].get("StatusMessage") or ""
        if status == "Interrupted":
            self.logger.warning(
                "%s: the spot instance was taken back; SageMaker restarts the job from its checkpoints", self.name
            )
        else:
            self.logger.info("%s: %s%s", self.name, status, f" ({said})" if said else "")

    def _read_the_rest(self, seconds: float) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        for _ in range(LOOKS_AFTER_THE_END):
            time.sleep(seconds)
            try:
                metrics, lines = self.log.read()
            except (ClientError, BotoCoreError) as err:
                self.logger.warning("%s: the end of its log could not be read: %s", self.name, err)
                return
            self.progress.update(metrics, lines)
            if not metrics and not lines:
                break
        self.progress.update(final=True)

    def _stop(self) -> str:
        """Asks the service to stop the job and waits for its acknowledgement; gives what to say."""
        stop(self.name, self.region)
        for seconds in delays():
            if not in_progress(self.name, self.region):
                break
            time.sleep(seconds)
        message = f"job {self.name!r} was told to stop; its checkpoints are kept, the same command resumes"
        self.logger.warning("cancelled: %s", message)
        return message

    def _goes_on(self) -> str:
        return (
            f"The job goes on without this process: the same command attaches to it. To stop it: aws sagemaker "
            f"stop-training-job --region {self.region} --training-job-name {self.name}"
        )


def stop(name: str, region: str) -> None:
    """StopTrainingJob; a job that has ended meanwhile is no error."""
    from botocore.exceptions import ClientError

    with service_errors(name, region):
        try:
            clients.sagemaker(region).stop_training_job(TrainingJobName=name)
        except ClientError as err:
            if err.response.get("Error", {}).get("Code") != "ValidationException":
                raise


def in_progress(name: str, region: str) -> bool:
    """Whether the job exists and nobody has asked it to end; yes while the service cannot be asked."""
    try:
        description = describe_job(name, region)
    except BackendError as err:
        if not passes(err):
            raise
        return True
    return description is not None and description["TrainingJobStatus"] == "InProgress"
