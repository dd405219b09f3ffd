"""From the names that people write to refs of the models that are scored."""

from __future__ import annotations

import json
from pathlib import Path

from rightcall.errors import StoreError
from rightcall.job.stage_table import STAGES
from rightcall.recipe.schema import Recipe
from tasks.stages.training import prepare_base
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.registry import find_registered

NEWEST = tuple(name for name, facts in STAGES.items() if facts.makes_model)
SCHEMES = ("hf:", "pypi:", "s3:")


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


def find_model(store: Store, recipe: Recipe, name: str) -> ArtifactRef:
    """A folder or source (made a base model first), models:/name@alias, <stage>/<key>, or the newest base, sft or dpo.

    Raises:
        StoreError: nothing of this name is in the store.
        RegistryError: MLflow has no such model.
    """
    if is_source(name):
        return prepare_base(recipe, store=store)
    if name.startswith("models:/"):
        return find_registered(name)
    if name not in NEWEST:
        return store.resolve(name)
    found = store.refs(name)
    if not found:
        raise StoreError(
            f"no model {name!r} in the store {store.address!r} yet; run `python -m flows.pipeline` first, "
            "or name a folder (./sft, if that is one of yours)"
        )
    return found[0]
