"""A recipe and small stages for the tests of the machinery around stages."""

from __future__ import annotations

from typing import Any

from rightcall.recipe.schema import Recipe
from tasks.runtime.stage import StageRun, stage
from tasks.store.manifests import ArtifactRef


def small_recipe(**changes: Any) -> Recipe:
    """Everything a recipe must say, and ``changes`` of its sections."""
    source = {"uri": "/nowhere/rows.jsonl"}
    values: dict[str, Any] = {
        "name": "small",
        "model": {"source": "/nowhere/model"},
        "data": {"sft": [source], "preference": [source], "evaluation": [source]},
        "sft": {"max_steps": 2, "learning_rate": 1e-3},
        "dpo": {"max_steps": 2, "learning_rate": 1e-3},
    }
    for name, change in changes.items():
        values[name] = {**values[name], **change} if isinstance(change, dict) and name in values else change
    return Recipe.model_validate(values)


ran: list[str] = []  # bodies that really ran, in order


@stage(
    name="first",
    kind="model",
    modules=("rightcall.measurement.metrics",),
    slice=lambda recipe: recipe.sft.learning_rate,
)
def make_first(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Writes the learning rate."""
    ran.append("first")
    (run.folder / "model").mkdir()
    (run.folder / "model" / "weights").write_text(str(recipe.sft.learning_rate))
    return {"steps": 1}


@stage(
    name="second",
    kind="scores",
    modules=("rightcall.measurement.metrics",),
    slice=lambda recipe: recipe.dpo.beta,
    reads={"model": "model/"},
)
def make_second(run: StageRun, recipe: Recipe, model: ArtifactRef) -> dict[str, Any]:
    """Writes beta behind the first stage's weights."""
    ran.append("second")
    weights = (run.store.path(model) / "model" / "weights").read_text()
    (run.folder / "scores").write_text(f"{weights} {recipe.dpo.beta}")
    return {"items": 3}
