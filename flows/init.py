"""A commented recipe for the files that it is given; the one file here that is no flow: it needs no server and runs nothing.

python -m flows.init conversations.jsonl --tools tools.json --system policy.md --out my-agent.yaml
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rightcall.errors import DataError, RecipeError, StoreError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.pins import source_problem
from tasks.drafts.choices import (
    DEFAULT_MODEL,
    DEFAULT_SHA256,
    DEFAULT_TEMPLATE,
    DEFAULT_WINDOW,
    Given,
    choose,
    recipe_name,
)
from tasks.drafts.facts import Conversations, facts_of
from tasks.drafts.looking import FileSeen, look_at, read_system, read_tools, template_at_hand
from tasks.drafts.recipe_text import recipe_text, seen_text
from tasks.machine.terminal import errors_end_the_command, leave
from tasks.sources.listing import names_tools
from tasks.sources.traces import names_traces, with_file
from tasks.store.opening import open_store


def main(arguments: Sequence[str] | None = None) -> None:
    asked = _parser().parse_args(arguments)
    with errors_end_the_command():
        given = look(asked)
        write(asked, given)
    leave(0, "\n".join(["", *seen_text(given), "", *_next(asked.out), ""]), sys.stdout)


def look(asked: argparse.Namespace) -> Given:
    """What is in the files, and what the person said beside it.

    Raises:
        DataError: a file holds nothing that a recipe could use.
        RecipeError: the recipe is there already, or there is nothing to train on or to measure on.
    """
    if asked.out.exists() and not asked.force:
        raise RecipeError(f"{str(asked.out)!r} is there already; name another with --out, or replace it with --force")
    traces = [str(path) for path in asked.files if names_traces(str(path))]
    if traces and not asked.traces_consent:
        raise RecipeError(
            f"{traces[0]!r} is what people said to an agent, recorded for another purpose; if they, or whoever may decide for "
            "them, agreed that models are trained on it, say so with --traces-consent"
        )
    tools = read_tools(asked.tools) if asked.tools else None
    system = read_system(asked.system) if asked.system else None
    files: dict[str, list[tuple[FileSeen, str]]] = {}
    for path in asked.files:
        seen = look_at(path, tools)
        files.setdefault(seen.kind, []).append((seen, _beside(asked.out, path)))
    _require_all_sides(files)
    model, sha256 = _model(asked.model, asked.out)
    template, name = template_at_hand(model, sha256, open_store())
    conversations = files.get("conversations", [])
    facts = None
    if conversations:
        facts = facts_of(conversations[0][0], tools=tools, system=system, group_by=asked.group_by, template=template)
        if len(facts.behaviours) == 1:
            _require_items(conversations[0][0], facts, files)
            facts = None
    laptop = model == DEFAULT_MODEL
    stem = asked.out.stem if asked.out.stem != "recipe" else asked.files[0].name.partition(".")[0]
    return Given(
        name=recipe_name(stem), files=files, facts=facts, model=model,
        tools=_tools_beside(asked.out, asked.tools) if asked.tools else None,
        system=_beside(asked.out, asked.system) if asked.system else None,
        chat_template=DEFAULT_TEMPLATE if laptop else name,
        window=template.max_length if template else DEFAULT_WINDOW if laptop else None,
        traces_consent=bool(traces),
    )  # fmt: skip


def write(asked: argparse.Namespace, given: Given) -> None:
    """The recipe, after a look whether it loads.

    Raises:
        StoreError: it cannot be written.
    """
    command = shlex.join(["python", "-m", "flows.init", *map(str, asked.files)])
    header = [f"Written by {command} …; every value can be changed.", f"  python -m flows.pipeline {asked.out}"]
    if not given.on_a_laptop:
        header.append("Not tried on a GPU: look at batch size and memory first.")
    draft = asked.out.with_name(f".{asked.out.name}.draft.yaml")
    try:
        draft.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(recipe_text(choose(given), header), encoding="utf-8")
        load_recipe(draft)
        draft.replace(asked.out)
    except OSError as err:
        raise StoreError(f"{str(asked.out)!r} cannot be written: {err.strerror}; name another with --out") from err
    finally:
        draft.unlink(missing_ok=True)


def _require_all_sides(files: dict[str, list[tuple[FileSeen, str]]]) -> None:
    if len(files.get("conversations", ())) > 1:
        raise DataError(
            "several files of conversations are given; put them into one folder and name that, or add them to "
            "data.conversations of the recipe yourself"
        )
    if "conversations" in files:
        return
    named = ", ".join(f"{seen.path.name!r} holds {seen.kind} rows" for found in files.values() for seen, _ in found)
    if "evaluation" not in files:
        raise DataError(
            f"{named}: there is nothing to measure a model on; give whole conversations, or multiple-choice items beside them"
        )
    if files.keys() == {"evaluation"}:
        raise DataError(
            f"{named}: there is nothing to train on; give conversations too, or score a model on them: "
            "python -m flows.score MODEL --suite FILE"
        )


def _require_items(seen: FileSeen, facts: Conversations, files: dict[str, list[tuple[FileSeen, str]]]) -> None:
    """Conversations that only call, as xLAM's, can be trained on where items measure what comes of it.

    Raises:
        DataError: there are no items, or they do something else than call; ingestion would stop.
    """
    only = next(iter(facts.behaviours))
    if only != "tool_call" or "evaluation" not in files:
        raise DataError(
            f"all {facts.steps:,} turns that were looked at in {seen.path.name!r} are {only!r}: there is no decision to learn "
            "or measure; put conversations into it in which something else is right"
            + (", or give multiple-choice items beside it" if only == "tool_call" else "")
        )


def _model(asked: str | None, out: Path) -> tuple[str, str | None]:
    """Source and sha256, relative to the recipe.

    Raises:
        RecipeError: it is not pinned.
    """
    if asked is None or asked == DEFAULT_MODEL:
        return DEFAULT_MODEL, DEFAULT_SHA256
    if problem := source_problem(asked, None):
        raise RecipeError(f"--model: {problem}")
    return (_beside(out, Path(asked)) if ":" not in asked and Path(asked).exists() else asked), None


def _beside(out: Path, path: Path) -> str:
    """The path as the recipe means it: relative to its folder where it lies below that, else absolute."""
    if names_traces(str(path)):
        return with_file(str(path), lambda file: _beside(out, file))
    path, folder = path.expanduser().resolve(), out.expanduser().resolve().parent
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else str(path)


def _tools_beside(out: Path, tools: str) -> str:
    if tools.startswith("openapi:"):
        return f"openapi:{Path(tools.removeprefix('openapi:')).expanduser().resolve()}"
    return tools if names_tools(tools) else _beside(out, Path(tools))


def _next(out: Path) -> list[str]:
    recipe = shlex.quote(str(out))
    return [
        f"{out} is written; read it, every field says what it does and why. Then:",
        f"  python -m flows.ingest {recipe} --preview   # what is kept, what is quarantined and why, three rows as they are trained",
        f"  python -m flows.pipeline {recipe}   # train, measure, judge, register",
        f"  python -m flows.score base --recipe {recipe}   # how the model writes before any training",
    ]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m flows.init", description="Look at files of conversations and write a commented recipe for them."
    )
    parser.add_argument(
        "files", nargs="+", type=Path, metavar="FILE",
        help="conversations, as OpenAI, ShareGPT, xLAM, Glaive, ToolACE or Hermes write them, in JSON lines (also .gz), JSON, parquet "
        "or Arrow, or traces:mlflow:EXPERIMENT, traces:FILE; SFT rows, preference rows and multiple-choice items may stand beside them",
    )  # fmt: skip
    parser.add_argument(
        "--tools",
        help="the tools that every conversation is offered: a JSON file, mcp:COMMAND, mcp:https://… or openapi:FILE",
    )
    parser.add_argument(
        "--system", type=Path, help="text file with the policy, the system message of every conversation"
    )
    parser.add_argument("--model", help=f"hf:owner/name@commit or a folder; without it {DEFAULT_MODEL}")
    parser.add_argument(
        "--out", type=Path, default=Path("recipe.yaml"), help="the recipe to write; without it recipe.yaml"
    )
    parser.add_argument(
        "--group-by", help="field of a record that tells who spoke, as user_id; without it the best one found"
    )
    parser.add_argument(
        "--traces-consent", action="store_true",
        help="whoever spoke in the traces that are named agreed that models are trained on it",
    )  # fmt: skip
    parser.add_argument("--force", action="store_true", help="replace the recipe that is there")
    return parser


if __name__ == "__main__":
    main()
