"""Processes that do not outlive the one that started them."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(*, parent: int | None = None) -> Callable[[], None]:
    """To be called in the child: the kernel kills it when its parent ends in any way, kill -9 included.

    Its parent is the *thread* that started it: wait for the child in that thread.

    `parent` is the process id of who the parent should be; None = whoever it is now. Where it is dead already, the
    child ends at once.
    """
    if sys.platform != "linux":
        return lambda: None
    libc = ctypes.CDLL(None, use_errno=True)  # loaded before the fork: nothing may be imported after it

    def bind() -> None:
        expected = os.getppid() if parent is None else parent
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != expected or (expected == 1 and parent != 1):
            os._exit(1)

    return bind
