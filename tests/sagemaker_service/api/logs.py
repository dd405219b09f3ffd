"""A host's output in CloudWatch Logs, under the names that the service gives."""

from __future__ import annotations

import threading
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

GROUP = "/aws/sagemaker/TrainingJobs"
LONGEST = 200_000  # characters of one event; the service's limit is 256 KiB
_used: set[str] = set()
_lock = threading.Lock()


def stream_name(job: str, host: str) -> str:
    """<job>/algo-1-<epoch seconds>: a restart gets a new one."""
    with _lock:
        second = int(time.time())
        while (name := f"{job}/{host}-{second}") in _used:
            second += 1
        _used.add(name)
        return name


class LogStream:
    def __init__(self, client: Any, name: str) -> None:
        self.client, self.name = client, name
        self._waiting: list[tuple[int, str]] = []
        self._lock = threading.Lock()
        self._made = False

    def write(self, line: str) -> None:
        text = line.rstrip("\r\n") or " "  # an empty message is refused
        now = int(time.time() * 1000)
        with self._lock:
            self._waiting += [(now, text[start : start + LONGEST]) for start in range(0, len(text), LONGEST)]

    def ship(self) -> None:
        """What was written since; kept for the next time when the network is away."""
        with self._lock:
            batch, self._waiting = self._waiting[:1000], self._waiting[1000:]
        if not batch:
            return
        try:
            self._make()
            events = [{"timestamp": when, "message": text} for when, text in batch]
            self.client.put_log_events(logGroupName=GROUP, logStreamName=self.name, logEvents=events)
        except (BotoCoreError, ClientError):
            with self._lock:
                self._waiting = batch + self._waiting
            return
        self.ship()

    def _make(self) -> None:
        """The stream exists from the first line on, as with the service."""
        if self._made:
            return
        for verb, names in (("group", {"logGroupName": GROUP}),
                            ("stream", {"logGroupName": GROUP, "logStreamName": self.name})):  # fmt: skip
            try:
                getattr(self.client, f"create_log_{verb}")(**names)
            except self.client.exceptions.ResourceAlreadyExistsException:
                continue
        self._made = True
