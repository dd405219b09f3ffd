"""The traces of an MLflow experiment as spans; MLFLOW_TRACKING_URI says which MLflow."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rightcall.errors import DataError, SourceError
from rightcall.traces.conversations import Traces
from rightcall.traces.spans import Event, Span
from tasks.tracking.connection import connect, mlflow_errors, shown_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Trace

PAGE = 100  # traces
RUNNING = "traces that were not finished"


def read_experiment(uri: str, experiment: str, filter_string: str | None, traces: Traces) -> None:
    """Adds every finished trace that the filter lets through; one whose spans cannot be loaded is named.

    Raises:
        SourceError: there is no such experiment, or MLflow does not understand the filter.
        RegistryError: nothing answers at MLFLOW_TRACKING_URI.
    """
    client = connect()
    with mlflow_errors():
        place = _experiment(client, uri, experiment)
        missing = {}
        for trace in _search(client, uri, place, filter_string, spans=False):
            if trace.info.state.value == "IN_PROGRESS":
                traces.left_out[RUNNING] += 1
            else:
                missing[trace.info.trace_id] = trace.info.request_time
        for trace in _search(client, uri, place, filter_string, spans=True):
            if missing.pop(trace.info.trace_id, None) is not None:  # else it is newer than the list
                _add(trace, traces)
    for trace_id, started in missing.items():
        problem = DataError(
            f"the spans of the trace {trace_id!r} cannot be loaded; see whether its artifacts are still there",
            reason="no_spans",
        )
        traces.refuse(trace_id, started * 1_000_000, problem)


def _experiment(client: MlflowClient, uri: str, named: str) -> str:
    """Its id; a name wins over an id."""
    found = client.get_experiment_by_name(named)
    if found is not None:
        return str(found.experiment_id)
    experiments = client.search_experiments(max_results=1000)
    if named in {each.experiment_id for each in experiments}:
        return named
    raise SourceError(
        f"{uri!r}: MLflow at {shown_uri()!r} has no experiment {named!r}; there are "
        f"{sorted(each.name for each in experiments)[:20]!r}; correct the name, or MLFLOW_TRACKING_URI"
    )


def _search(
    client: MlflowClient, uri: str, experiment_id: str, filter_string: str | None, *, spans: bool
) -> Iterator[Trace]:
    """Oldest first, so that a trace which is logged meanwhile moves no page."""
    from mlflow.exceptions import MlflowException

    token = None
    while True:
        try:
            page = client.search_traces(
                locations=[experiment_id], filter_string=filter_string, max_results=PAGE, page_token=token,
                order_by=["timestamp_ms ASC"], include_spans=spans,
            )  # fmt: skip
        except MlflowException as err:
            if filter_string is None or err.error_code != "INVALID_PARAMETER_VALUE":
                raise
            raise SourceError(
                f"{uri!r}: MLflow does not take the filter {filter_string!r}: {err.message[:300]}; correct 'filter', as in "
                "trace.status = 'OK'"
            ) from err
        yield from page
        token = page.token
        if not token:
            return


def _add(trace: Trace, traces: Traces) -> None:
    """Who spoke stands in the trace's metadata or its tags."""
    about = {**trace.info.tags, **trace.info.trace_metadata}
    about = {name: about[name] for name in ("mlflow.trace.user", "mlflow.trace.session") if about.get(name)}
    for span in trace.data.spans:
        events = [Event(each.timestamp, each.name, dict(each.attributes)) for each in span.events]
        traces.add(
            Span(trace.info.trace_id, span.span_id, span.name, span.start_time_ns, {**about, **span.attributes}, events)
        )
