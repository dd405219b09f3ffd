"""Gate, registry, report: whether a trained candidate may replace the champion, and the record of it.

python -m flows.publish recipes/quickstart.yaml
python -m flows.publish recipes/quickstart.yaml --approve 3
"""

from __future__ import annotations

import getpass
from collections.abc import Mapping

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput
from prefect.runtime import deployment
from pydantic import Field

from flows.command_line import arguments, run
from flows.parameters import Overrides, PublishStage, RecipeFile, StoreFolder, open_recipe, run_name, stop_its_jobs
from rightcall.errors import RecipeError
from rightcall.recipe.schema import Recipe
from tasks.machine.run_logger import run_logger
from tasks.reporting.closing_table import closing_text
from tasks.reporting.prefect_artifacts import remove_unnamed, show_report, show_verdict
from tasks.runs.earlier import find_results
from tasks.runs.recorded import recorded_run
from tasks.runtime.freshness import warn_of_old_versions
from tasks.stages.gate import decide_verdict
from tasks.stages.report import write_report
from tasks.stages.score import score_model
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store
from tasks.tracking.registry import Registration, champion, promote, register_model

APPROVAL_SECONDS = 7 * 24 * 3600


class Approval(RunInput):
    """The form that a person fills in when the recipe says `approval: required`."""

    approve: bool = Field(False, title="Make it the champion", description="Off: the version stays the challenger.")
    approved_by: str = Field("", title="Your name", description="Kept as a tag of the version.")


@flow(
    name="publish",
    description="Judge the candidate that a recipe's earlier run made, register it, move the alias, write the report.",
    flow_run_name=run_name,
    persist_result=False,
    on_cancellation=[stop_its_jobs],
    on_failure=[remove_unnamed],
)
def publish_model(
    recipe: RecipeFile = None,
    overrides: Overrides = (),
    store: StoreFolder = None,
    fresh: tuple[PublishStage, ...] = (),
    approve: int | None = None,
) -> str:
    """Gives the closing table.

    Args:
        recipe: Path of a recipe file, relative to the checkout; empty = the embedded quickstart.
        overrides: Other values for fields of the recipe, one an entry, as in dpo.beta=0.2 or sft.max_steps=50.
        store: Folder or s3://bucket/prefix that keeps the results; empty = $RIGHTCALL_STORE, else .rightcall/store.
        fresh: Stages to compute again though their results are in the store; what follows is computed again if they change.
        approve: Make this version of the registered model the champion; empty = judge and register.
    """
    experiment = open_recipe(recipe, overrides, fresh)
    if approve is not None:
        return _approved(promote(experiment.register_.name, approve, approved_by=getpass.getuser()))
    results = open_store(store)
    found = find_results(results, experiment)
    return publish_candidate(
        experiment, store=results, models=found.models, snapshot=found.snapshot, scores=found.scores
    )


def publish_candidate(
    recipe: Recipe,
    *,
    store: Store,
    models: Mapping[str, ArtifactRef],
    snapshot: ArtifactRef,
    scores: Mapping[str, ArtifactRef],
) -> str:
    """Judge, register and report the last of ``models``; the first is the baseline. Gives the closing table."""
    candidate = _candidate(models)
    rival, comparable = score_champion(store, recipe, snapshot, candidate=models[candidate])
    warn_of_old_versions("python -m flows.pipeline with the same recipe and ")
    verdict = decide_verdict(recipe, store=store, candidate=scores[candidate], baseline=scores["base"], champion=rival)
    show_verdict(store, verdict)
    measured = {f"score-{label}": ref for label, ref in scores.items()}
    with recorded_run(store, recipe, {"ingest": snapshot, **models, **measured, "gate": verdict}) as record:
        registration = register_model(
            recipe if comparable else for_a_person(recipe),
            model=models[candidate], scores=scores[candidate], snapshot=snapshot, verdict=verdict,
            store=store, run=record.id, others=models,
        )  # fmt: skip
        compared = scores if rival is None else {**scores, "champion": rival}
        report = write_report(recipe, store=store, snapshot=snapshot, models=models, scores=compared, verdict=verdict)
        record.close_with(registration.verdict, report)
    show_report(store, report)
    registration = ask_for_approval(registration)
    return closing_text(store, recipe, scores, verdict=verdict, report=report, registration=registration)


def score_champion(
    store: Store, recipe: Recipe, snapshot: ArtifactRef, *, candidate: ArtifactRef
) -> tuple[ArtifactRef | None, bool]:
    """Scores of the model in use on the candidate's items, and whether the candidate can be compared with it.

    There are no scores where no model is in use, where it is the candidate itself, or where its weights are gone: made
    anew in its place (--fresh), or in another store. Then the candidate is judged by the base model alone.
    """
    current = champion(recipe.register_.name)
    if current is None or current.weights.digest == candidate.digest:
        return None, True
    if not store.holds(current.weights):
        run_logger(__name__).warning(
            "the champion, version %s of %r, is not compared with: its weights %s are not in %s any more, or not as they "
            "were; the new version stays the challenger until a person approves it",
            current.version, current.name, current.weights.uri, store.address,
        )  # fmt: skip
        return None, False
    return score_model(recipe, store=store, model=current.weights, snapshot=snapshot, label="champion"), True


def for_a_person(recipe: Recipe) -> Recipe:
    """The same recipe, but a GO waits for a person."""
    return recipe.model_copy(update={"gate": recipe.gate.model_copy(update={"approval": "required"})})


def ask_for_approval(registration: Registration) -> Registration:
    """Suspends a deployment's run until a person fills in the form; elsewhere the closing lines say how to approve."""
    if not registration.pending_approval or deployment.id is None:
        return registration
    answer = suspend_flow_run(
        wait_for_input=Approval.with_initial_data(
            description=f"`{registration.uri}` was judged **{registration.verdict}**; the report is an artifact here."
        ),
        timeout=APPROVAL_SECONDS,
        key=f"approve-{registration.name}-{registration.version}",
    )
    if not answer.approve:
        return registration
    return promote(registration.name, registration.version, approved_by=answer.approved_by or "someone")


def _candidate(models: Mapping[str, ArtifactRef]) -> str:
    last = list(models)[-1]
    if last == "base":
        raise RecipeError(
            "sft.max_steps and dpo.max_steps are both 0: no stage trains a candidate; give one of them steps"
        )
    return last


def _approved(registration: Registration) -> str:
    return f"{registration.uri} is now models:/{registration.name}@{registration.alias}"


if __name__ == "__main__":
    parser = arguments("publish", "Judge, register and report what a recipe's earlier run made.", PublishStage)
    parser.add_argument("--approve", type=int, metavar="VERSION", help="make this version the champion")
    given = parser.parse_args()
    run(
        publish_model,
        recipe=given.recipe,
        overrides=given.overrides,
        store=given.store,
        fresh=given.fresh,
        approve=given.approve,
    )
