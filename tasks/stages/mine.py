"""The stage `mine`: preference pairs from what the model itself writes on training steps; one job of the training program."""

from __future__ import annotations

import json
from typing import Any

from rightcall.recipe.schema import Recipe
from tasks.jobs.contract import Input
from tasks.runtime.stage import StageRun, stage
from tasks.stages.run_job import run_job
from tasks.store.manifests import ArtifactRef

ROWS = ("sft.parquet", "preference.parquet", "step.parquet")  # what it reads of a snapshot, as far as they are there


def _slice(recipe: Recipe) -> dict[str, Any]:
    return {
        "mine": recipe.mine.model_dump(mode="json"),
        "max_length": recipe.dpo.max_length,
        "chat_template": recipe.model.chat_template,
    }


@stage(
    name="mine", kind="snapshot", modules=("rightcall.evaluation.mine",), slice=_slice, tags=("data", "model"),
    reads={"model": "model/", "snapshot": ROWS},
    skip=lambda recipe, refs: refs["snapshot"] if recipe.mine.samples == 0 else None,
)  # fmt: skip
def mine_pairs(run: StageRun, recipe: Recipe, model: ArtifactRef, snapshot: ArtifactRef) -> dict[str, Any]:
    """A snapshot of pairs: the wrong answers of the model that DPO starts from, behind the pairs of the recipe's own sources."""
    channels = {"model": Input(model, "model/"), "dataset": Input(snapshot)}
    summary = run_job("mine", recipe, channels, run).summary
    output = run.folder / "output"
    (output / "preference.parquet").replace(run.folder / "preference.parquet")  # where a snapshot has it
    found = json.loads((output / "mining.json").read_text(encoding="utf-8"))
    numbers = ("answers", "right", "all_right", "all_wrong", "mixed", "pairs", "from_data")
    return {
        **{name: found[name] for name in numbers},
        "preference_rows": found["pairs"] + found["from_data"],
        "preference_tokens": found["n_tokens"],
        **summary,
    }
