"""When a training process hears that it has to stop.

entry.py sets the stop flag and sends SIGUSR1, which ends the process: while libraries are imported, weights are read or the
first step runs, nothing is lost by that. A stage that would lose steps from then on asks not to be ended but to look at
the flag after every step. Scoring never asks: what it has finished is on disk already.
"""

from __future__ import annotations

import signal
import threading


def stop_between_steps() -> None:
    """From now on the stop flag alone says it. Cheap enough to be called after every step."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
