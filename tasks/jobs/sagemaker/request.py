"""One stage as a CreateTrainingJob request: what ``sagemaker.train.ModelTrainer`` makes of a recipe.

The SDK makes the request's shape. What else it does is turned off here: it adds a timestamp to the job's name (ours is
made of the work), uploads to a bucket of its own choice, asks IAM about the role, and reports usage. Our own container
image has an entrypoint; AWS's image gets training_image/ as ``source_dir`` and ``exec``s the program, so that it is PID 1
and receives SIGTERM.
"""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import SagemakerSection
from tasks.aws.clients import aws_settings
from tasks.costs.estimates import instance_of
from tasks.machine.checkout import CHECKOUT

PROJECT = "rightcall"
FLOW_RUN_TAG = f"{PROJECT}:flow-run-id"  # by which the cancellation hook finds the jobs of a run
SOURCE = CHECKOUT / "training_image"
COMMAND = "exec python entry.py"
CHECKPOINTS = "/opt/ml/checkpoints"
LONGEST_VALUE = 512  # characters of an environment variable in a request
# The variable's value is an ARN; training_image/secrets_from_aws.py fetches what lies there.
SECRET_PREFIX = "RIGHTCALL_SECRET_"  # noqa: S105  a name
METRICS = ("loss", "learning_rate", "grad_norm", "tokens_per_second", "rewards_accuracy", "margin")
NUMBER = r"([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)"
# the torch of requirements.txt, so that pip leaves it alone
CONTAINER = {"framework": "pytorch-amzn2023", "version": "2.13", "image_scope": "training"}
SDK_SETTINGS = {"SchemaVersion": "1.0", "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}}}


@dataclass(frozen=True)
class JobPlan:
    """Everything that a request is made of; equal plans give equal requests."""

    stage: str
    key: str
    recipe: Recipe
    channels: Mapping[str, str]  # name: s3://…/, with the slash: S3Prefix takes every key that begins so
    folder: str  # s3://…/.jobs/<stage>/<key>, without a slash
    attempt: int = 0
    tags: Mapping[str, str] = field(default_factory=dict)  # beside the recipe's and ours

    @property
    def name(self) -> str:
        return job_name(self.stage, self.key, self.attempt)

    @property
    def inputs(self) -> str:
        """Where job.json and the code of this very job lie."""
        return f"{self.folder}/{self.name}"

    @property
    def checkpoints(self) -> str:
        """The same for every attempt, so that the next one resumes."""
        return f"{self.folder}/checkpoints"

    @property
    def output(self) -> str:
        return f"{self.folder}/output"

    def next(self) -> JobPlan:
        return replace(self, attempt=self.attempt + 1)


def job_name(stage: str, key: str, attempt: int = 0) -> str:
    """project-stage-key, so that equal work is one job; ``-r1`` … for what comes after one that ended without a result."""
    suffix = f"-r{attempt}" if attempt else ""
    room = 63 - len(suffix)
    return re.sub(r"[^A-Za-z0-9]+", "-", f"{PROJECT}-{stage}-{key}")[:room].strip("-") + suffix


def region_of(recipe: Recipe) -> str:
    """The region that the jobs run in.

    Raises:
        BackendError: neither the recipe nor the AWS environment names a region.
    """
    import boto3

    # boto3 alone does not read AWS_REGION, which the CLI and the other SDKs do
    region = recipe.compute.sagemaker.region or os.environ.get("AWS_REGION") or boto3.session.Session().region_name
    if not region:
        raise BackendError(
            "no AWS region: compute.sagemaker.region is None and the AWS environment names none; set AWS_REGION (or "
            "--set compute.sagemaker.region=eu-central-1) to the region of the store's bucket"
        )
    return str(region)


def role_of(recipe: Recipe) -> str:
    """ARN of the role that the jobs run as.

    Raises:
        BackendError: no role, or something else than a role's ARN.
    """
    role = recipe.compute.sagemaker.role or os.environ.get("RIGHTCALL_SAGEMAKER_ROLE")
    if not role:
        raise BackendError(
            "no execution role for SageMaker: set RIGHTCALL_SAGEMAKER_ROLE (or compute.sagemaker.role) to the ARN of a role "
            "that SageMaker may assume; docs/sagemaker.md has its policies"
        )
    if not re.fullmatch(r"arn:aws[\w-]*:iam::\d{12}:role/[\w+=,.@/-]+", role):
        raise BackendError(
            f"{role!r} is not the ARN of a role; write arn:aws:iam::<account>:role/<name>, as `aws iam list-roles` shows it"
        )
    return role


def image_of(recipe: Recipe, instance_type: str) -> tuple[str, bool]:
    """The image, and whether it is ours (with the program inside)."""
    ours = recipe.compute.sagemaker.image or os.environ.get("RIGHTCALL_IMAGE")
    if ours:
        return ours, True
    _quiet_sdk()
    from sagemaker.core import image_uris

    return str(image_uris.retrieve(region=region_of(recipe), instance_type=instance_type, **CONTAINER)), False


def training_request(plan: JobPlan) -> dict[str, Any]:
    """What ``send`` would send, made without a connection, without credentials, and without an upload."""
    trainer = _trainer(plan, lambda source, url: None)
    return _without_unset(trainer._create_training_job_args(boto3=True))


def send(plan: JobPlan, upload: Callable[[Path, str], None]) -> None:
    """Creates the job; ``upload(folder, url)`` brings a local folder to S3 first.

    Raises:
        ClientError: the service refused, or answered something else than yes.
    """
    _trainer(plan, upload).train(wait=False, logs=False)


def environment_of(recipe: Recipe) -> dict[str, str]:
    """Variables of the container; a secret appears as its ARN alone.

    Raises:
        BackendError: a value is longer than a request may carry.
    """
    settings = recipe.compute.sagemaker
    values = {
        "RIGHTCALL_METRICS_TO_LOG": "1", "PYTHONUNBUFFERED": "1", "TOKENIZERS_PARALLELISM": "false",
        **settings.environment,
        **{f"{SECRET_PREFIX}{name}": arn for name, arn in settings.secrets.items()},
    }  # fmt: skip
    long = sorted(name for name, value in values.items() if len(value) > LONGEST_VALUE)
    if long:
        raise BackendError(
            f"compute.sagemaker.environment {long!r}: SageMaker takes {LONGEST_VALUE} characters a variable; put the rest "
            "into a file of the image or a secret"
        )
    return values


def tags_of(plan: JobPlan) -> dict[str, str]:
    ours = {"project": PROJECT, "stage": plan.stage, "key": plan.key, "recipe": plan.recipe.name}
    return {
        **plan.recipe.compute.sagemaker.tags,
        **{f"{PROJECT}:{name}": value for name, value in ours.items()},
        **plan.tags,
    }


def _trainer(plan: JobPlan, upload: Callable[[Path, str], None]) -> Any:
    kind, shapes = _sdk()
    settings = plan.recipe.compute.sagemaker
    instance_type, count = instance_of(plan.stage, plan.recipe)
    image, ours = image_of(plan.recipe, instance_type)
    bucket = plan.folder.removeprefix("s3://").partition("/")[0]
    source = shapes.SourceCode(source_dir=str(SOURCE), requirements="requirements.txt", command=COMMAND)
    trainer = kind(
        sagemaker_session=_sdk_session(region_of(plan.recipe), bucket, aws_settings()),
        role=role_of(plan.recipe),
        base_job_name=plan.name,
        training_image=image,
        source_code=None if ours else source,  # with it the SDK's driver would stand before our entrypoint
        input_data_config=[
            shapes.InputData(channel_name=name, data_source=url)
            for name, url in {"job": f"{plan.inputs}/job/", **plan.channels}.items()
        ],
        environment=environment_of(plan.recipe),
        tags=[shapes.Tag(key=name, value=value) for name, value in tags_of(plan).items()],
        checkpoint_config=_shape("CheckpointConfig", s3_uri=plan.checkpoints, local_path=CHECKPOINTS),
        output_data_config=_shape(
            "OutputDataConfig", s3_output_path=plan.output, compression_type="GZIP", kms_key_id=settings.output_kms_key
        ),
        **_machines(settings, shapes, instance_type, count),
    )
    trainer.with_metric_definitions(
        [_shape("MetricDefinition", name=name, regex=rf'RIGHTCALL_METRICS .*"{name}": {NUMBER}') for name in METRICS]
    )
    trainer._place, trainer._upload = plan.inputs, upload
    return trainer


def _machines(settings: SagemakerSection, shapes: Any, instance_type: str, count: int) -> dict[str, Any]:
    """Instances, time limits and network."""
    return {
        "compute": shapes.Compute(
            instance_type=instance_type, instance_count=count, volume_size_in_gb=settings.volume_gb,
            volume_kms_key_id=settings.volume_kms_key, training_plan_arn=settings.training_plan,
            keep_alive_period_in_seconds=_seconds(settings.warm_pool_minutes),
            enable_managed_spot_training=settings.spot,
        ),
        "stopping_condition": _shape(
            "StoppingCondition", max_runtime_in_seconds=_seconds(settings.max_runtime_minutes),
            max_wait_time_in_seconds=_seconds(settings.max_wait_minutes),
        ),
        "networking": shapes.Networking(
            subnets=list(settings.subnets) or None, security_group_ids=list(settings.security_group_ids) or None,
            enable_network_isolation=settings.network_isolation,
            enable_inter_container_traffic_encryption=settings.encrypt_between_hosts,
        ),
    }  # fmt: skip


def _shape(name: str, /, **fields: Any) -> Any:
    """Of the SDK; it has a sentinel of its own for a field that is not set and takes None for a value."""
    from sagemaker.core import shapes

    return getattr(shapes, name)(**{field: value for field, value in fields.items() if value is not None})


@cache
def _sdk() -> tuple[type[Any], Any]:
    """(ModelTrainer that keeps our names, the module of the SDK's shapes)"""
    _quiet_sdk()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the SDK's own deprecations
        from sagemaker.core.training import configs

        return _named_trainer(), configs


@lru_cache(maxsize=4)
def _sdk_session(region: str, bucket: str, settings: tuple[tuple[str, str], ...]) -> Any:
    import boto3
    from sagemaker.core.helper.session_helper import Session

    session = boto3.session.Session(region_name=region)
    _quiet_sdk()  # the import has set levels
    return Session(boto_session=session, default_bucket=bucket, sagemaker_config=SDK_SETTINGS)


def _named_trainer() -> type[Any]:
    """A ModelTrainer whose job has the name that it was given, and whose local folders go where they are told to."""
    from pydantic import PrivateAttr
    from sagemaker.train import ModelTrainer

    class NamedTrainer(ModelTrainer):
        _place: str = PrivateAttr(default="")
        _upload: Any = PrivateAttr(default=None)

        def _populate_intelligent_defaults(self) -> None:
            """A request is made of the recipe, not of a file in the home of whoever started it."""

        def create_input_data_channel(
            self, channel_name: str, data_source: Any, *args: Any, ignore_patterns: Any = None, **kwargs: Any
        ) -> Any:
            if isinstance(data_source, str) and not data_source.startswith("s3://"):
                url = f"{self._place}/{channel_name}/"
                self._upload(Path(data_source), url)
                data_source = url
            return super().create_input_data_channel(channel_name, data_source, *args, **kwargs)

        def _create_training_job_args(self, input_data_config: Any = None, boto3: bool = False) -> dict[str, Any]:
            request = super()._create_training_job_args(input_data_config, boto3)
            request["TrainingJobName" if boto3 else "training_job_name"] = self.base_job_name
            return request

    return NamedTrainer


def _quiet_sdk() -> None:
    """Silences the SDK's warnings and its advice beside errors, and keeps it from asking IAM about the role."""
    os.environ["SAGEMAKER_VALIDATE_ROLE"] = "false"
    for name in ("sagemaker", "sagemaker.config"):  # the second has a level of its own
        logging.getLogger(name).setLevel(logging.CRITICAL)


def _seconds(minutes: int | None) -> int | None:
    return None if minutes is None else minutes * 60


def _without_unset(value: Any) -> Any:
    """The serialized request without what is unset, as it goes over the wire."""
    if isinstance(value, Mapping):
        return {name: _without_unset(entry) for name, entry in value.items() if entry is not None}
    return [_without_unset(entry) for entry in value] if isinstance(value, list | tuple) else value
