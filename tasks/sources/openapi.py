"""openapi:FILE, JSON or YAML, versions 2.0 to 3.1: each operation is one tool, its parameters and its JSON body as one object."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from rightcall.errors import DataError, SourceError
from rightcall.schemas.document import Document

Json = dict[str, Any]

MAX_BYTES = 30_000_000
MAX_VALUES = 2_000_000  # a YAML alias is counted wherever it stands
_METHODS = ("get", "put", "post", "delete", "options", "head", "patch", "trace")
_NO_SCHEMA = (
    "name",
    "in",
    "required",
    "description",
    "schema",
    "style",
    "explode",
    "allowReserved",
    "content",
    "examples",
    "example",
)


def list_tools(uri: str, path: Path) -> list[Json]:
    """Each with name, description and parameters.

    Raises:
        SourceError: the file is not there, is no OpenAPI document, or a reference in it leads elsewhere or nowhere.
    """
    document = _read(uri, path)
    paths = document.get("paths")
    if not isinstance(paths, dict):
        raise SourceError(f"{uri!r} has no 'paths'; give an OpenAPI document, versions 2.0 to 3.1")
    whole = Document(document, uri)
    try:
        tools = [
            _tool(whole, f"{method}_{address}", item, item[method])
            for address, item in ((address, _followed(whole, each)) for address, each in paths.items())
            for method in _METHODS
            if isinstance(item.get(method), dict)
        ]
    except DataError as err:
        raise SourceError(f"{uri!r}: {err.detail}") from err
    if not tools:
        raise SourceError(f"{uri!r} has no operation; give a document whose paths have some")
    names = [tool["name"] for tool in tools]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{uri!r} has several operations called {twice[0]!r}; give each an operationId of its own")
    return tools


def _read(uri: str, path: Path) -> Json:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SourceError(f"{uri!r} has more than {MAX_BYTES:,} bytes; give the part of it that is wanted")
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as err:
        raise SourceError(
            f"{uri!r} cannot be read ({err}); give the path of an OpenAPI document, openapi:FILE"
        ) from err
    try:
        found = json.loads(text) if text.lstrip().startswith("{") else YAML(typ="safe", pure=True).load(text)
    except (ValueError, YAMLError, RecursionError) as err:
        raise SourceError(f"{uri!r} is neither JSON nor YAML: {str(err)[:200]}; correct it") from err
    if not isinstance(found, dict):
        raise SourceError(f"{uri!r} holds a {type(found).__name__}; give an OpenAPI document")
    waiting, left = [found], MAX_VALUES
    while waiting:
        value = waiting.pop()
        left -= 1
        if left < 0:
            raise SourceError(f"{uri!r} holds more than {MAX_VALUES:,} values, aliases written out; simplify it")
        waiting.extend(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
    return found


def _tool(whole: Document, place: str, item: Json, operation: Json) -> Json:
    properties: Json = {}
    required: list[str] = []
    bodies: list[Json] = []
    for each in [*_list(item.get("parameters")), *_list(operation.get("parameters"))]:
        parameter = _followed(whole, each)
        name = parameter.get("name")
        if parameter.get("in") == "body":
            bodies.append(parameter.get("schema") or {})
        elif isinstance(name, str) and parameter.get("in") != "cookie":
            properties[name] = _schema_of(parameter)
            if parameter.get("required") is True and name not in required:
                required.append(name)
    bodies += _json_body(_followed(whole, operation.get("requestBody") or {}))
    for body in bodies:
        if not _is_object(whole, body):
            properties["body"] = body
            required.append("body")
    parameters: Json = {"type": "object", "properties": properties, "required": required}
    if merged := [body for body in bodies if _is_object(whole, body)]:
        parameters["allOf"] = merged
    words = [operation.get("summary"), operation.get("description")]
    return {
        "name": operation.get("operationId") or re.sub(r"[^A-Za-z0-9-]+", "_", place).strip("_"),
        "description": "\n".join(dict.fromkeys(str(each).strip() for each in words if each)),
        "parameters": {**parameters, **_reachable(whole, parameters)},
    }


def _schema_of(parameter: Json) -> Json:
    """Of version 3 in `schema` or `content`, of version 2 the parameter itself."""
    schema = parameter.get("schema")
    if not isinstance(schema, dict):
        content = [each for each in (parameter.get("content") or {}).values() if isinstance(each, dict)]
        schema = content[0].get("schema") if content else None
    if not isinstance(schema, dict):
        schema = {key: value for key, value in parameter.items() if key not in _NO_SCHEMA}
    return {"description": parameter["description"], **schema} if parameter.get("description") else schema


def _json_body(body: Json) -> list[Json]:
    for kind, media in (body.get("content") or {}).items():
        if re.fullmatch(r"application/([\w.+-]+\+)?json(;.*)?|\*/\*", str(kind)) and isinstance(media, dict):
            return [media.get("schema") or {}]
    return []


def _is_object(whole: Document, schema: Any) -> bool:
    found = _followed(whole, schema)
    return found.get("type") == "object" or bool(found.keys() & {"properties", "allOf", "anyOf", "oneOf"})


def _followed(whole: Document, value: Any) -> Json:
    """What a reference stands for, and what that stands for."""
    seen: set[str] = set()
    while isinstance(value, dict) and isinstance(value.get("$ref"), str):
        if value["$ref"] in seen:
            whole.refuse(f"refer to {value['$ref']!r}, which leads back to itself; correct it")
        seen.add(value["$ref"])
        value = whole.find(value["$ref"])
    return value if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _reachable(whole: Document, parameters: Json) -> Json:
    """The parts of the document that the schemas name, where they lie in it."""
    found: Json = {}
    waiting = list(_references(parameters))
    seen: set[str] = set()
    while waiting:
        reference = waiting.pop()
        if reference in seen:
            continue
        seen.add(reference)
        target = whole.find(reference)
        place, keys = found, [part.replace("~1", "/").replace("~0", "~") for part in reference[2:].split("/")]
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        place[keys[-1]] = target
        waiting.extend(_references(target))
    return found


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for each in value.values():
            yield from _references(each)
    elif isinstance(value, list):
        for each in value:
            yield from _references(each)
