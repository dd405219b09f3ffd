"""What the report says, as plain values: numbers side by side, what each stage added, where the models differ."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from rightcall.measurement.baseline import rule_items
from rightcall.measurement.gate import LOWER_IS_BETTER
from rightcall.measurement.generations import GENERATION_METRICS
from rightcall.measurement.intervals import Difference, Metric
from rightcall.measurement.metrics import METRICS, summarise
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import EvaluationSection
from tasks.results.scores import Scores, compare

EXAMPLES = 10
MAX_TEXT = 600  # characters of a question or an answer that are shown
STEP_METRICS = ("acc_norm", "macro_f1")
MEANING = {
    "acc_norm": "share of items whose right answer has the highest log-likelihood per character",
    "acc": "the same by plain log-likelihood",
    "macro_f1": "mean F1 over the four behaviours, from acc_norm's choices",
    "macro_f1_3": "the same over the behaviours that occur as gold",
    "macro_f1_acc": "mean F1 over the four behaviours, from acc's choices",
    "tool_hallucination": "a tool call chosen where no tool is offered; lower is better",
    "tool_hallucination_acc": "the same from acc's choices; lower is better",
    "gen_valid_call": "of the calls written: they name an offered tool and fit its schema",
    "gen_right_tool": "where a call is gold: the right tool was called",
    "gen_right_arguments": "where a call is gold: with the right arguments",
    "gen_right_behaviour": "the free answer does what is right: call, ask, refuse or answer",
}
RULE = "keyword rule"


@dataclass(frozen=True)
class Cell:
    """One model's metric, and its difference to the first model; None = not measured, or nothing to compare with."""

    metric: Metric | None
    difference: Difference | None
    change: Literal["better", "worse", "unclear"] | None


@dataclass(frozen=True)
class TableRow:
    name: str
    meaning: str
    cells: dict[str, Cell]


def display_names(recipe: Recipe, labels: Sequence[str]) -> dict[str, str]:
    """How people call the models of a run: base, SFT, SFT+DPO."""
    after_sft = recipe.dpo.start_from == "sft" and "sft" in labels
    return {label: {"sft": "SFT", "dpo": "SFT+DPO" if after_sft else "DPO"}.get(label, label) for label in labels}


def change_of(metric: str, gap: Difference) -> Literal["better", "worse", "unclear"]:
    """Better or worse only when the whole interval says so."""
    low, high = (-gap.high, -gap.low) if metric in LOWER_IS_BETTER else (gap.low, gap.high)
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def score_table(scores: Mapping[str, Scores], evaluation: EvaluationSection) -> list[TableRow]:
    """Every metric that any model has; the first model is what the others are compared with."""
    first, *others = scores
    gaps = {label: compare(scores[label], scores[first], evaluation) for label in others}
    rows = []
    for name in (*METRICS, *GENERATION_METRICS):
        cells = {}
        for label, scored in scores.items():
            gap = gaps.get(label, {}).get(name)
            cells[label] = Cell(scored.metrics.get(name), gap, None if gap is None else change_of(name, gap))
        if any(cell.metric for cell in cells.values()):
            rows.append(TableRow(name, _meaning(name), cells))
    return rows


def rule_scores(rows: Sequence[Mapping[str, Any]], evaluation: EvaluationSection) -> dict[str, Metric]:
    """Scores of the word rule on the same items; a model that does no better has learned nothing."""
    settings = {"confidence": evaluation.confidence, "bootstrap_samples": evaluation.bootstrap_samples}
    return summarise(rule_items(rows), **settings, seed=evaluation.seed)  # type: ignore[arg-type]


def stage_sentences(
    scores: Mapping[str, Scores], names: Mapping[str, str], evaluation: EvaluationSection
) -> list[tuple[str, str, str]]:
    """(title, "better" | "worse" | "unclear", sentence) per step from one model to the next."""
    found = []
    labels = list(scores)
    for before, after in pairwise(labels):
        gaps = compare(scores[after], scores[before], evaluation)
        changes = {name: change_of(name, gap) for name, gap in gaps.items()}
        headline = {changes[name] for name in STEP_METRICS if name in changes}
        tone = "worse" if "worse" in headline else "better" if headline == {"better"} else "unclear"
        numbers = "; ".join(f"{name} {signed(gaps[name])}" for name in STEP_METRICS if name in gaps)
        verdict = {
            "better": "It adds something on every headline metric.",
            "worse": "It makes the model worse on a headline metric.",
            "unclear": "What it adds cannot be told from chance on every headline metric: an interval covers 0.",
        }[tone]
        recalls = [name for name in gaps if name.startswith("recall_") and changes[name] != "unclear"]
        moved = ", ".join(f"{name.removeprefix('recall_')} {signed(gaps[name])}" for name in recalls)
        rest = f" Recall that moved: {moved}." if moved else " No behaviour's recall moved beyond chance."
        found.append((f"{names[before]} → {names[after]}", tone, f"{numbers}. {verdict}{rest}"))
    return found


def signed(gap: Difference) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def error_counts(scores: Mapping[str, Scores], names: Mapping[str, str]) -> dict[str, dict[str, int]]:
    """Free answers per model by kind of error, the right ones first, the most frequent kinds next."""
    counts = {
        names[label]: Counter(line["error_kind"] or "right" for line in scored.generations)
        for label, scored in scores.items()
        if scored.generations
    }
    total = sum(counts.values(), Counter[str]())
    kinds = sorted(total, key=lambda kind: (kind != "right", -total[kind], kind))
    return {label: {kind: found[kind] for kind in kinds} for label, found in counts.items()}


def differing_items(
    rows: Sequence[Mapping[str, Any]], scores: Mapping[str, Scores], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Up to ten items that the models answer differently, gains and losses of the last model in turn."""
    answers = {label: _answers(scored, rows) for label, scored in scores.items()}
    first, last = next(iter(answers)), list(answers)[-1]
    gains: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for row in rows:
        given = {label: found.get(row["id"]) for label, found in answers.items()}
        shown = {label: answer for label, answer in given.items() if answer is not None}
        if len(shown) < len(given) or len({(answer["text"], answer["right"]) for answer in shown.values()}) < 2:
            continue
        before, after = shown[first]["right"], shown[last]["right"]
        chosen = gains if after and not before else losses if before and not after else others
        chosen.append(_example(row, {names[label]: answer for label, answer in shown.items()}))
    mixed = [example for pair in zip(gains, losses, strict=False) for example in pair]
    rest = gains[len(losses) :] + losses[len(gains) :] + others
    return (mixed + rest)[:EXAMPLES]


def _answers(scored: Scores, rows: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Free answers by item; where none were asked for, the choice and its text."""
    if scored.generations:
        return {
            line["id"]: {
                "text": cut(line["text"]) or "(nothing)",
                "right": line["verdict"]["ok"],
                "kind": line["error_kind"] or line["gold"],
            }
            for line in scored.generations
        }
    texts = {row["id"]: row["answers"] for row in rows}
    return {
        item["id"]: {
            "text": cut(texts[item["id"]][item["prediction_norm"]]),
            "right": item["prediction_norm"] == item["gold"],
            "kind": item["prediction_norm"],
        }
        for item in scored.items
        if item["id"] in texts
    }


def _example(row: Mapping[str, Any], answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    gold = row["correct_answer"]
    return {
        "id": row["id"],
        "question": cut(row["question"]),
        "tools": [tool["function"]["name"] for tool in row["tools"]],
        "gold": gold,
        "gold_text": cut(row["answers"][gold]),
        "answers": answers,
    }


def cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text):,} characters)"


def _meaning(metric: str) -> str:
    behaviour = metric.removeprefix("recall_").replace("_", " ")
    return MEANING.get(metric, f"share of the items whose gold is {behaviour} that are answered so")
