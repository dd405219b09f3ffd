"""A root whose properties stand in its branches: {"anyOf": [{"properties": {"id": …}}, {"properties": {"mail": …}}]}.

A tool's schema always has ``properties``, because templates and readers look for them: all that any branch declares.
A branch then says the whole of its own, so that it can be closed: what nobody declares is an invented argument.
"""

from __future__ import annotations

from typing import Any

from rightcall.schemas.document import Document
from rightcall.schemas.keywords import ANNOTATIONS
from rightcall.schemas.merging import merged
from rightcall.schemas.types import unique

Json = dict[str, Any]

_CHOICES = ("anyOf", "oneOf")
_SHARED = ("type", "properties", "required", "additionalProperties")


def with_all_properties(root: Json, document: Document) -> Json:
    """The root with every property of its branches among its own.

    Raises:
        DataError: there are too many.
    """
    if "properties" in root and is_divided(root) and root["properties"] == _declared(root, document):
        return root  # as it leaves this function
    root = {**root, **{key: _objects(root[key], key) for key in _CHOICES if key in root}}
    for key in _CHOICES:
        if len(root.get(key, ())) == 1:
            only = root.pop(key)
            return with_all_properties(merged([root, *only]), document)
    for key in _CHOICES:
        if any("properties" in branch for branch in root.get(key, ())):
            shared = {name: root[name] for name in _SHARED if name in root}
            document.spend(0, (len(root.get("properties", ())) + 1) * len(root[key]))
            root[key] = [merged([shared, branch]) for branch in root[key]]
    own = {} if is_divided(root) else root.get("properties", {})
    return {**root, "properties": {**_declared(root, document), **own}}


def _declared(root: Json, document: Document) -> Json:
    """Of all branches, each name once."""
    found: dict[str, list[Json]] = {}
    for branch in _at_the_same_place(root)[1:]:
        document.spend(0, len(branch.get("properties", ())))
        for name, schema in branch.get("properties", {}).items():
            found.setdefault(name, []).append(schema)
    return {name: _either(unique(several)) for name, several in found.items()}


def is_divided(root: Json) -> bool:
    """Whether the branches say it all, and the root's own properties only repeat them."""
    return any("properties" in branch for branch in branches_of(root))


def branches_of(root: Json) -> list[Json]:
    return [branch for key in _CHOICES for branch in root.get(key, ()) if isinstance(branch, dict)]


def are_apart(root: Json) -> bool:
    """Whether arguments that fit one branch are right: always in anyOf; in oneOf where they can fit no other."""
    several = root.get("oneOf", [])
    if "anyOf" in root and several:
        return False
    return all(_exclude(left, right) for at, left in enumerate(several) for right in several[at + 1 :])


def _exclude(left: Json, right: Json) -> bool:
    both = set(left.get("required", ())) & set(right.get("required", ()))
    if any(_differ(left.get("properties", {}).get(name), right.get("properties", {}).get(name)) for name in both):
        return True
    return any(
        set(one.get("required", ())) - other.get("properties", {}).keys()
        and one.get("additionalProperties", False) is False
        for one, other in ((left, right), (right, left))
        if other.get("additionalProperties", False) is False
    )


def _differ(left: Any, right: Any) -> bool:
    """Constants that have no value in common."""
    fixed = [each for each in (left, right) if isinstance(each, dict) and ("const" in each or "enum" in each)]
    if len(fixed) < 2:
        return False
    values = [each.get("enum", [each.get("const")]) for each in fixed]
    return not any(value in values[1] for value in values[0])


def without_repeated(root: Json) -> Json:
    """A divided root without what its branches say."""
    return {key: value for key, value in root.items() if key != "properties"}


def _objects(branches: list[Json], key: str) -> list[Json]:
    """Those that arguments can be: {"type": "null"} stands for a tool that may be called without any."""
    found = []
    for branch in branches:
        kinds = branch.get("type", "object")
        if key in branch and branch.keys() <= {key, "type", *ANNOTATIONS}:  # a choice of choices
            found += _objects(branch[key], key)
        elif "object" in ([kinds] if isinstance(kinds, str) else kinds):
            found.append({**branch, "type": "object"} if "type" in branch else branch)
    return found or [{}]


def _at_the_same_place(schema: Any) -> list[Json]:
    """The schema itself, and all in it that say something about the same value."""
    if not isinstance(schema, dict):
        return []
    inner = [schema.get("then"), schema.get("else"), *schema.get("dependentSchemas", {}).values()]
    for key in (*_CHOICES, "allOf"):
        inner += schema.get(key, [])
    return [schema, *(found for each in inner for found in _at_the_same_place(each))]


def _either(schemas: list[Json]) -> Json:
    """Several schemas of one name: constants as one enum, else any of them."""
    if len(schemas) == 1:
        return schemas[0]
    if all("const" in schema or "enum" in schema for schema in schemas):
        values = [value for schema in schemas for value in schema.get("enum", [schema.get("const")])]
        kinds = unique([schema["type"] for schema in schemas if "type" in schema])
        return {**({"type": kinds[0]} if len(kinds) == 1 else {}), "enum": unique(values)}
    return {"anyOf": schemas}
