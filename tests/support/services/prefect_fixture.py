"""One Prefect server for the whole test session, in a home of its own; tests of flows import the fixture from here."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import tasks  # noqa: F401  its settings come before Prefect's import

_started = False


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Starts once (8–13 s), however many modules import it."""
    global _started
    if _started:
        yield
        return
    from prefect.testing.utilities import prefect_test_harness

    _started = True
    with prefect_test_harness(server_startup_timeout=120):
        yield
