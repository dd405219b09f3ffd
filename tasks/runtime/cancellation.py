"""Notices that a run was cancelled in Prefect while it waits for work elsewhere, and ends it as Cancelled.

A worker's process gets SIGTERM as soon as its run is Cancelling; a run that was started by hand is not told. So whoever
waits asks Prefect's server at every look. Our exception is an ``Abort``: after any other Prefect's engines would replace
the states that we set.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import Abort, PrefectException
from prefect.runtime import flow_run as runtime
from prefect.states import Cancelled

logger = logging.getLogger(__name__)


class RunCancelled(Abort):
    """The run was cancelled in Prefect, its job is being stopped, and its state says so."""


class FlowRunWatch:
    """Asks about the flow run around the current code and the one around that; outside of Prefect nothing is cancelled."""

    def __init__(self) -> None:
        task_context = TaskRunContext.get()
        within = FlowRunContext.get() is not None or task_context is not None
        found = (runtime.id, runtime.root_flow_run_id) if within else ()
        self.flow_run_ids = [UUID(each) for each in dict.fromkeys(found) if each]
        self.task_run_id = task_context.task_run.id if task_context else None

    @property
    def root_id(self) -> str | None:
        """Id of the run that a person sees and cancels."""
        return str(self.flow_run_ids[-1]) if self.flow_run_ids else None

    def cancelled(self) -> bool:
        """Whether someone wants the run to end; no, while Prefect's server does not answer."""
        if not self.flow_run_ids:
            return False
        try:
            with get_client(sync_client=True) as client:
                states = [client.read_flow_run(each).state for each in self.flow_run_ids]
        except (httpx.HTTPError, PrefectException) as err:
            logger.debug("Prefect's server did not say whether the run was cancelled: %s", err)
            return False
        return any(state is not None and (state.is_cancelling() or state.is_cancelled()) for state in states)

    def cancel(self, message: str) -> RunCancelled:
        """Ends the run in the state Cancelled; the caller raises what this gives."""
        signal = RunCancelled(message)
        state: State[None] = Cancelled(message=message)
        if self.flow_run_ids:
            with get_client(sync_client=True) as client:
                if self.task_run_id is not None:
                    with suppress(httpx.HTTPError, PrefectException):  # not recorded yet: nothing is shown as running
                        client.set_task_run_state(self.task_run_id, state, force=True)
                for each in self.flow_run_ids:
                    client.set_flow_run_state(each, state, force=True)
        signal.state = state  # type: ignore[attr-defined]  # the flow engine takes it as its own
        return signal
