"""One job of the training program, wherever the recipe says that jobs run; the result is the same folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rightcall.job.stage_table import STAGES
from rightcall.recipe.schema import Recipe
from tasks.jobs import local
from tasks.jobs.contract import Input, JobResult
from tasks.runtime.stage import StageRun

__all__ = ["Input", "JobResult", "run_job"]


def run_job(
    stage: str,
    recipe: Recipe,
    channels: Mapping[str, Path | Input],
    run: StageRun,
    on_metrics: Callable[[dict[str, Any]], None] | None = None,
) -> JobResult:
    """Runs one job to its end; ``run.folder`` then holds model/, output/ and job.log.

    Raises:
        RightcallError: the program's own error, or why there is no result and what to do.
    """
    if recipe.compute.backend == "sagemaker" and not STAGES[stage].on_this_machine:
        from tasks.jobs.sagemaker import backend  # boto3: 0.3 s that a local run does not need

        return backend.run_job(stage, recipe, channels, run, on_metrics)
    paths = {
        name: run.store.path(source.ref, source.part) / source.part if isinstance(source, Input) else source
        for name, source in channels.items()
    }
    return local.run_job(stage, recipe, paths, run, on_metrics)
