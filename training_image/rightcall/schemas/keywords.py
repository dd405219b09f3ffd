"""The keywords of JSON Schema and its dialects: what holds schemas, and which values the metaschema allows the rest."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

ONE_SCHEMA = ("additionalProperties", "contains", "propertyNames", "not", "if", "then", "else")
SCHEMA_LISTS = ("anyOf", "oneOf", "prefixItems")
SCHEMA_MAPS = ("patternProperties", "dependentSchemas")
DEFINITIONS = ("$defs", "definitions")
SAME_PLACE = ("anyOf", "oneOf", "allOf", "not", "if", "then", "else")  # schemas for the very value that theirs is for
ANNOTATIONS = frozenset((
    "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "$comment",
))  # fmt: skip
# normalise.py reads these; its `required` and `optional` may also be flags at a property
_HANDLED = {"type", "description", "properties", "items", "enum", "required", "optional", "nullable", "$ref", "allOf"}
_DROPPED = {
    *("$schema", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary", *DEFINITIONS),
    *("dependentRequired", "unevaluatedItems", "unevaluatedProperties", "strict", "x-nullable"),
    *("xml", "externalDocs", "discriminator"),  # of OpenAPI: about the wire and the documentation
}


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _compiles(pattern: Any) -> bool:
    if not isinstance(pattern, str):
        return False
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError):
        return False
    return True


_COUNTS = (
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minContains",
    "maxContains",
)
_PLAIN: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(("title", "format", "$comment", "contentEncoding", "contentMediaType"), _is_text),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _is_flag),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "pattern": _compiles,
    "examples": lambda value: isinstance(value, list),
}
_HELD = frozenset((*_HANDLED, *_DROPPED, *ONE_SCHEMA, *SCHEMA_LISTS, *SCHEMA_MAPS))
KNOWN = _HELD | ANNOTATIONS | _PLAIN.keys() | {"const"}


def plain_keywords(raw: dict[str, Any]) -> dict[str, Any]:
    """Those that hold no schema, in today's spelling; one whose value the metaschema forbids is left out."""
    schema: dict[str, Any] = {}
    for key, given in raw.items():
        if key in _HELD:
            continue
        value = given
        if key in _COUNTS and isinstance(given, str) and re.fullmatch(r"[0-9]{1,15}", given):
            value = int(given)  # Gemini's 64-bit numbers are texts
        if key in _PLAIN:
            if _PLAIN[key](value):
                schema[key] = value
        elif not key.startswith("$"):
            schema[key] = value
    for bound, flag in (("minimum", "exclusiveMinimum"), ("maximum", "exclusiveMaximum")):
        if raw.get(flag) is True and bound in schema:  # OpenAPI 3.0, draft 4
            schema[flag] = schema.pop(bound)
    return schema
