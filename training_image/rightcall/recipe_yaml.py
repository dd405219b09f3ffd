"""YAML with what a recipe needs beyond safe_load: line numbers, duplicate keys found, and 5e-7 read as a number."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import yaml

Place = tuple[str | int, ...]


class YamlProblem(ValueError):
    """Not YAML; the message says where."""


@dataclass
class Parsed:
    value: Any
    lines: dict[Place, int] = field(default_factory=dict)
    duplicates: list[tuple[Place, int, int]] = field(default_factory=list)  # place, its line, the line of the first


class _Loader(yaml.SafeLoader):
    pass


# YAML 1.1 wants a dot and a sign (5.0e-7) and reads 5e-7 as text.
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(?:\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Parsed:
    """Raises: YamlProblem"""
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        parsed = Parsed(None if node is None else loader.construct_document(node))
    except yaml.YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlProblem(f"{place}{getattr(err, 'problem', None) or err}") from err
    except (ValueError, RecursionError, TypeError) as err:
        raise YamlProblem(str(err)) from err
    if node is not None:
        _walk(node, (), parsed, frozenset())
    return parsed


def parse_value(text: str) -> Any:
    """The value of an override, typed as YAML types it: 0.2, true, null, [a, b], text.  Raises: YamlProblem"""
    parsed = parse_yaml(text)
    if parsed.duplicates:
        raise YamlProblem(f"{parsed.duplicates[0][0][-1]!r} is given twice")
    return parsed.value


def _walk(node: yaml.Node, place: Place, parsed: Parsed, above: frozenset[int]) -> None:
    if id(node) in above:  # an anchor that contains itself
        return
    above = above | {id(node)}
    if isinstance(node, yaml.MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if name in first:
                parsed.duplicates.append(((*place, name), line, first[name]))
            first.setdefault(name, line)
            parsed.lines[(*place, name)] = line
            _walk(value, (*place, name), parsed, above)
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            parsed.lines[(*place, number)] = value.start_mark.line + 1
            _walk(value, (*place, number), parsed, above)
