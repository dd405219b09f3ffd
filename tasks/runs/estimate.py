"""What a whole run will cost, before its first job: stages that are in the store already cost nothing."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from rightcall.recipe.schema import Recipe
from tasks.costs.estimates import Estimate, clock, estimate_job, estimate_line, instance_of, require_affordable, work_of
from tasks.costs.throughput import pairs_to_come
from tasks.machine.run_logger import run_logger
from tasks.reporting.prefect_artifacts import show_estimate
from tasks.runtime.freshness import is_wanted_anew
from tasks.runtime.stage import Stage
from tasks.stages.mine import mine_pairs
from tasks.stages.score import score_model
from tasks.stages.training import probed_rows, train_dpo, train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.registry import champion


def check_costs(store: Store, recipe: Recipe, *, base: ArtifactRef, snapshot: ArtifactRef) -> None:
    """Logs and shows the estimate of every job of the pipeline; nothing for local runs.

    Raises:
        BackendError: it is above compute.max_cost_usd, or cannot be compared with it.
    """
    if recipe.compute.backend != "sagemaker":
        return
    estimates = estimate_run(recipe, store, base=base, snapshot=snapshot)
    logger = run_logger(__name__)
    for label, estimate in estimates.items():
        logger.info("%s", estimate_line(label, estimate))
    sums = summary(estimates)
    logger.info("%s", sums)
    show_estimate(estimates, sums)
    require_affordable(recipe, estimates)


def estimate_run(recipe: Recipe, store: Store, *, base: ArtifactRef, snapshot: ArtifactRef) -> dict[str, Estimate]:
    """By label, in the order of the jobs.

    A stage whose input is not made yet is taken as not in the store either. ``champion`` is the model in use, which the
    gate scores on the same items.
    """
    found: dict[str, Estimate] = {}
    models: dict[str, ArtifactRef | None] = {"base": base}  # None: not made yet
    if recipe.sft.max_steps:
        refs: dict[str, ArtifactRef | None] = {"base": base, "snapshot": snapshot}
        found["sft"], models["sft"] = _estimate(recipe, store, train_sft, refs, size_of=base)
    if recipe.dpo.max_steps:
        start = models[recipe.dpo.start_from]
        pairs: ArtifactRef | None = snapshot
        refs = {"model": start, "snapshot": snapshot}
        if recipe.mine.samples:
            found["mine"], pairs = _estimate(recipe, store, mine_pairs, refs, size_of=base)
        refs = {"model": start, "snapshot": pairs, **probed_rows(recipe, snapshot)}
        found["dpo"], models["dpo"] = _estimate(recipe, store, train_dpo, refs, size_of=base, rows_of=snapshot)
    rival = champion(recipe.register_.name)
    if rival is not None and store.holds(rival.weights):  # as flows/publish.py compares
        models["champion"] = rival.weights
    for label, model in models.items():
        refs = {"model": model, "snapshot": snapshot}
        found[f"score {label}"], _ = _estimate(recipe, store, score_model, refs, size_of=model or base)
    return found


def _estimate(
    recipe: Recipe,
    store: Store,
    stage: Stage,
    refs: Mapping[str, ArtifactRef | None],
    *,
    size_of: ArtifactRef,
    rows_of: ArtifactRef | None = None,
) -> tuple[Estimate, ArtifactRef | None]:
    """One job, and its result if the store has it. A result with an input that is None cannot be there.

    ``rows_of``: the snapshot that the stage's own rows are still to be made of.
    """
    known = {name: ref for name, ref in refs.items() if ref is not None}
    made = store.find(stage.name, stage.key(recipe, known, store=store)) if len(known) == len(refs) else None
    if made is not None and is_wanted_anew(stage.name, partial(store.manifest, made)):
        made = None
    if made is not None:
        instance = instance_of(stage.name, recipe)[0]
        return Estimate(stage.name, instance, 0.0, 0.0, "in the store already", cached=True), made
    if "snapshot" in known:
        work = work_of(stage.name, store, model=size_of, snapshot=known["snapshot"])
    else:  # pairs that are still to be mined: at most one of every answer, as long as a training row
        work = pairs_to_come(work_of("mine", store, model=size_of, snapshot=rows_of or size_of), recipe)
    return estimate_job(stage.name, recipe, work), None


def summary(estimates: dict[str, Estimate]) -> str:
    """The sum in one sentence, with what it leaves out."""
    due = [estimate for estimate in estimates.values() if not estimate.cached]
    costs = [estimate.usd for estimate in due]
    known = sum(usd for usd in costs if usd is not None)
    missing = f" and {costs.count(None)} jobs without a price" if None in costs else ""
    time = clock(sum(estimate.seconds for estimate in due)) if due else "no time"
    return (
        f"the whole run: about {known:,.2f} USD{missing}, {time} of {len(due)} jobs one after the other, "
        f"{len(estimates) - len(due)} already made; waiting for capacity, a kept warm pool, disks and S3 are not counted"
    )
