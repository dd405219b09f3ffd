"""One training job as DescribeTrainingJob shows it."""

from __future__ import annotations

import threading
import time
from typing import Any

MESSAGES = {
    "Starting": "Starting the training job",
    "LaunchingMLInstances": "Launching requested ML instances",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopping": "Stopping the training job",
    "Stopped": "Training job stopped",
    "Interrupted": "Training job interrupted: the Spot instance was reclaimed",
    "Restarting": "Restarting the training job",
    "MaxRuntimeExceeded": "Training job runtime exceeded MaxRuntimeInSeconds provided",
    "MaxWaitTimeExceeded": "Training job wait time exceeded MaxWaitTimeInSeconds provided",
}
SHOWN = (
    "HyperParameters", "AlgorithmSpecification", "RoleArn", "InputDataConfig", "OutputDataConfig", "ResourceConfig",
    "VpcConfig", "StoppingCondition", "CheckpointConfig", "Environment", "RetryStrategy", "ExperimentConfig",
)  # fmt: skip
FLAGS = ("EnableNetworkIsolation", "EnableInterContainerTrafficEncryption", "EnableManagedSpotTraining")
SPOT_PRICE = 0.3  # of the on-demand price: billed seconds / training seconds


class Job:
    def __init__(self, request: dict[str, Any], region: str, account: str) -> None:
        self.request = request
        self.name: str = request["TrainingJobName"]
        self.arn = f"arn:aws:sagemaker:{region}:{account}:training-job/{self.name}"
        self.tags = {tag["Key"]: tag["Value"] for tag in request.get("Tags", [])}
        self.status = "InProgress"
        self.created = time.time()
        self.started: float | None = None
        self.ended: float | None = None
        self.training_seconds = 0.0  # of all attempts
        self.failure_reason: str | None = None
        self.transitions: list[dict[str, Any]] = []
        self.attempts = 0
        self.stop_asked = threading.Event()
        self.interruption: str | None = None  # "warned": SIGTERM and two minutes, "killed": at once
        self.finished = threading.Event()
        self._lock = threading.RLock()
        self.enter("Starting")

    @property
    def spot(self) -> bool:
        return bool(self.request.get("EnableManagedSpotTraining"))

    @property
    def instance_type(self) -> str:
        return str(self.request["ResourceConfig"]["InstanceType"])

    @property
    def instances(self) -> int:
        return int(self.request["ResourceConfig"]["InstanceCount"])

    @property
    def secondary(self) -> str:
        return str(self.transitions[-1]["Status"])

    @property
    def model_uri(self) -> str:
        output = self.request["OutputDataConfig"]
        folder = f"{output['S3OutputPath'].rstrip('/')}/{self.name}/output"
        return f"{folder}/model/" if output.get("CompressionType") == "NONE" else f"{folder}/model.tar.gz"

    def enter(self, secondary: str) -> None:
        """The next secondary status."""
        with self._lock:
            now = time.time()
            if self.transitions:
                self.transitions[-1]["EndTime"] = now
            self.transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": MESSAGES[secondary]})
            if secondary == "Downloading" and self.started is None:
                self.started = now

    def stop(self) -> None:
        with self._lock:
            self.status = "Stopping"
            self.enter("Stopping")
            self.stop_asked.set()

    def finish(self, status: str, secondary: str, reason: str | None = None) -> None:
        with self._lock:
            self.enter(secondary)
            self.status, self.failure_reason = status, reason
            self.ended = self.transitions[-1]["EndTime"] = time.time()
            self.finished.set()

    def describe(self) -> dict[str, Any]:
        with self._lock:
            shown: dict[str, Any] = {name: self.request[name] for name in SHOWN if name in self.request}
            shown |= {name: bool(self.request.get(name)) for name in FLAGS}
            shown |= {
                "TrainingJobName": self.name, "TrainingJobArn": self.arn, "TrainingJobStatus": self.status,
                "SecondaryStatus": self.secondary, "CreationTime": self.created,
                "LastModifiedTime": self.ended or self.transitions[-1]["StartTime"],
                "ModelArtifacts": {"S3ModelArtifacts": self.model_uri},
                "SecondaryStatusTransitions": [dict(transition) for transition in self.transitions],
                "ProfilingStatus": "Disabled",
            }  # fmt: skip
            if self.started is not None:
                shown["TrainingStartTime"] = self.started
            if self.ended is not None and self.started is not None:
                seconds = max(1, round(self.training_seconds))
                shown["TrainingEndTime"] = self.ended
                shown["TrainingTimeInSeconds"] = seconds
                shown["BillableTimeInSeconds"] = max(1, round(seconds * SPOT_PRICE)) if self.spot else seconds
            if self.failure_reason:
                shown["FailureReason"] = self.failure_reason
            if self.request["ResourceConfig"].get("KeepAlivePeriodInSeconds") and self.status != "InProgress":
                shown["WarmPoolStatus"] = {"Status": "Available", "ResourceRetainedBillableTimeInSeconds": 0}
            return shown

    def summary(self) -> dict[str, Any]:
        keys = ("TrainingJobName", "TrainingJobArn", "CreationTime", "TrainingEndTime", "LastModifiedTime",
                "TrainingJobStatus", "SecondaryStatus")  # fmt: skip
        shown = self.describe()
        return {key: shown[key] for key in keys if key in shown}
