"""Where a job's files lie: the SageMaker container contract, on any machine.

    <root>/input/config/resourceconfig.json   hosts of the job
    <root>/input/data/<channel>/              job (stage + recipe), model, dataset
    <root>/model/                             what the job makes, written last
    <root>/checkpoints/checkpoint-<step>/     resumed from when marked COMPLETE
    <root>/output/data/                       metrics.jsonl, summary.json, items.jsonl …
    <root>/output/failure                     the error that ended the job

The root is SM_ML_ROOT, default /opt/ml; SageMaker's own SM_* variables move single folders. This is the only module
that knows the default. It imports nothing heavy, so that entry.py can use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rightcall.errors import BackendError, RecipeError
from rightcall.job.stage_table import STAGES

if TYPE_CHECKING:
    from rightcall.recipe.schema import Recipe

DEFAULT_ROOT = "/opt/ml"
STOPPED = 143  # 128 + SIGTERM: exit status of a job that was stopped on request, after a checkpoint


@dataclass(frozen=True)
class Folders:
    """The folders of a job, before anything in them was read."""

    root: Path
    config: Path
    model: Path
    checkpoints: Path
    output: Path
    failure: Path
    stop_flag: Path

    def channel(self, name: str) -> Path:
        """The input folder `name`, whether or not it is there."""
        return Path(os.environ.get(f"SM_CHANNEL_{name.upper()}", str(self.root / "input" / "data" / name)))


@dataclass(frozen=True)
class Job:
    """One run of the training program: what to do, where its input is, and where its result goes."""

    stage: str
    recipe: Recipe
    folders: Folders
    hosts: tuple[str, ...]
    current_host: str
    cache: Path | None = None  # optional folder shared by jobs: reference log-probabilities, Spectrum rankings

    @property
    def model(self) -> Path:
        return self.folders.model

    @property
    def checkpoints(self) -> Path:
        return self.folders.checkpoints

    @property
    def output(self) -> Path:
        return self.folders.output

    @property
    def failure(self) -> Path:
        return self.folders.failure

    @property
    def stop_flag(self) -> Path:
        return self.folders.stop_flag

    def channel(self, name: str) -> Path:
        """The input folder `name`.

        Raises:
            BackendError: it is not there; whoever started the job left the channel out.
        """
        path = self.folders.channel(name)
        if not path.is_dir():
            raise BackendError(
                f"stage {self.stage!r} needs the input channel {name!r}, but {str(path)!r} is no folder; add it"
            )
        return path


def folders(environ: Mapping[str, str] | None = None) -> Folders:
    """The job's folders as the environment names them."""
    env = os.environ if environ is None else environ
    root = Path(env.get("SM_ML_ROOT") or DEFAULT_ROOT)
    output = Path(env.get("SM_OUTPUT_DIR", str(root / "output")))
    return Folders(
        root=root,
        config=Path(env.get("SM_INPUT_CONFIG_DIR", str(root / "input" / "config"))),
        model=Path(env.get("SM_MODEL_DIR", str(root / "model"))),
        checkpoints=Path(env.get("SM_CHECKPOINT_DIR", str(root / "checkpoints"))),
        output=Path(env.get("SM_OUTPUT_DATA_DIR", str(output / "data"))),
        failure=output / "failure",
        stop_flag=output / "STOP",
    )


def resource_config(job_folders: Folders) -> dict[str, Any]:
    """resourceconfig.json; one host named algo-1 where there is none."""
    path = job_folders.config / "resourceconfig.json"
    if not path.is_file():
        return {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "lo"}
    return dict(_read_json(path))


def load_job() -> Job:
    """The job that the input channels describe; makes its output folders.

    Raises:
        BackendError: a file of the contract is missing or broken.
        RecipeError: the recipe does not fit this version.
    """
    from pydantic import ValidationError

    from rightcall.recipe.schema import Recipe

    where = folders()
    description = _read_json(where.channel("job") / "job.json")
    stage = str(description.get("stage"))
    if stage not in STAGES:
        raise BackendError(f"job.json names the stage {stage!r}; it must be one of {', '.join(STAGES)}")
    try:
        recipe = Recipe.model_validate(description.get("recipe"))
    except ValidationError as err:
        raise RecipeError(
            f"the recipe in job.json does not fit this version of rightcall: {err}; start the job from this version"
        ) from err
    for folder in (where.model, where.checkpoints, where.output):
        folder.mkdir(parents=True, exist_ok=True)
    resources = resource_config(where)
    cache = os.environ.get("RIGHTCALL_CACHE")
    return Job(
        stage, recipe, where, tuple(resources["hosts"]), resources["current_host"], Path(cache) if cache else None
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as err:
        raise BackendError(f"{str(path)!r} is missing; the backend must write it before it starts the job") from err
    except (ValueError, OSError) as err:
        raise BackendError(f"{str(path)!r} cannot be read: {err}; the backend must write it again") from err
    if not isinstance(content, dict):
        raise BackendError(
            f"{str(path)!r} holds a {type(content).__name__}, not an object; the backend must write it again"
        )
    return content
