"""Is a call one that its tool accepts, and are two argument values the same to a reader?"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

from jsonschema import Draft202012Validator, validators
from jsonschema.exceptions import SchemaError, ValidationError
from referencing import Registry
from referencing.exceptions import Unresolvable

from rightcall.errors import DataError
from rightcall.rows.vocabulary import StringRule
from rightcall.schemas.branches import is_divided, without_repeated

Json = dict[str, Any]

MAX_PROBLEMS = 200  # of one call that are looked for

_CODES = {
    "required": "missing_argument",
    "additionalProperties": "invented_argument",
    "unevaluatedProperties": "invented_argument",
    "type": "wrong_type",
}


def _unique_items(_: Any, unique: Any, items: Any, __: Any) -> Iterator[ValidationError]:
    """jsonschema compares every item with every other where they are objects: 10,000 of them for a minute."""
    if unique and isinstance(items, list) and len({_as_text(item) for item in items}) < len(items):
        yield ValidationError(f"{items!r:.100} has non-unique elements")


def _as_text(value: Any) -> str:
    """The same for values that JSON Schema calls equal: 1 and 1.0, not 1 and true."""
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{json.dumps(key)}:{_as_text(item)}" for key, item in value.items())) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_as_text, value)) + "]"
    return json.dumps(int(value) if isinstance(value, float) and value.is_integer() else value)


_Validator = validators.extend(Draft202012Validator, {"uniqueItems": _unique_items})


class Problem(NamedTuple):
    """What is wrong with a call; as text "code: detail"."""

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}"


def tool_function(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """{"name", "description", "parameters"} of a tool with or without OpenAI's wrapper."""
    function = tool.get("function")
    return function if isinstance(function, Mapping) else tool


def find_tool(name: Any, tools: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    return next((function for tool in tools if (function := tool_function(tool)).get("name") == name), None)


def validate_call(call: Mapping[str, Any], tools: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """What is wrong with a call; [] = the tool is offered and its JSON Schema accepts the arguments.

    Codes: hallucinated_tool, missing_argument, invented_argument (the tool declares no such argument), wrong_type, and
    wrong_value for everything else a schema can ask (enum, minimum, pattern, …). The schema must be normalised
    (`rows.tool_schemas.normalise_tools`).

    Raises:
        DataError: the tool's parameters are no JSON Schema.
    """
    function = tool_function(call)
    name, arguments = function.get("name"), function.get("arguments")
    tool = find_tool(name, tools)
    if tool is None:
        offered = [tool_function(item).get("name") for item in tools]
        return [Problem("hallucinated_tool", f"{name!r} is not one of {offered!r}")]
    return problems_of_arguments({} if arguments is None else arguments, tool.get("parameters") or {})


def problems_of_arguments(arguments: Any, parameters: Json) -> list[Problem]:
    """As `validate_call`, for one tool's arguments; the worst problem first."""
    try:
        validator = _validator(json.dumps(parameters))
        errors = list(
            islice((error for error in validator.iter_errors(arguments) if not _is_default(error)), MAX_PROBLEMS)
        )
        found = [_problem(error) for error in _of_one_branch(errors)]
    except OverflowError:
        return [Problem("wrong_value", "arguments: a number is too large to be checked")]
    except (Unresolvable, SchemaError, RecursionError, re.error) as err:  # a "$ref" may lead back to itself
        raise DataError(
            f"the parameters are no JSON Schema: {str(err)[:200]!r}; normalise or correct them", reason="bad_tool"
        ) from err
    order = list(dict.fromkeys([*_CODES.values(), "wrong_value"]))
    return sorted(found, key=lambda problem: order.index(problem.code))


@lru_cache(maxsize=4096)
def _validator(text: str) -> Draft202012Validator:
    schema = json.loads(text)
    if "additionalProperties" not in schema:
        # JSON Schema lets unknown arguments pass by default; to a tool they are an error
        if is_divided(schema):
            schema = {**without_repeated(schema), "unevaluatedProperties": False}
        elif "properties" in schema:
            schema["additionalProperties"] = False
    Draft202012Validator.check_schema(schema)
    # an empty registry: a "$ref" to a URL must not reach for the network
    return _Validator(schema, registry=Registry())


def _is_default(error: ValidationError) -> bool:
    """A declared default may be given, even one that its own schema would refuse: {"type": "string", "default": null}."""
    default = error.schema.get("default", ...) if isinstance(error.schema, Mapping) else ...
    return type(default) is type(error.instance) and default == error.instance


def _of_one_branch(errors: list[ValidationError]) -> list[ValidationError]:
    """Where no branch of the root fits: what is wrong with the nearest one, for "none fits" says nothing."""
    for error in errors:
        if error.validator in ("anyOf", "oneOf") and not error.absolute_path and error.context:
            branches: dict[Any, list[ValidationError]] = {}
            for each in error.context:
                branches.setdefault(each.schema_path[0], []).append(each)
            nearest = min(
                branches.values(),
                key=lambda found: (sum(each.validator in ("const", "enum") for each in found), len(found)),
            )
            others = [each for each in errors if each is not error and each.validator != "unevaluatedProperties"]
            return [*others, *nearest]
    return errors


def _problem(error: ValidationError) -> Problem:
    path = ".".join(map(str, error.absolute_path)) or "arguments"
    return Problem(_CODES.get(str(error.validator), "wrong_value"), f"{path}: {error.message[:160]}")


# , and . behind a word say nothing to a tool; the others stay
_WORD = re.compile(r"([^\W_]+(?:['’-][^\W_]+)*)[,.]*([;:!?])?")
_BFCL_IGNORES = re.compile(r"[ ,./\-_*^]")


def same_value(left: Any, right: Any, strings: StringRule = "plain") -> bool:
    """5 is 5.0, True is not 1, lists and objects are compared by item, strings by the rule.

    plain: a text of words and whole numbers, with , . ; : ! ? at most at their ends, is the same in another case, with
    more spaces, and without the , and . there: "Linz, Upper Austria" is "linz upper austria". A word with a digit in it
    keeps its case. Every other string (an amount, a date, a path, a version, an id, an e-mail, a formula, one letter,
    several lines) is compared exactly: a character more or less is another value to a tool.
    bfcl: as in BFCL's checker, which leaves out spaces and , . / - _ * ^ everywhere and looks at no case.
    """
    if isinstance(left, str) and isinstance(right, str):
        standard = _plain if strings == "plain" else _as_bfcl_does
        return left == right or standard(left) == standard(right)
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, (list, tuple)) and isinstance(right, (list, tuple)):
        return len(left) == len(right) and all(same_value(*pair, strings) for pair in zip(left, right, strict=True))
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same_value(left[key], right[key], strings) for key in left)
    return bool(left == right)


def _plain(text: str) -> str:
    """A text of words as it is compared; any other unchanged."""
    words = [_WORD.fullmatch(word) for word in unicodedata.normalize("NFC", text).split(" ") if word]
    found = [match for match in words if match is not None]
    if len(found) < len(words) or not any(len(match[1]) > 1 and match[1].isalpha() for match in found):
        return text
    return " ".join(_without_case(match[1]) + (match[2] or "") for match in found)


def _without_case(word: str) -> str:
    if any(character.isdigit() for character in word):
        return word
    return word.replace("’", "'").casefold()


def _as_bfcl_does(text: str) -> str:
    """A text of nothing but punctuation stays itself: "-" is not "*"."""
    return _BFCL_IGNORES.sub("", text).lower().replace("'", '"') or text
