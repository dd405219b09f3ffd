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
    """Of one stage's job."""

    label: str
    instance: str
    billable_seconds: int
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
    """cost_usd and billable_seconds, as MLflow names them; a bill without a price leaves the dollars out."""
    if not bills:
        return {}
    costs = [bill.usd for bill in bills]
    known = [usd for usd in costs if usd is not None]
    dollars = {"cost_usd": round(sum(known), 4)} if len(known) == len(costs) else {}
    return {"billable_seconds": float(sum(bill.billable_seconds for bill in bills)), **dollars}


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


@dataclass(frozen=True)
class Billed:
    billable_seconds: int  # of all instances together
    usd: float | None  # None = the instance type has no price here
    instance: str

    def fields(self) -> dict[str, Any]:
        """What a stage's manifest keeps."""
        cost = {} if self.usd is None else {"cost_usd": self.usd}
        return {"billable_seconds": self.billable_seconds, **cost, "instance": self.instance}


def billed(description: Mapping[str, Any], recipe: Recipe) -> Billed:
    """From DescribeTrainingJob's answer. A spot job's saving is in BillableTimeInSeconds, the price stays that on demand."""
    resources = description.get("ResourceConfig") or {}
    instance_type, count = str(resources.get("InstanceType") or ""), int(resources.get("InstanceCount") or 1)
    each = description.get("BillableTimeInSeconds")
    seconds = int((description.get("TrainingTimeInSeconds") or 0) if each is None else each)
    price = price_of(instance_type)
    usd = None if price is None else round(price.usd_per_hour * seconds * count / 3600, 4)
    if resources.get("TrainingPlanArn") or recipe.compute.sagemaker.training_plan:
        usd = 0.0  # paid when the plan was bought
    return Billed(seconds * count, usd, instances_text(instance_type, count))


def bill(ended: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    """What all attempts cost together, as fields of the manifest."""
    bills = [billed(description, recipe) for description in ended]
    dollars = [each.usd for each in bills if each.usd is not None]
    cost = {"cost_usd": round(sum(dollars), 4)} if len(dollars) == len(bills) else {}
    seconds = sum(each.billable_seconds for each in bills)
    return {"billable_seconds": seconds, **cost, "instance": bills[-1].instance, "attempts": len(bills)}
