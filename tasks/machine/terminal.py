"""The last lines of a command in a terminal, and its exit code."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any, NoReturn


def leave(code: int, text: str, stream: Any = sys.stderr) -> NoReturn:
    """Write the last lines and end the process."""
    with suppress(BrokenPipeError):  # `… | head`
        stream.write(text)
        stream.flush()
    sys.exit(code)
