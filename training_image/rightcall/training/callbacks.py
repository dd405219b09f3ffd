"""What watches a training run from outside the loop: metrics.jsonl, the stop flag, the clock, a loss that is NaN."""

from __future__ import annotations

import ctypes
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments

from rightcall.errors import TrainingError
from rightcall.job import metrics_log
from rightcall.job.stopping import stop_between_steps
from rightcall.parallel import processes
from rightcall.parallel.processes import memory_bytes
from rightcall.training.health import Health

# TRL's name → ours; values are averaged over the steps of a line.
FIELDS = {
    "loss": "loss", "grad_norm": "grad_norm", "mean_token_accuracy": "token_accuracy", "entropy": "entropy",
    "rewards/accuracies": "rewards_accuracy", "rewards/margins": "margin", "rewards/chosen": "chosen_reward",
    "rewards/rejected": "rejected_reward", "logps/chosen": "chosen_logprob", "logps/rejected": "rejected_logprob",
    "length_drift": "length_drift",
}  # fmt: skip


class Metrics(TrainerCallback):
    """Appends a line to metrics.jsonl every `every` steps; `progress` is what a checkpoint must remember of it.

    tokens            of all rows that were trained on, prompts included, padding not: what a plain trainer would compute
    tokens_computed   those that went through the model: what the rows of a batch share counts once
    """

    def __init__(self, path: Path, every: int, progress: dict[str, Any], health: Health | None = None) -> None:
        self.path, self.every, self.health = path, every, health
        self.progress = progress
        for key in ("tokens", "tokens_computed", "tokens_written", "seconds", "seconds_written"):
            progress.setdefault(key, 0)
        progress.setdefault("window", [])
        if health:
            health.restore(progress.get("health", {}))
        self._tick = time.monotonic()
        self._more: dict[str, float] = {}

    def leave_out(self, seconds: float) -> None:
        """Time since the last line that was no training."""
        self._tick += seconds

    def add(self, values: Mapping[str, float]) -> None:
        """What a probe found after this step: its line is written whatever `every` says."""
        self._more = dict(values)

    def add_before(self, state: TrainerState, values: Mapping[str, float]) -> None:
        """The same before this process's first step."""
        self._see(values)
        if state.is_world_process_zero:
            known = {"tokens": self.progress["tokens"], "seconds": round(self.progress["seconds"], 3)}
            line = {"step": state.global_step, "total_steps": state.max_steps, **known, **values}
            metrics_log.merge(self.path, line)

    def _see(self, values: Mapping[str, float]) -> None:
        if self.health and values:
            self.health.see_probe(values)
            self.progress["health"] = self.health.state()

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._tick = time.monotonic()
        if state.is_world_process_zero:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            metrics_log.cut(self.path, state.global_step)

    def on_log(
        self,
        args: Arguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if not logs or "loss" not in logs:
            return  # the summary that the Trainer logs at its end
        for name in ("loss", "grad_norm"):
            if name in logs and not math.isfinite(logs[name]):
                raise TrainingError(
                    f"{name} became {logs[name]!r} in step {state.global_step}; lower learning_rate or look at the rows"
                )
        now = time.monotonic()
        self.progress["seconds"] += now - self._tick
        self._tick = now
        self.progress["tokens"] = int(logs.get("num_tokens", 0))
        self.progress["tokens_computed"] += int(logs.get("tokens_computed", 0))
        values = {ours: logs[name] for name, ours in FIELDS.items() if name in logs}
        self.progress["window"].append(values)
        if self.health:
            self.health.see(values)
            self.progress["health"] = self.health.state()
        self._see(self._more)
        if state.global_step % self.every == 0 or state.global_step >= state.max_steps or self._more:
            line = self._line(state, logs["learning_rate"], int(logs.get("memory_bytes", 0)) or memory_bytes())
            if state.is_world_process_zero:
                metrics_log.append(self.path, line)

    def _line(self, state: TrainerState, learning_rate: float, memory: int) -> dict[str, Any]:
        """The line of the steps since the last one; the counts go on from it."""
        done, window = self.progress, self.progress["window"]
        step, total = state.global_step, state.max_steps
        tokens, seconds = done["tokens"] - done["tokens_written"], done["seconds"] - done["seconds_written"]
        line: dict[str, Any] = {"step": step, "total_steps": total, "learning_rate": learning_rate}
        for name in window[-1]:
            values = [values[name] for values in window if name in values]
            line[name] = sum(values) / len(values)
        line |= {
            "tokens": done["tokens"], "tokens_computed": done["tokens_computed"],
            "tokens_per_second": round(tokens / max(seconds, 1e-9), 2),
            "memory_bytes": memory, "seconds": round(done["seconds"], 3),
            "eta_seconds": round(done["seconds"] / step * (total - step), 1),
        }  # fmt: skip
        line |= self._more
        if self.health and (warnings := self.health.warnings()):
            line["warnings"] = warnings
        self._more = {}
        done |= {"window": [], "tokens_written": done["tokens"], "seconds_written": done["seconds"]}
        return line


class SaveAndStop(TrainerCallback):
    """Saves every N steps, every M minutes, at the end, and when the stop flag appears; then the run ends.

    All ranks take the same decision: they write the same step.
    """

    def __init__(self, stop_flag: Path, save_steps: int, save_minutes: float) -> None:
        self.stop_flag, self.save_steps, self.save_seconds = stop_flag, save_steps, 60 * save_minutes
        self.stopped = False
        self._saved_at = time.monotonic()

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saved_at = time.monotonic()

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        stop_between_steps()
        stop = self.stop_flag.exists()
        late = time.monotonic() - self._saved_at >= self.save_seconds
        stop, late = (bool(flag) for flag in processes.reduced([float(stop), float(late)], largest=True))
        last = state.global_step >= state.max_steps
        if stop and not last:
            self.stopped = True
            control.should_training_stop = True
        if stop or late or last or state.global_step % self.save_steps == 0:
            control.should_save = True

    def on_save(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._saved_at = time.monotonic()


class ReturnsMemory(TrainerCallback):
    """Gives back now and then what malloc has kept of the steps before.

    Trees differ in size from step to step, and what a step frees is cut up by the next: of glibc's heap a run of 100 steps on
    a CPU came to hold half as much again as its largest step needs. Elsewhere nothing happens. What is given back has to be
    taken again, page by page, by the step after: every step it made SFT a sixth slower.
    """

    EVERY = 2  # steps

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._trim is not None and state.global_step % self.EVERY == 0:
            self._trim(0)
