"""YAML 1.2 with the line of every value and all duplicate keys, for messages; a file cannot run code."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

Place = tuple[str | int, ...]
MAX_VALUES = 10_000  # thirty lines of aliases of aliases can mean billions


class YamlProblem(Exception):
    """Not YAML, or more than a recipe may hold; the message says where."""


@dataclass
class Parsed:
    value: Any = None
    values: int = 0  # lists, mappings and plain ones, each alias counted where it is used
    lines: dict[Place, int] = field(default_factory=dict)
    duplicates: list[tuple[Place, int, int]] = field(default_factory=list)  # place, its line, the line of the first


def parse_yaml(text: str) -> Parsed:
    """The values of a YAML text, and the line of each.

    Raises:
        YamlProblem: the author of the text corrects it.
    """
    parsed, reader = Parsed(), YAML(typ="safe", pure=True)
    reader.allow_duplicate_keys = True  # _walk finds them all, not the first alone
    try:
        node = reader.compose(text)
        if node is not None:
            _walk(node, (), parsed, frozenset())  # first: it bounds what constructing can cost
            parsed.value = reader.constructor.construct_document(node)
    except YAMLError as err:
        mark = getattr(err, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise YamlProblem(f"{place}{getattr(err, 'problem', None) or err}") from err
    except RecursionError as err:
        raise YamlProblem("nested too deeply; a recipe has five levels") from err
    except (LookupError, ValueError) as err:
        raise YamlProblem(f"a value does not fit its type: {err}; write it without a tag (!!…)") from err
    return parsed


def parse_value(text: str) -> Any:
    """The value of an override, typed as YAML types it: 0.2, true, null, [a, b], text.

    Raises:
        YamlProblem: the author of the override corrects it.
    """
    parsed = parse_yaml(text)
    if parsed.duplicates:
        raise YamlProblem(f"{parsed.duplicates[0][0][-1]!r} is given twice")
    return parsed.value


def _walk(node: Node, place: Place, parsed: Parsed, above: frozenset[int]) -> None:
    if id(node) in above:
        raise YamlProblem("an anchor contains itself; use no recursive anchors")
    parsed.values += 1
    if parsed.values > MAX_VALUES:
        raise YamlProblem(
            f"more than {MAX_VALUES:,} values, each alias counted where it is used; a recipe has hundreds"
        )
    above = above | {id(node)}
    if isinstance(node, MappingNode):
        first: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, ScalarNode):
                raise YamlProblem(f"line {line}: a key is a list or a mapping; keys are text")
            if key.value in first:
                parsed.duplicates.append(((*place, key.value), line, first[key.value]))
            first.setdefault(key.value, line)
            parsed.lines[(*place, key.value)] = line
            _walk(value, (*place, key.value), parsed, above)
    elif isinstance(node, SequenceNode):
        for number, value in enumerate(node.value):
            parsed.lines[(*place, number)] = value.start_mark.line + 1
            _walk(value, (*place, number), parsed, above)
