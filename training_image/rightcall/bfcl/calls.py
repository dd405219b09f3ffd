"""Calls: the gold one from BFCL's accepted values, invented values where none is given, and wrong calls."""

from __future__ import annotations

import copy
import random
import re
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator

from rightcall.bfcl.phrases import PEOPLE, PLACES
from rightcall.bfcl.text import spoken_name

Json = dict[str, Any]


def first_accepted(accepted: Any) -> Any:
    """The value that BFCL's nested lists of accepted values name first.

    Raises:
        KeyError: there is none.
    """
    if not isinstance(accepted, list):
        return accepted
    for value in accepted:
        if value not in ("", None):
            return _resolved(value)
    raise KeyError("no accepted value")


def _resolved(value: Any) -> Any:
    if isinstance(value, dict):  # an object's fields again list what is accepted; "" among it = may be left out
        return {
            key: first_accepted(item)
            for key, item in value.items()
            if not (isinstance(item, list) and ("" in item or not item))
        }
    if isinstance(value, list):
        return [_resolved(item) for item in value]
    return value


def gold_arguments(accepted: Json, parameters: Json) -> Json | None:
    """The gold call's arguments without optional ones that may be left out; None where the schema refuses them."""
    required = parameters.get("required", [])
    arguments = {}
    for name, values in accepted.items():
        if name not in required and isinstance(values, list) and ("" in values or not values):
            continue
        try:
            arguments[name] = first_accepted(values)
        except KeyError:
            continue
    return arguments if satisfies(arguments, parameters) else None


def satisfies(arguments: Json, parameters: Json) -> bool:
    names = parameters["properties"].keys()
    return arguments.keys() <= names and _validator(_Key(parameters)).is_valid(arguments)


class _Key:
    """A schema by identity, so that it can key the cache of validators."""

    def __init__(self, schema: Json) -> None:
        self.schema = schema

    def __hash__(self) -> int:
        return id(self.schema)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.schema is self.schema


@lru_cache(maxsize=4096)
def _validator(key: _Key) -> Draft202012Validator:
    return Draft202012Validator(key.schema)


_STRINGS: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"e?mail", ("anna.kowalska@example.com", "sam.reed@example.com")),
    (r"url|link|website", ("https://example.com/data", "https://example.com/item/12")),
    (r"country", ("France", "Japan", "Canada", "Brazil")),
    (r"state|province|region", ("California", "Texas", "Ontario")),
    (r"date|day|start$|end$|deadline", ("2023-05-14", "2024-03-09", "2023-10-21", "2024-01-30")),
    (r"time|hour", ("09:30", "14:00", "18:45")),
    (
        r"city|location|place|address|destination|origin|where|area|airport|station|departure|arrival|loc\b|from$|to$",
        PLACES,
    ),
    (r"currency", ("USD", "EUR", "JPY")),
    (r"language|lang", ("English", "Spanish", "German")),
    (r"artist|author|actor|director|player|person|user|receiver|recipient|first|last|full", PEOPLE),
    (r"team|club", ("Liverpool", "Lakers", "Bayern Munich")),
    (r"company|brand|stock|ticker|symbol|organi", ("Apple", "Siemens", "Tesla")),
    (r"movie|film|book|song|album|title|game|track", ("The Long Road", "Silver Lining", "Midnight Garden")),
    (r"genre|categor|type|kind|style", ("general", "standard", "classic")),
    (r"phone", ("+1 555 0134", "+44 20 7946 0018")),
    (r"id$|code|key|token|number|ref", ("A-1042", "77310", "REF-209")),
    (r"unit", ("metric", "units")),
    (r"query|question|text|message|content|keyword|topic|term", ("latest updates", "general overview")),
    (r"function|equation|formula|expression", ("x**2 + 3*x", "2*x + 1")),
    (r"path|file|dir", ("/home/user/report.txt", "data.csv")),
    (r"name", ("Alpha", "Northwind", "Sample One", "Primary")),
)
_NUMBERS: tuple[tuple[str, tuple[float, ...]], ...] = (
    (r"year$", (2012, 2019, 2021, 1998)),
    (r"lat", (40.71, 51.5, 35.68)),
    (r"lon|lng", (-74.0, -0.12, 139.69)),
    (r"rate|probab|alpha|ratio|percent|fraction", (0.05, 0.1, 0.5)),
    (r"price|amount|budget|cost|salary|income|payment|principal|investment|value", (100, 250, 1500, 5000)),
    (r"id$", (1042, 77310, 209)),
)


Values = dict[str, list[Any]]  # parameter name → what gold calls of the same categories pass for it


def collected_values(calls: list[Json]) -> Values:
    """Plain argument values by parameter name, so that made-up calls look like right ones."""
    values: Values = {}
    for call in calls:
        for name, value in call["arguments"].items():
            if isinstance(value, (str, int, float)) and not isinstance(value, bool) and len(str(value)) <= 40:
                known = values.setdefault(name, [])
                if value not in known:
                    known.append(value)
    return values


def invented(name: str, schema: Json, rng: random.Random, values: Values, avoid: Any = None) -> Any:
    """A plausible value for a parameter, of the right type, other than ``avoid``."""
    valid = Draft202012Validator(schema).is_valid
    told = str(avoid).lower()
    known = [v for v in values.get(name, []) if str(v).lower() not in told and told not in str(v).lower() and valid(v)]
    if len(known) >= 2 and not schema.get("enum"):
        return rng.choice(known)
    value = _invented(name, schema, rng)
    for _ in range(8):
        if value != avoid:
            break
        value = _invented(name, schema, rng)
    return value


def _invented(name: str, schema: Json, rng: random.Random) -> Any:
    if schema.get("enum"):
        return rng.choice(schema["enum"])
    kind = schema.get("type", "string")
    kind = kind[0] if isinstance(kind, list) else kind
    said = spoken_name(name)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind in ("integer", "number"):
        pool = next(
            (numbers for pattern, numbers in _NUMBERS if re.search(pattern, said)), (2, 3, 5, 8, 10, 12, 15, 20, 25, 50)
        )
        number = rng.choice(pool)
        number = max(schema.get("minimum", number), min(schema.get("maximum", number), number))
        return max(1, int(number)) if kind == "integer" else number
    if kind == "array":
        items = [_invented(name, schema.get("items", {}), rng) for _ in range(max(schema.get("minItems", 2), 2))]
        return items if items[0] != items[1] else items[: max(schema.get("minItems", 1), 1)]
    if kind == "object":
        properties = schema.get("properties", {})
        return {key: _invented(key, properties[key], rng) for key in schema.get("required", list(properties)[:2])}
    return rng.choice(_pool(said, str(schema.get("description", ""))))


def _pool(said: str, description: str) -> tuple[str, ...]:
    for text in (said, description.lower()[:60]):
        for pattern, strings in _STRINGS:
            if re.search(rf"\b(?:{pattern})" if "$" not in pattern else pattern, text):
                return strings
    return ("standard", "default", "basic", "all")


def invented_call(
    tool: Json, rng: random.Random, values: Values, known: Json | None = None, spare: list[Any] | None = None
) -> Json:
    """A call of the tool with its required arguments: from ``known`` by name, ``spare`` by type, or invented.

    ``spare`` are values that the question mentions: a careless model puts them wherever they fit.
    """
    function = tool["function"]
    properties = function["parameters"]["properties"]
    names = list(function["parameters"].get("required", [])) or list(properties)[:1]
    left, arguments = list(spare or []), {}
    for name in names:
        fits = Draft202012Validator(properties[name]).is_valid
        value = (known or {}).get(name)
        if value is None or not fits(value):
            value = next((item for item in left if fits(item)), None)
            if value is None:
                value = invented(name, properties[name], rng, values)
            else:
                left.remove(value)
        arguments[name] = value
    return {"name": function["name"], "arguments": arguments}


def mentioned_values(question: str) -> list[Any]:
    """Numbers, quoted texts and names that a question mentions, in order."""
    found: list[Any] = []
    for match in re.finditer(
        r"['\"“]([^'\"”]{2,40})['\"”]|(?<![.?!] )(?<!^)\b([A-Z]\w+(?:,? [A-Z]\w+)*)|\b(\d+(?:\.\d+)?)\b", question
    ):
        quoted, name, number = match.groups()
        found.append(quoted or name or (float(number) if "." in number else int(number)))
    return found


def wrong_value(call: Json, parameters: Json, rng: random.Random, values: Values) -> Json | None:
    names = [n for n, v in call["arguments"].items() if not isinstance(v, (dict, list, bool))]
    if not names:
        return None
    name = rng.choice(names)
    value = invented(name, parameters["properties"][name], rng, values, avoid=call["arguments"][name])
    return _changed(call, {name: value})


def missing_argument(call: Json, parameters: Json, rng: random.Random, values: Values) -> Json | None:
    names = [n for n in parameters.get("required", []) if n in call["arguments"]]
    if not names:
        return None
    drop = rng.choice(names)
    return {"name": call["name"], "arguments": {k: v for k, v in call["arguments"].items() if k != drop}}


def wrong_type(call: Json, parameters: Json, rng: random.Random, values: Values) -> Json | None:
    """A number as text, a text as a list, a list as text: what the schema rejects and a careless model writes."""
    for name in rng.sample(list(call["arguments"]), len(call["arguments"])):
        value = call["arguments"][name]
        wrong: Any = (
            ", ".join(map(str, value)) if isinstance(value, list) else [value] if isinstance(value, str) else str(value)
        )
        changed = _changed(call, {name: wrong})
        if changed and not satisfies(changed["arguments"], parameters):
            return changed
    return None


def invented_argument(call: Json, parameters: Json, rng: random.Random, values: Values) -> Json | None:
    pool = [
        ("language", "English"),
        ("format", "json"),
        ("verbose", True),
        ("limit", 10),
        ("priority", "high"),
        ("source", "web"),
    ]
    names = [(n, v) for n, v in pool if n not in parameters["properties"]]
    name, value = rng.choice(names)
    return _changed(call, {name: value})


def hallucinated_tool(call: Json, tools: list[Json], rng: random.Random) -> Json | None:
    """The same arguments under a name that sounds like the tool but is not offered."""
    parts = spoken_name(call["name"]).split()
    verbs = [v for v in ("get", "fetch", "find", "lookup", "compute", "run", "query") if v != parts[0]]
    rest = parts[1:] if len(parts) > 1 else parts
    names = [f"{rng.choice(verbs)}_{'_'.join(rest)}", f"{'_'.join(parts)}_api", f"{'_'.join(rest)}_service"]
    offered = {tool["function"]["name"] for tool in tools}
    names = [name for name in names if name not in offered]
    return {"name": rng.choice(names), "arguments": copy.deepcopy(call["arguments"])} if names else None


def name_for(question_words: list[str], rng: random.Random) -> str:
    """A tool name that a model might make up for a question."""
    verb = rng.choice(("get", "find", "search", "fetch", "lookup", "query"))
    return "_".join([verb, *question_words[:2]]) if question_words else f"{verb}_information"


def _changed(call: Json, arguments: Json) -> Json:
    return {"name": call["name"], "arguments": {**copy.deepcopy(call["arguments"]), **arguments}}
