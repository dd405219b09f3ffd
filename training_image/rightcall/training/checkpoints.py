"""Checkpoints from which a resumed run ends as an undisturbed one would, and that a kill at any moment cannot break.

checkpoints/checkpoint-40/   trained.safetensors   trained parameters only: the frozen ones come from the model channel
                             optimizer.pt scheduler.pt trainer_state.json progress.json metrics.jsonl
                             rng_state.pth, or rng_states.pth where several processes train
                             COMPLETE              written last, with the other files' sizes; a folder without it, or
                                                   with other sizes, does not exist for a resume

Rank 0 gathers and writes everything, so nothing of another host is needed, and another number of processes can go on.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import random
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from rightcall.errors import StoreError, TrainingError
from rightcall.parallel import full_state, processes

logger = logging.getLogger(__name__)

COMPLETE = "COMPLETE"
WEIGHTS = "trained.safetensors"
PROGRESS = "progress.json"
METRICS = "metrics.jsonl"  # the lines so far: a new host has only what is in the checkpoint
RNG_STATES = "rng_states.pth"
EVERYWHERE = (TRAINER_STATE_NAME, PROGRESS)  # what every host must be able to read, a few kB
KEPT = 2


def newest(folder: Path) -> Path | None:
    """The newest complete checkpoint of rank 0, as a path on this host; unfinished ones are deleted on the way."""
    complete = None
    if processes.world().first:
        for path in sorted(folder.glob("checkpoint-*"), key=_step):
            if is_complete(path):
                complete = path
            else:
                logger.info("%s was not finished and is deleted", path.name)
                shutil.rmtree(path)
    small = (
        {name: (complete / name).read_bytes() for name in EVERYWHERE if (complete / name).is_file()} if complete else {}
    )
    name, small = processes.from_first((complete.name if complete else None, small))
    if name is None:
        return None
    if processes.world().first_here and not processes.world().first:
        (folder / name).mkdir(parents=True, exist_ok=True)
        for file, content in small.items():
            (folder / name / file).write_bytes(content)
    processes.wait_for_all()
    return folder / name


def is_complete(folder: Path) -> bool:
    """Whether COMPLETE is there, and all that it names: a copy through S3 may bring it before the large files."""
    try:
        sizes = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))
        return all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, AttributeError):
        return False


def _step(path: Path) -> int:
    tail = path.name.rpartition("-")[2]
    return int(tail) if tail.isdigit() else -1


def read_progress(checkpoint: Path | None) -> dict[str, Any]:
    """What the metrics had counted when the checkpoint was written."""
    return dict(json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))) if checkpoint else {}


def best_step(probes: Mapping[str, Mapping[str, float]]) -> int:
    """The step after which most answers of a probe were right; of equals the latest."""
    return max((found["probe_right"], int(step)) for step, found in probes.items())[1]


def finish(folder: Path, *, keeps_best: bool = False) -> None:
    """Forces every file to the disk, then marks the folder complete and drops older ones.

    `keeps_best`: those of the steps whose probe was best, as each checkpoint that stays has it.
    """
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.name != COMPLETE}
    for name in sizes:
        _sync(folder / name)
    unfinished = folder / f"{COMPLETE}.new"
    unfinished.write_text(json.dumps(sizes), encoding="utf-8")
    _sync(unfinished)
    os.replace(unfinished, folder / COMPLETE)
    _sync(folder)
    complete = sorted((path.parent for path in folder.parent.glob(f"checkpoint-*/{COMPLETE}")), key=_step)
    probes = [found for path in complete[-KEPT:] if keeps_best and (found := read_progress(path).get("probes"))]
    best = {best_step(found) for found in probes}
    for old in (path for path in complete[:-KEPT] if _step(path) not in best):
        (old / COMPLETE).unlink()  # first: a kill in the middle of the deletion must not leave half a checkpoint marked
        shutil.rmtree(old)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Checkpointed:
    """Mixed in before a transformers Trainer: the format above instead of whole models, and our own metrics' state."""

    # What the Trainer that this is mixed into has; declared for the type checker.
    model: Any
    args: Any
    state: Any
    optimizer: Any
    lr_scheduler: Any
    progress: dict[str, Any]  # filled by callbacks.Metrics, shared with this object
    metrics_file: Path | None = None  # what callbacks.Metrics writes; copied into every checkpoint
    _total_train_tokens: int

    keeps_best = False  # the weights of the best probe are the result, and its checkpoint is kept
    gathers = False  # the weights or the optimiser's state are shared, or another process shares the steps
    optimizer_names: list[list[str]]

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Remembers the parameters' names in the optimiser's order: wrappers replace the parameters, but keep it."""
        found = super().create_optimizer(*args, **kwargs)  # type: ignore[misc]
        if self.gathers:
            names = {id(parameter): name for name, parameter in self.model.named_parameters()}
            groups = full_state.torch_optimizer(self.optimizer).param_groups
            self.optimizer_names = [[names[id(parameter)] for parameter in group["params"]] for group in groups]
        return found

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        if processes.from_first(is_complete(folder)):
            return
        started = time.monotonic()
        try:
            if processes.world().first:
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir(parents=True)
            if self.gathers:
                self._save_gathered(folder)
            else:
                trained = full_state.trained_parameters(self.model)
                save_file({name: value.detach().contiguous() for name, value in trained.items()}, folder / WEIGHTS)
                self._save_optimizer_and_scheduler(str(folder))  # type: ignore[attr-defined]
                self._save_rng_state(str(folder))  # type: ignore[attr-defined]
            if processes.world().first:
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
                (folder / PROGRESS).write_text(json.dumps(self.progress), encoding="utf-8")
                if self.metrics_file and self.metrics_file.is_file():
                    shutil.copyfile(self.metrics_file, folder / METRICS)
                finish(folder, keeps_best=self.keeps_best)
        except (OSError, RuntimeError, SafetensorError) as err:
            raise _explained(err, folder) from err
        self._drop_elsewhere(folder)
        if processes.world().first:
            size = sum(path.stat().st_size for path in folder.iterdir())
            logger.info("%s: %.0f MB in %.1f s", folder.name, size / 1e6, time.monotonic() - started)

    def kept_step(self) -> int:
        """The step whose weights are the result."""
        probes = self.progress.get("probes") if self.keeps_best else None
        return best_step(probes) if probes else int(self.state.global_step)

    def weights_of(self, step: int) -> dict[str, torch.Tensor]:
        """Trained parameters of an earlier step whose checkpoint was kept; only rank 0 may ask."""
        folder = Path(self.args.output_dir) / f"checkpoint-{step}"
        if not is_complete(folder):
            raise TrainingError(
                f"the checkpoint of step {step}, whose probe was the best, is not whole in {str(folder)!r}; delete the "
                "checkpoints and train again"
            )
        return load_file(folder / WEIGHTS)

    def _save_gathered(self, folder: Path) -> None:
        weights = full_state.gather_weights(self.model)
        optimizer = full_state.gather_optimizer(self.model, self.optimizer, self.optimizer_names)
        random_states = processes.to_first(_random_state())
        if processes.world().first:
            save_file(weights, folder / WEIGHTS)
            torch.save(optimizer, folder / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), folder / SCHEDULER_NAME)
            torch.save(random_states, folder / RNG_STATES)

    def _drop_elsewhere(self, folder: Path) -> None:
        """Deletes other hosts' copies, brought there by a restart, of checkpoints that rank 0 no longer has."""
        kept = processes.from_first([path.name for path in folder.parent.glob("checkpoint-*")])  # and waits for rank 0
        if processes.world().first_here and not processes.world().first:
            for path in folder.parent.glob("checkpoint-*"):
                if path.name not in kept:
                    shutil.rmtree(path, ignore_errors=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Into the model, before anything wraps it."""
        folder = Path(resume_from_checkpoint)
        saved = load_file(folder / WEIGHTS) if processes.world().first else None
        full_state.put_weights(self.model, saved, folder.name)
        self._total_train_tokens = int(read_progress(folder).get("tokens", 0))

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        if not self.gathers or resume_from_checkpoint is None:
            return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)  # type: ignore[misc]
        folder = Path(resume_from_checkpoint)
        self._load_from_checkpoint(resume_from_checkpoint)
        prepared = super()._prepare_for_training(max_steps, train_dataloader, None)  # type: ignore[misc]
        first = processes.world().first
        full_state.put_fp32_copies(self.model, load_file(folder / WEIGHTS) if first else None)
        state = torch.load(folder / OPTIMIZER_NAME, map_location="cpu", weights_only=True) if first else None
        full_state.put_optimizer(self.model, self.optimizer, self.optimizer_names, state)
        scheduler = torch.load(folder / SCHEDULER_NAME, weights_only=True) if first else None
        self.lr_scheduler.load_state_dict(processes.from_first(scheduler))
        return prepared

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not self.gathers or checkpoint is None:
            super()._load_rng_state(checkpoint)  # type: ignore[misc]
            return
        path = Path(checkpoint) / RNG_STATES
        here = processes.world().first and path.is_file()
        states = processes.from_first(torch.load(path, map_location="cpu", weights_only=True) if here else None)
        if states is None or len(states) != processes.world().size:
            logger.info("%s was written by another number of processes: dropout starts anew", path.parent.name)
        else:
            _set_random_state(states[processes.world().rank])


def _random_state() -> dict[str, Any]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    state = {
        "python": random.getstate(),
        "numpy": (kind, np.asarray(keys).tolist(), *rest),
        "torch": torch.random.get_rng_state(),
    }
    return state | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})


def _set_random_state(state: dict[str, Any]) -> None:
    random.setstate(state["python"])
    np.random.set_state(state["numpy"])
    torch.random.set_rng_state(state["torch"])
    if torch.cuda.is_available() and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"])


def _explained(err: Exception, folder: Path) -> Exception:
    """A StoreError when `err` means that the disk is full, which torch and safetensors say in words of their own."""
    signs = ("No space left", "failed writing", "enforce fail at inline_container")
    if getattr(err, "errno", None) == errno.ENOSPC or any(sign in str(err) for sign in signs):
        return StoreError(
            f"No space left on device while writing {str(folder)!r}: {err}; free some, the same command then resumes"
        )
    return err
