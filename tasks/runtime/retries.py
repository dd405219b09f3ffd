"""Which errors are worth another try: the network's, the throttling service's, the busy database's. Errors of our own never are."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from typing import Any

RETRIES = 2
RETRY_DELAYS_SECONDS = [2.0, 8.0]  # exponential; Prefect adds the jitter
RETRY_JITTER_FACTOR = 0.5

TRANSIENT_ERRNOS = {
    errno.ECONNRESET, errno.ECONNREFUSED, errno.ECONNABORTED, errno.EPIPE, errno.ETIMEDOUT, errno.ENETUNREACH,
    errno.EHOSTUNREACH, errno.ENETDOWN,
}  # fmt: skip
TRANSIENT_STATUS_CODES = {408, 425, 429, 500, 502, 503, 504}
# By name: importing httpx, requests and botocore here only to compare types would cost every run a second.
TRANSIENT_NAMES = {
    "httpx": {"TransportError"},
    "httpcore": {"NetworkError", "TimeoutException", "RemoteProtocolError"},
    "requests": {"ConnectionError", "Timeout", "ChunkedEncodingError"},
    "urllib3": {"ProtocolError", "TimeoutError", "NewConnectionError", "MaxRetryError"},
    "http": {"IncompleteRead", "RemoteDisconnected"},
    "botocore": {"HTTPClientError", "EndpointConnectionError", "ConnectionError", "IncompleteReadError"},
}
NEVER_NAMES = {"SSLError", "UnsupportedProtocol", "InvalidURL", "ProxyError"}
THROTTLING_CODES = {
    "Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException",
    "RequestTimeout", "SlowDown", "ServiceUnavailable", "InternalError", "InternalFailure",
}  # fmt: skip


def is_transient(error: BaseException) -> bool:
    """Whether ``error``, or anything that caused it, is of the kind that passes by itself."""
    return any(_is_transient_itself(link) for link in _chain(error))


def retry_if_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's ``retry_condition_fn``; it must be a plain function, anything else is called with a wrong meaning."""
    return isinstance(state.data, BaseException) and is_transient(state.data)


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    waiting: list[BaseException] = [error]
    while waiting:
        link = waiting.pop()
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        parents = [
            link.__cause__,
            None if link.__suppress_context__ else link.__context__,
            getattr(link, "reason", None),
        ]
        if isinstance(link, BaseExceptionGroup):
            parents.extend(link.exceptions)
        waiting.extend(parent for parent in parents if isinstance(parent, BaseException))


def _is_transient_itself(error: BaseException) -> bool:
    names = {(kind.__module__.partition(".")[0], kind.__name__) for kind in type(error).__mro__}
    if any(name in NEVER_NAMES for _, name in names):
        return False
    if isinstance(error, ConnectionError | TimeoutError | socket.gaierror):
        return True
    if isinstance(error, OSError) and error.errno in TRANSIENT_ERRNOS:
        return True
    if any(name in TRANSIENT_NAMES.get(package, ()) for package, name in names):
        return True
    if ("sqlite3", "OperationalError") in names and "locked" in str(error):
        return True
    return _status_code(error) in TRANSIENT_STATUS_CODES or _service_code(error) in THROTTLING_CODES


def _status_code(error: BaseException) -> int | None:
    """HTTP status of httpx, requests, huggingface_hub (``response``), urllib (``code``) and botocore (a dictionary)."""
    response = getattr(error, "response", None)
    if isinstance(response, dict):
        return response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    for value in (
        getattr(response, "status_code", None),
        getattr(error, "status_code", None),
        getattr(error, "code", None),
    ):
        if isinstance(value, int):
            return value
    return None


def _service_code(error: BaseException) -> str | None:
    response = getattr(error, "response", None)
    return response.get("Error", {}).get("Code") if isinstance(response, dict) else None
