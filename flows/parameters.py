"""The parameters that flows share, and the recipe that they name."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from prefect.runtime import flow_run
from pydantic import BeforeValidator

from rightcall.errors import RecipeError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.machine.environment import store_address
from tasks.runtime.freshness import begin_run

# Prefect's form takes titles and descriptions from the flow's docstring, not from the annotation.
RecipeFile = str | None
Overrides = tuple[str, ...]
IngestStage = Literal["base", "ingest"]
TrainStage = Literal["base", "ingest", "sft", "dpo"]
ScoreStage = Literal["base", "ingest", "score"]
PublishStage = Literal["gate", "report"]
PipelineStage = Literal["base", "ingest", "sft", "dpo", "score", "gate", "report"]
StoreFolder = Annotated[str, BeforeValidator(str)] | None  # a Path would make "s3:/bucket" of "s3://bucket"


def open_recipe(
    recipe: str | None, overrides: tuple[str, ...], store: str | Path | None, fresh: tuple[str, ...] = ()
) -> Recipe:
    """The checked recipe; this run keeps its results in ``store``, a folder or s3://bucket/prefix.

    fresh: stages that this run computes again though their results are there.

    Raises:
        RecipeError: every problem at once.
    """
    if store is not None:
        os.environ["RIGHTCALL_STORE"] = store_address(store)
    begin_run(fresh)
    return load_recipe(recipe, overrides)


def run_name() -> str:
    """`quickstart-1a2b3c4d`: recipe and digest of its values; one that does not load fails later, with its reasons."""
    given = flow_run.parameters
    try:
        recipe = load_recipe(given.get("recipe"), given.get("overrides") or ())
    except RecipeError:
        return f"{given.get('recipe')} (not a recipe)"
    return f"{recipe.name}-{recipe.digest}"
