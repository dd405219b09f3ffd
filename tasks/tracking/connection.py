"""Connects to MLflow and turns its errors into ours. Importing MLflow takes 2 s, so only functions import it."""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from rightcall.errors import RegistryError
from tasks.machine.environment import HOME, MLFLOW_ARTIFACTS
from tasks.tracking.redaction import without_password

if TYPE_CHECKING:
    from mlflow import MlflowClient

CONNECT_SECONDS = 5.0
DEFAULT_PORTS = {"http": 80, "https": 443, "postgresql": 5432, "mysql": 3306, "mssql": 1433}
# Read by MLflow: no warning where git is missing, no progress bar for the 20 KB of a model by reference.
os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def connect() -> MlflowClient:
    """A client for MLFLOW_TRACKING_URI, which is also made MLflow's default; a new SQLite file gets its tables.

    Raises:
        RegistryError: nothing answers there.
    """
    uri = os.environ["MLFLOW_TRACKING_URI"]
    _require_listener(uri)
    # MLflow tells INFO about every table it makes, through handlers of its own.
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    with mlflow_errors(), exclusive():  # two processes that make the tables of one new file at once would both fail
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        client = mlflow.MlflowClient(uri, uri)
        client.search_experiments(max_results=1)
        return client


def experiment_id(client: MlflowClient, name: str) -> str:
    """Makes the experiment where there is none; call it inside `exclusive`.

    Raises:
        RegistryError: it was deleted in MLflow, which keeps its name taken.
    """
    found = client.get_experiment_by_name(name)
    if found is None:
        return str(client.create_experiment(name, artifact_location=_artifact_location()))
    if found.lifecycle_stage != "active":
        raise RegistryError(
            f"the MLflow experiment {name!r} was deleted; run `mlflow experiments restore --experiment-id "
            f"{found.experiment_id}`, or choose another with --set register.experiment=NAME"
        )
    return str(found.experiment_id)


@contextmanager
def exclusive() -> Iterator[None]:
    """One process of this machine at a time between looking something up in MLflow and adding it."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    path = _sqlite_file(uri)
    beside = path.parent if path else HOME
    name = path.name if path else f"mlflow-{hashlib.sha256(uri.encode()).hexdigest()[:8]}"
    try:
        beside.mkdir(parents=True, exist_ok=True)
        stream = (beside / f".{name}.lock").open("w")
    except OSError as err:
        raise RegistryError(
            f"{str(beside)!r} cannot be written: {err}; set MLFLOW_TRACKING_URI or RIGHTCALL_HOME to a place that can"
        ) from err
    with stream:  # closing it gives the lock back, and so does any end of the process
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


@contextmanager
def mlflow_errors() -> Iterator[None]:
    """MLflow's, its database's and its HTTP client's errors become a RegistryError; so does a missing database driver."""
    from mlflow.exceptions import MlflowException
    from requests.exceptions import RequestException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except ImportError as err:  # `postgresql://` alone means psycopg2 to SQLAlchemy 2.0
        raise RegistryError(
            f"MLflow at {shown_uri()!r} needs the Python module {err.name!r}, which is not installed; install it, or "
            "name another driver in MLFLOW_TRACKING_URI, as in postgresql+psycopg:// (pip install 'psycopg[binary]')"
        ) from err
    except (MlflowException, SQLAlchemyError, RequestException, OSError) as err:
        reason = str(err).strip().split("\n")[0][:500]
        raise RegistryError(
            f"MLflow at {shown_uri()!r} refused: {type(err).__name__}: {without_password(reason)}; "
            "check MLFLOW_TRACKING_URI and the server's log, then run the same command, finished stages are kept"
        ) from err


def shown_uri() -> str:
    return without_password(os.environ["MLFLOW_TRACKING_URI"])


def _require_listener(uri: str) -> None:
    """MLflow itself would try for minutes before it says that nobody is there."""
    parts = urlsplit(uri)
    try:
        own_port = parts.port
    except ValueError:
        raise RegistryError(
            f"MLFLOW_TRACKING_URI {without_password(uri)!r} has no number as its port; write '/', '@' and ':' in a "
            "password as %2F, %40 and %3A"
        ) from None
    port = DEFAULT_PORTS.get(parts.scheme.partition("+")[0])
    if port is None or not parts.hostname:
        return
    try:
        socket.create_connection((unquote(parts.hostname), own_port or port), timeout=CONNECT_SECONDS).close()
    except OSError as err:
        raise RegistryError(
            f"MLflow cannot be reached at {without_password(uri)!r}: {err}; start it, or correct MLFLOW_TRACKING_URI "
            f"(without it: a local file, sqlite:///{HOME / 'mlflow.db'})"
        ) from err


def _sqlite_file(uri: str) -> Path | None:
    return Path(uri.removeprefix("sqlite:///")).absolute() if uri.startswith("sqlite:///") else None


def _artifact_location() -> str | None:
    """Where artifacts lie; None = the server knows. With a bare database MLflow would take ./mlruns of the first process."""
    uri = os.environ["MLFLOW_TRACKING_URI"]
    if urlsplit(uri).scheme in ("http", "https"):
        return None
    path = _sqlite_file(uri)
    return str(path.parent / "mlartifacts" if path else MLFLOW_ARTIFACTS)
