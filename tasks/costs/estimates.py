"""What a SageMaker job will cost, and whether that is allowed.

work = work_of("sft", recipe.sft…)                      # tokens and parameters, from the manifests of its inputs
estimate = estimate_job("sft", recipe, work)            # before CreateTrainingJob
require_affordable(recipe, {"sft": estimate})           # BackendError above compute.max_cost_usd
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rightcall.errors import BackendError, StoreError
from rightcall.job.stage_table import STAGES
from rightcall.recipe.schema import Recipe
from tasks.costs.prices import price_of
from tasks.costs.throughput import Work, duration
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

# Spot prices move; SageMaker's own "up to 90%" is never reached by GPUs that are wanted. Half is a guess on the safe side.
SPOT_SAVING = 0.5
FIRST = ("base", "model")  # inputs through which a model leads back to the base model


@dataclass(frozen=True)
class Estimate:
    """Of one job; ``usd`` None = it has no price here."""

    stage: str
    instance: str  # "ml.g5.2xlarge", "2 × ml.p4d.24xlarge"
    seconds: float  # from start to end, of every instance at once
    usd: float | None
    basis: str  # what the numbers rest on, assumptions named as such
    cached: bool = False  # the result is in the store: no job, no cost


def instance_of(stage: str, recipe: Recipe) -> tuple[str, int]:
    """Instance type and how many a stage's job gets; a stage that shares no work takes one.

    Raises:
        BackendError: the recipe names none.
    """
    settings = recipe.compute.sagemaker
    shares_work = STAGES[stage].shares_work
    chosen = settings.instance_type if shares_work else settings.score_instance_type or settings.instance_type
    if chosen is None:
        raise BackendError(
            f"compute.sagemaker.instance_type is None, so stage {stage!r} has nothing to run on; name one, "
            "for example --set compute.sagemaker.instance_type=ml.g5.2xlarge"
        )
    return chosen, settings.instance_count if shares_work else 1


def work_of(stage: str, store: Store, *, model: ArtifactRef, snapshot: ArtifactRef) -> Work:
    """Tokens of the rows that the stage reads and the size of the model, from manifests alone."""
    rows, kind = store.manifest(snapshot)["result"], STAGES[stage].rows
    size = _base(store, model)
    steps = (rows.get("step_rows", 0), rows.get("step_tokens", 0)) if stage == "score" else (0, 0)
    return Work(
        rows.get(f"{kind}_tokens"), rows.get(f"{kind}_rows"), size.get("total_parameters"), size.get("layers"), *steps
    )


def estimate_job(stage: str, recipe: Recipe, work: Work) -> Estimate:
    """Instance price × time. Where the time cannot be told, the job counts with its longest: max_runtime_minutes."""
    settings = recipe.compute.sagemaker
    instance_type, count = instance_of(stage, recipe)
    longest = settings.max_runtime_minutes * 60
    found = duration(stage, recipe, work, instance_type, count)
    if found is None:
        why = "tokens or model size not known" if work.tokens is None or not work.parameters else "speed not known"
        seconds, basis = float(longest), f"{why}: counted with max_runtime_minutes {settings.max_runtime_minutes}"
    else:
        seconds, basis = found.seconds, found.basis
    if seconds > longest:
        basis += f"; longer than max_runtime_minutes {settings.max_runtime_minutes}, which would end it: raise that"
    usd, price = _price(recipe, instance_type, count, seconds)
    return Estimate(stage, instances_text(instance_type, count), seconds, usd, f"{basis}; {price}")


def require_affordable(recipe: Recipe, estimates: Mapping[str, Estimate]) -> None:
    """Compares the estimates with compute.max_cost_usd; local runs have no limit.

    Raises:
        BackendError: the limit is less than the estimates, or there is no price to compare it with.
    """
    limit = recipe.compute.max_cost_usd
    if limit is None or recipe.compute.backend != "sagemaker":
        return
    due = {label: estimate for label, estimate in estimates.items() if not estimate.cached}
    unknown = sorted({estimate.instance for estimate in due.values() if estimate.usd is None})
    if unknown:
        raise BackendError(
            f"compute.max_cost_usd is {limit:g}, but {unknown!r} has no price in tasks/costs/prices.json, so the cost cannot be "
            "checked; run `python -m tasks.costs.prices`, choose another instance type, or leave max_cost_usd out"
        )
    total = sum(estimate.usd or 0.0 for estimate in due.values())
    if total > limit:
        parts = "\n".join(f"  {estimate_line(label, estimate)}" for label, estimate in due.items())
        raise BackendError(
            f"the estimate of {total:,.2f} USD is above compute.max_cost_usd {limit:g}; nothing was started. Raise the "
            f"limit, or choose a cheaper instance type, spot, fewer epochs or fewer rows:\n{parts}"
        )


def estimate_line(label: str, estimate: Estimate) -> str:
    """One line for the log."""
    if estimate.cached:
        return f"{label}: in the store already, costs nothing"
    cost = "no price" if estimate.usd is None else f"{estimate.usd:,.2f} USD"
    return f"{label}: about {cost}, {clock(estimate.seconds)} on {estimate.instance}: {estimate.basis}"


def clock(seconds: float) -> str:
    """ "1 h 05 min", at least one minute."""
    minutes = max(1, math.ceil(seconds / 60))
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"


def _price(recipe: Recipe, instance_type: str, count: int, seconds: float) -> tuple[float | None, str]:
    settings = recipe.compute.sagemaker
    if settings.training_plan is not None:
        return 0.0, "paid with the training plan"
    price = price_of(instance_type)
    if price is None:
        return None, f"no price for {instance_type} in tasks/costs/prices.json"
    saving = SPOT_SAVING if settings.spot else 0.0
    doubt = "" if price.verified else ", not verified"
    text = f"{price.usd_per_hour:,.3f} USD an hour in {price.region} of {price.date}{doubt}"
    if settings.region not in (None, price.region):
        text += f" (the job runs in {settings.region})"
    if saving:
        text += f", spot saves {saving:.0%} (assumed)"
    return price.usd_per_hour * count * seconds / 3600 * (1 - saving), text


def instances_text(instance_type: str, count: int) -> str:
    return instance_type if count == 1 else f"{count} × {instance_type}"


def _base(store: Store, model: ArtifactRef) -> Mapping[str, Any]:
    """What the stage base said of the model that this one was made from; nothing when it cannot be found."""
    try:
        manifest = store.manifest(model)
        while above := [manifest["inputs"][name] for name in FIRST if name in manifest.get("inputs", {})]:
            manifest = store.manifest(ArtifactRef.model_validate(above[0]))
    except StoreError:
        return {}
    return dict(manifest["result"])
