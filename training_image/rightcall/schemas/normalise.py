"""One schema, level by level: types mapped, flags moved to ``required``, nullable spelt out, allOf joined."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rightcall.schemas.document import Document
from rightcall.schemas.keywords import ANNOTATIONS, ONE_SCHEMA, SCHEMA_LISTS, SCHEMA_MAPS, plain_keywords
from rightcall.schemas.merging import in_order, merged
from rightcall.schemas.types import cast, required_names, says_null, type_of, unique

Json = dict[str, Any]


class Reader:
    """Of one document."""

    def __init__(self, document: Document) -> None:
        self._document = document

    def schema(self, raw: Any, depth: int = 0, inlined: tuple[str, ...] = (), *, root: bool = False) -> Json:
        """As valid JSON Schema; what says nothing is {}.

        inlined: the references that stand open around this place. root: what its anyOf names is inlined too.

        Raises:
            DataError: too large, too deep, or a reference that leads nowhere.
        """
        self._document.spend(depth)
        if isinstance(raw, str):
            raw = {"type": raw}
        if isinstance(raw, bool) or not isinstance(raw, dict):
            return {}
        schema = self._own(raw, depth, inlined, root=root)
        if parts := self._all_of(raw, depth, inlined, root=root):
            schema = merged([schema, *parts])
        if raw.get("nullable") is True or raw.get("x-nullable") is True or says_null(raw.get("type")):
            schema = _with_null(schema)
        return in_order(schema)

    def inline(
        self, raw: Any, depth: int = 0, inlined: tuple[str, ...] = (), here: tuple[str, ...] = (), *, root: bool = False
    ) -> Json:
        """As `schema`, with what its reference names in place of the reference.

        here: the references that were followed to this very place.

        Raises:
            DataError: the reference leads back to itself.
        """
        reference = raw.get("$ref") if isinstance(raw, dict) else None
        if reference in here:
            self._document.refuse(f"refer to {reference!r}, which leads back to itself and says nothing; correct it")
        if not isinstance(reference, str) or reference in inlined:  # in a tree it stays a reference
            return self.schema(raw, depth, inlined, root=root)
        self._document.spend(depth)
        found = self._document.find(reference)
        target = self.inline(found, depth + 1, (*inlined, reference), (*here, reference), root=root)
        beside = {key: value for key, value in raw.items() if key != "$ref"}
        return merged([self.schema(beside, depth, inlined, root=root), target])

    def _all_of(self, raw: Json, depth: int, inlined: tuple[str, ...], *, root: bool) -> list[Json]:
        items = raw.get("allOf")
        if not isinstance(items, list):
            return []
        if len(items) == 1 and "$ref" not in raw and not root:  # pydantic 1 writes a description beside a reference so
            return [self.schema(items[0], depth + 1, inlined)]
        return [self.inline(item, depth + 1, inlined, root=root) for item in items]

    def _own(self, raw: Json, depth: int, inlined: tuple[str, ...], *, root: bool) -> Json:
        def read(value: Any) -> Json:
            return self.schema(value, depth + 1, inlined)

        schema: Json = {}
        if isinstance(raw.get("$ref"), str):
            schema["$ref"] = self._document.reference(raw["$ref"])
        kind, items = type_of(raw.get("type"))
        if kind is not None:
            schema["type"] = kind
        if raw.get("description") is not None:
            schema["description"] = str(raw["description"])
        schema |= plain_keywords(raw)
        for key in ONE_SCHEMA:
            if key in raw:
                schema[key] = raw[key] if isinstance(raw[key], bool) else read(raw[key])
        for key in SCHEMA_LISTS:
            if isinstance(raw.get(key), list) and raw[key]:
                inline = root and key != "prefixItems"
                schema[key] = [
                    self.inline(item, depth + 1, inlined, root=True) if inline else read(item) for item in raw[key]
                ]
        for key in SCHEMA_MAPS:
            if isinstance(raw.get(key), dict):
                schema[key] = {str(name): read(item) for name, item in raw[key].items()}
        if isinstance(raw.get("enum"), list) and raw["enum"]:
            self._document.spend(depth, len(raw["enum"]) // 10)
            schema["enum"] = unique([cast(value, kind) for value in raw["enum"]])
        schema |= self._held(raw, items, lambda value: without_undeclared(read(value)))
        if required := required_names(raw):
            schema["required"] = required
        return schema

    def _held(self, raw: Json, from_type: str | None, read: Callable[[Any], Json]) -> Json:
        """What an array or an object holds."""
        schema: Json = {}
        items = raw.get("items")
        if isinstance(items, list):  # draft 7 tuples
            schema["prefixItems"] = [read(item) for item in items] or [{}]
        elif isinstance(items, (dict, str)):
            schema["items"] = read(items)
        elif from_type:
            schema["items"] = read(from_type)
        if isinstance(raw.get("properties"), dict):
            schema["properties"] = {str(key): read(value) for key, value in raw["properties"].items()}
        return schema


def _with_null(schema: Json) -> Json:
    """The schema, or null."""
    null: Json = {"type": "null"}
    if "$ref" in schema or schema.keys() & {"oneOf", "allOf", "const", "not", "if"}:
        beside = {key: value for key, value in schema.items() if key in ANNOTATIONS}
        return {"anyOf": [{key: value for key, value in schema.items() if key not in ANNOTATIONS}, null], **beside}
    found = dict(schema)
    if "anyOf" in found:
        found["anyOf"] = unique([*found["anyOf"], null])
    if "type" in found:
        kinds = found["type"] if isinstance(found["type"], list) else [found["type"]]
        found["type"] = unique([*kinds, "null"])
    if "enum" in found:
        found["enum"] = unique([*found["enum"], None])
    return found


def without_undeclared(schema: Json) -> Json:
    """``required`` without names that no property has: no tool could be called that asks for one."""
    if "required" not in schema or "properties" not in schema or schema.keys() & {"allOf", "anyOf", "oneOf", "$ref"}:
        return schema
    required = [name for name in schema["required"] if name in schema["properties"]]
    rest = {key: value for key, value in schema.items() if key != "required"}
    return {**rest, "required": required} if required else rest
