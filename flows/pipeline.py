"""The whole way: rows → checks → SFT → DPO → scores → gate → registry → report.

python -m flows.pipeline recipes/quickstart.yaml --set dpo.beta=0.2 --set sft.max_steps=50
"""

from __future__ import annotations

from prefect import flow

from flows.command_line import arguments, run
from flows.parameters import Overrides, PipelineStage, RecipeFile, StoreFolder, open_recipe, run_name, stop_its_jobs
from flows.publish import publish_candidate
from flows.train import train_stages
from tasks.reporting.prefect_artifacts import remove_unnamed, show_checks, show_scores
from tasks.runs.estimate import check_costs
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.score import score_model
from tasks.stages.training import prepare_base
from tasks.store.opening import open_store


@flow(
    name="pipeline",
    description="From raw rows to a measured, registered model: check, SFT, DPO, score, gate, register, report.",
    flow_run_name=run_name,
    persist_result=False,
    on_cancellation=[stop_its_jobs],
    on_failure=[remove_unnamed],
)
def run_pipeline(
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    fresh: tuple[PipelineStage, ...] = (),
) -> str:
    """Gives the closing table.

    Args:
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in dpo.beta=0.2 or sft.max_steps=50.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
    """
    experiment = open_recipe(recipe, overrides, fresh)
    results = open_store(store)
    base = prepare_base(experiment, store=results)
    snapshot = ingest_snapshot(experiment, store=results, base=base)
    show_checks(results, snapshot)
    check_costs(results, experiment, base=base, snapshot=snapshot)
    models = train_stages(experiment, store=results, base=base, snapshot=snapshot)
    scores = {
        label: score_model(experiment, store=results, model=model, snapshot=snapshot, label=label)
        for label, model in models.items()
    }
    show_scores(results, experiment, scores)
    return publish_candidate(experiment, store=results, models=models, snapshot=snapshot, scores=scores)


if __name__ == "__main__":
    given = arguments("pipeline", "Ingest, check, train, score, gate, register and report.", PipelineStage).parse_args()
    run(run_pipeline, recipe=given.recipe, overrides=given.overrides, store=given.store, fresh=given.fresh)
