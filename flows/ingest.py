"""Rows fetched, checked, and frozen into a snapshot; the base model's tokenizer says how long they are.

python -m flows.ingest recipes/quickstart.yaml --set data.tolerance=0.1
python -m flows.ingest recipes/quickstart.yaml --preview
"""

from __future__ import annotations

import sys

from prefect import flow

from flows.command_line import arguments, run
from flows.parameters import IngestStage, Overrides, RecipeFile, StoreFolder, open_recipe, run_name
from tasks.reporting.prefect_artifacts import remove_unnamed, show_checks
from tasks.runtime.freshness import warn_of_old_versions
from tasks.stages.ingest import describe_snapshot, ingest_snapshot
from tasks.stages.training import prepare_base
from tasks.store.opening import open_store


@flow(
    name="ingest",
    description="Rows fetched from pinned sources, checked, frozen into a snapshot; bad ones are quarantined.",
    flow_run_name=run_name,
    persist_result=False,
    on_failure=[remove_unnamed],
)
def ingest_rows(
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    fresh: tuple[IngestStage, ...] = (),
    preview: bool = False,
) -> str:
    """Gives the counts of rows in, kept and quarantined, what conversations became, and where to look.

    Args:
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in dpo.beta=0.2 or sft.max_steps=50.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
        preview: Also three rows as they will be trained on, with what is trained marked.
    """
    experiment = open_recipe(recipe, overrides, fresh)
    results = open_store(store)
    base = prepare_base(experiment, store=results)
    snapshot = ingest_snapshot(experiment, store=results, base=base)
    warn_of_old_versions()
    counts = show_checks(results, snapshot)
    text = describe_snapshot(
        results, experiment, base, snapshot, preview=preview, colours=sys.stdout.isatty()
    )  # fmt: skip
    return f"{counts}\n\n{text}"


if __name__ == "__main__":
    options = arguments("ingest", "Fetch, check and freeze the rows of a recipe.", IngestStage)
    options.add_argument("--preview", action="store_true", help="show three rows as they will be trained on")
    given = options.parse_args()
    run(
        ingest_rows, recipe=given.recipe, overrides=given.overrides, store=given.store, fresh=given.fresh,
        preview=given.preview,
    )  # fmt: skip
