"""What each stage of the training program is: a new stage is a row here, its module, its section and its task.

It imports nothing heavy, so that entry.py and the orchestrator read it too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rightcall.rows.vocabulary import RowKind

if TYPE_CHECKING:
    from rightcall.recipe.schema import Recipe
    from rightcall.recipe.sections import DpoSection, SftSection

MODEL = "model/config.json"


@dataclass(frozen=True)
class StageFacts:
    name: str
    module: str  # has run(job)
    section: str | None = None  # field of the Recipe that it is configured by
    rows: RowKind | None = None  # rows of the snapshot that it reads
    utilisation: float = 0.0  # assumed share of a GPU's peak FLOP/s; the estimate of its time rests on it
    shares_work: bool = False  # several processes and hosts may share it; it trains
    on_this_machine: bool = False  # whatever the backend: its source lies, or is fetched, here
    leaves: str = MODEL  # file below the job's root without which the job has not done its work
    curves: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # for people: title → fields of metrics.jsonl

    @property
    def makes_model(self) -> bool:
        return self.leaves == MODEL


STAGES: Mapping[str, StageFacts] = {
    facts.name: facts
    for facts in (
        StageFacts("base", "rightcall.training.base", on_this_machine=True),
        StageFacts(
            "sft", "rightcall.training.sft", "sft", "sft", utilisation=0.40, shares_work=True,
            curves={
                "loss": ("loss",), "gradient norm": ("grad_norm",), "learning rate": ("learning_rate",),
                "written: right, overcall": ("probe_right", "probe_overcall"),
            },
        ),
        StageFacts(
            "mine", "rightcall.evaluation.mine", "mine", "sft", utilisation=0.25,
            leaves="output/data/mined.jsonl",
        ),
        StageFacts(
            "dpo", "rightcall.training.dpo", "dpo", "preference", utilisation=0.30, shares_work=True,
            curves={
                "loss": ("loss",), "margin": ("margin",), "accuracy on pairs": ("rewards_accuracy",),
                "log-probability": ("chosen_logprob", "rejected_logprob"),
                "written: right, overcall": ("probe_right", "probe_overcall"),
            },
        ),
        StageFacts(
            "score", "rightcall.evaluation.score", "evaluation", "choice", utilisation=0.25,
            leaves="output/data/scores.json",
        ),
    )
}  # fmt: skip


def training_section(stage: str, recipe: Recipe) -> SftSection | DpoSection:
    """The section of a stage that trains.

    Raises:
        KeyError: there is no such stage, or it does not train.
    """
    facts = STAGES[stage]
    if not facts.shares_work:
        raise KeyError(f"stage {stage!r} does not train")
    section: SftSection | DpoSection = getattr(recipe, str(facts.section))
    return section
