"""The last lines of a command in a terminal, and its exit code."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from rightcall.errors import RightcallError

EXIT_FAILED, EXIT_INTERRUPTED = 1, 130


def leave(code: int, text: str, stream: Any = None) -> NoReturn:
    """Write the last lines, to standard error where no stream is named, and end the process."""
    stream = sys.stderr if stream is None else stream
    with suppress(BrokenPipeError):  # `… | head`
        stream.write(text)
        stream.flush()
    sys.exit(code)


def end_quietly_on_interrupt() -> None:
    """A Ctrl-C before `python -m …` has found its module ends the process without a traceback; elsewhere nothing changes."""
    if sys.argv[:1] == ["-m"] and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, _stop)


def _stop(number: int, frame: FrameType | None) -> NoReturn:
    sys.stderr.write("\nStopped before anything was begun.\n")
    sys.stderr.flush()
    os._exit(EXIT_INTERRUPTED)


@contextmanager
def errors_end_the_command() -> Iterator[None]:
    """An error of ours becomes one message and the exit code 1; any other keeps its traceback."""
    try:
        yield
    except RightcallError as err:
        leave(EXIT_FAILED, f"\n{type(err).__name__}: {err}\n")
