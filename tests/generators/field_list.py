"""Every field of a recipe, with what it takes, its default and what it is, from the schema into docs/your-agent.md.

python tests/generators/field_list.py --write     # after a change of the schema
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import MetricName, TrainingSection

PAGE = Path(__file__).parents[2] / "docs" / "your-agent.md"
MANY = 12  # more values than these are not listed


def field_list() -> str:
    """A table a section; what SFT and DPO share stands once."""
    shared = dict(TrainingSection.model_fields)
    parts = [_table("", {name: info for name, info in Recipe.model_fields.items() if _section(info) is None})]
    for name, info in Recipe.model_fields.items():
        section = _section(info)
        if section is None:
            continue
        title = info.alias or name
        if title == "sft":
            parts.append(_titled("sft and dpo", "fields that both have", _table("", shared)))
        own = {
            key: each
            for key, each in section.model_fields.items()
            if not (issubclass(section, TrainingSection) and key in shared)
        }
        parts.append(_titled(title, str(info.description), _table("", own)))
    parts.append(f"Metrics: {', '.join(f'`{name}`' for name in typing.get_args(MetricName))}.")
    return "\n\n".join(parts)


def _titled(title: str, description: str, table: str) -> str:
    return f"**`{title}`**: {description}\n\n{table}"


def _table(prefix: str, fields: Mapping[str, FieldInfo]) -> str:
    lines = ["| field | takes | default | what it is |", "|---|---|---|---|"]
    return "\n".join([*lines, *_rows(prefix, fields)])


def _rows(prefix: str, fields: Mapping[str, FieldInfo]) -> Iterator[str]:
    """A section that several fields hold has its rows below the first of them."""
    told: dict[type[BaseModel] | None, str] = {}
    for name, info in fields.items():
        section = _section(info)
        shown, several = f"{prefix}{info.alias or name}", "tuple" in str(info.annotation)
        what = str(info.description or _summary(section))
        if section in told:
            what += f"; the fields of an entry are those of `{told[section]}`"
        cells = (f"`{shown}`", _takes(info.annotation), _default(info), what)
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
        if section is not None and section not in told:
            told[section] = shown
            yield from _rows(f"{shown}[]." if several else f"{shown}.", section.model_fields)


def _section(info: FieldInfo) -> type[BaseModel] | None:
    kinds = (info.annotation, *typing.get_args(info.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def _summary(section: type[BaseModel] | None) -> str:
    return (section.__doc__ or "").split(".")[0].split("\n")[0] if section else ""


def _takes(kind: Any) -> str:
    """`true or false`, `whole number`, `one of a, b`, `list of text`, …"""
    plain = {str: "text", int: "whole number", float: "number", bool: "true or false", type(None): "null"}
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _takes(inside[0])
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, inside)) if len(inside) <= MANY else "name of a metric"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_takes, inside))
    if origin in (tuple, dict):
        return f"list of {_takes(inside[0])}" if origin is tuple else f"{_takes(inside[0])}: {_takes(inside[1])}"
    return plain.get(kind, "fields below" if isinstance(kind, type) and issubclass(kind, BaseModel) else "anything")


def _default(info: FieldInfo) -> str:
    if info.is_required():
        return "needed"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return ""
    if value is None:
        return "none"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "empty"
    if isinstance(value, dict):
        return ", ".join(f"{name} {each}" for name, each in value.items()) or "empty"
    return str(value).lower() if isinstance(value, bool) else str(value)


def between(name: str) -> tuple[str, str]:
    """The comments around a generated part of the page."""
    return f"<!-- {name}: tests/generators/{name}.py --write -->", f"<!-- /{name} -->"


def on_page(name: str, page: Path = PAGE) -> str:
    text = page.read_text(encoding="utf-8")
    begin, end = between(name)
    return text[text.index(begin) + len(begin) : text.index(end)].strip()


def main(name: str, made: Callable[[], str], page: Path = PAGE) -> int:
    """Prints the part, or puts it into the page."""
    part = made()
    if sys.argv[1:] == ["--write"]:
        text, (begin, end) = page.read_text(encoding="utf-8"), between(name)
        before, _, rest = text.partition(begin)
        page.write_text(f"{before}{begin}\n{part}\n{end}{rest.partition(end)[2]}", encoding="utf-8")
    sys.stdout.write(part + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main("field_list", field_list))
