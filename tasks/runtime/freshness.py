"""Which stored results a run computes again, and which of those it uses were made by other versions of the libraries."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prefect.runtime import flow_run

from rightcall.recipe.schema import Recipe
from tasks.machine.run_logger import run_logger

VERSIONS = ("prefect", "torch", "transformers", "trl", "peft", "datasets", "great-expectations", "polars", "numpy")
DECIDING = ("torch", "transformers", "trl")  # the same work may give another model or other scores with another version
MADE_WITH_THEM = ("model", "scores")
FLOW_RUN = "flow_run"  # in a manifest: the run that made the result


@dataclass(frozen=True)
class Freshness:
    """What one run of a flow computes again, and which old results it uses."""

    names: frozenset[str] = frozenset()  # stages to compute again
    old: dict[str, str] = field(default_factory=dict)  # stage → "torch 2.12.0": what made the result that is used


_current: ContextVar[Freshness | None] = ContextVar("rightcall_freshness", default=None)


def begin_run(names: tuple[str, ...] = ()) -> None:
    """At a flow's start: the stages that it computes again."""
    _current.set(Freshness(frozenset(names)))


def is_wanted_anew(stage: str, stored: Callable[[], Mapping[str, Any] | None]) -> bool:
    """Whether a stage is computed again although its result may be stored.

    A result that this same flow run made, before it was suspended for an approval, is used.
    """
    current = _current.get()
    if current is None or stage not in current.names:
        return False
    return not is_of_this_run(stored() or {})


def is_of_this_run(manifest: Mapping[str, Any]) -> bool:
    """Whether the flow run that goes on here has made the result."""
    return flow_run.id is not None and manifest.get(FLOW_RUN) == flow_run.id


def note_versions(stage: str, recipe: Recipe, manifest: Mapping[str, Any]) -> None:
    """Remembers a used result that was made by other library versions than those installed here.

    What a SageMaker image holds is not known here, so nothing is said where jobs run there.
    """
    current = _current.get()
    in_a_container = recipe.compute.backend == "sagemaker" and stage != "base"
    if current is None or manifest["kind"] not in MADE_WITH_THEM or in_a_container:
        return
    made, here = manifest.get("versions", {}), installed_versions()
    names = [name for name in DECIDING if made.get(name) and here.get(name) and made[name] != here[name]]
    if names:
        current.old[stage] = ", ".join(f"{name} {made[name]} (installed: {here[name]})" for name in names)


def warn_of_old_versions(command: str = "") -> None:
    """One line for all of them, before the flow judges or ends; command: what takes these --fresh, "" = the flow itself."""
    current = _current.get()
    if current is None or not current.old:
        return
    stages = "; ".join(f"{stage} by {versions}" for stage, versions in current.old.items())
    again = command + " ".join(f"--fresh {stage}" for stage in current.old)
    current.old.clear()
    run_logger(__name__).warning(
        "stored results are used that other versions made: %s. To compute them again: %s", stages, again
    )


def versions_of(result: dict[str, Any]) -> dict[str, str]:
    """The versions for a manifest: those installed here, but the job's own, taken out of its summary, where it names them."""
    found = installed_versions()
    if (of_the_job := result.pop("versions", None)) is None:
        return found
    return {name: version for name, version in found.items() if name not in DECIDING} | of_the_job


def installed_versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
