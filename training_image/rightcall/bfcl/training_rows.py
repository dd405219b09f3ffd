"""Training rows from BFCL's non-live categories: SFT rows of three behaviours, pairs against each kind of error."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from rightcall.bfcl import calls as bfcl_calls
from rightcall.bfcl import text as bfcl_text
from rightcall.bfcl.exchange import with_values_exchanged
from rightcall.bfcl.phrases import TRAINING
from rightcall.bfcl.situations import (
    Material,
    Situation,
    answer_text,
    beside_the_point,
    rng_for,
    tool_named,
    with_value_removed,
)

Json = dict[str, Any]
_BEHAVIOURS = ("tool_call", "request_for_info", "cannot_answer")
_ERRORS: dict[str, Callable[[Json, Json, random.Random, bfcl_calls.Values], Json | None]] = {
    "wrong_value": bfcl_calls.wrong_value,
    "missing_argument": bfcl_calls.missing_argument,
    "wrong_type": bfcl_calls.wrong_type,
    "invented_argument": bfcl_calls.invented_argument,
}
_ERROR_KINDS = (*_ERRORS, "hallucinated_tool", "wrong_tool")
# Of 17 pairs of a right call, 12 contrast behaviours and 5 the details of the call ("" = the next of _ERROR_KINDS).
_REJECTED = {
    "tool_call": (
        "request_for_info", "cannot_answer", "direct", "", "cannot_answer", "direct", "", "request_for_info", "direct",
        "", "request_for_info", "cannot_answer", "", "direct", "request_for_info", "", "cannot_answer",
    ),
    "request_for_info": ("tool_call", "cannot_answer", "direct"),
    "cannot_answer": ("tool_call", "request_for_info", "direct"),
}  # fmt: skip
_VAGUE = (
    "Can you {ability}?",
    "Please {ability}.",
    "I'd like you to {ability}.",
    "Could you {ability} for me?",
    "I need to {ability}.",
    "Help me {ability}.",
    "{ability}",
    "Hi, I want to {ability}. Can you do it?",
)


def situations(single: list[Situation], irrelevant: list[Situation], seed: int) -> dict[str, list[Situation]]:
    """Situations by right behaviour; ``single``: cases with one gold call, ``irrelevant``: with no tool that fits."""
    pool = {tool["function"]["name"]: tool for case in single for tool in case.tools}
    offered = [_with_distractors(case, pool, rng_for(seed, "offer", case.id)) for case in single]
    asking = [removed for case in offered for removed in list(with_value_removed(case))[:2]]
    vague = [request for case in offered for request in _vague(case, rng_for(seed, "vague", case.id))]
    refusing = list(irrelevant)
    for index, case in enumerate(offered):
        refusing += _target_gone(case, pool, rng_for(seed, "gone", case.id), index)
    for request in vague[::3]:
        refusing += _target_gone(request, pool, rng_for(seed, "gone", request.id), 1)
    return {
        "tool_call": offered,
        "request_for_info": asking + vague,
        "cannot_answer": refusing,
    }


def _with_distractors(case: Situation, pool: dict[str, Json], rng: random.Random) -> Situation:
    """A lone tool gets up to two unrelated neighbours, so that the number of tools tells nothing."""
    if len(case.tools) > 1:
        return case
    tools = case.tools + _unrelated_tools(case, pool, rng, rng.choice((0, 0, 1, 1, 2)))
    rng.shuffle(tools)
    return replace(case, tools=tools)


def _unrelated_tools(case: Situation, pool: dict[str, Json], rng: random.Random, count: int) -> list[Json]:
    own = bfcl_text.words(case.question) | bfcl_text.tool_words(case.tools)
    names = rng.sample(sorted(pool), min(60, len(pool)))
    fitting = [pool[name] for name in names if not bfcl_text.tool_words([pool[name]]) & own]
    return fitting[:count]


def _vague(case: Situation, rng: random.Random) -> Iterator[Situation]:
    """A request in the words of the tool's own description, without any value."""
    if case.call is None:
        return
    tool = tool_named(case.tools, case.call["name"])
    text, required = bfcl_text.ability(tool), tool["function"]["parameters"].get("required", [])
    given = case.call["arguments"]
    names = [name for name in required if name in given and not isinstance(given[name], bool)]
    if not names or text.startswith("use ") or len(text.split()) > 9:
        return
    request = rng.choice(_VAGUE).format(ability=text)
    missing = rng.choice(names)
    yield replace(
        case,
        id=f"{case.id}-vague",
        question=request[0].upper() + request[1:],
        behaviour="request_for_info",
        missing=missing,
    )


def _target_gone(case: Situation, pool: dict[str, Json], rng: random.Random, index: int) -> Iterator[Situation]:
    """The case without the tool it needs: the others stay or unrelated ones come; every eighth time none is left."""
    if case.call is None:
        return
    rest = [tool for tool in case.tools if tool["function"]["name"] != case.call["name"]]
    rest = [tool for tool in rest if beside_the_point(case, [tool])]
    rest += _unrelated_tools(case, pool, rng, rng.choice((0, 1, 1, 2)) if rest else rng.choice((1, 1, 2, 3)))
    if index % 8 == 0:
        rest = []
    if rest or index % 8 == 0:
        yield replace(
            case,
            id=f"{case.id}-unoffered",
            tools=rest,
            behaviour="cannot_answer",
            call=None,
            missing=None,
            unoffered_call=None if case.missing else case.call,
        )


def sft_rows(
    by_behaviour: dict[str, list[Situation]], parallel: list[tuple[Situation, list[Json]]], seed: int
) -> list[Json]:
    material = _material(by_behaviour, seed)
    rows = [
        _sft(situation, answer(as_asked(situation), situation.behaviour, material, "sft"))
        for behaviour in _BEHAVIOURS
        for situation in by_behaviour[behaviour]
    ]
    rows += [_sft(situation, _message(calls)) for situation, calls in parallel]
    return shuffled(rows, seed, "sft")


def as_asked(situation: Situation) -> Situation:
    """Of the texts that are accepted for an argument, the one that stands in the question: a model can only copy that."""
    if situation.behaviour != "tool_call" or situation.call is None:
        return situation
    call = situation.call
    parameters = tool_named(situation.tools, call["name"])["function"]["parameters"]
    arguments = {
        name: _as_asked(value, situation.accepted.get(name), situation.question)
        for name, value in call["arguments"].items()
    }
    return (
        replace(situation, call={**call, "arguments": arguments})
        if bfcl_calls.satisfies(arguments, parameters)
        else situation
    )


def _as_asked(value: Any, accepted: Any, question: str) -> Any:
    if not isinstance(value, str) or value in question or not isinstance(accepted, list):
        return value
    return next((text for text in accepted if isinstance(text, str) and text and text in question), value)


def exchanged_rows(calling: list[Situation], seed: int) -> list[Json]:
    rows = [_sft(case, _message(case.call)) for case in with_values_exchanged(calling, seed) if case.call]
    return shuffled(rows, seed, "exchanged")


def _material(by_behaviour: dict[str, list[Situation]], seed: int) -> Material:
    calls = [situation.call for situation in by_behaviour["tool_call"] if situation.call]
    return Material(TRAINING, bfcl_calls.collected_values(calls), seed)


def _sft(situation: Situation, answered: Json) -> Json:
    return {
        "id": f"bfcl-sft-{situation.id}",
        "source": f"bfcl:{situation.category}",
        "messages": [{"role": "user", "content": situation.question}, answered],
        "tools": situation.tools,
        "behaviour": situation.behaviour,
    }


def answer(situation: Situation, behaviour: str, material: Material, purpose: str) -> Json:
    rng = rng_for(material.seed, purpose, behaviour, situation.id)
    return _message(answer_text(situation, behaviour, material, rng))


def _message(made: str | Json | list[Json]) -> Json:
    if isinstance(made, str):
        return {"role": "assistant", "content": made}
    calls = made if isinstance(made, list) else [made]
    structured = [{"id": f"call_{i}", "type": "function", "function": call} for i, call in enumerate(calls)]
    return {"role": "assistant", "content": "", "tool_calls": structured}


def preference_rows(by_behaviour: dict[str, list[Situation]], seed: int, per_behaviour: int = 450) -> list[Json]:
    """As many pairs of each behaviour, at most ``per_behaviour``; where situations are few, each is used twice."""
    material = _material(by_behaviour, seed)
    target = min(per_behaviour, *(2 * len(by_behaviour[b]) for b in _BEHAVIOURS))
    rows: list[Json] = []
    for behaviour in _BEHAVIOURS:
        pool = shuffled(by_behaviour[behaviour], seed, "pairs")
        kinds, errors = _REJECTED[behaviour], 0
        for index in range(target):
            # the second round is one kind further, so that a situation meets another contrast
            kind = kinds[(index % len(pool) + index // len(pool)) % len(kinds)]
            if not kind:
                kind = _ERROR_KINDS[errors % len(_ERROR_KINDS)]
                errors += 1
            if pair := _pair(pool[index % len(pool)], kind, material):
                rows.append(pair)
    return shuffled(rows, seed, "preference")


def _pair(situation: Situation, kind: str, material: Material) -> Json | None:
    chosen = answer(situation, situation.behaviour, material, "chosen")
    wrong = _wrong_call(situation, kind, material) if kind in _ERROR_KINDS else None
    rejected = wrong if kind in _ERROR_KINDS else answer(situation, kind, material, "rejected")
    if rejected is None or rejected == chosen:
        return None
    if kind == "tool_call" and _called(rejected) not in {tool["function"]["name"] for tool in situation.tools}:
        kind = "hallucinated_tool"
    return {
        "id": f"bfcl-pair-{situation.id}-{kind}",
        "source": f"bfcl:{situation.category}",
        "prompt": [{"role": "user", "content": situation.question}],
        "tools": situation.tools,
        "chosen": chosen,
        "rejected": rejected,
        "behaviour": situation.behaviour,
        "rejected_kind": kind,
    }


def _called(message: Json) -> str:
    return str(message["tool_calls"][0]["function"]["name"])


def _wrong_call(situation: Situation, kind: str, material: Material) -> Json | None:
    call, rng = situation.call, rng_for(material.seed, kind, situation.id)
    if call is None:
        return None
    if kind == "hallucinated_tool":
        wrong = bfcl_calls.hallucinated_tool(call, situation.tools, rng)
    elif kind == "wrong_tool":
        others = [tool for tool in situation.tools if tool["function"]["name"] != call["name"]]
        spare = list(call["arguments"].values())
        wrong = bfcl_calls.invented_call(rng.choice(others), rng, material.values, None, spare) if others else None
    else:
        parameters = tool_named(situation.tools, call["name"])["function"]["parameters"]
        wrong = _ERRORS[kind](call, parameters, rng, material.values)
    return _message(wrong) if wrong and json.dumps(wrong) != json.dumps(call) else None


def shuffled(rows: list[Any], seed: int, purpose: str) -> list[Any]:
    return rng_for(seed, "order", purpose).sample(rows, len(rows))
