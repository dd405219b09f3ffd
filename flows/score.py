"""Any model by what it writes in conversations, and on multiple-choice items in When2Call's schema or the canonical one.

python -m flows.score ./my-model --suite conversations.jsonl --tools tools.json --system policy.md
python -m flows.score ./my-model --suite items.jsonl
python -m flows.score models:/rightcall@champion
python -m flows.score sft --recipe recipes/quickstart.yaml
"""

from __future__ import annotations

from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.command_line import arguments, run
from flows.parameters import Overrides, RecipeFile, ScoreStage, StoreFolder, open_recipe, stop_its_jobs
from tasks.reporting.prefect_artifacts import remove_unnamed, show_scores
from tasks.results.score_text import score_text
from tasks.runs.model_names import find_model, suite_overrides
from tasks.runtime.freshness import warn_of_old_versions
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.score import score_model
from tasks.store.opening import open_store


def run_name() -> str:
    given = flow_run.parameters
    return f"{given['model']} on {given.get('suite') or given.get('recipe') or 'the quickstart'}"


@flow(
    name="score",
    description="Score a folder, a registered model or an earlier result by what it writes, and on multiple-choice items.",
    flow_run_name=run_name,
    persist_result=False,
    on_cancellation=[stop_its_jobs],
    on_failure=[remove_unnamed],
)
def score_suite(
    model: str,
    suite: Path | None = None,
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    *,
    tools: str | None = None,
    system: Path | None = None,
    fresh: tuple[ScoreStage, ...] = (),
) -> str:
    """Gives the scores as a table.

    Args:
        model: A folder, models:/name@alias, a result such as dpo/1a2b3c4d, or base, sft, dpo for the newest of them.
        suite: File of conversations or of items, as its first record is; empty = the evaluation of the recipe.
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in dpo.beta=0.2 or sft.max_steps=50.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        tools: JSON file, mcp:COMMAND or openapi:FILE with the tools that the suite's conversations are offered; empty = each record's own.
        system: Text file with the policy, the system message of every conversation; empty = each record's own.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
    """
    experiment = open_recipe(recipe, (*suite_overrides(suite, model, tools, system), *overrides), fresh)
    results = open_store(store)
    scored = find_model(results, experiment, model)
    snapshot = ingest_snapshot(experiment, store=results, base=scored)
    scores = score_model(experiment, store=results, model=scored, snapshot=snapshot, label=model)
    warn_of_old_versions()
    show_scores(results, experiment, {model: scores})
    return score_text(results, experiment, scores)


if __name__ == "__main__":
    parser = arguments(
        "score", "Score a model by what it writes, and on multiple-choice items.", ScoreStage, recipe=False
    )
    parser.add_argument(
        "model", help="a local folder, models:/name@alias, <stage>/<key>, or base, sft, dpo: the newest of them"
    )
    parser.add_argument(
        "--suite", type=Path, help="file of conversations or of items; without it the evaluation of the recipe"
    )
    parser.add_argument(
        "--tools",
        help="tools that the suite's conversations are offered: a JSON file, mcp:COMMAND, mcp:https://… or openapi:FILE",
    )
    parser.add_argument(
        "--system", type=Path, help="text file with the policy that the suite's conversations begin with"
    )
    parser.add_argument("--recipe", help="recipe with the evaluation's settings; without it the embedded quickstart")
    given = parser.parse_args()
    run(
        score_suite,
        changes=suite_overrides(given.suite, given.model, given.tools, given.system),
        model=given.model,
        suite=given.suite,
        recipe=given.recipe,
        overrides=given.overrides,
        store=given.store,
        tools=given.tools,
        system=given.system,
        fresh=given.fresh,
    )
