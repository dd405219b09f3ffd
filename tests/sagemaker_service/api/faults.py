"""What goes wrong on demand. Every public method of Faults is also a verb of POST /control."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Literal

from sagemaker_service.api.wire import KNOWN, ServiceError

ENDS = {
    "CapacityError": "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML "
    "instance type.",
    "InternalServerError": "InternalServerError: We encountered an internal error. Please try again.",
    "OutOfMemory": "ClientError: Please use an instance type with more memory, or reduce the size of training data processed "
    "on an instance.",
}
DEFAULT_QUOTA = 20  # instances of each type; a new account of AWS has 0 of the large ones


@dataclass
class Failure:
    operation: str
    error: ServiceError
    left: int | None  # None = until reset()


class Faults:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Everything works again."""
        with self._lock:
            self._failures: list[Failure] = []
            self._away_until = 0.0
            self._ends: deque[str] = deque()
            self._broken_archives: deque[str] = deque()
            self._quotas: dict[str, int] = {}
            self._no_capacity_until = 0.0
            self._torn_checkpoints = 0

    def fail(
        self, operation: str = "*", code: str = "ThrottlingException", count: int | None = 1, message: str | None = None
    ) -> None:
        """The next `count` calls of `operation` ("*": of any) end with the error `code` (wire.KNOWN has the wordings).

        ThrottlingException, InternalFailure, ServiceUnavailable, ResourceLimitExceeded, ExpiredTokenException,
        UnrecognizedClientException, InvalidClientTokenId, AccessDeniedException …
        """
        status, text = KNOWN.get(code, (400, code))
        text = message or text.replace("{operation}", "CreateTrainingJob" if operation == "*" else operation)
        with self._lock:
            self._failures.append(Failure(operation, ServiceError(code, text, status), count))

    def network_away(self, seconds: float) -> None:
        """For so long every connection, to the service and to its moto, is reset."""
        with self._lock:
            self._away_until = time.monotonic() + seconds

    def end_next_job(self, reason: str) -> None:
        """The next job (or attempt of one) that starts fails: a name of ENDS, or the whole FailureReason.

        CapacityError ends it before the program starts; every other while it runs, a moment after its start.
        """
        with self._lock:
            self._ends.append(ENDS.get(reason, reason))

    def break_next_archive(self, how: Literal["truncated", "climbing"]) -> None:
        """The next model.tar.gz is cut in half, or has a member "../escaped.txt"."""
        with self._lock:
            self._broken_archives.append(how)

    def set_quota(self, instance_type: str, instances: int, usage: str = "training job usage") -> None:
        """`usage`: "training job usage", "spot training job usage" or "training warm pool usage"."""
        with self._lock:
            self._quotas[f"{instance_type} for {usage}"] = instances

    def no_capacity(self, seconds: float) -> None:
        """Jobs, and interrupted ones that want to go on, wait so long for an instance."""
        with self._lock:
            self._no_capacity_until = time.monotonic() + seconds

    def tear_next_checkpoint(self) -> None:
        """At the next restart the newest checkpoint lacks its largest file, as if the last sync had not finished."""
        with self._lock:
            self._torn_checkpoints += 1

    def raise_for(self, operation: str) -> None:
        with self._lock:
            for failure in self._failures:
                if failure.operation in ("*", operation) and failure.left != 0:
                    if failure.left is not None:
                        failure.left -= 1
                    raise failure.error

    def network_is_away(self) -> bool:
        return time.monotonic() < self._away_until

    def capacity_is_there(self) -> bool:
        return time.monotonic() >= self._no_capacity_until

    def quota(self, name: str) -> int:
        return self._quotas.get(name, DEFAULT_QUOTA)

    def take_end(self) -> str | None:
        with self._lock:
            return self._ends.popleft() if self._ends else None

    def take_broken_archive(self) -> str | None:
        with self._lock:
            return self._broken_archives.popleft() if self._broken_archives else None

    def take_torn_checkpoint(self) -> bool:
        with self._lock:
            self._torn_checkpoints, torn = max(0, self._torn_checkpoints - 1), self._torn_checkpoints > 0
            return torn
