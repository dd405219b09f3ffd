"""Answers to BFCL's questions, right and wrong: gold, and gold with one thing changed."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

Json = dict[str, Any]
Answer = list[Json]  # [{name: arguments}, …]


def chosen(truth: list[Json], pick: Callable[[list[Any]], Any]) -> Answer:
    """The gold calls with one of the accepted values each; "" leaves an argument out."""
    return [{name: _fields(accepted, pick) for name, accepted in call.items()} for call in truth]


def _fields(accepted: Json, pick: Callable[[list[Any]], Any]) -> Json:
    found = {name: pick(values) if values else "" for name, values in accepted.items()}
    return {name: _inner(value, pick) for name, value in found.items() if value != ""}


def _inner(value: Any, pick: Callable[[list[Any]], Any]) -> Any:
    if isinstance(value, dict):
        return _fields({name: field if isinstance(field, list) else [field] for name, field in value.items()}, pick)
    return [_inner(item, pick) for item in value] if isinstance(value, list) else value


def first(values: list[Any]) -> Any:
    return next((value for value in values if value != ""), "")


def least(values: list[Any]) -> Any:
    return "" if "" in values else values[0]


def perturbed(answer: Answer, functions: list[Json], rng: random.Random) -> Iterator[tuple[str, Answer]]:
    """(what was changed, the answer with it), for every change that there is something for."""
    for kind, change in CHANGES.items():
        other = copy.deepcopy(answer)
        if change(other, functions, rng):
            yield kind, other


def _arguments(answer: Answer, rng: random.Random) -> Json:
    return next(iter(rng.choice(answer).values())) if answer else {}


def _value(fits: Callable[[Any], bool], new: Callable[[Any, random.Random], Any]) -> Callable[..., bool]:
    """Changes one value somewhere, in lists and objects too."""

    def change(answer: Answer, _functions: list[Json], rng: random.Random) -> bool:
        places = list(_places(answer, fits))
        if places:
            holder, key = rng.choice(places)
            holder[key] = new(holder[key], rng)
        return bool(places)

    return change


def _places(holder: Any, fits: Callable[[Any], bool], depth: int = 0) -> Iterator[tuple[Any, Any]]:
    items = list(holder.items()) if isinstance(holder, dict) else list(enumerate(holder))
    for key, value in items:
        if depth > 1 and fits(value):
            yield holder, key
        if isinstance(value, (dict, list)):
            yield from _places(value, fits, depth + 1)


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda value: type(value) in types


def _anything(value: Any) -> bool:
    return True


def _with_mark(marks: str) -> Callable[[str, random.Random], str]:
    def new(text: str, rng: random.Random) -> str:
        at = rng.randint(0, len(text))
        return text[:at] + rng.choice(marks) + text[at:]

    return new


def _without_mark(text: str, rng: random.Random) -> str:
    places = [at for at, character in enumerate(text) if not character.isalnum()]
    at = rng.choice(places)
    return text[:at] + text[at + 1 :]


def _turned(value: list[Any], _: random.Random) -> list[Any]:
    return value[::-1]


def _rename_tool(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    call = rng.choice(answer)
    name, arguments = call.popitem()
    others = [function["name"] for function in functions if function["name"] != name]
    call[rng.choice([*others, f"{name}_v2", name.upper()])] = arguments
    return True


def _rename_argument(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    arguments = _arguments(answer, rng)
    if not arguments:
        return False
    name = rng.choice(list(arguments))
    arguments[rng.choice((f"{name}_", name.upper(), f"the_{name}"))] = arguments.pop(name)
    return True


def _missing(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    arguments = _arguments(answer, rng)
    if arguments:
        del arguments[rng.choice(list(arguments))]
    return True


def _extra(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    _arguments(answer, rng)["invented"] = rng.choice((1, "x", None, True))
    return True


def _declared(answer: Answer, functions: list[Json], rng: random.Random, pick: Callable[[Json], Any]) -> bool:
    """An argument that the tool declares and the answer leaves out."""
    call = rng.choice(answer)
    name, arguments = next(iter(call.items()))
    tool = next((function for function in functions if function["name"] == name), None)
    properties = tool["parameters"].get("properties", {}) if tool else {}
    free = [key for key, schema in properties.items() if key not in arguments and pick(schema) is not ...]
    if free:
        key = rng.choice(free)
        arguments[key] = pick(properties[key])
    return bool(free)


def _at_default(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    return _declared(answer, functions, rng, lambda schema: schema.get("default", ...))


def _empty(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    return _declared(answer, functions, rng, lambda _: "")


def _null(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    return _declared(answer, functions, rng, lambda _: None)


def _shuffled(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    rng.shuffle(answer)
    return True


def _twice(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    answer.append(copy.deepcopy(rng.choice(answer)))
    return True


def _one_less(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    if len(answer) > 1:
        answer.pop(rng.randrange(len(answer)))
    return len(answer) > 1


def _swapped(answer: Answer, functions: list[Json], rng: random.Random) -> bool:
    """The values of one argument change places between two calls."""
    if len(answer) < 2:
        return False
    one, other = (next(iter(call.values())) for call in rng.sample(answer, 2))
    shared = sorted(one.keys() & other.keys())
    if shared:
        name = rng.choice(shared)
        one[name], other[name] = other[name], one[name]
    return bool(shared)


_TEXT, _NUMBER = _is(str), _is(int, float)
CHANGES: dict[str, Callable[..., bool]] = {
    "another case": _value(_TEXT, lambda text, rng: rng.choice((text.upper(), text.lower(), text.title()))),
    "a mark that BFCL ignores": _value(_TEXT, _with_mark(" ,./-_*^")),
    "several marks that BFCL ignores": _value(_TEXT, lambda text, rng: _with_mark(" ,.-")(_with_mark("/_*^")(text, rng), rng)),
    "a mark that BFCL sees": _value(_TEXT, _with_mark("()[]:;!?+=#@&%'\"\n\t~|<>{}é")),
    "a mark taken out": _value(lambda value: type(value) is str and any(not c.isalnum() for c in value), _without_mark),
    "another text": _value(_TEXT, lambda text, rng: rng.choice((text + "s", text[:-1], text[::-1], "other"))),
    "an empty text": _value(_TEXT, lambda text, rng: rng.choice(("", ".", " ", "-"))),
    "another quote": _value(lambda value: type(value) is str and "'" in value, lambda text, _: text.replace("'", '"')),
    "another number": _value(_NUMBER, lambda number, rng: number + rng.choice((1, -1, 0.5, 0.0001, 10**6))),
    "minus": _value(_NUMBER, lambda number, _: -number),
    "a whole number as a float": _value(_is(int), lambda number, _: float(number)),
    "a float as a whole number": _value(lambda value: type(value) is float and value.is_integer(), lambda number, _: int(number)),
    "a number as text": _value(_NUMBER, lambda number, _: str(number)),
    "a text as a number": _value(_TEXT, lambda text, rng: rng.choice((0, 1, 1.5))),
    "the other truth": _value(_is(bool), lambda truth, _: not truth),
    "a truth as text": _value(_is(bool), lambda truth, _: str(truth)),
    "a truth as a number": _value(_is(bool), lambda truth, _: int(truth)),
    "a number as a truth": _value(_NUMBER, lambda number, _: bool(number)),
    "null": _value(_anything, lambda *_: None),
    "in a list": _value(_anything, lambda value, _: [value]),
    "in an object": _value(_anything, lambda value, _: {"value": value}),
    "out of its list": _value(lambda value: type(value) is list and len(value) == 1, lambda value, _: value[0]),
    "a list turned": _value(lambda value: type(value) is list and len(value) > 1, _turned),
    "a list cut": _value(lambda value: type(value) is list and bool(value), lambda value, _: value[:-1]),
    "a list as text": _value(_is(list), lambda value, _: ", ".join(map(str, value))),
    "an empty list": _value(_is(list), lambda *_: []),
    "a field less": _value(lambda value: type(value) is dict and bool(value), lambda value, _: dict(list(value.items())[:-1])),
    "a field more": _value(_is(dict), lambda value, _: {**value, "invented": 1}),
    "another tool": _rename_tool,
    "another name of an argument": _rename_argument,
    "an argument less": _missing,
    "two arguments less": lambda *all_: _missing(*all_) and _missing(*all_),
    "an argument more": _extra,
    "a default given": _at_default,
    "an empty text for an argument left out": _empty,
    "null for an argument left out": _null,
    "the calls in another order": _shuffled,
    "a call twice": _twice,
    "a call less": _one_less,
    "values of two calls swapped": _swapped,
}  # fmt: skip
