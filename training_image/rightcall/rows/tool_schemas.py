"""Tool definitions in any dialect (OpenAI, MCP, BFCL, When2Call) to OpenAI functions with valid JSON Schema."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from rightcall.errors import DataError

Json = dict[str, Any]

_TYPES = {
    alias: name
    for name, aliases in {
        "object": "object dict dictionary map hashmap struct",
        "array": "array list tuple set arraylist",
        "string": "string str char text",
        "integer": "integer int long short byte bigint",
        "number": "number float double decimal",
        "boolean": "boolean bool",
        "null": "null none",
    }.items()
    for alias in aliases.split()
}
_CONTAINERS = re.compile(r"^(list|array|tuple|set|dict|map|optional)\s*[\[<(](.*)[\])>]$", re.IGNORECASE)

_CASTS: dict[str, Callable[[Any], Any]] = {"integer": int, "number": float, "string": str}


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
    except re.error:
        return False
    return True


# keyword → does the metaschema allow its value? With another value the keyword is dropped. Keywords that are neither
# here nor below are annotations and stay.
_PLAIN: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _is_number),
    **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), _is_count),
    **dict.fromkeys(("minContains", "maxContains"), _is_count),
    **dict.fromkeys(("title", "format", "$comment", "contentEncoding", "contentMediaType"), _is_text),
    **dict.fromkeys(("uniqueItems", "deprecated", "readOnly", "writeOnly"), _is_flag),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "pattern": _compiles,
    "$ref": lambda value: isinstance(value, str) and value.startswith("#"),
    "examples": lambda value: isinstance(value, list),
}
_ONE_SCHEMA = ("additionalProperties", "contains", "propertyNames", "not", "if", "then", "else")
_SCHEMA_LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
_SCHEMA_MAPS = ("$defs", "definitions", "patternProperties", "dependentSchemas")
_HANDLED = {"type", "description", "properties", "items", "enum", "required", "optional"}
_DROPPED = {
    *("$schema", "$id", "$anchor", "$dynamicRef", "$dynamicAnchor", "$vocabulary"),
    *("dependentRequired", "unevaluatedItems", "unevaluatedProperties", "strict", "nullable"),
}


def normalise_tools(raw: Any) -> list[Json]:
    """The tools of a record as OpenAI functions; None, absent and [] are the same.

    The tools returned are shared: do not change them.

    Raises:
        DataError: ``bad_tools``, ``bad_tool`` or ``duplicate_tool`` (the owner of the rows fixes it).
    """
    if raw is None:
        return []
    if isinstance(raw, str):
        raw = _loads(raw) if raw.strip() else []
        if raw is None:
            return []
    if not isinstance(raw, list):
        raise DataError(f"tools is a {type(raw).__name__}, {_short(raw)}; give a list of tools", reason="bad_tools")
    tools: dict[str, Json] = {}
    for item in raw:
        tool = _normalised(item if isinstance(item, str) else json.dumps(item, ensure_ascii=False))
        name = tool["function"]["name"]
        if tools.setdefault(name, tool) is not tool and tools[name] != tool:
            raise DataError(f"two different tools are called {name!r}; rename one of them", reason="duplicate_tool")
    return list(tools.values())


@lru_cache(maxsize=8192)
def _normalised(text: str) -> Json:
    tool = _loads(text)
    if isinstance(tool, dict) and isinstance(tool.get("function"), dict):
        tool = tool["function"]
    if not isinstance(tool, dict):
        raise DataError(
            f"a tool is a {type(tool).__name__}, {_short(tool)}; give an object with name and parameters",
            reason="bad_tool",
        )
    name = tool.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"the tool {_short(tool)} has no name; give it one", reason="bad_tool")
    parameters = tool.get("parameters", tool.get("inputSchema", tool.get("input_schema")))
    description = tool.get("description")
    schema = _root_schema(parameters, name)
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "" if description is None else str(description),
            "parameters": schema,
        },
    }


def _root_schema(parameters: Any, name: str) -> Json:
    if parameters in (None, "", []):
        parameters = {}
    if not isinstance(parameters, dict):
        raise DataError(
            f"the parameters of {name!r} are {_short(parameters)}; give a JSON Schema object", reason="bad_tool"
        )
    if (
        parameters
        and "type" not in parameters
        and "properties" not in parameters
        and all(isinstance(v, dict) for v in parameters.values())
    ):
        parameters = {"properties": parameters}  # a bare map of parameter name → schema
    schema = normalise_schema(parameters)
    schema = {"type": "object", "properties": {}, **schema} | {"type": "object"}
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as err:
        raise DataError(
            f"the parameters of {name!r} are no JSON Schema: {err.message[:200]}; correct them", reason="bad_tool"
        ) from err
    return schema


def normalise_schema(raw: Any) -> Json:
    """One schema, recursively: types mapped, ``"str, optional"`` and flags moved to ``required``, enums cast."""
    if isinstance(raw, str):
        raw = {"type": raw}
    if isinstance(raw, bool) or not isinstance(raw, dict):
        return {}
    schema: Json = {}
    kind, items = _type_of(raw.get("type"))
    if kind is not None:
        schema["type"] = kind
    if raw.get("description") is not None:
        schema["description"] = str(raw["description"])
    _copy_keywords(raw, schema)
    if isinstance(raw.get("enum"), list) and raw["enum"]:
        schema["enum"] = _unique([_cast(value, kind) for value in raw["enum"]])
    _add_items(raw, schema, items)
    if isinstance(raw.get("properties"), dict):
        schema["properties"] = {str(key): normalise_schema(value) for key, value in raw["properties"].items()}
        required = _required(raw)
        if required:
            schema["required"] = required
    return schema


def _copy_keywords(raw: Json, schema: Json) -> None:
    for key, value in raw.items():
        if key in _HANDLED or key in _DROPPED:
            continue
        if key in _PLAIN:
            if _PLAIN[key](value):
                schema[key] = value
        elif key in _ONE_SCHEMA:
            schema[key] = value if isinstance(value, bool) else normalise_schema(value)
        elif key in _SCHEMA_LISTS:
            if isinstance(value, list) and value:
                schema[key] = [normalise_schema(item) for item in value]
        elif key in _SCHEMA_MAPS:
            if isinstance(value, dict):
                schema[key] = {str(name): normalise_schema(item) for name, item in value.items()}
        elif not key.startswith("$"):
            schema[key] = value


def _add_items(raw: Json, schema: Json, from_type: str | None) -> None:
    items = raw.get("items")
    if isinstance(items, list):  # draft 7 tuples
        schema["prefixItems"] = [normalise_schema(item) for item in items] or [{}]
    elif isinstance(items, (dict, str)):
        schema["items"] = normalise_schema(items)
    elif from_type:
        schema["items"] = normalise_schema(from_type)


def _type_of(raw: Any) -> tuple[str | list[str] | None, str | None]:
    """JSON Schema type and, for ``list[str]``, the type of the items; None = any."""
    if isinstance(raw, list):
        types = _unique([mapped for item in raw if isinstance(mapped := _type_of(item)[0], str)])
        return (None if len(types) < len(raw) else types[0] if len(types) == 1 else types), None
    if not isinstance(raw, str):
        return None, None
    text = _without_optional(raw)
    if match := _CONTAINERS.match(text):
        head, inner = match.group(1).lower(), match.group(2)
        if head == "optional":
            return _type_of(inner)
        return _TYPES[head], inner if head in ("list", "array", "set") and "," not in inner else None
    if text.endswith("[]"):
        return "array", text[:-2]
    return _TYPES.get(text.lower()), None


def _without_optional(text: str) -> str:
    text = (
        re.sub(r"[,;(]?\s*\(?\b(optional|required)\)?\s*$", "", text.strip(), flags=re.IGNORECASE).strip()
        or text.strip()
    )
    return re.sub(r"\s*\|\s*None$", "", text).strip()


def _required(raw: Json) -> list[str]:
    """Names of the required properties; a flag at the property (``"optional": true``) wins over the list."""
    listed = raw.get("required")
    names = [n for n in listed if isinstance(n, str)] if isinstance(listed, list) else []
    required = []
    for name, value in raw["properties"].items():
        flags = value if isinstance(value, dict) else {"type": value}
        kind = flags.get("type")
        marked_optional = flags.get("optional") is True or flags.get("required") is False
        if isinstance(kind, str):
            marked_optional = marked_optional or bool(
                re.search(r"[,;(\s]optional\)?\s*$|^optional\s*[\[<(]|\|\s*None$", kind.strip(), re.IGNORECASE)
            )
        marked_required = flags.get("required") is True or (
            isinstance(kind, str) and bool(re.search(r"[,;(\s]required\)?\s*$", kind))
        )
        if (name in names or marked_required) and not marked_optional:
            required.append(str(name))
    return required


def _cast(value: Any, kind: str | list[str] | None) -> Any:
    """An enum value in the declared type when that is possible, else as it is."""
    if kind == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    cast = _CASTS.get(kind) if isinstance(kind, str) else None
    if (
        cast is None
        or value is None
        or isinstance(value, (bool, list, dict))
        or (kind == "number" and _is_number(value))
    ):
        return value
    if kind == "integer" and isinstance(value, float) and not value.is_integer():
        return value
    try:
        return cast(value)
    except (TypeError, ValueError):
        return value


def _unique(values: list[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return list(seen.values())


def _loads(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as err:
        raise DataError(
            f"the tool {text[:120]!r} is not JSON ({err}); give it as JSON text or as an object", reason="bad_tool"
        ) from err


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
