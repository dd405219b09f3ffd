"""What a running job tells: its metrics and log lines, passed on to the Prefect log and to one progress artifact."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import httpx
from prefect.artifacts import create_progress_artifact, update_progress_artifact
from prefect.context import TaskRunContext
from prefect.exceptions import PrefectException

if TYPE_CHECKING:
    import logging

INTERVAL_SECONDS = 5.0
MAX_ERROR_LINES = 20
ERROR_LINE = re.compile(r"\b(ERROR|CRITICAL|Traceback|\w+Error:)")


class Tail:
    """Complete lines that were added to a growing file since the last look; a file that shrank is read again."""

    def __init__(self, path: Path, *, from_end: bool = False) -> None:
        self.path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0

    def read(self) -> list[str]:
        if not self.path.exists():
            return []
        if self.path.stat().st_size < self._offset:
            self._offset = 0
        with self.path.open("rb") as stream:
            stream.seek(self._offset)
            added = stream.read()
        complete = added[: added.rfind(b"\n") + 1]
        self._offset += len(complete)
        return complete.decode("utf-8", errors="replace").splitlines()


class Progress:
    """At most one line of log and one update of the artifact every INTERVAL_SECONDS, however much the job says."""

    def __init__(
        self,
        title: str,
        logger: logging.Logger | logging.LoggerAdapter,
        on_metrics: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        self.title, self.logger, self.on_metrics = title, logger, on_metrics
        self._latest: dict[str, Any] = {}
        self._last_step = -1  # a probe before the first step has step 0
        self._untold: list[str] = []
        self._error_lines = 0
        self._told_at = 0.0
        self._told_step = -1
        self._artifact: UUID | None = None
        self._artifact_works = TaskRunContext.get() is not None

    def update(self, metrics: Iterable[str] = (), log: Iterable[str] = (), *, final: bool = False) -> None:
        """``metrics``: new lines of metrics.jsonl; ``log``: new lines of the job's log."""
        self._take_metrics(metrics)
        self._take_log(log)
        if final or time.monotonic() - self._told_at >= INTERVAL_SECONDS:
            self._tell()

    def _take_metrics(self, lines: Iterable[str]) -> None:
        for line in lines:
            try:
                metrics = json.loads(line)
            except ValueError:
                continue  # cut by a kill; the program cuts it off when it resumes
            # After a resume the steps behind the checkpoint are done, and written, a second time.
            if isinstance(metrics, dict) and metrics.get("step", 0) > self._last_step:
                self._last_step, self._latest = metrics["step"], metrics
                if self.on_metrics is not None:
                    self.on_metrics(metrics)

    def _take_log(self, lines: Iterable[str]) -> None:
        for line in lines:
            if ERROR_LINE.search(line) and self._error_lines < MAX_ERROR_LINES:
                self._error_lines += 1
                self.logger.warning("%s | %s", self.title, line)
            elif line.strip():
                self._untold.append(line)

    def _tell(self) -> None:
        if self._last_step > self._told_step:
            self.logger.info("%s %s", self.title, progress_line(self._latest))
            self._tell_artifact()
        elif self._untold:
            more = f" (and {len(self._untold) - 1} more lines in its log)" if len(self._untold) > 1 else ""
            self.logger.info("%s | %s%s", self.title, self._untold[-1][:500], more)
        else:
            return
        self._told_step, self._told_at = self._last_step, time.monotonic()
        self._untold.clear()

    def _tell_artifact(self) -> None:
        if not self._artifact_works:
            return
        total = self._latest.get("total_steps") or self._last_step
        percent = min(100.0, 100.0 * self._last_step / max(total, 1))
        description = f"**{self.title}** {progress_line(self._latest)}"
        try:
            if self._artifact is None:
                key = re.sub(r"[^a-z0-9]+", "-", f"progress-{self.title}".lower()).strip("-")
                made = create_progress_artifact(progress=percent, key=key, description=description)
                self._artifact = cast(UUID, made)  # Prefect types the async variant too
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent, description=description)
        except (httpx.HTTPError, PrefectException) as err:
            # Training goes on without the picture of it.
            self._artifact_works = False
            self.logger.warning("%s: no more progress artifact, Prefect's server does not answer: %s", self.title, err)


def progress_line(metrics: dict[str, Any]) -> str:
    """ "step 12/40, loss 2.310, 236 tokens/s, 3.2 min left"; what is missing is left out."""
    parts = [f"step {metrics.get('step')}/{metrics.get('total_steps', '?')}"]
    for name, text in (("loss", "loss {:.4f}"), ("rewards_accuracy", "pairs right {:.2f}"), ("margin", "margin {:.3f}"),
                       ("probe_right", "probe right {:.2f}"), ("tokens_per_second", "{:,.0f} tokens/s")):  # fmt: skip
        if isinstance(metrics.get(name), int | float):
            parts.append(text.format(metrics[name]))
    if isinstance(metrics.get("eta_seconds"), int | float):
        parts.append(f"{metrics['eta_seconds'] / 60:.1f} min left")
    return ", ".join(parts)


def last_lines(path: Path, lines: int = 20, size_bytes: int = 16_000) -> str:
    if not path.exists():
        return "(no log)"
    with path.open("rb") as stream:
        stream.seek(max(0, path.stat().st_size - size_bytes))
        return "\n".join(stream.read().decode("utf-8", errors="replace").splitlines()[-lines:])
