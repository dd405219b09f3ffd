"""What a gold call accepts, and which of several calls is meant by which of several gold calls.

    gold   {"name": "drive", "arguments": {"to": "Rome", "unit": "km"},
            "accepted": {"unit": ["kilometres", ""]}, "string_rule": "bfcl"}

`arguments`, `accepted` or both are given. Accepted are the values of `arguments` and those listed in `accepted`, where ""
is never a value but says that the argument may be left out, and where the fields of an object are listed in the same
way: {"box": [{"width": [2], "lid": [true, ""]}]}. `string_rule` is `schema.same_value`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rightcall.rows.vocabulary import StringRule
from rightcall.toolcalls.schema import same_value

LEFT_OUT = ""


class _Option(NamedTuple):
    value: Any
    listed: bool  # the fields of an object in it are lists of options


class _Wanted(NamedTuple):
    options: list[_Option]
    may_be_left_out: bool


def differences(arguments: Mapping[str, Any], gold: Mapping[str, Any], parameters: Mapping[str, Any]) -> list[str]:
    """An error kind for each argument that is not gold's; [] = these are arguments that gold accepts.

    A default that the schema declares may be given wherever the argument may be left out, and the argument left out
    where the default is accepted, unless it is required.
    """
    given, accepted = gold.get("arguments"), gold.get("accepted") or {}
    wanted = {name: _wanted(accepted[name]) for name in accepted}
    for name, value in (given or {}).items():
        listed = wanted.get(name, _Wanted([], may_be_left_out=False))
        wanted[name] = listed._replace(options=[_Option(value, listed=False), *listed.options])
    if given is not None:
        wanted |= {name: wanted[name]._replace(may_be_left_out=True) for name in wanted.keys() - given.keys()}
    return _differences(arguments, wanted, parameters, gold.get("string_rule") or "plain")


def _wanted(values: Any) -> _Wanted:
    listed = values if isinstance(values, list) else [values]
    options = [_Option(value, listed=True) for value in listed if value != LEFT_OUT]
    return _Wanted(options, may_be_left_out=LEFT_OUT in listed or not listed)


def _differences(
    given: Mapping[str, Any], wanted: Mapping[str, _Wanted], schema: Mapping[str, Any], strings: StringRule
) -> list[str]:
    properties = _mapping(schema.get("properties"))
    schemas = {name: _mapping(properties.get(name)) for name in (*wanted, *given)}
    optional = {name for name in schemas if name not in (schema.get("required") or ())}

    def is_default(name: str, value: Any) -> bool:
        return name in optional and "default" in schemas[name] and same_value(schemas[name]["default"], value, strings)

    missing = [
        "missing_argument"
        for name, want in wanted.items()
        if name not in given
        and not want.may_be_left_out
        and not any(is_default(name, option.value) for option in want.options)
    ]
    wrong = []
    for name, value in given.items():
        want = wanted.get(name)
        if (want is None or want.may_be_left_out) and is_default(name, value):
            continue
        if want is None:
            wrong.append("extra_argument")
        elif not any(_accepts(option, value, schemas[name], strings) for option in want.options):
            wrong.append("wrong_value")
    return missing + wrong


def _accepts(option: _Option, value: Any, schema: Mapping[str, Any], strings: StringRule) -> bool:
    wanted, listed = option
    if isinstance(wanted, dict) and isinstance(value, dict):
        fields = {
            name: _wanted(field) if listed else _Wanted([_Option(field, listed=False)], may_be_left_out=False)
            for name, field in wanted.items()
        }
        return not _differences(value, fields, schema, strings)
    if isinstance(wanted, list) and isinstance(value, list):
        items = _mapping(schema.get("items"))
        return len(wanted) == len(value) and all(
            _accepts(_Option(item, listed), part, items, strings) for item, part in zip(wanted, value, strict=True)
        )
    return same_value(wanted, value, strings)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def best_pairs(costs: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(row, column) pairs of the smallest sum, as many as the shorter side has; in the order of the rows.

    The Hungarian method with potentials: rows² × columns steps.
    """
    if not costs or not costs[0]:
        return []
    if len(costs) > len(costs[0]):
        turned = list(zip(*costs, strict=True))
        return sorted((row, column) for column, row in best_pairs(turned))
    rows, columns = len(costs), len(costs[0])
    of_row, of_column = [0] * (rows + 1), [0] * (columns + 1)  # potentials
    taken = [rows] * (columns + 1)  # by which row; `rows` = free, and the last column is the row in hand
    for row in range(rows):
        taken[columns], column = row, columns
        least, came_from, seen = [float("inf")] * columns, [columns] * columns, [False] * (columns + 1)
        while taken[column] != rows:
            seen[column], here = True, taken[column]
            for other in range(columns):
                if seen[other]:
                    continue
                reduced = costs[here][other] - of_row[here] - of_column[other]
                if reduced < least[other]:
                    least[other], came_from[other] = reduced, column
            nearest = min((other for other in range(columns) if not seen[other]), key=least.__getitem__)
            step = int(least[nearest])
            for other in range(columns + 1):
                if seen[other]:
                    of_row[taken[other]] += step
                    of_column[other] -= step
                elif other < columns:
                    least[other] -= step
            column = nearest
        while column != columns:
            taken[column] = taken[came_from[column]]
            column = came_from[column]
        taken[columns] = rows
    return sorted((row, column) for column, row in enumerate(taken[:columns]) if row != rows)
