"""What the report says, as plain values: numbers side by side and what each stage added."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from rightcall.measurement.baseline import rule_items
from rightcall.measurement.gate import LOWER_IS_BETTER
from rightcall.measurement.intervals import Difference, Metric
from rightcall.measurement.metrics import METRICS, summarise
from rightcall.measurement.written import BEHAVIOUR_OF, FREE, WRITTEN_METRICS
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import EvaluationSection
from rightcall.toolcalls.words import MEASURED
from tasks.results.scores import Scores, compare

CHAMPION = "champion"  # label of the model in use, the last one where there is one; it was not made by this run
HEADLINE = ("right", "right_strict", *BEHAVIOUR_OF, "overcall", "valid_call")
MEANING = {
    "right": "the next turn is right: what is done and, of a call, tool and arguments",
    "right_strict": "the same to a reader that forgives nothing: a call is written exactly as the model's template writes it",
    "right_call": "where a call is right: the right tool with the right arguments",
    "right_ask": "where something is missing: asks for it",
    "right_decline": "where no tool fits or the policy forbids: says so",
    "right_talk": "where words are right: answers in words",
    "overcall": "where no call is right: calls a tool all the same; lower is better",
    "valid_call": "of the calls written: they name an offered tool and fit its schema",
    "right_tool": "where a call is right: the right tool is called",
    "right_arguments": "where a call is right: with the right arguments",
    "acc_norm": "share of items whose right answer has the highest log-likelihood per character",
    "acc": "the same by plain log-likelihood",
    "macro_f1": "mean F1 over the four behaviours, from acc_norm's choices",
    "macro_f1_3": "the same over the behaviours that occur as gold",
    "macro_f1_acc": "mean F1 over the four behaviours, from acc's choices",
    "tool_hallucination": "a tool call chosen where no tool is offered; lower is better",
    "tool_hallucination_acc": "the same from acc's choices; lower is better",
}
RULE = "keyword rule"
Change = Literal["better", "worse", "unclear"]


@dataclass(frozen=True)
class Gap:
    """A paired difference to another model, and what its whole interval says."""

    to: str  # the other model, as people call it
    difference: Difference
    change: Change


@dataclass(frozen=True)
class Cell:
    """One model's metric, and its differences to the first model and to SFT; None = not measured."""

    metric: Metric | None
    gaps: tuple[Gap, ...] = ()

    @property
    def first_gap(self) -> Gap | None:
        """The difference to the first model; None = nothing to compare with."""
        return self.gaps[0] if self.gaps else None


@dataclass(frozen=True)
class TableRow:
    name: str
    meaning: str
    cells: dict[str, Cell]


def display_names(recipe: Recipe, labels: Sequence[str]) -> dict[str, str]:
    """How people call the models of a run: base, SFT, SFT+DPO."""
    after_sft = recipe.dpo.start_from == "sft" and "sft" in labels
    return {label: {"sft": "SFT", "dpo": "SFT+DPO" if after_sft else "DPO"}.get(label, label) for label in labels}


def change_of(metric: str, gap: Difference) -> Change:
    """Better or worse only when the whole interval says so."""
    low, high = (-gap.high, -gap.low) if metric in LOWER_IS_BETTER else (gap.low, gap.high)
    return "better" if low > 0 else "worse" if high < 0 else "unclear"


def candidate_of(labels: Sequence[str]) -> str:
    """The model that was judged: the last one that the run made."""
    return [label for label in labels if label != CHAMPION][-1]


def score_table(
    scores: Mapping[str, Scores],
    evaluation: EvaluationSection,
    names: Mapping[str, str] | None = None,
    metrics: Sequence[str] = (*WRITTEN_METRICS, *METRICS),
) -> list[TableRow]:
    """Every named metric that any model has; each model is compared with the first one and, what came after it, with SFT."""
    labels, shown = list(scores), names or {}
    rivals = {
        label: [labels[0], "sft"] if "sft" in labels[1:place] else [labels[0]] for place, label in enumerate(labels)
    }
    rivals[labels[0]] = []
    rows = []
    for name in metrics:
        cells = {}
        for label, scored in scores.items():
            gaps = []
            for rival in rivals[label]:
                gap = compare(scored, scores[rival], evaluation).get(name)
                gaps += [] if gap is None else [Gap(shown.get(rival, rival), gap, change_of(name, gap))]
            cells[label] = Cell(scored.metrics.get(name), tuple(gaps))
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
    """(title, "better" | "worse" | "unclear", sentence) per step from one model that the run made to the next."""
    found: list[tuple[str, str, str]] = []
    for before, after in pairwise(label for label in scores if label != CHAMPION):
        gaps = compare(scores[after], scores[before], evaluation)
        changes = {name: change_of(name, gap) for name, gap in gaps.items()}
        written = "right" in gaps
        decides = ("right",) if written else ("acc_norm", "macro_f1")
        shown = [name for name in (*decides, "overcall") if name in gaps]
        numbers = "; ".join(f"{name} {signed(gaps[name])}" for name in shown)
        headline = {changes[name] for name in decides if name in changes}
        tone: Change = "worse" if "worse" in headline else "better" if headline == {"better"} else "unclear"
        what = "what is written" if written else "every headline metric"
        verdict = {
            "better": f"It adds something on {what}.",
            "worse": f"It makes the model worse on {'what is written' if written else 'a headline metric'}.",
            "unclear": f"What it adds cannot be told from chance on {what}: an interval covers 0.",
        }[tone]
        parts = list(BEHAVIOUR_OF) if written else [name for name in gaps if name.startswith("recall_")]
        recalls = [name for name in parts if changes.get(name, "unclear") != "unclear"]
        moved = ", ".join(f"{name.removeprefix('recall_')} {signed(gaps[name])}" for name in recalls)
        rest = f" Behaviours that moved: {moved}." if moved else " No behaviour moved beyond chance."
        found.append((f"{names[before]} → {names[after]}", tone, f"{numbers}. {verdict}{rest}"))
    return found


def judge_sentence() -> str:
    """How often the judge of texts errs: what stands beside the behaviour metrics."""
    counts = {name: sum(found.values()) for name, found in MEASURED.items()}
    wrong = {name: counts[name] - found[name] for name, found in MEASURED.items()}
    parts = ", ".join(f"{name.replace('_', ' ')} {wrong[name]} of {count}" for name, count in counts.items())
    return (
        "Whether a text asks, declines or answers is judged by its words, which was wrong for "
        f"{sum(wrong.values()) / sum(counts.values()):.1%} of {sum(counts.values())} held-out sentences ({parts})."
    )


def signed(gap: Difference) -> str:
    return f"{gap.value:+.3f} [{gap.low:+.3f}, {gap.high:+.3f}]"


def _meaning(metric: str) -> str:
    if metric in WRITTEN_METRICS and metric not in FREE:
        return f"{MEANING[metric.removesuffix('_grammar')]}; written under the tools' schemas"
    behaviour = metric.removeprefix("recall_").replace("_", " ")
    return MEANING.get(metric, f"share of the items whose gold is {behaviour} that are answered so")
