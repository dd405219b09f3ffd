"""What the results of a run cost when they were made, read from their manifests; a local result has no bill."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rightcall.recipe.schema import Recipe
from tasks.costs.estimates import clock, instances_text
from tasks.costs.prices import price_of
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef


@dataclass(frozen=True)
class Bill:
    """What one job was billed."""

    label: str  # of the result that the job made, or the job's name
    instance: str  # "2 × ml.p4d.24xlarge"
    billable_seconds: int  # of all instances together
    usd: float | None  # None = its instance type had no price


def read_bills(store: Store, refs: Mapping[str, ArtifactRef]) -> list[Bill]:
    """In the order of ``refs``, each result once."""
    bills, seen = [], set()
    for label, ref in refs.items():
        if ref.uri in seen:
            continue
        seen.add(ref.uri)
        result = store.manifest(ref).get("result", {})
        if "billable_seconds" in result:
            seconds, usd = int(result["billable_seconds"]), result.get("cost_usd")
            bills.append(Bill(label, str(result.get("instance", "")), seconds, None if usd is None else float(usd)))
    return bills


def total(bills: Sequence[Bill]) -> dict[str, float]:
    """billable_seconds and cost_usd, as manifests and MLflow name them; a bill without a price leaves the dollars out."""
    if not bills:
        return {}
    costs = [bill.usd for bill in bills if bill.usd is not None]
    sums: dict[str, float] = {"billable_seconds": sum(bill.billable_seconds for bill in bills)}
    return sums | ({"cost_usd": round(sum(costs), 4)} if len(costs) == len(bills) else {})


def with_models(store: Store, scores: Mapping[str, ArtifactRef]) -> dict[str, ArtifactRef]:
    """The models that were scored, then their scores; the label of a model is that of its scores."""
    found: dict[str, ArtifactRef] = {}
    for label, ref in scores.items():
        model = store.manifest(ref).get("inputs", {}).get("model")
        if model is not None:
            found[label] = ArtifactRef.model_validate(model)
    return found | {f"score {label}": ref for label, ref in scores.items()}


def sentence(bills: Sequence[Bill]) -> str:
    """One line for a terminal."""
    if not bills:
        return ""
    parts = ", ".join(f"{bill.label} {dollars(bill.usd)}" for bill in bills)
    sums = total(bills)
    return f"cost: {dollars(sums.get('cost_usd'))}, {clock(sums['billable_seconds'])} billed ({parts})"


def dollars(usd: float | None) -> str:
    return "without a price" if usd is None else f"{usd:,.2f} USD"


def bill_of(description: Mapping[str, Any], recipe: Recipe) -> Bill:
    """From DescribeTrainingJob's answer; a spot job pays the on-demand price for fewer BillableTimeInSeconds."""
    resources = description.get("ResourceConfig") or {}
    instance_type, count = str(resources.get("InstanceType") or ""), int(resources.get("InstanceCount") or 1)
    each = description.get("BillableTimeInSeconds")
    seconds = int((description.get("TrainingTimeInSeconds") or 0) if each is None else each)
    price = price_of(instance_type)
    usd = None if price is None else round(price.usd_per_hour * seconds * count / 3600, 4)
    if resources.get("TrainingPlanArn") or recipe.compute.sagemaker.training_plan:
        usd = 0.0  # paid when the plan was bought
    name = str(description.get("TrainingJobName") or "")
    return Bill(name, instances_text(instance_type, count), seconds * count, usd)


def manifest_fields(ended: Sequence[Mapping[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """What all attempts of a stage's job cost together, as its manifest keeps it."""
    bills = [bill_of(description, recipe) for description in ended]
    return {**total(bills), "instance": bills[-1].instance, "attempts": len(bills)}
