"""Checkpoints that a resumed run cannot be told from an undisturbed one by, and that a kill at any moment cannot break.

checkpoints/checkpoint-40/   trained.safetensors   trained parameters only: the frozen ones come from the model channel
                             optimizer.pt scheduler.pt rng_state.pth trainer_state.json progress.json
                             COMPLETE              written last; a folder without it does not exist for a resume
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer import TRAINER_STATE_NAME

from rightcall.errors import StoreError, TrainingError

log = logging.getLogger(__name__)

COMPLETE = "COMPLETE"
WEIGHTS = "trained.safetensors"
PROGRESS = "progress.json"
KEPT = 2


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint; unfinished ones are deleted on the way."""
    complete = []
    for path in sorted(folder.glob("checkpoint-*"), key=_step):
        if (path / COMPLETE).is_file():
            complete.append(path)
        else:
            log.info("%s was not finished and is deleted", path.name)
            shutil.rmtree(path)
    return complete[-1] if complete else None


def _step(path: Path) -> int:
    tail = path.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def read_progress(checkpoint: Path | None) -> dict[str, Any]:
    """What the metrics had counted when the checkpoint was written."""
    return dict(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))) if checkpoint else {}


def finish(folder: Path) -> None:
    """Forces every file to the disk, then marks the folder complete and drops older ones."""
    for path in sorted(folder.iterdir()):
        _sync(path)
    (folder / COMPLETE).touch()
    _sync(folder / COMPLETE)
    _sync(folder)
    for old in sorted((path.parent for path in folder.parent.glob(f"checkpoint-*/{COMPLETE}")), key=_step)[:-KEPT]:
        (old / COMPLETE).unlink()  # first: a kill in the middle of the deletion must not leave half a checkpoint marked
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def trained_parameters(model: nn.Module) -> dict[str, Any]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Checkpointed:
    """Mixed in before a transformers Trainer: the format above instead of whole models, and our own metrics' state."""

    # What the Trainer that this is mixed into has; declared for the type checker.
    model: Any
    args: Any
    state: Any
    progress: dict[str, Any]  # filled by callbacks.Metrics, shared with this object
    _total_train_tokens: int

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if (folder / COMPLETE).exists():
            return
        started = time.monotonic()
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            weights = {name: value.detach().contiguous() for name, value in trained_parameters(self.model).items()}
            save_file(weights, folder / WEIGHTS)
            self._save_optimizer_and_scheduler(str(folder))  # type: ignore[attr-defined]
            self._save_rng_state(str(folder))  # type: ignore[attr-defined]
            self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            (folder / PROGRESS).write_text(json.dumps(self.progress), encoding="utf-8")
            finish(folder)
        except (OSError, RuntimeError, SafetensorError) as err:
            raise _explained(err, folder) from err
        size = sum(path.stat().st_size for path in folder.iterdir())
        log.info("%s: %.0f MB in %.1f s", folder.name, size / 1e6, time.monotonic() - started)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        parameters = trained_parameters(self.model)
        saved = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        if saved.keys() != parameters.keys():
            different = sorted(saved.keys() ^ parameters.keys())
            raise TrainingError(
                f"{Path(resume_from_checkpoint).name} trained other parameters, {different[:3]!r} among them; "
                "delete the checkpoints"
            )
        for name, value in saved.items():
            parameters[name].data.copy_(value)
        self._total_train_tokens = int(read_progress(Path(resume_from_checkpoint)).get("tokens", 0))


def _explained(err: Exception, folder: Path) -> Exception:
    """A full disk is the store's problem; torch and safetensors say it in their own words."""
    signs = ("No space left", "failed writing", "enforce fail at inline_container")
    if getattr(err, "errno", None) == errno.ENOSPC or any(sign in str(err) for sign in signs):
        return StoreError(
            f"No space left on device while writing {str(folder)!r}: {err}; free some, the same command then resumes"
        )
    return err
