"""Two schemas that both hold, as one, where one can say it: allOf is how OpenAPI writes inheritance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rightcall.schemas.keywords import ANNOTATIONS, ONE_SCHEMA, SCHEMA_LISTS, SCHEMA_MAPS
from rightcall.schemas.types import unique

Json = dict[str, Any]

# What these mean depends on what stands beside them.
_APART = frozenset(("$ref", "anyOf", "oneOf", "not", "if", "then", "else", "prefixItems", "contains"))
_LAST = (*ONE_SCHEMA, *SCHEMA_LISTS, *SCHEMA_MAPS, "enum", "items", "properties", "required", "allOf")


def merged(parts: list[Json]) -> Json:
    """All parts as one schema; those that cannot be joined stand in its allOf. What comes first says it better."""
    whole: Json = {}
    apart: list[Json] = []
    for part in parts:
        joined = _joined(whole, part)
        if joined is None:
            apart.append(part)
        else:
            whole = joined
    return in_order({**whole, "allOf": [*whole.get("allOf", []), *apart]} if apart else whole)


def in_order(schema: Json) -> Json:
    """The keywords as they come out of a schema that is read again: a prompt is the same after any number of readings."""
    first = [key for key in ("$ref", "type", "description") if key in schema]
    last = [key for key in _LAST if key in schema]
    middle = [key for key in schema if key not in first and key not in last]
    return {key: schema[key] for key in (*first, *middle, *last)}


def _joined(left: Json, right: Json) -> Json | None:
    """None = one schema cannot say what the two do."""
    if left.keys() <= ANNOTATIONS or right.keys() <= ANNOTATIONS:
        return {**right, **left}
    if left.keys() & right.keys() & _APART or "$ref" in left or "$ref" in right:
        return None
    if _names_the_rest(left, right) or _names_the_rest(right, left):
        return None
    found = {**right, **left}
    for key in (left.keys() & right.keys()) - ANNOTATIONS:
        both = _both(key, left[key], right[key])
        if both is None:
            return None
        found[key] = both
    return found


def _names_the_rest(left: Json, right: Json) -> bool:
    """Its additionalProperties would come to hold for what the other declares, or no longer for what it does not."""
    return isinstance(left.get("additionalProperties"), dict) and "properties" in right


def _both(key: str, left: Any, right: Any) -> Any:
    """The value of a keyword that says what two values of it do; None = there is none."""
    join = _JOINS.get(key)
    return join(left, right) if join else left if left == right else None


def _both_properties(left: Json, right: Json) -> Json:
    shared = {name: merged([left[name], value]) if name in left else value for name, value in right.items()}
    return {**left, **shared}


def _both_types(left: Any, right: Any) -> Any:
    wanted = [right] if isinstance(right, str) else right
    there = [left] if isinstance(left, str) else left
    found = [kind for kind in there if kind in wanted or (kind == "integer" and "number" in wanted)]
    found += [kind for kind in wanted if kind == "integer" and "number" in there and kind not in found]
    return (found[0] if len(found) == 1 else found) if found else None


_JOINS: dict[str, Callable[[Any, Any], Any]] = {
    "properties": _both_properties,
    "type": _both_types,
    "enum": lambda left, right: [value for value in left if value in right] or None,
    "additionalProperties": lambda left, right: False if False in (left, right) else left if left == right else None,
    **dict.fromkeys(("required", "allOf"), lambda left, right: unique([*left, *right])),
    **dict.fromkeys(("minimum", "exclusiveMinimum", "minLength", "minItems", "minProperties"), max),
    **dict.fromkeys(("maximum", "exclusiveMaximum", "maxLength", "maxItems", "maxProperties"), min),
}
