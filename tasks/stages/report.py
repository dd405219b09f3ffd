"""The report as a stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rightcall.recipe.schema import Recipe
from tasks.reporting.page import gather, render
from tasks.results.files import REPORT
from tasks.runtime.stage import StageRun, stage
from tasks.store.manifests import ArtifactRef


@stage(
    name="report", kind="report", modules=("rightcall.measurement.metrics", "rightcall.measurement.baseline", "rightcall.measurement.gate"),
    slice=lambda recipe: recipe.model_dump(mode="json", by_alias=True),
)  # fmt: skip
def write_report(
    run: StageRun,
    recipe: Recipe,
    *,
    snapshot: ArtifactRef,
    models: Mapping[str, ArtifactRef],
    scores: Mapping[str, ArtifactRef],
    verdict: ArtifactRef,
) -> dict[str, Any]:
    """report.html from refs; models and scores are {"base" | "sft" | "dpo": ref} in the order they were made."""
    values = gather(recipe, run.store, snapshot=snapshot, models=models, scores=scores, verdict=verdict)
    page = render(values)
    (run.folder / REPORT).write_text(page, encoding="utf-8")
    return {"size_bytes": len(page.encode())}
