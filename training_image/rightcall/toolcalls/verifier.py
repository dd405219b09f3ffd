"""The one verifier: read what a model wrote, compare it with gold, name the error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rightcall.dialects.elements import Tools
from rightcall.dialects.finding import without_thoughts
from rightcall.dialects.reading import FORGIVEN, read_calls
from rightcall.dialects.values import Call, CallError
from rightcall.errors import DataError
from rightcall.rows.vocabulary import Behaviour
from rightcall.toolcalls.schema import Problem, find_tool, same_value, validate_call
from rightcall.toolcalls.words import guess_behaviour

__all__ = ["ERROR_KINDS", "Judgement", "Parsed", "compare", "guess_behaviour", "parse", "validate_call"]

# What went wrong, most basic first. The last ten: the model did one thing where another was right, or nothing.
ERROR_KINDS = (
    "unparseable_call", "hallucinated_tool", "wrong_tool", "missing_argument", "invented_argument", "wrong_type",
    "wrong_value", "extra_argument", "missing_call", "extra_call",
    "did_not_call", "asked_when_should_call", "refused_when_should_call",
    "called_when_should_ask", "answered_when_should_ask", "refused_when_should_ask",
    "called_when_nothing_fits", "answered_when_nothing_fits", "asked_when_nothing_fits",
    "called_when_should_answer", "asked_when_should_answer", "refused_when_should_answer", "said_nothing",
)  # fmt: skip

_SITUATIONS = {
    "request_for_info": "should_ask",
    "cannot_answer": "nothing_fits",
    "direct": "should_answer",
    "tool_call": "should_call",
}
_DEEDS = {"tool_call": "called", "request_for_info": "asked", "cannot_answer": "refused", "direct": "answered"}


class Parsed(NamedTuple):
    behaviour_guess: Behaviour  # tool_call also when the call that was attempted cannot be read
    calls: list[Call]
    error: Problem | None  # why it cannot be read; its code is one of values.CallProblem
    text: str  # as written; half of a surrogate pair, which UTF-8 cannot hold, as its escape \\ud800
    strict: bool  # calls in exactly the dialect that is expected, or no call: nothing had to be forgiven
    forgiven: tuple[str, ...]  # of dialects.reading.FORGIVEN, in its order


class Judgement(NamedTuple):
    """None = it does not arise: no call was written (valid_call) or none is gold (right_tool, right_arguments)."""

    ok: bool
    valid_call: bool | None
    right_tool: bool | None
    right_arguments: bool | None
    right_behaviour: bool
    error_kind: str | None  # one of ERROR_KINDS; None = ok


def parse(text: str, dialect: str | None = None, tools: Tools | None = None) -> Parsed:
    """Never raises on any text, and everything it returns can be written as JSON in UTF-8.

    End-of-turn tokens must already be cut off. `dialect`: what the model's template writes (`dialects.reading.dialect_of`),
    None = whichever the text is in. `tools`: those offered; some dialects write a value as bare text, whose type their
    schemas know, and some texts call only if such a tool is offered.
    """
    text = text.encode("utf-8", errors="backslashreplace").decode()
    spoken = without_thoughts(text)
    try:
        found = read_calls(spoken, tools)
    except CallError as err:
        return Parsed("tool_call", [], Problem(err.reason, err.detail), text, False, ())
    if not found.calls:
        return Parsed(guess_behaviour(spoken), [], None, text, True, ())
    other = len(found.dialects) > 1 if dialect is None else found.dialects != {dialect}
    names = found.forgiven | {"other_dialect"} if other else found.forgiven
    forgiven = tuple(name for name in FORGIVEN if name in names)
    return Parsed("tool_call", found.calls, None, text, not forgiven, forgiven)


def compare(
    parsed: Parsed,
    gold: Call | Sequence[Call] | None,
    tools: Sequence[Mapping[str, Any]],
    gold_behaviour: Behaviour | None = None,
) -> Judgement:
    """Judge an answer by the gold call (or parallel calls, in any order), or by the gold behaviour when none is gold.

    A gold call is {"name", "arguments": {name: value}} or, as in BFCL, {"name", "accepted": {name: [values]}} where ""
    among the values means that the argument may be left out. An optional argument may also be left out or added at its
    schema's default.

    Raises:
        DataError: neither a gold call nor a gold behaviour is given.
    """
    golds = [gold] if isinstance(gold, Mapping) else list(gold or ())
    if gold_behaviour is None and not golds:
        raise DataError("an item has neither a gold call nor a gold behaviour; give compare() one of them")
    behaviour: Behaviour = gold_behaviour or "tool_call"
    valid = _all_valid(parsed, tools)
    right_behaviour = parsed.behaviour_guess == behaviour
    if behaviour == "direct" and not without_thoughts(
        parsed.text
    ):  # a text that says nothing guesses as one that answers
        return Judgement(False, None, None, None, False, "said_nothing")
    if behaviour != "tool_call":
        kind = None if right_behaviour else f"{_DEEDS[parsed.behaviour_guess]}_when_{_SITUATIONS[behaviour]}"
        return Judgement(right_behaviour, valid, None, None, right_behaviour, kind)
    if not right_behaviour:
        kind = (
            "did_not_call"
            if parsed.behaviour_guess == "direct"
            else f"{_DEEDS[parsed.behaviour_guess]}_when_should_call"
        )
        return Judgement(False, None, False, False, False, kind)
    if parsed.error is not None:
        return Judgement(False, False, False, False, True, "unparseable_call")
    right_tool, kind = _judge_calls(parsed.calls, golds, tools)
    return Judgement(kind is None, valid, right_tool, kind is None, True, kind)


def _all_valid(parsed: Parsed, tools: Sequence[Mapping[str, Any]]) -> bool | None:
    if parsed.behaviour_guess != "tool_call":
        return None
    return parsed.error is None and not any(_problems(call, tools) for call in parsed.calls)


def _problems(call: Call, tools: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """As `validate_call`; a schema that cannot be followed forbids nothing: the model did not write it."""
    try:
        return validate_call(call, tools)
    except DataError:
        return []


def _judge_calls(calls: list[Call], golds: list[Call], tools: Sequence[Mapping[str, Any]]) -> tuple[bool, str | None]:
    """(all the right tools, the first thing wrong). Without a gold call every valid call will do."""
    if not golds:
        problems = [problem for call in calls for problem in _problems(call, tools)]
        return not problems, problems[0].code if problems else None
    right_tool = sorted(call["name"] for call in calls) == sorted(gold["name"] for gold in golds)
    left, wrong = list(calls), []
    for gold in golds:
        exact = next((call for call in left if _judge_call(call, gold, tools) is None), None)
        if exact is None:
            wrong.append(gold)
        else:
            left.remove(exact)
    if not wrong:
        return right_tool, "extra_call" if left else None
    if not left:
        return right_tool, "missing_call"
    gold = wrong[0]
    nearest = next((call for call in left if call["name"] == gold["name"]), left[0])
    return right_tool, _judge_call(nearest, gold, tools)


def _judge_call(call: Call, gold: Call, tools: Sequence[Mapping[str, Any]]) -> str | None:
    """The first thing wrong with a call; None = it is the gold call."""
    if call["name"] != gold["name"]:
        return "wrong_tool" if find_tool(call["name"], tools) else "hallucinated_tool"
    parameters = (find_tool(call["name"], tools) or {}).get("parameters") or {}
    accepted = gold["accepted"] if "accepted" in gold else {name: [value] for name, value in gold["arguments"].items()}
    arguments = call["arguments"]
    kind = _judge_arguments(arguments, accepted, parameters, may_leave_out="accepted" in gold)
    if kind == "missing_argument" or (
        kind is None and all(value in accepted.get(name, ()) for name, value in arguments.items())
    ):
        return kind
    # "Celsius" reads like gold's "celsius", but the tool takes only what its schema allows; and a wrong type is a
    # wrong value
    problems = _problems(call, tools) if find_tool(call["name"], tools) else []
    return problems[0].code if problems else kind


def _judge_arguments(
    arguments: dict[str, Any],
    accepted: Mapping[str, Sequence[Any]],
    parameters: Mapping[str, Any],
    *,
    may_leave_out: bool,
) -> str | None:
    properties = parameters.get("properties") or {}
    defaults = {
        name: schema["default"]
        for name, schema in properties.items()
        if isinstance(schema, Mapping) and "default" in schema
    }
    required = parameters.get("required") or ()
    for name, values in accepted.items():
        optional = (
            name in defaults and name not in required and any(same_value(value, defaults[name]) for value in values)
        )
        if name not in arguments and not optional and not (may_leave_out and "" in values):
            return "missing_argument"
    for name, value in arguments.items():
        if name not in accepted:
            if name not in defaults or not same_value(value, defaults[name]):
                return "extra_argument"
        elif not any(_accepts(option, value, nested=may_leave_out) for option in accepted[name]):
            return "wrong_value"
    return None


def _accepts(option: Any, value: Any, *, nested: bool) -> bool:
    """BFCL lists accepted values for the fields of an object, too."""
    if nested and isinstance(option, dict) and isinstance(value, dict):
        left_out = all(
            "" in values for name, values in option.items() if name not in value and isinstance(values, list)
        )
        fields = all(
            name in option and any(_accepts(item, field, nested=True) for item in _options(option[name]))
            for name, field in value.items()
        )
        return left_out and fields
    if (
        nested
        and isinstance(option, list)
        and isinstance(value, list)
        and any(isinstance(item, dict) for item in option)
    ):
        return len(option) == len(value) and all(
            _accepts(item, part, nested=True) for item, part in zip(option, value, strict=True)
        )
    return same_value(option, value)


def _options(values: Any) -> list[Any]:
    return values if isinstance(values, list) else [values]
