"""One version in MLflow's registry: found, made by reference, tagged, pointed at, each step with the way back.

A step adds what undoes it to the Prefect transaction it is given; a failure later in the transaction runs those hooks
in reverse order.
"""

from __future__ import annotations

import importlib.metadata
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prefect.transactions import Transaction

from rightcall.errors import RegistryError
from rightcall.recipe.schema import Recipe
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.connection import experiment_id
from tasks.tracking.mlflow_runs import DIGEST

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CODE = Path(__file__).parents[1] / "serving" / "served_model.py"
# A version's copy of CODE imports rightcall by the names of its day. Raise this when one of them is moved or renamed
# (test_served_model.py holds them): versions of before then no longer load, and are said to, and registered anew.
LAYOUT = "2"  # 1, which no tag says: before the library had rooms
LAYOUT_TAG = "rightcall.layout"
WEIGHTS = "model"  # folder in a model ref
# What serving needs; named instead of inferred, which would load the model in a new process.
REQUIREMENTS = (
    "torch", "transformers", "tokenizers", "safetensors", "jinja2", "jsonschema", "llguidance", "numpy", "pydantic",
    "pyyaml",
)  # fmt: skip
MAX_NEW_TOKENS = 512


def version_of(client: MlflowClient, name: str, digest: str) -> ModelVersion | None:
    """The candidate's version, of those whose code loads here."""
    found = client.search_model_versions(
        f"name = '{name}' and tags.`{DIGEST}` = '{digest}' and tags.`{LAYOUT_TAG}` = '{LAYOUT}'"
    )
    # the oldest, should another machine have made a second one in the same moment
    return min(found, key=lambda version: int(version.version), default=None)


def by_alias(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    return _or_none(client.get_model_version_by_alias, name, alias)


def by_number(client: MlflowClient, name: str, number: str) -> ModelVersion | None:
    return _or_none(client.get_model_version, name, number)


def create_version(
    client: MlflowClient,
    published: Transaction,
    recipe: Recipe,
    weights: ArtifactRef,
    *,
    tags: Mapping[str, str],
    store: Store,
    run: str | None,
) -> ModelVersion:
    """A new version of the recipe's model that refers to `weights`; run: its MLflow run, None = one of its own."""
    from mlflow.exceptions import MlflowException

    name = recipe.register_.name
    run = run or _own_run(client, recipe, weights)
    logged = _log_model(run, recipe, weights, store)
    published.on_rollback_hooks.append(_undo(client.delete_logged_model, logged.model_id))
    try:
        client.create_registered_model(name, description="made and measured by rightcall")
        published.on_rollback_hooks.append(_undo(client.delete_registered_model, name))
    except MlflowException as err:
        if err.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    version = client.create_model_version(
        name,
        logged.model_uri,
        run_id=run,
        tags=dict(tags),
        description=tags["rightcall.sentence"],
        model_id=logged.model_id,
    )
    published.on_rollback_hooks.append(_undo(client.delete_model_version, name, str(version.version)))
    return version


def replace_tags(client: MlflowClient, published: Transaction, version: ModelVersion, tags: Mapping[str, str]) -> None:
    number = str(version.version)
    for tag, value in tags.items():
        before = version.tags.get(tag)
        if before == value or (tag == "rightcall.approval" and before == "approved" and value == "pending"):
            continue
        client.set_model_version_tag(version.name, number, tag, value)
        if before is None:
            published.on_rollback_hooks.append(_undo(client.delete_model_version_tag, version.name, number, tag))
        else:
            published.on_rollback_hooks.append(_undo(client.set_model_version_tag, version.name, number, tag, before))


def point_alias(client: MlflowClient, published: Transaction, name: str, alias: str, version: int) -> None:
    """Moves an alias here; a version that becomes champion is no challenger any more."""
    aliases = client.get_registered_model(name).aliases
    before = aliases.get(alias)
    if before is None:
        published.on_rollback_hooks.append(_undo(client.delete_registered_model_alias, name, alias))
    else:
        published.on_rollback_hooks.append(_undo(client.set_registered_model_alias, name, alias, str(before)))
    client.set_registered_model_alias(name, alias, str(version))
    if alias == "champion" and str(aliases.get("challenger")) == str(version):
        client.delete_registered_model_alias(name, "challenger")
        published.on_rollback_hooks.append(_undo(client.set_registered_model_alias, name, "challenger", str(version)))


def _log_model(run: str, recipe: Recipe, weights: ArtifactRef, store: Store) -> Any:
    """A LoggedModel of a few KB: served_model.py and where the weights lie."""
    import mlflow

    files = store.manifest(weights)["files"]
    hashes = {
        path.removeprefix(f"{WEIGHTS}/"): entry["sha256"]
        for path, entry in files.items()
        if path.startswith(f"{WEIGHTS}/")
    }
    if not hashes:
        raise RegistryError(
            f"{weights.uri!r} holds no {WEIGHTS}/ to register; pass the ref of a model, not {weights.kind!r}"
        )
    config = {
        "weights_uri": store.relative(weights, WEIGHTS),
        "store": store.address,
        "digest": weights.digest,
        "files": hashes,
        "chat_template": recipe.model.chat_template,
        "max_new_tokens": MAX_NEW_TOKENS,
        "grammar": True,
    }
    # recorded = not shown: MLflow warns, past any filter, that a tool's JSON Schema has no narrower type than Any
    with warnings.catch_warnings(record=True), mlflow.start_run(run_id=run):
        return mlflow.pyfunc.log_model(
            name="model", python_model=str(CODE), model_config=config, pip_requirements=_requirements()
        )


def _requirements() -> list[str]:
    """Pinned to what is installed here; rightcall itself by name, so that MLflow says so where it is missing."""
    found = []
    for name in (*REQUIREMENTS, "rightcall"):
        try:
            found.append(f"{name}=={importlib.metadata.version(name).partition('+')[0]}")
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _own_run(client: MlflowClient, recipe: Recipe, weights: ArtifactRef) -> str:
    number = experiment_id(client, recipe.register_.experiment)
    run = client.create_run(number, run_name=f"publish-{weights.uri}", tags={"rightcall.kind": "publish"})
    return str(run.info.run_id)


def _undo(action: Any, *values: Any) -> Any:
    def hook(_: Transaction) -> None:
        action(*values)

    hook.__name__ = f"undo with {action.__name__}"
    return hook


def _or_none(find: Any, *values: str) -> ModelVersion | None:
    from mlflow.exceptions import MlflowException

    try:
        found: ModelVersion = find(*values)
    except MlflowException as err:
        # an unknown alias is an INVALID_PARAMETER_VALUE, an unknown model or version a RESOURCE_DOES_NOT_EXIST
        if err.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    return found
