"""The parameters that flows share, and the recipe that they name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from prefect.logging.loggers import flow_run_logger
from prefect.runtime import flow_run
from pydantic import BeforeValidator

from rightcall.errors import RecipeError
from rightcall.recipe.loading import default_recipe, load_recipe
from rightcall.recipe.schema import Recipe
from tasks.jobs.sagemaker.stopping import stop_jobs
from tasks.runtime.freshness import begin_run

# Prefect's form takes titles and descriptions from the flow's docstring, not from the annotation.
RecipeFile = str | None
Overrides = tuple[str, ...]
IngestStage = Literal["base", "ingest"]
TrainStage = Literal["base", "ingest", "sft", "mine", "dpo"]
MineStage = Literal["base", "ingest", "sft", "mine"]
ScoreStage = Literal["base", "ingest", "score"]
PublishStage = Literal["gate", "report"]
PipelineStage = Literal["base", "ingest", "sft", "mine", "dpo", "score", "gate", "report"]
StoreFolder = Annotated[str, BeforeValidator(str)] | None  # a Path would make "s3:/bucket" of "s3://bucket"


def open_recipe(recipe: str | None, overrides: tuple[str, ...], fresh: tuple[str, ...] = ()) -> Recipe:
    """The checked recipe of the flow run that begins.

    fresh: stages that this run computes again though their results are there.

    Raises:
        RecipeError: every problem at once.
    """
    begin_run(fresh)
    return read_recipe(recipe, overrides)


def read_recipe(path: str | None, overrides: list[str] | tuple[str, ...]) -> Recipe:
    """The checked recipe: whoever asks in this process for the same file and values gets the same object.

    Raises:
        RecipeError: every problem at once; they are looked for again at the next call.
    """
    path = path or None  # an emptied field of a form
    file = default_recipe() if path is None else Path(path).expanduser()
    try:
        facts = file.stat()
    except OSError:
        return load_recipe(path, overrides)  # it says what is wrong with the path
    return _load(path, tuple(overrides), Path.cwd(), facts.st_mtime_ns, facts.st_size)


@lru_cache(maxsize=8)
def _load(path: str | None, overrides: tuple[str, ...], folder: Path, mtime_ns: int, size_bytes: int) -> Recipe:
    """As the file stood then, with relative paths in overrides as they meant something in ``folder``."""
    return load_recipe(path, overrides)


def run_name() -> str:
    """`quickstart-1a2b3c4d`: recipe and digest of its values; one that does not load fails later, with its reasons."""
    given = flow_run.parameters
    try:
        recipe = read_recipe(given.get("recipe"), given.get("overrides") or ())
    except RecipeError:
        return f"{given.get('recipe')} (not a recipe)"
    return f"{recipe.name}-{recipe.digest}"


def stop_its_jobs(flow: Any, flow_run: Any, state: Any) -> None:
    """The flows' on_cancellation hook, of a run whose process may have been killed before it could stop them."""
    given = flow_run.parameters
    try:
        recipe = read_recipe(given.get("recipe"), given.get("overrides") or ())
    except RecipeError:
        return  # the run ended on it, before there was a job
    # A hook runs outside of its run, whose page should say what became of the jobs.
    stop_jobs(recipe, str(flow_run.id), flow_run_logger(flow_run, flow))
