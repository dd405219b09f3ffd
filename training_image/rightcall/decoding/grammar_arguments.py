"""A tool's JSON Schema as rules of the engine's grammar language, closed as the verifier closes it.

The engine writes an object's properties in the order of the schema. Models, and gold, do not always: the arguments
themselves may come in any order as long as they are few, objects inside of them in the schema's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from rightcall.schemas.branches import are_apart, branches_of, is_divided, without_repeated
from rightcall.schemas.keywords import ANNOTATIONS

Json = dict[str, Any]
Mode = Literal["exact", "lenient", "any"]  # lenient: keywords that the engine cannot hold are left out

MAX_ANY_ORDER = 8  # arguments of a tool: it takes a rule for each set of them
ANY_DEPTH = 5  # levels of a value of which the schema says nothing
LIMIT = 10**18  # of numbers without bounds: 1e999 is JSON, and no number

# What a schema can demand; the rest says nothing about which values are valid. `format` too is only a remark.
_PLAIN = frozenset((
    "type", "enum", "const", "required", "minItems", "maxItems", "uniqueItems", "minLength", "maxLength", "pattern",
    "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minProperties", "maxProperties",
    "minContains", "maxContains", "$ref",
))  # fmt: skip
_ONE = frozenset(("items", "additionalProperties", "contains", "propertyNames", "not", "if", "then", "else"))
_LISTS = frozenset(("anyOf", "oneOf", "allOf", "prefixItems"))
_MAPS = frozenset(("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"))
_COMBINING = frozenset(("anyOf", "oneOf", "allOf", "$ref", "if", "not"))
_SIMPLE = frozenset(("type", "properties", "required", "additionalProperties", "$defs", "definitions"))
_DIVIDED = frozenset(("type", "properties", "required", "anyOf", "oneOf", "$defs", "definitions")) | ANNOTATIONS
_DEFINITIONS = ("$defs", "definitions")
_OTHER_REF = re.compile(r'"\$ref": "(?!#/(?:\$defs|definitions)/)')  # to a part of the schema that is taken apart
_ANY = "rightcall_any_"


def any_value(level: int = 0) -> Json:
    return {"$ref": f"#/$defs/{_ANY}{level}"}


def closed(schema: Any) -> Any:
    """The schema with what the engine shall hold beyond it: declared properties only, numbers that are finite."""
    if not isinstance(schema, dict):
        return any_value() if schema is True else schema
    found: Json = {key: value for key, value in schema.items() if key in _PLAIN}
    found |= {key: closed(value) for key, value in schema.items() if key in _ONE}
    found |= {key: [closed(item) for item in value] for key, value in schema.items() if key in _LISTS}
    for key in _MAPS & schema.keys():
        found[key] = {name: closed(item) for name, item in schema[key].items()}
    if "properties" in found:
        found.setdefault("type", "object")
    return {**found, **_beyond(found)} if found else any_value()


def only_needed(schema: Any, written: str) -> Any:
    """The schema, or whatever holds it, without optional properties whose names are not in what is written so far."""
    if isinstance(schema, list):
        return [only_needed(item, written) for item in schema]
    if not isinstance(schema, dict):
        return schema
    needed = schema.get("required") or ()
    found: Json = {}
    for key, value in schema.items():
        if key in _MAPS and isinstance(value, dict):
            found[key] = {name: only_needed(item, written) for name, item in value.items()}
        else:
            found[key] = only_needed(value, written)
    if isinstance(properties := found.get("properties"), dict):
        for name in list(properties):
            if name not in needed and json.dumps(name, ensure_ascii=False) not in written:
                del properties[name]
    return found


def _beyond(schema: Json) -> Json:
    types = schema.get("type", ())
    types = {types} if isinstance(types, str) else set(types)
    added: Json = {}
    if not schema.keys() & _COMBINING:
        if "object" in types and "additionalProperties" not in schema:
            added["additionalProperties"] = False if "properties" in schema else any_value()
        if "array" in types and "items" not in schema:
            added["items"] = any_value()
    if types & {"integer", "number"} and not schema.keys() & {"enum", "const", "multipleOf"}:
        if not schema.keys() & {"minimum", "exclusiveMinimum"}:
            added["minimum"] = -LIMIT
        if not schema.keys() & {"maximum", "exclusiveMaximum"}:
            added["maximum"] = LIMIT
    return added


class ArgumentRules:
    """Rules for the arguments of one tool after the other; equal values share theirs."""

    def __init__(self, separators: tuple[str, str]) -> None:
        self._item, self._key = separators
        self._values: dict[str, str] = {}
        self._objects: dict[tuple[str, Mode], str] = {}
        self._choices = 0
        self.lines: list[str] = []

    def add(self, parameters: Json, mode: Mode = "exact") -> str:
        """The name of the rule for arguments that this schema of a tool accepts."""
        key = (json.dumps(parameters), mode)
        if key not in self._objects:
            self._objects[key] = self._add(parameters, mode)
        return self._objects[key]

    def _add(self, parameters: Json, mode: Mode) -> str:
        if mode == "any":
            return self._value({"type": "object", "additionalProperties": any_value()}, {}, mode)
        if is_divided(parameters):
            if parameters.keys() <= _DIVIDED and are_apart(parameters):
                return self._either(parameters, mode)
            parameters = without_repeated(parameters)
        schema = closed({"type": "object", **parameters})
        if "properties" in schema:  # as the verifier, whatever stands beside them
            schema.setdefault("additionalProperties", False)
        definitions = {key: schema.pop(key) for key in _DEFINITIONS if key in schema}
        properties, required = schema.get("properties") or {}, schema.get("required") or ()
        simple = schema.keys() <= _SIMPLE and set(required) <= properties.keys() and False not in properties.values()
        if not simple or _OTHER_REF.search(json.dumps(schema)) or len(properties) > MAX_ANY_ORDER:
            return self._value(schema, definitions, mode)
        values = {name: self._value(value, definitions, mode) for name, value in properties.items()}
        extra = None
        if schema["additionalProperties"] is not False:
            extra = self._undeclared(values, self._value(schema["additionalProperties"], definitions, mode))
        rule = f"o{len(self._objects)}"
        self.lines.extend(self._any_order(rule, values, required, extra))
        return rule

    def _either(self, parameters: Json, mode: Mode) -> str:
        """One rule for each branch, whose arguments may come in any order as well."""
        definitions = {key: parameters[key] for key in _DEFINITIONS if key in parameters}
        rules = [self.add({**definitions, **branch}, mode) for branch in branches_of(parameters)]
        self._choices += 1
        rule = f"c{self._choices}"
        self.lines.append(f"{rule}: {' | '.join(dict.fromkeys(rules))}")
        return rule

    def _any_order(
        self, rule: str, values: Mapping[str, str], required: Sequence[str], extra: str | None
    ) -> Iterator[str]:
        """A rule for each set of arguments that are written: what may follow them.

        A key is a lexeme of its own, because the engine's lexer never goes back: not even over ", ".
        """
        needed = sum(1 << place for place, name in enumerate(values) if name in required)
        yield f'{rule}: "{{" {rule}_first'
        for written in range(1 << len(values)):
            pairs = [
                f"{literal(json.dumps(name, ensure_ascii=False) + self._key)} {value} {rule}_{written | 1 << place}"
                for place, (name, value) in enumerate(values.items())
                if not written >> place & 1
            ]
            pairs += [f"{extra} {rule}_{written}"] if extra else []
            end = ['"}"'] if written & needed == needed else []
            if pairs:
                yield f"{rule}_{written}_more: {' | '.join(pairs)}"
            more = [f"{literal(self._item)} {rule}_{written}_more"] if pairs else []
            yield f"{rule}_{written}: {' | '.join(more + end)}"
            if not written:
                yield f"{rule}_first: {' | '.join(([f'{rule}_0_more'] if pairs else []) + end)}"

    def _undeclared(self, declared: Iterable[str], value: str) -> str:
        """A key that is not declared, and its value."""
        names = "|".join(escaped(json.dumps(name, ensure_ascii=False)[1:-1]) for name in declared)
        key, terminal = escaped(self._key), f"KEY_{len(self._objects)}"
        but = f' & ~/"({names})"{key}/' if names else ""
        self.lines.append(f'{terminal}: /"[^"\\\\\\x00-\\x1f]*"{key}/{but}')
        return f"{terminal} {value}"

    def _value(self, schema: Any, definitions: Json, mode: Mode) -> str:
        options: Json = {"whitespace_flexible": False, "item_separator": self._item, "key_separator": self._key}
        if mode == "lenient":
            options |= {"lenient": True, "coerce_one_of": True}
        if '"$ref"' in json.dumps(schema):
            known = {**definitions.get("$defs", {}), **_any_definitions()}
            schema = {**schema, **definitions, "$defs": known}
        text = json.dumps({"x-guidance": options, **schema}, ensure_ascii=False)
        if text not in self._values:
            self._values[text] = f"v{len(self._values)}"
            self.lines.append(f"{self._values[text]}: %json {text}")
        return self._values[text]


def _any_definitions() -> Json:
    scalars: list[Json] = [
        {"type": ["string", "boolean", "null"]},
        {"type": "number", "minimum": -LIMIT, "maximum": LIMIT},
    ]
    levels = {}
    for level in range(ANY_DEPTH):
        inner = any_value(level + 1)
        nested: list[Json] = [{"type": "array", "items": inner}, {"type": "object", "additionalProperties": inner}]
        levels[f"{_ANY}{level}"] = {"anyOf": scalars + (nested if level + 1 < ANY_DEPTH else [])}
    return levels


def literal(text: str) -> str:
    """As a string of the grammar language."""
    return json.dumps(text, ensure_ascii=False)


def escaped(text: str) -> str:
    """For a regular expression of the grammar language."""
    return "".join(c if c.isalnum() or c in " _" else f"\\u{{{ord(c):x}}}" for c in text)
