"""The recipe as commented YAML, and what is said on the screen. Descriptions come from the fields themselves."""

from __future__ import annotations

import json
import textwrap
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rightcall.recipe.schema import Recipe
from tasks.drafts.choices import JUDGED_STEPS, Choice, Given, held_out_steps
from tasks.drafts.facts import MOST_OF_ONE_GROUP, Conversations

WIDTH = 118


def recipe_text(choices: Iterable[Choice], header: Iterable[str]) -> str:
    """Section by section in the order of the choices; above each field what it means and why it has this value."""
    sections: dict[str, list[Choice]] = {}
    for choice in choices:
        section, dot, _ = choice.field.partition(".")
        sections.setdefault(section if dot else "", []).append(choice)
    lines = [*(f"# {line}" for line in header), ""]
    for section, chosen in sections.items():
        if section:
            lines += ["", *_comment(_field(section).description, ""), f"{section}:"]
        for choice in chosen:
            lines += _written(choice, "  " if section else "")
    return "\n".join(lines) + "\n"


def _written(choice: Choice, indent: str) -> Iterator[str]:
    yield from _comment(_field(choice.field).description, indent)
    yield from _comment(f"why: {choice.why}", indent)
    name = choice.field.rpartition(".")[2]
    if isinstance(choice.value, list) and choice.value and isinstance(choice.value[0], dict):
        yield f"{indent}{name}:"
        for entry in choice.value:
            for number, (key, value) in enumerate(entry.items()):
                yield f"{indent}  {' ' if number else '-'} {key}: {_scalar(value)}"
    elif isinstance(choice.value, dict):
        yield f"{indent}{name}:"
        yield from (f"{indent}  {key}: {_scalar(value)}" for key, value in choice.value.items())
    else:
        yield f"{indent}{name}: {_scalar(choice.value)}"


def _comment(text: str | None, indent: str) -> list[str]:
    return textwrap.wrap(text or "", WIDTH, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}#   ")


def _scalar(value: Any) -> str:
    """As JSON, which is YAML; a float with its point, which YAML 1.2 asks for."""
    return f"{value:.1e}" if isinstance(value, float) and value < 1e-3 else json.dumps(value, ensure_ascii=False)


def _field(dotted: str) -> FieldInfo:
    """The field in the schema.

    Raises:
        KeyError: the schema has no such field.
    """
    model: type[BaseModel] = Recipe
    for name in dotted.split("."):
        found = {info.alias or key: info for key, info in model.model_fields.items()}[name]
        kinds = (found.annotation, *typing.get_args(found.annotation))
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), model)
    return found


def seen_text(given: Given) -> list[str]:
    """What was found in the files, a line each."""
    lines = []
    for section, found in given.files.items():
        for seen, path in found:
            trouble = (
                f"; {seen.unreadable:,} of the first go to the quarantine, e.g. {seen.example}"
                if seen.unreadable
                else ""
            )
            lines.append(f"{path}: {seen.records:,} records, {_called(section)}{trouble}")
    return lines + (_conversations(given, given.facts) if given.facts else [])


def _called(section: str) -> str:
    return {"sft": "SFT rows", "preference": "preference rows", "evaluation": "multiple-choice items"}.get(
        section, section
    )


def _conversations(given: Given, facts: Conversations) -> list[str]:
    unit = "tokens" if facts.exact else "tokens, counted as characters / 4: the model's tokenizer is not at hand yet"
    kinds = ", ".join(f"{name} {count / facts.steps:.0%}" for name, count in facts.behaviours.items())
    lines = [
        f"looked at {facts.looked_at:,} of them: {facts.steps:,} turns of the assistant, {facts.steps_each:.1f} each: {kinds}",
        f"groups: {_groups(facts)}",
        f"tools: {f'{facts.tools} in {given.tools}' if given.tools else 'in the records' if facts.own_tools else 'none'}; "
        f"policy: {_policy(given, facts)}",
        f"length: median {facts.percentile(0.5):,}, 95% up to {facts.percentile(0.95):,}, longest {facts.lengths[-1]:,} {unit}",
    ]
    return lines + _warnings(given, facts)


def _groups(facts: Conversations) -> str:
    if facts.group_by is None:
        return "no field tells who spoke, so each conversation is a group of its own; --group-by names one"
    others = [f"{name} ({count:,})" for name, count in facts.groups.items() if name != facts.group_by]
    count = facts.groups.get(facts.group_by)
    values = f", {count:,} different values" if count else ""
    return f"{facts.group_by}{values}" + (f"; also there: {', '.join(others)}" if others else "")


def _policy(given: Given, facts: Conversations) -> str:
    if given.system and facts.own_system:
        return f"{given.system}, but {facts.own_system:,} records begin with a system message of their own"
    return given.system or (f"in {facts.own_system:,} records" if facts.own_system else "none")


def _warnings(given: Given, facts: Conversations) -> list[str]:
    found = []
    if facts.unknown_calls:
        some = ", ".join(f"{name} ({count:,}×)" for name, count in list(facts.unknown_calls.items())[:5])
        found.append(
            f"called but not offered: {some}; these turns go to the quarantine, add the tools if they are real"
        )
    if facts.largest_group > MOST_OF_ONE_GROUP:
        found.append(f"one group holds {facts.largest_group:.0%} of the turns; another --group-by may split better")
    window = given.window
    if window and facts.shared > window / 2:
        found.append(
            f"policy and tools alone take {facts.shared:,} of the window's {window:,} tokens; shorten them, or take a "
            "model with a longer window"
        )
    held_out = held_out_steps(facts)
    if held_out < JUDGED_STEPS / 2:
        found.append(
            f"about {held_out:,.0f} turns can be held out, and {JUDGED_STEPS} make a verdict likely: a first look is possible, "
            "a GO is not"
        )
    if facts.behaviours.get("tool_call", 0) == 0:
        found.append("no turn calls a tool: is the log complete, with tool_calls?")
    return [f"note: {line}" for line in found]
