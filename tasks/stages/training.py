"""The stages that make models: base (as safetensors), SFT, DPO; each is one job of the training program."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import TrainingSection
from tasks.data import sources
from tasks.jobs.contract import Input
from tasks.runtime.keys import module_digest
from tasks.runtime.stage import StageRun, stage
from tasks.stages.run_job import run_job
from tasks.store.manifests import ArtifactRef
from tasks.tracking.mlflow_runs import MetricsMirror

# How often a checkpoint is written changes nothing about the model.
NOT_RESULTS = {"save_steps", "save_minutes"}


def _base_slice(recipe: Recipe) -> dict[str, Any]:
    """The model's content or pin, not where it lies."""
    source = sources.digest(recipe.model.source, recipe.model.sha256)
    return {"source": source, "trust_remote_code": recipe.model.trust_remote_code}


def _sft_slice(recipe: Recipe) -> dict[str, Any]:
    section = recipe.sft.model_dump(mode="json", exclude=NOT_RESULTS)
    return {"sft": section, "chat_template": recipe.model.chat_template, **_probe(recipe.sft)}


def _dpo_slice(recipe: Recipe) -> dict[str, Any]:
    # start_from has chosen the input model, whose digest is in the key.
    section = recipe.dpo.model_dump(mode="json", exclude=NOT_RESULTS | {"start_from"})
    return {"dpo": section, "chat_template": recipe.model.chat_template, **_probe(recipe.dpo)}


def _probe(section: TrainingSection) -> dict[str, str]:
    """A probe sets rows aside and may choose the weights; without one, what the verifier learns to read trains nothing again."""
    return {"probe": module_digest(("rightcall.training.probe",))} if section.probe_steps else {}


@stage(name="base", kind="model", modules=("rightcall.training.base",), slice=_base_slice, tags=("model",))
def prepare_base(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Fetches the base model and makes a plain safetensors folder of it, whatever it came as."""
    cache = run.store.cache / "sources"
    source = sources.fetch(recipe.model.source, sha256=recipe.model.sha256, cache=cache)
    return run_job("base", recipe, {"model": _as_folder(source, run.scratch / "source")}, run).summary


@stage(
    name="sft", kind="model", modules=("rightcall.training.sft",), slice=_sft_slice, tags=("model", "training"),
    reads={"base": "model/", "snapshot": "sft.parquet"},
    skip=lambda recipe, refs: refs["base"] if recipe.sft.max_steps == 0 else None,
)  # fmt: skip
def train_sft(run: StageRun, recipe: Recipe, base: ArtifactRef, snapshot: ArtifactRef) -> dict[str, Any]:
    """Supervised fine-tuning on the snapshot's conversations."""
    return _train("sft", run, recipe, model=Input(base, "model/"), dataset=Input(snapshot))


@stage(
    name="dpo", kind="model", modules=("rightcall.training.dpo",), slice=_dpo_slice, tags=("model", "training"),
    reads={"model": "model/", "snapshot": "preference.parquet", "rows": ("sft.parquet",)},
    skip=lambda recipe, refs: refs["model"] if recipe.dpo.max_steps == 0 else None,
)  # fmt: skip
def train_dpo(
    run: StageRun, recipe: Recipe, model: ArtifactRef, snapshot: ArtifactRef, rows: ArtifactRef | None = None
) -> dict[str, Any]:
    """Preference optimisation on the snapshot's pairs; the input model is also the reference. `rows`: see `probed_rows`."""
    more = {} if rows is None else {"rows": Input(rows)}
    return _train("dpo", run, recipe, model=Input(model, "model/"), dataset=Input(snapshot), **more)


def probed_rows(recipe: Recipe, snapshot: ArtifactRef) -> dict[str, Any]:
    """What DPO reads besides its pairs where it probes: the ingested turns. Mined pairs lie in a folder without them."""
    return {"rows": snapshot} if recipe.dpo.probe_steps else {}


def _train(name: str, run: StageRun, recipe: Recipe, *, model: Input, **more: Input) -> dict[str, Any]:
    # The result is as large as the model it starts from; better said now than after the last step.
    run.store.require_space(run.store.size_bytes(model.ref, "model/"))
    channels = {"model": model, **more}

    @cache
    def mirror() -> MetricsMirror:
        """Made with the first line: MLflow takes seconds to start, and the job does not wait for it."""
        return MetricsMirror(recipe, f"{run.name}/{run.key}")

    def send(line: dict[str, Any]) -> None:
        mirror()(line)

    return run_job(name, recipe, channels, run, on_metrics=send).summary


def _as_folder(source: Path, folder: Path) -> Path:
    """An input channel is a folder; a single file (a .gguf) gets one around it."""
    if source.is_dir():
        return source
    folder.mkdir(parents=True, exist_ok=True)
    link = folder / source.name
    link.unlink(missing_ok=True)
    link.symlink_to(source.absolute())
    return folder
