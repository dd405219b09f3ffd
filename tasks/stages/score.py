"""The stage that scores a model by what it writes, step by step, and on multiple-choice items: one job of the training program."""

from __future__ import annotations

from typing import Any

from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import Input
from tasks.runtime.stage import StageRun, stage
from tasks.stages.run_job import run_job
from tasks.store.manifests import ArtifactRef

# Intervals are computed from the per-item results when they are read: tasks/results/scores.py.
NOT_RESULTS = {"bootstrap_samples", "confidence"}


def _slice(recipe: Recipe) -> dict[str, Any]:
    section = recipe.evaluation.model_dump(mode="json", exclude=NOT_RESULTS)
    return {"evaluation": section, "chat_template": recipe.model.chat_template}


@stage(
    name="score", kind="scores", modules=("rightcall.evaluation.score",), slice=_slice, tags=("scores",),
    reads={"model": "model/", "snapshot": ("choice.parquet", "step.parquet")},
)  # fmt: skip
def score_model(run: StageRun, recipe: Recipe, model: ArtifactRef, snapshot: ArtifactRef) -> dict[str, Any]:
    """What the model writes at every step, freely and under the grammar, judged; per-item log-likelihoods of four answers."""
    channels = {"model": Input(model, "model/"), "dataset": Input(snapshot)}
    return run_job("score", recipe, channels, run).summary
