"""From the names that people write to refs of the models that are scored."""

from __future__ import annotations

import json
from pathlib import Path

from rightcall.errors import DataError, StoreError
from rightcall.job.stage_table import STAGES
from rightcall.recipe.schema import Recipe
from rightcall.rows.lines import parse_line
from tasks.files.lines import files_of, read_lines
from tasks.sources.listing import names_tools
from tasks.sources.traces import names_traces, with_file
from tasks.stages.training import prepare_base
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.tracking.registry import find_registered

NEWEST = tuple(name for name, facts in STAGES.items() if facts.makes_model)
SCHEMES = ("hf:", "pypi:", "s3:")


def is_source(name: str) -> bool:
    """Whether the name is a model source of its own (a folder, hf:, pypi:, s3:) instead of a result of ours."""
    return name.startswith(SCHEMES) or (name not in NEWEST and Path(name).expanduser().is_dir())


def suite_overrides(
    suite: Path | None, model: str, tools: str | None = None, system: Path | None = None
) -> tuple[str, ...]:
    """What scoring changes in a recipe: no training, the named model with its own template, all of the suite's rows.

    A suite is a file of conversations or of multiple-choice items, as its first record is; `tools` and `system` are what
    every conversation is offered and told.

    Raises:
        DataError: `tools` or `system` without a suite of conversations.
    """
    changed = ["sft.max_steps=0", "dpo.max_steps=0", "mine.samples=0", "data.sft=[]", "data.preference=[]"]
    talks = suite is not None and _holds_conversations(suite)
    if (tools or system) and not talks:
        given = "--tools" if tools else "--system"
        raise DataError(
            f"{given} says what conversations share, but the suite {str(suite) if suite else None!r} holds none; name a "
            "file whose records have messages with assistant turns, or leave the option out"
        )
    if suite is not None:
        source = {"uri": _suite(suite)}
        shared = {"tools": _tools(tools) if tools else None, "system": _absolute(system) if system else None}
        conversations = [{**source, **shared, "use": "evaluation"}] if talks else []
        changed += [f"data.conversations={json.dumps(conversations)}", "data.group_by=null", "data.step_rows=null"]
        changed += [f"data.evaluation={json.dumps([] if talks else [source])}", "data.evaluation_rows=null"]
        changed += ["data.max_prompt_tokens=null"]
    if is_source(model):
        named = model if model.startswith(SCHEMES) else _absolute(Path(model))
        changed += [f"model={json.dumps({'source': named})}"]
    return tuple(changed)


def _tools(named: str) -> str:
    return named if names_tools(named) else _absolute(Path(named))


def _suite(suite: Path) -> str:
    return with_file(str(suite), _absolute) if names_traces(str(suite)) else _absolute(suite)


def _holds_conversations(suite: Path) -> bool:
    """Whether the first record that can be read has messages with an assistant's turn; a file that is not there has none.

    Traces are not read here: the recipe that allows it is not there yet.
    """
    if names_traces(str(suite)):
        return True
    path = suite.expanduser()
    lines = (line for file in (files_of(path) if path.exists() else ()) for line in read_lines(file))
    for line in lines:
        if line.problem is not None:
            continue
        try:
            messages = parse_line(line.content).get("messages")
        except DataError:
            continue  # ingestion says what is wrong with it
        return isinstance(messages, list) and any(
            isinstance(message, dict) and message.get("role") == "assistant" for message in messages
        )
    return False


def _absolute(path: Path) -> str:
    return str(path.expanduser().absolute())


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
    if name.startswith((".", "/", "~")):
        raise StoreError(f"{name!r} is not a folder; name one with a model's config.json and weights")
    if name not in NEWEST:
        return store.resolve(name)
    found = store.refs(name)
    if not found:
        raise StoreError(
            f"no model {name!r} in the store {store.address!r} yet; run `python -m flows.pipeline` first, "
            "or name a folder (./sft, if that is one of yours)"
        )
    return found[0]
