"""Preference pairs from the model's own answers: sampled on training steps, judged, the wrong ones rejected.

python -m flows.mine recipes/quickstart.yaml --set mine.samples=4 --set dpo.max_steps=20
"""

from __future__ import annotations

from prefect import flow

from flows.command_line import arguments, run
from flows.parameters import MineStage, Overrides, RecipeFile, StoreFolder, open_recipe, run_name, stop_its_jobs
from rightcall.errors import RecipeError
from tasks.reporting.mining import show_mining
from tasks.reporting.prefect_artifacts import remove_unnamed
from tasks.runtime.freshness import warn_of_old_versions
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.mine import mine_pairs
from tasks.stages.training import prepare_base, train_sft
from tasks.store.opening import open_store


@flow(
    name="mine",
    description="Sample the model's own answers on training steps, judge them, and keep the wrong ones as rejected sides of pairs.",
    flow_run_name=run_name,
    persist_result=False,
    on_cancellation=[stop_its_jobs],
    on_failure=[remove_unnamed],
)
def mine_answers(
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    fresh: tuple[MineStage, ...] = (),
) -> str:
    """Gives the error kinds, how many steps were all right, mixed and all wrong, and three pairs.

    Args:
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in mine.samples=4 or mine.steps=100.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
    """
    experiment = open_recipe(recipe, overrides, fresh)
    if experiment.mine.samples == 0:
        steps = "" if experiment.dpo.max_steps else ", and how long DPO trains on the pairs: --set dpo.max_steps=20"
        raise RecipeError(
            f"mine.samples is 0, so there is nothing to sample; say how many: --set mine.samples=4{steps}"
        )
    results = open_store(store)
    base = prepare_base(experiment, store=results)
    snapshot = ingest_snapshot(experiment, store=results, base=base)
    models = {"base": base}
    if experiment.dpo.start_from == "sft":
        models["sft"] = train_sft(experiment, store=results, base=base, snapshot=snapshot)
    pairs = mine_pairs(experiment, store=results, model=models[experiment.dpo.start_from], snapshot=snapshot)
    warn_of_old_versions()
    return show_mining(results, pairs)


if __name__ == "__main__":
    given = arguments("mine", "Make preference pairs of the model's own answers.", MineStage).parse_args()
    run(mine_answers, recipe=given.recipe, overrides=given.overrides, store=given.store, fresh=given.fresh)
