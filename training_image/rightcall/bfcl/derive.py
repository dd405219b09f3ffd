"""Rows derived from the Berkeley Function-Calling Leaderboard's files (the wheel bfcl-eval, read but never imported).

    {"id": "simple_python_0", "question": [[{"role": "user", "content": "Find the area of …"}]], "function": [{…}]}

Training rows come from the non-live categories only; the multiple-choice items come from ``live_*`` only, in contrast
groups: one set of tools, up to three questions, each with another right behaviour.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections import defaultdict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rightcall.bfcl import text, training_rows
from rightcall.bfcl.calls import collected_values
from rightcall.bfcl.phrases import EVALUATION
from rightcall.bfcl.situations import (
    Material,
    Situation,
    answer_text,
    beside_the_point,
    read_category,
    read_parallel,
    rng_for,
    unrelated,
    with_value_removed,
)
from rightcall.rows.vocabulary import BEHAVIOURS

Json = dict[str, Any]
TRAINING_CATEGORIES = ("simple_python", "multiple")
EVALUATION_CATEGORIES = ("live_simple", "live_multiple")
_PER_TOOL_SET = 3  # questions of one tool set; a few live tool sets have dozens
_MAX_QUESTION = 400  # characters; longer live questions are pasted documents
# Tools that could be called for nearly any request; "no tool fits" is never certain beside one of them.
_CATCH_ALL = re.compile(
    r"chat|answer|llm|search engine|web ?search|internet|\bhttp|requests\.get|command|google|wikipedia|python"
    r"|prompt|classif|parse"
    r"|_news|wqa|default_function|record\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Derived:
    sft: list[Json]
    exchanged: list[Json]  # further SFT rows: their calls with other values
    preference: list[Json]
    choice: list[Json]


def derive(data_folder: Path, seed: int) -> Derived:
    """SFT rows, preference pairs and choice items, the same for the same files and seed.

    Raises:
        DataError: a file of BFCL is missing.
    """
    live = [case for category in EVALUATION_CATEGORIES for case in read_category(data_folder, category)]
    stray = list(read_category(data_folder, "live_irrelevance"))
    questions = {text.normalise_text(case.question) for case in live + stray}
    tool_sets = {_tools_key(case.tools) for case in live + stray if case.tools}

    def held_out(case: Situation) -> bool:
        return text.normalise_text(case.question) in questions or _tools_key(case.tools) in tool_sets

    single = [c for name in TRAINING_CATEGORIES for c in read_category(data_folder, name) if not held_out(c)]
    irrelevant = [c for c in read_category(data_folder, "irrelevance") if not held_out(c)]
    by_behaviour = {
        behaviour: [s for s in situations if not held_out(s)]
        for behaviour, situations in training_rows.situations(single, irrelevant, seed).items()
    }
    parallel = [
        (c, calls) for c, calls in read_parallel(data_folder, "parallel") if not held_out(c) and len(calls) <= 3
    ]
    return Derived(
        sft=training_rows.sft_rows(by_behaviour, parallel[:60], seed),
        exchanged=training_rows.exchanged_rows(by_behaviour["tool_call"], seed),
        preference=training_rows.preference_rows(by_behaviour, seed),
        choice=_choice_rows(live, stray, seed),
    )


def _tools_key(tools: list[Json]) -> str:
    texts = sorted(json.dumps(tool, sort_keys=True) for tool in tools)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:12]


def _choice_rows(live: list[Situation], stray: list[Situation], seed: int) -> list[Json]:
    """Items in contrast groups, short tools first: a sample by prompt length then takes whole groups."""
    groups: dict[str, list[Situation]] = defaultdict(list)
    for case in live:
        if len(case.question) <= _MAX_QUESTION:
            groups[_tools_key(case.tools)].append(case)
    own = defaultdict(list)
    for case in stray:
        own[_tools_key(case.tools)].append(case)
    askers = [case for case in live + stray if 4 <= len(case.question.split()) <= 40 and case.question.isascii()]
    material = Material(EVALUATION, collected_values([case.call for case in live if case.call]), seed)
    rows: list[Json] = []
    for key in sorted(groups, key=lambda k: (len(json.dumps(groups[k][0].tools)), k)):
        rows += [_item(item, key, material) for item in _group(key, groups[key], own[key], askers, seed)]
    rows += [_item(item, "none", material) for item in _without_tools(live, seed, len(rows) // 8)]
    return rows


def _group(
    key: str, cases: list[Situation], own: list[Situation], askers: list[Situation], seed: int
) -> list[Situation]:
    rng = rng_for(seed, "group", key)
    cuttable = [(case, cut[0]) for case in cases if (cut := list(with_value_removed(case)))]
    chosen = rng.sample(cuttable, min(_PER_TOOL_SET, len(cuttable)))
    # The three items' request_for_info asks for the same parameter, so that it does not give the gold answer away.
    groups = [
        [replace(case, asks=(cut.call["name"], cut.missing)), cut] for case, cut in chosen if cut.call and cut.missing
    ]
    items: list[Situation] = []
    groups = groups or [[rng.choice(cases)]]  # where nothing can be cut: the call and the refusal
    for index, situations in enumerate(groups):
        items += situations
        if refusal := _refusal(situations[0], own, askers, rng, target_gone=(index + len(cases)) % 2 == 0):
            items.append(refusal)
    return list({text.normalise_text(item.question) + item.behaviour: item for item in items}.values())


def _refusal(
    case: Situation, own: list[Situation], askers: list[Situation], rng: random.Random, *, target_gone: bool
) -> Situation | None:
    """The same question without its tool, or another live question that shares no content word with these tools."""
    if any(_CATCH_ALL.search(f"{t['function']['name']} {t['function']['description']}") for t in case.tools):
        return None
    rest = [tool for tool in case.tools if case.call and tool["function"]["name"] != case.call["name"]]
    if target_gone and rest and beside_the_point(case, rest):
        return _refused(case, rest, "unoffered")
    for other in own + rng.sample(askers, min(80, len(askers))):
        if len(other.question.split()) >= 4 and unrelated(other.question, case.tools):
            return replace(_refused(other, case.tools, f"on-{case.id}"), asks=case.asks)
    return None


def _refused(case: Situation, tools: list[Json], suffix: str) -> Situation:
    name = f"{case.id}-{suffix}"
    return replace(
        case, id=name, tools=tools, behaviour="cannot_answer", call=None, unoffered_call=case.call, asks=None
    )


def _without_tools(live: list[Situation], seed: int, count: int) -> list[Situation]:
    """Situations without any tool, where a call is a hallucination."""
    short = [case for case in live if 4 <= len(case.question.split()) <= 30 and case.question.isascii()]
    return [_refused(case, [], "no-tools") for case in rng_for(seed, "no tools").sample(short, min(count, len(short)))]


def _item(situation: Situation, group: str, material: Material) -> Json:
    answers = {}
    for behaviour in BEHAVIOURS:
        made = answer_text(situation, behaviour, material, rng_for(material.seed, "item", behaviour, situation.id))
        answers[behaviour] = made if isinstance(made, str) else json.dumps(made, ensure_ascii=False)
    return {
        "id": f"bfcl-item-{situation.id}",
        "source": f"bfcl:{situation.category}",
        "group": group,
        "question": situation.question,
        "tools": situation.tools,
        "answers": answers,
        "correct_answer": situation.behaviour,
        **({"accepted": situation.accepted, "string_rule": "bfcl"} if situation.behaviour == "tool_call" else {}),
    }
