"""What tests ask the kernel about processes that they have started or killed, and how they wait for them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "support" / "programs"
SUPPORT = ("tests/support", "tests/support/programs", "tests/support/services", "tests/support/examples")
PYTHONPATH = os.pathsep.join(str(ROOT / part) for part in ("", "training_image", "tests", *SUPPORT))


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def comes_true(condition: Callable[[], object], seconds: float) -> bool:
    """Whether it did within this time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def until(condition: Callable[[], object], what: str = "it did not happen", seconds: float = 240) -> None:
    """Waits; ``seconds`` is the longest, on a machine that does other things too."""
    assert comes_true(condition, seconds), what
