"""Situations: a question, the tools offered and the right behaviour, and the four answers that can be given."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rightcall.bfcl import calls as bfcl_calls
from rightcall.bfcl import text
from rightcall.bfcl.phrases import Phrases
from rightcall.errors import DataError
from rightcall.rows.tool_schemas import normalise_tools

Json = dict[str, Any]
_GENERIC = (
    ("location", "place that the request is about"),
    ("date", "date that the request is about"),
    ("name", "exact name to look for"),
    ("account id", "identifier of the account"),
    ("category", "kind of result wanted"),
    ("format", "form in which to return it"),
)


@dataclass(frozen=True)
class Situation:
    id: str
    category: str
    question: str
    tools: list[Json]
    behaviour: str
    call: Json | None = None  # the gold call; of a request_for_info, the call before the value was taken out
    accepted: Json = field(default_factory=dict)  # parameter → every value that BFCL accepts
    missing: str | None = None  # the parameter whose value was taken out
    asks: tuple[str, str] | None = None  # tool and parameter of a wrong request_for_info; None = any that fits
    unoffered_call: Json | None = None  # the call that the question needs, where its tool is not offered


def rng_for(seed: int, *parts: object) -> random.Random:
    """A generator for each row, so that one row more or less changes no other."""
    return random.Random(":".join(map(str, (seed, *parts))))  # noqa: S311 - sampling, nothing secret


def read_category(folder: Path, category: str) -> Iterator[Situation]:
    """The single-turn cases of one file; one whose gold call does not satisfy its tool is dropped.

    Raises:
        DataError: the file is not there.
    """
    path = folder / f"BFCL_v4_{category}.json"
    if not path.is_file():
        raise DataError(
            f"{str(path)!r} is not there; give the folder bfcl_eval/data of the bfcl-eval wheel",
            reason="missing_source",
        )
    answers = {}
    if (gold := folder / "possible_answer" / path.name).is_file():
        answers = {record["id"]: record["ground_truth"] for record in map(json.loads, gold.open(encoding="utf-8"))}
    for line in path.open(encoding="utf-8"):
        record = json.loads(line)
        messages = record["question"][0]
        if len(record["question"]) != 1 or len(messages) != 1 or not messages[0]["content"].strip():
            continue
        case = Situation(
            record["id"], category, messages[0]["content"].strip(), normalise_tools(record["function"]), "cannot_answer"
        )
        if not answers:
            yield case
        elif len(answers[case.id]) == 1 and (called := with_gold(case, answers[case.id][0])):
            yield called


def read_parallel(folder: Path, category: str) -> Iterator[tuple[Situation, list[Json]]]:
    """Cases whose right answer is several calls, with those calls."""
    path = folder / "possible_answer" / f"BFCL_v4_{category}.json"
    truths = {record["id"]: record["ground_truth"] for record in map(json.loads, path.open(encoding="utf-8"))}
    for line in (folder / path.name).open(encoding="utf-8"):
        record = json.loads(line)
        case = Situation(
            record["id"],
            category,
            record["question"][0][0]["content"].strip(),
            normalise_tools(record["function"]),
            "tool_call",
        )
        called = [with_gold(case, truth) for truth in truths[case.id]]
        calls = [one.call for one in called if one and one.call]
        if len(calls) == len(called):
            yield case, calls


def with_gold(case: Situation, truth: Json) -> Situation | None:
    (name, accepted), *_ = truth.items()
    tool = next((t for t in case.tools if t["function"]["name"] == name), None)
    arguments = bfcl_calls.gold_arguments(accepted, tool["function"]["parameters"]) if tool else None
    if arguments is None:
        return None
    return replace(case, behaviour="tool_call", call={"name": name, "arguments": arguments}, accepted=accepted)


def tool_named(tools: list[Json], name: str) -> Json:
    return next(tool for tool in tools if tool["function"]["name"] == name)


def with_value_removed(case: Situation) -> Iterator[Situation]:
    """The same case without one required value, for every value that can be cut out of the question cleanly."""
    if case.call is None:
        return
    arguments = case.call["arguments"]
    for name in tool_named(case.tools, case.call["name"])["function"]["parameters"].get("required", []):
        value = arguments.get(name)
        if not isinstance(value, (str, int, float)) or isinstance(value, bool):
            continue
        if list(map(str, arguments.values())).count(str(value)) > 1:
            continue
        if question := text.without_value(case.question, value, case.accepted.get(name, [])):
            yield replace(
                case, id=f"{case.id}-without-{name}", question=question, behaviour="request_for_info", missing=name
            )


def unrelated(question: str, tools: list[Json]) -> bool:
    """No content word in common."""
    return not (text.words(question) & text.tool_words(tools))


def beside_the_point(case: Situation, rest: list[Json]) -> bool:
    """Each tool of ``rest``, all but the gold call's, shares far less with the question than the gold call's does."""
    words = text.words(case.question)
    target = tool_named(case.tools, case.call["name"]) if case.call else None
    shared = len(words & text.tool_words([target])) if target else 0
    return all(2 * len(words & text.tool_words([tool])) < max(shared, 1) for tool in rest)


@dataclass(frozen=True)
class Material:
    """What answers are made of: the wordings, and argument values seen in gold calls of the same split."""

    phrases: Phrases
    values: bfcl_calls.Values
    seed: int


def answer_text(situation: Situation, behaviour: str, material: Material, rng: random.Random) -> str | Json:
    """The answer of one behaviour to a situation, right or wrong there: a text, or a call for tool_call.

    Gold and wrong answers of a behaviour come from the same phrases and the same kinds of call; only the situation
    tells them apart.
    """
    if behaviour == "tool_call":
        return _call(situation, material.values, rng)
    if behaviour == "direct":
        return text.answer_directly(material.phrases, rng, situation.question)
    if behaviour == "cannot_answer":
        return text.refuse(material.phrases, rng, situation.tools, situation.question)
    name, schema = _asked(situation, rng)
    return text.ask(material.phrases, rng, name, schema, situation.question)


def _call(situation: Situation, values: bfcl_calls.Values, rng: random.Random) -> Json:
    if situation.behaviour == "tool_call" and situation.call:
        return situation.call
    if situation.missing and situation.call:
        schema = tool_named(situation.tools, situation.call["name"])["function"]["parameters"]["properties"][
            situation.missing
        ]
        known = situation.call["arguments"]
        value = bfcl_calls.invented(situation.missing, schema, rng, values, avoid=known[situation.missing])
        return {"name": situation.call["name"], "arguments": {**known, situation.missing: value}}
    if situation.unoffered_call and (not situation.tools or rng.random() < 0.5):
        return situation.unoffered_call  # as in When2Call: the call that the user needs, of a tool that is not offered
    if not situation.tools:
        content = text.content_words(situation.question)
        return {"name": bfcl_calls.name_for(content, rng), "arguments": {"query": text.topic(situation.question)}}
    spare = list(situation.unoffered_call["arguments"].values()) if situation.unoffered_call else []
    spare += bfcl_calls.mentioned_values(situation.question)
    tool = tool_named(situation.tools, situation.asks[0]) if situation.asks else rng.choice(situation.tools)
    return bfcl_calls.invented_call(tool, rng, values, None, spare)


def _asked(situation: Situation, rng: random.Random) -> tuple[str, Json]:
    """The parameter that a request_for_info asks for: the missing one, else one of a tool that could be meant."""
    offered = {tool["function"]["name"] for tool in situation.tools}
    if situation.asks:
        name, parameter = situation.asks
        return parameter, tool_named(situation.tools, name)["function"]["parameters"]["properties"][parameter]
    if situation.call and situation.call["name"] in offered:
        tool = tool_named(situation.tools, situation.call["name"])
    elif situation.tools:
        tool = rng.choice(situation.tools)
    else:
        name, what = rng.choice(_GENERIC)
        return name, {"description": what}
    parameters = tool["function"]["parameters"]
    names = [situation.missing] if situation.missing else parameters.get("required") or list(parameters["properties"])
    if not names:
        return _GENERIC[2][0], {"description": _GENERIC[2][1]}
    telling = [n for n in names if parameters["properties"][n].get("type") != "boolean"]
    name = rng.choice(telling or names)
    return name, parameters["properties"][name]
