"""Small training jobs over the tiny model, as a backend would lay them out."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Mapping
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from snapshot_writer import write_rows
from tiny import tiny_preference_rows, tiny_sft_rows

from rightcall.job import folders
from rightcall.recipe.schema import Recipe

SECTION = {"max_steps": 6, "learning_rate": 1e-3, "per_device_train_batch_size": 2, "max_length": 1024, "bf16": False}


def make_recipe(**sections: Mapping[str, Any]) -> Recipe:
    """`sft`, `dpo`: fields over SECTION."""
    return Recipe.model_validate({
        "name": "tiny", "model": {"source": "tiny", "chat_template": "chatml-tools"},
        "data": {"sft": [{"uri": "a"}], "preference": [{"uri": "b"}], "evaluation": [{"uri": "c"}]},
        "sft": SECTION | dict(sections.get("sft", {})), "dpo": SECTION | dict(sections.get("dpo", {})),
        "compute": {"threads": 1},
    })  # fmt: skip


def make_root(root: Path, model: Path, stage: str, rows: int = 24, **sections: Mapping[str, Any]) -> Path:
    """The input of a job under `root`."""
    dataset = root / "input/data/dataset"
    dataset.mkdir(parents=True)
    write_rows(dataset, "sft", tiny_sft_rows(rows))
    write_rows(dataset, "preference", tiny_preference_rows(rows))
    (root / "input/data/model").symlink_to(model)
    (root / "input/data/job").mkdir()
    recipe = make_recipe(**sections).model_dump(mode="json", by_alias=True)
    (root / "input/data/job/job.json").write_text(json.dumps({"stage": stage, "recipe": recipe}))
    return root


def make_job(
    root: Path, model: Path, stage: str, rows: int = 24, cache: Path | None = None, **sections: Mapping[str, Any]
) -> folders.Job:
    make_root(root, model, stage, rows, **sections)
    where = folders.folders({"SM_ML_ROOT": str(root)})
    for folder in (where.model, where.checkpoints, where.output):
        folder.mkdir(parents=True)
    return folders.Job(stage, make_recipe(**sections), where, ("algo-1",), "algo-1", cache)


def run_job(job: folders.Job) -> None:
    from rightcall.training import dpo, sft

    {"sft": sft, "dpo": dpo}[job.stage].run(job)


def start(job: folders.Job) -> BaseProcess:
    """The job in a process of its own, forked from one that has imported torch and nothing else has happened in.

    A fork of the test process itself would take along whatever threads earlier tests have left, a Prefect server's among them.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["rightcall.training.sft", "rightcall.training.dpo"])
    process = context.Process(target=run_job, args=(job,))
    process.start()
    return process


def metrics(job: folders.Job) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (job.output / "metrics.jsonl").read_text().splitlines()]


def summary(job: folders.Job) -> dict[str, Any]:
    return dict(json.loads((job.output / "summary.json").read_text()))
