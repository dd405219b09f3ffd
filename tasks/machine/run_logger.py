"""The logger of the current Prefect run: its lines reach the run's page, a module's own logger reaches the terminal only.

Prefect's configuration shows a module's own logger from WARNING on.
"""

from __future__ import annotations

import logging

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger


def run_logger(otherwise: str) -> logging.Logger | logging.LoggerAdapter:
    """Logger of the current Prefect run; outside of one, the logger named ``otherwise``."""
    try:
        return get_run_logger()
    except MissingContextError:
        return logging.getLogger(otherwise)
