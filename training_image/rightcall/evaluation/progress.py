"""How far all of scoring is: multiple choice, free answers, answers under the grammar; metrics.jsonl with one estimate over all.

    {"step": 44, "total_steps": 712, "part": "free", "seconds": 31.2, "eta_seconds": 148.0, "tokens_per_second": 911.4}

A step is an item scored or an answer written. Work is counted in tokens fed to the model; a new token of an answer
is a pass of its own and counts NEW_TOKEN times. A part that has not begun is estimated at the speed of the last that has.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from rightcall.job import metrics_log
from rightcall.job.folders import STOPPED, Job

logger = logging.getLogger(__name__)

# tokens read in the time that one is written; seen once, SmolLM2 on a busy CPU, 40 answers at once: 16
NEW_TOKEN = 12.0
QUIET_SECONDS = 5.0  # between two lines of the log within a batch


@dataclass
class Part:
    """One kind of work. What an earlier process did counts as done, but says nothing about this one's speed."""

    name: str
    total: int  # items or answers
    expected: float  # weight of all of them, before any is done
    done: int = 0
    given: int = 0  # of them, those that cost nothing
    finished: float = 0.0  # weight of what is done
    worked: float = 0.0  # of it, in this process
    tokens: int = 0  # fed in this process
    seconds: float = 0.0

    @property
    def left(self) -> float:
        paid = self.done - self.given
        each = self.finished / paid if paid else self.expected / max(1, self.total - self.given)
        return (self.total - self.done) * each


class Progress:
    """The parts in their order, the file they are told in, and the stop flag."""

    def __init__(self, job: Job, *parts: Part) -> None:
        self._job = job
        self.parts = {part.name: part for part in parts}
        self._path = job.output / "metrics.jsonl"
        self._started = self._told = time.monotonic()
        self._told_step = 0
        self._begun = False
        self._now = ""
        self.tokens = 0  # fed to the model in this process

    @property
    def step(self) -> int:
        return sum(part.done for part in self.parts.values())

    @property
    def total(self) -> int:
        return sum(part.total for part in self.parts.values())

    @property
    def seconds(self) -> float:
        return sum(part.seconds for part in self.parts.values())

    def known(self, name: str, answers: int, weight: float) -> None:
        """Done by an earlier process; weight 0 = it costs nothing."""
        part = self.parts[name]
        part.done, part.finished = part.done + answers, part.finished + weight
        part.given += answers if not weight else 0
        if answers and weight and not self._begun:
            self._told_step = self.step

    def expect(self, name: str, weight: float) -> None:
        """What all of the part weighs turns out to be something else."""
        self.parts[name].expected = weight

    def add(self, name: str, answers: int, weight: float, seconds: float, tokens: int) -> None:
        """This process has done one more piece; a line says so."""
        part = self.parts[name]
        part.done, part.finished, part.worked = part.done + answers, part.finished + weight, part.worked + weight
        part.seconds, part.tokens = part.seconds + seconds, part.tokens + tokens
        self._tell(part)

    def settle(self, name: str) -> None:
        """The part is over, whatever was left out of it."""
        part = self.parts[name]
        part.given += part.total - part.done
        part.done = part.total
        if self.step > self._told_step:
            self._tell(part)

    def _tell(self, part: Part) -> None:
        if not self._begun:  # a process that was killed may have told of more than it kept
            metrics_log.cut(self._path, self._told_step)
            self._begun = True
        line = {"step": self.step, "total_steps": self.total, "part": part.name, "seconds": round(self.seconds, 3)}
        line |= {"eta_seconds": round(self.eta_seconds(), 3)}
        metrics_log.append(self._path, line | {"tokens_per_second": round(part.tokens / max(part.seconds, 1e-9), 1)})
        self._told, self._told_step = time.monotonic(), self.step

    def eta_seconds(self) -> float:
        """Of all parts; 0 when nothing is left, or nothing is known about the speed."""
        left, speed = 0.0, 0.0
        for part in self.parts.values():
            if part.worked:
                speed = part.seconds / part.worked
            left += part.left * speed
        return left

    def stop_if_asked(self) -> None:
        """Ends the process when the job was asked to stop.

        Raises:
            SystemExit: with status 143; what is done is kept for the next run.
        """
        if self._job.stop_flag.exists():
            logger.info("asked to stop: %d of %d items and answers are kept", self.step, self.total)
            raise SystemExit(STOPPED)

    @contextmanager
    def watching(self, model: Any, name: str) -> Iterator[None]:
        """Within it every pass of the model looks at the stop flag first, is counted, and may tell the log."""
        self._now = name
        hook = model.get_decoder().register_forward_pre_hook(self._before_pass, with_kwargs=True)
        try:
            yield
        finally:
            hook.remove()

    def _before_pass(self, module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        self.stop_if_asked()
        ids = named.get("input_ids", arguments[0] if arguments else None)
        self.tokens += 0 if ids is None else int(ids.numel())
        now = time.monotonic()
        if now - self._told >= QUIET_SECONDS:
            self._told, part = now, self.parts[self._now]
            logger.info(
                "%s: %d of %d done, %s tokens fed, %.0f s",
                part.name,
                part.done,
                part.total,
                f"{self.tokens:,}",
                now - self._started,
            )
