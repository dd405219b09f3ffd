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
from rightcall.toolcalls.gold import best_pairs, differences
from rightcall.toolcalls.schema import Problem, find_tool, validate_call
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
_OTHER_TOOL = ("hallucinated_tool", "wrong_tool")
_DEEDS = {"tool_call": "called", "request_for_info": "asked", "cannot_answer": "refused", "direct": "answered"}


class Parsed(NamedTuple):
    behaviour_guess: Behaviour  # tool_call also when the call that was attempted cannot be read
    calls: list[Call]
    error: Problem | None  # why it cannot be read; its code is one of values.CallProblem
    text: str  # as written; half of a surrogate pair, which UTF-8 cannot hold, as its escape \\ud800
    strict: bool  # calls in exactly the dialect that is expected, or no call: nothing had to be forgiven
    forgiven: tuple[str, ...]  # of dialects.reading.FORGIVEN, in its order

    @property
    def said(self) -> str:
        """The text without thoughts, nor the marks that some templates write around an answer."""
        return without_thoughts(self.text)


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

    A gold call is {"name", "arguments"}, with what is right besides in "accepted", and how strings are compared in
    "string_rule" (see `gold`). What the tool itself refuses is never right.

    Raises:
        DataError: neither a gold call nor a gold behaviour is given.
    """
    golds = [gold] if isinstance(gold, Mapping) else list(gold or ())
    if gold_behaviour is None and not golds:
        raise DataError("an item has neither a gold call nor a gold behaviour; give compare() one of them")
    behaviour: Behaviour = gold_behaviour or "tool_call"
    problems = [_problems(call, tools) for call in parsed.calls]
    valid = parsed.error is None and not any(problems) if parsed.behaviour_guess == "tool_call" else None
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
    right_tool, kind = _judge_calls(parsed.calls, problems, golds, tools)
    return Judgement(kind is None, valid, right_tool, kind is None, True, kind)


def _problems(call: Call, tools: Sequence[Mapping[str, Any]]) -> list[Problem]:
    """As `validate_call`; a schema that cannot be followed forbids nothing: the model did not write it."""
    try:
        return validate_call(call, tools)
    except DataError:
        return []


def _judge_calls(
    calls: list[Call], problems: list[list[Problem]], golds: list[Call], tools: Sequence[Mapping[str, Any]]
) -> tuple[bool, str | None]:
    """(all the right tools, the first thing wrong). Without a gold call every valid call will do."""
    if not golds:
        codes = [problem.code for found in problems for problem in found]
        return not codes, codes[0] if codes else None
    right_tool = sorted(call["name"] for call in calls) == sorted(gold["name"] for gold in golds)
    wrong = [[_what_is_wrong(*each, gold, tools) for each in zip(calls, problems, strict=True)] for gold in golds]
    pairs = best_pairs([[_cost(kinds) for kinds in row] for row in wrong])
    found = [wrong[row][column][0] for row, column in pairs if wrong[row][column]]
    if found or len(calls) == len(golds):
        return right_tool, found[0] if found else None
    return right_tool, "missing_call" if len(calls) < len(golds) else "extra_call"


def _cost(kinds: list[str]) -> int:
    """As many right calls as can be, then the right tools, then the fewest wrong arguments."""
    if not kinds:
        return 0
    return 10**9 + (10**6 if kinds[0] in _OTHER_TOOL else min(len(kinds), 10**5))


def _what_is_wrong(call: Call, problems: list[Problem], gold: Call, tools: Sequence[Mapping[str, Any]]) -> list[str]:
    """Error kinds, the first one to be named; [] = it is the gold call."""
    tool = find_tool(call["name"], tools)
    if tool is None:
        return ["hallucinated_tool"]
    if call["name"] != gold["name"]:
        return ["wrong_tool"]
    kinds = differences(call["arguments"], gold, tool.get("parameters") or {})
    if kinds[:1] == ["missing_argument"]:
        return kinds
    # "Celsius" reads like gold's "celsius", but the tool takes only what its schema allows; and a wrong type is a
    # wrong value
    return [problem.code for problem in problems] + kinds
