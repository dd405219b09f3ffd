"""Runs one stage in a process of its own, for the tests that kill it.

python tests/support/programs/killable_run.py flow STORE STEPS SECONDS    the small program in a Prefect flow (PREFECT_API_URL)
python tests/support/programs/killable_run.py sft STORE MODEL SNAPSHOT    real SFT of the tiny model, without Prefect
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from stage_examples import small_recipe

from rightcall.recipe.schema import Recipe
from tasks.jobs.local import run_job
from tasks.runtime.stage import StageRun, stage
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

PROGRAM = Path(__file__).with_name("killable_program.py")


@stage(
    name="killable", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: recipe.sft.max_steps
)
def make_killable(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """The small program as a job."""
    with (run.store.root / "bodies").open("a") as stream:
        stream.write("ran\n")
    dataset = run.scratch / "dataset"
    dataset.mkdir(exist_ok=True)
    (dataset / "settings.json").write_text(json.dumps({"seconds": float(os.environ["SECONDS"]), "worker": True}))
    return run_job("sft", recipe, {"dataset": dataset}, run, entry=PROGRAM).summary


def run_small(store: str, steps: int, seconds: float, answer: str | None = None) -> None:
    """The stage without Prefect; writes its ref to the file ``answer``."""
    os.environ["SECONDS"] = str(seconds)
    ref = make_killable.run(small_recipe(sft={"max_steps": steps}), store=Store(Path(store)))
    if answer is not None:
        Path(answer).write_text(ref.model_dump_json())


def run_in_flow(store: str, steps: int, seconds: float) -> ArtifactRef:
    from prefect import flow

    @flow(name="killable")
    def killable() -> ArtifactRef:
        return make_killable(small_recipe(sft={"max_steps": steps}), store=Store(Path(store)))

    os.environ["SECONDS"] = str(seconds)
    return killable()


def run_sft(store: str, model: str, snapshot: str) -> ArtifactRef:
    from tasks.stages.training import train_sft

    inside = Store(Path(store))
    sft = {"max_steps": 30, "save_steps": 4, "per_device_train_batch_size": 2, "max_length": 512, "bf16": False}
    recipe = small_recipe(sft=sft, model={"chat_template": "chatml-tools"}, compute={"threads": 1})
    return train_sft.run(recipe, store=inside, base=inside.resolve(model), snapshot=inside.resolve(snapshot))


if __name__ == "__main__":
    which, store, *rest = sys.argv[1:]
    ref = run_sft(store, *rest) if which == "sft" else run_in_flow(store, int(rest[0]), float(rest[1]))
    sys.stdout.write(ref.model_dump_json() + "\n")
