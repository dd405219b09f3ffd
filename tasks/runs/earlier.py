"""The results of a recipe's earlier run, found in the store alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from rightcall.errors import StoreError
from rightcall.recipe.schema import Recipe
from tasks.runtime.freshness import note_versions
from tasks.runtime.stage import Stage
from tasks.stages.ingest import ingest_snapshot
from tasks.stages.mine import mine_pairs
from tasks.stages.score import score_model
from tasks.stages.training import prepare_base, probed_rows, train_dpo, train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef


@dataclass(frozen=True)
class Results:
    """What a recipe's run left in the store: models and scores by label, in the order they were made."""

    snapshot: ArtifactRef
    models: Mapping[str, ArtifactRef] = field(default_factory=dict)
    scores: Mapping[str, ArtifactRef] = field(default_factory=dict)


def find_results(store: Store, recipe: Recipe) -> Results:
    """Everything that the recipe's pipeline makes before the gate, from the store alone: nothing is trained.

    Raises:
        StoreError: a stage is missing; the message names the flow that makes it.
    """
    base = _finished(store, recipe, prepare_base, "ingest")
    snapshot = _finished(store, recipe, ingest_snapshot, "ingest", base=base)
    models = {"base": base}
    if recipe.sft.max_steps:
        models["sft"] = _finished(store, recipe, train_sft, "train", base=base, snapshot=snapshot)
    if recipe.dpo.max_steps:
        start, pairs = models[recipe.dpo.start_from], snapshot
        if recipe.mine.samples:
            pairs = _finished(store, recipe, mine_pairs, "mine", model=start, snapshot=snapshot)
        more = probed_rows(recipe, snapshot)
        models["dpo"] = _finished(store, recipe, train_dpo, "train", model=start, snapshot=pairs, **more)
    scores = {
        label: _finished(store, recipe, score_model, "pipeline", model=model, snapshot=snapshot)
        for label, model in models.items()
    }
    return Results(snapshot, models, scores)


def _finished(store: Store, recipe: Recipe, stage: Stage, flow: str, **refs: ArtifactRef) -> ArtifactRef:
    key = stage.key(recipe, refs, store=store)
    found = store.find(stage.name, key)
    if found is None:
        raise StoreError(
            f"stage {stage.name!r} of recipe {recipe.name!r} is not in the store {store.address!r} "
            f"(key {key[:8]!r}); run `python -m flows.{flow}` with the same recipe and --set first"
        )
    note_versions(stage.name, recipe, store.manifest(found))
    return found
