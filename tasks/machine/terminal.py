"""The last lines of a command in a terminal, and its exit code."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from rightcall.errors import RightcallError

EXIT_FAILED = 1


def leave(code: int, text: str, stream: Any = None) -> NoReturn:
    """Write the last lines, to standard error where no stream is named, and end the process."""
    stream = sys.stderr if stream is None else stream
    with suppress(BrokenPipeError):  # `… | head`
        stream.write(text)
        stream.flush()
    sys.exit(code)


@contextmanager
def errors_end_the_command() -> Iterator[None]:
    """An error of ours becomes one message and the exit code 1; any other keeps its traceback."""
    try:
        yield
    except RightcallError as err:
        leave(EXIT_FAILED, f"\n{type(err).__name__}: {err}\n")
