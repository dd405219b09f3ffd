"""From the names that people write to refs: models to score, and the results of a recipe's earlier run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from rightcall.errors import StoreError
from rightcall.recipe import Recipe
from tasks.freshness import note_versions
from tasks.ingestion import ingest_snapshot
from tasks.registry import find_registered
from tasks.scoring import score_model
from tasks.stages import Stage
from tasks.store import ArtifactRef, open_store
from tasks.training import prepare_base, train_dpo, train_sft

NEWEST = ("base", "sft", "dpo")
SCHEMES = ("hf:", "pypi:", "s3:")


@dataclass(frozen=True)
class Results:
    """What a recipe's run left in the store: models and scores by label, in the order they were made."""

    snapshot: ArtifactRef
    models: Mapping[str, ArtifactRef] = field(default_factory=dict)
    scores: Mapping[str, ArtifactRef] = field(default_factory=dict)


def is_source(name: str) -> bool:
    """Whether the name is a model source of its own (a folder, hf:, pypi:, s3:) instead of a result of ours."""
    return name.startswith(SCHEMES) or (name not in NEWEST and Path(name).expanduser().is_dir())


def suite_overrides(suite: Path | None, model: str) -> tuple[str, ...]:
    """What scoring changes in a recipe: no training, the named model with its own template, all of the suite's rows."""
    changed = ["sft.max_steps=0", "dpo.max_steps=0", "data.sft=[]", "data.preference=[]"]
    if suite is not None:
        rows = [{"uri": str(suite.expanduser().absolute())}]
        changed += [f"data.evaluation={json.dumps(rows)}", "data.evaluation_rows=null", "data.max_prompt_tokens=null"]
    if is_source(model):
        source = model if model.startswith(SCHEMES) else str(Path(model).expanduser().absolute())
        changed += [f"model={json.dumps({'source': source})}"]
    return tuple(changed)


def find_model(recipe: Recipe, name: str) -> ArtifactRef:
    """A folder or source (made a base model first), models:/name@alias, <stage>/<key>, or the newest base, sft or dpo.

    Raises:
        StoreError: nothing of this name is in the store.
        RegistryError: MLflow has no such model.
    """
    if is_source(name):
        return prepare_base(recipe)
    if name.startswith("models:/"):
        return find_registered(name)
    store = open_store()
    if name not in NEWEST:
        return store.resolve(name)
    found = store.refs(name)
    if not found:
        raise StoreError(
            f"no model {name!r} in the store {store.address!r} yet; run `python -m flows.pipeline` first, "
            "or name a folder (./sft, if that is one of yours)"
        )
    return found[0]


def find_results(recipe: Recipe) -> Results:
    """Everything that the recipe's pipeline makes before the gate, from the store alone: nothing is trained.

    Raises:
        StoreError: a stage is missing; the message names the flow that makes it.
    """
    base = _finished(recipe, prepare_base, "ingest")
    snapshot = _finished(recipe, ingest_snapshot, "ingest", base=base)
    models = {"base": base}
    if recipe.sft.max_steps:
        models["sft"] = _finished(recipe, train_sft, "train", base=base, snapshot=snapshot)
    if recipe.dpo.max_steps:
        models["dpo"] = _finished(recipe, train_dpo, "train", model=models[recipe.dpo.start_from], snapshot=snapshot)
    scores = {
        label: _finished(recipe, score_model, "pipeline", model=model, snapshot=snapshot)
        for label, model in models.items()
    }
    return Results(snapshot, models, scores)


def _finished(recipe: Recipe, stage: Stage, flow: str, **refs: ArtifactRef) -> ArtifactRef:
    store = open_store()
    key = stage.key(recipe, refs, store)
    found = store.find(stage.name, key)
    if found is None:
        raise StoreError(
            f"stage {stage.name!r} of recipe {recipe.name!r} is not in the store {store.address!r} "
            f"(key {key[:8]!r}); run `python -m flows.{flow}` with the same recipe and --set first"
        )
    note_versions(stage.name, recipe, store.manifest(found))
    return found
