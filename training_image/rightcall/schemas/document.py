"""One tool's schema: where its references lead, and how much of it may be read.

A reference leads into the schema itself, never to a file or an address. Those that are used come out as
``#/$defs/<name>``, wherever they lay.
"""

from __future__ import annotations

import re
from typing import Any, NoReturn
from urllib.parse import unquote

from rightcall.errors import DataError
from rightcall.schemas.keywords import SAME_PLACE

Json = dict[str, Any]

MAX_SCHEMAS = 20_000  # places of one tool, those of inlined definitions counted each time
MAX_DEPTH = 60


class Document:
    """The raw schema of one tool, and what was looked up in it."""

    def __init__(self, raw: Any, name: str) -> None:
        self.raw, self.name = raw, name
        self.names: dict[str, str] = {}  # pointer → name of the definition
        self.waiting: list[str] = []  # pointers that still have to be read
        self._left = MAX_SCHEMAS

    def refuse(self, what: str) -> NoReturn:
        raise DataError(f"the parameters of {self.name!r} {what}", reason="bad_tool")

    def spend(self, depth: int, count: int = 1) -> None:
        """Counts what is read or copied.

        Raises:
            DataError: the schema is too large or too deep.
        """
        self._left -= count
        if self._left < 0:
            self.refuse(f"have more than {MAX_SCHEMAS:,} schemas in them, with what they refer to; simplify them")
        if depth > MAX_DEPTH:
            self.refuse(f"are nested beyond {MAX_DEPTH} levels; flatten them")

    def find(self, reference: str) -> Any:
        """What ``#/$defs/Desk`` stands for.

        Raises:
            DataError: it leads elsewhere, or to nothing.
        """
        if reference != "#" and not reference.startswith("#/"):
            self.refuse(
                f"refer to {reference!r}, outside of the schema; put what it names into $defs (nothing is fetched)"
            )
        found = self.raw
        for part in reference[2:].split("/") if reference != "#" else ():
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            if isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            elif isinstance(found, dict) and key in found:
                found = found[key]
            else:
                self.refuse(f"refer to {reference!r}, which is not there; add it to $defs")
        return found

    def reference(self, reference: str) -> str:
        """The same as a reference to a definition, which is read later."""
        if reference == "#":
            return reference
        if reference not in self.names:
            self.find(reference)
            stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", unquote(reference.rsplit("/", 1)[-1])) or "part"
            taken, name, number = set(self.names.values()), stem, 1
            while name in taken:
                number += 1
                name = f"{stem}_{number}"
            self.names[reference] = name
            self.waiting.append(reference)
        return f"#/$defs/{self.names[reference]}"


def refuse_loops(document: Document, root: Json) -> None:
    """A definition that is nothing but itself would never end; one that holds itself in a property is a tree.

    Raises:
        DataError: there is such a definition.
    """
    definitions = {f"#/$defs/{name}": schema for name, schema in root.get("$defs", {}).items()}
    definitions["#"] = {key: value for key, value in root.items() if key != "$defs"}
    next_to = {name: _same_place(schema) for name, schema in definitions.items()}
    done: set[str] = set()
    for start in definitions:
        path: list[str] = [start]
        trail = [iter(next_to[start])]
        while trail:
            other = next(trail[-1], None)
            if other is None:
                done.add(path.pop())
                trail.pop()
            elif other in path:
                document.refuse(f"refer to {other!r}, which leads back to itself and says nothing; correct it")
            elif other not in done:
                path.append(other)
                trail.append(iter(next_to[other]))


def _same_place(schema: Any) -> list[str]:
    """References that are followed for the value itself."""
    if not isinstance(schema, dict):
        return []
    found = [schema["$ref"]] if "$ref" in schema else []
    for key in SAME_PLACE:
        inner = schema.get(key, [])
        for item in inner if isinstance(inner, list) else [inner]:
            found += _same_place(item)
    for item in schema.get("dependentSchemas", {}).values():
        found += _same_place(item)
    return found
