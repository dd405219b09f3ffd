"""SFT and DPO of a recipe, and between them the pairs that it mines; what earlier runs made is taken from the store.

python -m flows.train recipes/quickstart.yaml --stage sft --set sft.max_steps=50
"""

from __future__ import annotations

from typing import Literal

from prefect import flow

from flows.command_line import arguments, run
from flows.parameters import Overrides, RecipeFile, StoreFolder, TrainStage, open_recipe, run_name, stop_its_jobs
from rightcall.recipe.schema import Recipe
from tasks.reporting.prefect_artifacts import remove_unnamed, show_checks, show_training
from tasks.runtime.freshness import warn_of_old_versions
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.mine import mine_pairs
from tasks.stages.training import prepare_base, probed_rows, train_dpo, train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store


@flow(
    name="train",
    description="SFT and DPO of a recipe, up to the stage that is asked for; finished stages come from the store.",
    flow_run_name=run_name,
    persist_result=False,
    on_cancellation=[stop_its_jobs],
    on_failure=[remove_unnamed],
)
def train_model(
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    stage: Literal["sft", "dpo"] = "dpo",
    fresh: tuple[TrainStage, ...] = (),
) -> str:
    """Gives the models' refs.

    Args:
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in dpo.beta=0.2 or sft.max_steps=50.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
        stage: The last stage: sft stops after SFT; dpo runs both, as far as the recipe has them.
    """
    experiment = open_recipe(recipe, overrides, fresh)
    results = open_store(store)
    base = prepare_base(experiment, store=results)
    snapshot = ingest_snapshot(experiment, store=results, base=base)
    show_checks(results, snapshot)
    models = train_stages(experiment, store=results, base=base, snapshot=snapshot, last=stage)
    warn_of_old_versions()
    return "\n".join(f"{label:<5} {model.uri}" for label, model in models.items())


def train_stages(
    recipe: Recipe, *, store: Store, base: ArtifactRef, snapshot: ArtifactRef, last: Literal["sft", "dpo"] = "dpo"
) -> dict[str, ArtifactRef]:
    """Models by label in the order they were made: base, then what the recipe trains; the last one is the candidate."""
    models = {"base": base}
    if recipe.sft.max_steps:
        models["sft"] = train_sft(recipe, store=store, base=base, snapshot=snapshot)
        show_training(store, "sft", models["sft"])
    if recipe.dpo.max_steps and last == "dpo":
        start = models[recipe.dpo.start_from]
        pairs = mine_pairs(recipe, store=store, model=start, snapshot=snapshot) if recipe.mine.samples else snapshot
        models["dpo"] = train_dpo(recipe, store=store, model=start, snapshot=pairs, **probed_rows(recipe, snapshot))
        show_training(store, "dpo", models["dpo"])
    return models


if __name__ == "__main__":
    parser = arguments("train", "Train the stages of a recipe.", TrainStage)
    parser.add_argument("--stage", choices=("sft", "dpo"), default="dpo", help="the last stage to run")
    given = parser.parse_args()
    run(
        train_model,
        recipe=given.recipe,
        overrides=given.overrides,
        store=given.store,
        fresh=given.fresh,
        stage=given.stage,
    )
