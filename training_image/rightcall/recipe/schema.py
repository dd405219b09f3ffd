"""The whole recipe: its sections, and that they agree."""

from __future__ import annotations

import hashlib
import json

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from rightcall.recipe import rules
from rightcall.recipe.sections import (
    ComputeSection,
    DataSection,
    DpoSection,
    EvaluationSection,
    GateSection,
    MineSection,
    ModelSection,
    RegisterSection,
    Section,
    SftSection,
)


class Recipe(Section):
    name: str = Field(
        pattern=r"^[a-z0-9][a-z0-9.-]*$", description="of the experiment, on runs, jobs and reports; changes no result"
    )
    model: ModelSection = Field(description="the base model that everything starts from")
    data: DataSection = Field(description="where rows come from, how many are kept, which are refused")
    sft: SftSection = Field(description="supervised fine-tuning on the SFT rows, the first training")
    dpo: DpoSection = Field(description="preference optimisation on the pairs, the second training")
    mine: MineSection = Field(MineSection(), description="pairs from the model's own answers, between SFT and DPO")
    evaluation: EvaluationSection = Field(
        EvaluationSection(), description="how each model is scored on the held-out items"
    )
    gate: GateSection = Field(GateSection(), description="what a model must show, against the base, to be released")
    register_: RegisterSection = Field(
        RegisterSection(), alias="register", description="under which names MLflow keeps runs and models"
    )
    compute: ComputeSection = Field(ComputeSection(), description="where and how jobs run; changes no result")

    @model_validator(mode="after")
    def _fields_agree(self) -> Recipe:
        if problems := rules.contradictions(self.data, self.sft, self.dpo, self.mine, self.compute):
            text = "; ".join(f"{problem.fields[0]}: {problem.message}" for problem in problems)
            # one by one in the context, so that load_recipe can list them beside the errors of single fields
            raise PydanticCustomError("contradictions", "{text}", {"text": text, "problems": problems})
        return self

    @property
    def digest(self) -> str:
        """First 8 hex digits of the sha256 of all values: names runs; cache keys use slices of the recipe instead."""
        text = json.dumps(self.model_dump(mode="json", by_alias=True), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:8]
