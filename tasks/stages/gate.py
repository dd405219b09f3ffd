"""The gate as a stage: what candidate, baseline and champion chose and wrote in, verdict.json out."""

from __future__ import annotations

from typing import Any

from rightcall.measurement import gate
from rightcall.recipe.schema import Recipe
from tasks.results.files import ITEMS, VERDICT, WRITTEN, read_items, read_written
from tasks.runtime.stage import StageRun, stage
from tasks.store.manifests import ArtifactRef


def _slice(recipe: Recipe) -> dict[str, Any]:
    """What the verdict depends on; who has to approve it is not part of it."""
    policy = recipe.gate.model_dump(mode="json", exclude={"approval"})
    return {"gate": policy, **recipe.evaluation.model_dump(include={"confidence", "bootstrap_samples", "seed"})}


@stage(
    name="gate",
    kind="verdict",
    modules=("rightcall.measurement.gate",),
    slice=_slice,
    reads=dict.fromkeys(("candidate", "baseline", "champion"), (ITEMS, WRITTEN)),
)
def decide_verdict(
    run: StageRun, recipe: Recipe, candidate: ArtifactRef, baseline: ArtifactRef, champion: ArtifactRef | None = None
) -> dict[str, Any]:
    """GO, NO-GO or INCONCLUSIVE from three scores refs on the same steps and items; champion None = there is none yet."""
    verdict = gate.decide(
        recipe.gate,
        _answers(run, candidate),
        _answers(run, baseline),
        None if champion is None else _answers(run, champion),
        confidence=recipe.evaluation.confidence,
        bootstrap_samples=recipe.evaluation.bootstrap_samples,
        seed=recipe.evaluation.seed,
    )
    (run.folder / VERDICT).write_text(verdict.model_dump_json(indent=1) + "\n", encoding="utf-8")
    run.logger.info("%s", verdict.sentence)
    return {"verdict": verdict.verdict, "reasons": list(verdict.reasons)}


def _answers(run: StageRun, scores: ArtifactRef) -> gate.Answers:
    folder = run.store.path(scores)
    return gate.Answers(items=read_items(folder), lines=read_written(folder))
