"""What the report says about written turns: the headline, kinds of error, faults, and each situation by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rightcall.measurement.intervals import Metric
from rightcall.measurement.written import fault_table, summarise
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import EvaluationSection
from rightcall.toolcalls.judging import FAULTS
from tasks.reporting.page_data import candidate_of
from tasks.results.scores import Scores

FAULT_MEANING = {
    "ungrounded_value": "a call holds an id or a value that no message and no tool result before it contains",
    "lookup_before_authentication": "looks up or changes a customer's data before knowing who the customer is",
    "write_without_confirmation": "changes something before the customer has said yes to it",
    "dropped_lookup": "answers from nothing where it should have looked it up first",
}
SAID = ("ungrounded_value",)  # the fault that needs no policy
SCRIPTED = {
    "tau2-retail": "The conversations of this evaluation are scripted from tau2-bench's retail data: customers, orders, "
    "products, tools and policy are that benchmark's, tool results come from running its tools, and what customer and "
    "agent say is made from templates. Nobody was logged: how the model does with your customers it does not say."
}


@dataclass(frozen=True)
class CountRow:
    """How often something occurs per model, freely and with the grammar; None = that mode was not scored."""

    name: str
    meaning: str
    counts: dict[str, tuple[int, int | None]]


def headline(scores: Mapping[str, Scores], names: Mapping[str, str]) -> str:
    """The numbers in one sentence, for somebody who reads no table; "" where nothing was written."""
    last, first = candidate_of(list(scores)), next(iter(scores))
    ours, theirs = scores[last].metrics, scores[first].metrics
    if "right" not in ours or "right" not in theirs:
        return ""
    conversations = len({line["conversation"] for line in scores[last].written})
    text = f"{names[last]} writes the right next turn in {ours['right'].value:.0%} of {ours['right'].n:,} steps"
    text += f" from {conversations:,} conversations that it was not trained on"
    if last != first:
        text += f" ({names[first]}: {theirs['right'].value:.0%})"
    if "overcall" in ours:
        over = ours["overcall"]
        text += f", and calls a tool in {over.value:.0%} of the {over.n:,} where none is right"
        text += f" ({names[first]}: {theirs['overcall'].value:.0%})" if "overcall" in theirs and last != first else ""
    return f"{text}."


def scripted(recipe: Recipe) -> list[str]:
    """What of the evaluation was made by a script, in sentences."""
    used = {source.adapter for source in recipe.data.conversations}
    return [text for adapter, text in SCRIPTED.items() if adapter in used]


def error_tables(
    scores: Mapping[str, Scores], names: Mapping[str, str], evaluation: EvaluationSection
) -> tuple[list[CountRow], list[CountRow]]:
    """(kinds of error, faults against conversation and policy); the most frequent of all models together first.

    A recipe without `evaluation.policy` is judged by what was said alone: a 0 for the policy's order would be no finding.
    """
    tables = {names[label]: fault_table(scored.written) for label, scored in scores.items() if scored.written}
    grammar = {
        names[label]: any(line["grammar"] is not None for line in scored.written) for label, scored in scores.items()
    }
    totals: Counter[str] = Counter()
    for table in tables.values():
        totals.update({kind: found["free"] + found["grammar"] for kind, found in table.items()})
    kinds = sorted({*totals}, key=lambda kind: (-totals[kind], kind))

    def row(kind: str) -> CountRow:
        counts = {name: table.get(kind, {"free": 0, "grammar": 0}) for name, table in tables.items()}
        cells = {name: (found["free"], found["grammar"] if grammar[name] else None) for name, found in counts.items()}
        return CountRow(kind, FAULT_MEANING.get(kind, ""), cells)

    judged = FAULTS if evaluation.policy is not None else SAID
    faults = [row(kind) for kind in judged] if tables else []
    return [row(kind) for kind in kinds if kind not in FAULTS], faults


def error_counts(scores: Mapping[str, Scores], names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Free answers per model by kind of error, the right ones first, the most frequent kinds next."""
    counts = {
        names[label]: Counter(line["error_kind"] or "right" for line in scored.written)
        for label, scored in scores.items()
        if scored.written
    }
    total = sum(counts.values(), Counter[str]())
    kinds = sorted(total, key=lambda kind: (kind != "right", -total[kind], kind))
    return {label: {kind: found[kind] for kind in kinds} for label, found in counts.items()}


def by_situation(
    scores: Mapping[str, Scores], names: Mapping[str, str], evaluation: EvaluationSection
) -> dict[str, dict[str, Metric]]:
    """{situation: {model: `right`}}, the candidate's worst first; {} where the steps name no situation.

    "denied/cancel" counts among "denied".
    """
    settings: dict[str, Any] = evaluation.model_dump(include={"confidence", "bootstrap_samples", "seed"})
    found: dict[str, dict[str, Metric]] = {}
    for label, scored in scores.items():
        groups: dict[str, list[dict[str, Any]]] = {}
        for line in scored.written:
            if line.get("situation"):
                groups.setdefault(str(line["situation"]).partition("/")[0], []).append(line)
        for situation, lines in groups.items():
            found.setdefault(situation, {})[names[label]] = summarise(lines, **settings)["right"]
    last = names[candidate_of(list(scores))]
    return dict(sorted(found.items(), key=lambda pair: (pair[1][last].value if last in pair[1] else 0.0, pair[0])))
