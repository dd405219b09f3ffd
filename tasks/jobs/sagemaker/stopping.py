"""Stops the SageMaker jobs of a cancelled run whose process was killed before it could.

A worker calls it after it has ended the run's process; in a run that was started by hand Prefect's engine calls it.
"""

from __future__ import annotations

import logging
from typing import Any

from rightcall.errors import BackendError
from rightcall.recipe.schema import Recipe
from tasks.jobs.sagemaker.request import FLOW_RUN_TAG, PROJECT


def stop_jobs(recipe: Recipe, flow_run_id: str, logger: logging.Logger | logging.LoggerAdapter[Any]) -> None:
    """Every training job that is in progress and carries the flow run's id."""
    if recipe.compute.backend != "sagemaker":
        return
    from tasks.jobs.sagemaker.request import region_of
    from tasks.jobs.sagemaker.waiting import stop

    region = region_of(recipe)
    for name in jobs_of(flow_run_id, region):
        try:
            stop(name, region)
        except BackendError as err:
            logger.error(
                "job %r could not be stopped: %s; aws sagemaker stop-training-job --training-job-name %s",
                name,
                err,
                name,
            )
        else:
            logger.info("job %r was told to stop, its checkpoints are kept", name)


def jobs_of(flow_run_id: str, region: str) -> list[str]:
    """Names of the jobs in progress that a flow run has created or waited for."""
    from tasks.aws import clients
    from tasks.jobs.sagemaker.service import service_errors

    sagemaker = clients.sagemaker(region)
    with service_errors(f"{PROJECT}-*", region):
        pages = sagemaker.get_paginator("list_training_jobs").paginate(NameContains=PROJECT, StatusEquals="InProgress")
        jobs = [job for page in pages for job in page["TrainingJobSummaries"]]
        return [job["TrainingJobName"] for job in jobs if _flow_run_of(sagemaker, job["TrainingJobArn"]) == flow_run_id]


def _flow_run_of(sagemaker: Any, arn: str) -> str | None:
    for page in sagemaker.get_paginator("list_tags").paginate(ResourceArn=arn):
        for tag in page["Tags"]:
            if tag["Key"] == FLOW_RUN_TAG:
                return str(tag["Value"])
    return None
