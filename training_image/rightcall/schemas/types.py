"""Names of types as people write them, and what they say beside the type."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

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


def is_type_name(raw: Any) -> bool:
    return isinstance(raw, str) and type_of(raw)[0] is not None


def type_of(raw: Any) -> tuple[str | list[str] | None, str | None]:
    """JSON Schema type and, for ``list[str]``, the type of the items; None = any."""
    if isinstance(raw, list):
        types = unique([mapped for item in raw if isinstance(mapped := type_of(item)[0], str)])
        return (None if len(types) < len(raw) else types[0] if len(types) == 1 else types), None
    if not isinstance(raw, str):
        return None, None
    text = _without_optional(raw)
    if match := _CONTAINERS.match(text):
        return _type_of_container(match.group(1).lower(), match.group(2))
    if text.endswith("[]"):
        return "array", text[:-2]
    if "|" in text:
        return type_of([part.strip() for part in text.split("|")])
    return _TYPES.get(text.lower()), None


def _type_of_container(head: str, inner: str) -> tuple[str | list[str] | None, str | None]:
    if head == "optional":
        return type_of(inner)
    return _TYPES[head], inner if head in ("list", "array", "set") and "," not in inner else None


def says_null(raw: Any) -> bool:
    """``Optional[str]`` and ``str | None`` take null; "str, optional" only may be left out."""
    return isinstance(raw, str) and bool(re.search(r"^optional\s*[\[<(]|\|\s*(none|null)$", raw.strip(), re.IGNORECASE))


def _without_optional(text: str) -> str:
    text = (
        re.sub(r"[,;(]?\s*\(?\b(optional|required)\)?\s*$", "", text.strip(), flags=re.IGNORECASE).strip()
        or text.strip()
    )
    return re.sub(r"\s*\|\s*(none|null)$", "", text, flags=re.IGNORECASE).strip()


def required_names(raw: Json) -> list[str]:
    """What the list ``required`` or a flag at a property asks for; a flag that says optional wins over the list."""
    listed = raw.get("required")
    names = [name for name in listed if isinstance(name, str)] if isinstance(listed, list) else []
    properties = raw.get("properties")
    if not isinstance(properties, dict):
        return unique(names)
    marked = {name: _marked(value) for name, value in properties.items()}
    elsewhere = [name for name in names if name not in marked]
    return [
        *(str(name) for name, mark in marked.items() if mark or (mark is None and name in names)),
        *unique(elsewhere),
    ]


def _marked(value: Any) -> bool | None:
    """Whether a property says of itself that it is required; None = it does not say."""
    flags = value if isinstance(value, dict) else {"type": value}
    kind = str(flags["type"]) if isinstance(flags.get("type"), str) else ""
    if flags.get("optional") is True or flags.get("required") is False:
        return False
    if re.search(r"[,;(\s]optional\)?\s*$|^optional\s*[\[<(]|\|\s*None$", kind.strip(), re.IGNORECASE):
        return False
    return True if flags.get("required") is True or re.search(r"[,;(\s]required\)?\s*$", kind) else None


def cast(value: Any, kind: str | list[str] | None) -> Any:
    """An enum value in the declared type when that is possible, else as it is."""
    if kind == "boolean" and isinstance(value, str) and value.lower() in ("true", "false"):
        return value.lower() == "true"
    to = _CASTS.get(kind) if isinstance(kind, str) else None
    if to is None or value is None or isinstance(value, (bool, list, dict)):
        return value
    if kind == "number" and isinstance(value, (int, float)):
        return value
    if kind == "integer" and isinstance(value, float) and not value.is_integer():
        return value
    try:
        return to(value)
    except (TypeError, ValueError):
        return value


def unique(values: list[Any]) -> list[Any]:
    seen: dict[str, Any] = {}
    for value in values:
        seen.setdefault(json.dumps(value, sort_keys=True), value)
    return list(seen.values())
