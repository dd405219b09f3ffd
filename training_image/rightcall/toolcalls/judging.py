"""A step judged: the text that a model wrote in place of a conversation's next turn, beside the gold turn.

    step       {"messages": [user, …, gold assistant turn], "tools": […], "behaviour": "tool_call"}
    judgement  {"text": "<tool_call>…", "verdict": {"ok": false, "valid_call": true, …}, "error_kind": "wrong_value",
                "faults": ["ungrounded_value"]}

The verdict also says whether a strict reader of the model's own dialect would have read the calls (`strict`), and what the
tolerant one had to forgive (`forgiven`).

The error kind says how the answer differs from gold; faults are what is wrong with it by itself, before what was said
and in the policy's order, and may stand beside any error kind.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rightcall.dialects.values import Call
from rightcall.errors import DataError
from rightcall.toolcalls.conduct import Conduct, out_of_order
from rightcall.toolcalls.grounding import id_like_parts, stands_in, ungrounded_values, what_was_said
from rightcall.toolcalls.verifier import Judgement, Parsed, compare, parse

FAULTS = ("ungrounded_value", "lookup_before_authentication", "write_without_confirmation", "dropped_lookup")


def judge_step(
    step: Mapping[str, Any], text: str, conduct: Conduct | None = None, dialect: str | None = None
) -> dict[str, Any]:
    """text, verdict, error_kind and faults of an answer to this step; `conduct` None = the policy's order is not judged.

    `dialect`: what the model's template writes (`dialects.reading.dialect_of`); None = strict in whichever it writes.

    Raises:
        DataError: the gold turn's calls cannot be read.
    """
    parsed, verdict, golds = beside_gold(step, text, dialect)
    found = verdict._asdict() | {"strict": parsed.strict, "forgiven": list(parsed.forgiven)}
    return {
        "text": parsed.text,
        "verdict": {name: found[name] for name in found if name != "error_kind"},
        "error_kind": verdict.error_kind,
        "faults": faults_of(parsed, golds, step["messages"][:-1], step["tools"], conduct),
    }


def beside_gold(step: Mapping[str, Any], text: str, dialect: str | None = None) -> tuple[Parsed, Judgement, list[Call]]:
    """The answer as it reads, what it is worth beside the gold turn, and that turn's calls.

    Raises:
        DataError: the gold turn's calls cannot be read.
    """
    parsed = parse(text, dialect, step["tools"])
    golds = gold_calls(step["messages"][-1]) if step["behaviour"] == "tool_call" else []
    return parsed, compare(parsed, golds, step["tools"], gold_behaviour=step["behaviour"]), golds


def gold_calls(message: Mapping[str, Any]) -> list[Call]:
    """The calls of an assistant message as the verifier takes them, each with what the message accepts besides.

    Raises:
        DataError: its arguments are no JSON object.
    """
    found = []
    calls = message.get("tool_calls") or ()
    for call, accepted in zip(calls, message.get("accepted") or [{}] * len(calls), strict=True):
        function = call["function"]
        arguments = function.get("arguments") or {}
        try:
            arguments = json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError as err:
            raise DataError(
                f"the gold call of {function['name']!r} has arguments {arguments[:80]!r} that are not JSON: {err}; correct them"
            ) from err
        found.append({
            "name": function["name"], "arguments": arguments, "accepted": accepted,
            "string_rule": message.get("string_rule") or "plain",
        })  # fmt: skip
    return found


def faults_of(
    parsed: Parsed,
    golds: Sequence[Call],
    before: Sequence[Mapping[str, Any]],
    tools: Sequence[Mapping[str, Any]],
    conduct: Conduct | None,
) -> list[str]:
    """Of FAULTS, in that order, each once.

    dropped_lookup: gold looks something up, and the answer goes on as if it had been: it writes, its call has a value that
    nobody has said, or it is a text that answers, or names an id that nobody has said.
    """
    said = what_was_said(before)
    invented = any(ungrounded_values(call, said, tools) for call in parsed.calls)
    found = {"ungrounded_value"} if invented else set()
    if conduct is not None:
        for call in parsed.calls:
            found.update(out_of_order(call, before, conduct))
        looks_up = any(call["name"] not in conduct.write | conduct.open for call in golds)
        if looks_up and (invented or _goes_on(parsed, said, conduct)):
            found.add("dropped_lookup")
    return [fault for fault in FAULTS if fault in found]


def _goes_on(parsed: Parsed, said: str, conduct: Conduct) -> bool:
    if parsed.calls or parsed.error is not None:
        return any(call["name"] in conduct.write for call in parsed.calls)
    if parsed.behaviour_guess == "direct":
        return True
    said = said.lower()
    return any(not stands_in(part, said) for part in id_like_parts(parsed.text))
