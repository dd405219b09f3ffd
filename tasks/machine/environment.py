"""Where rightcall keeps what it makes, and the switches that other libraries read when they are imported.

Everything is a default: a variable that is set already wins. Import this before Prefect, MLflow or Great Expectations.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rightcall.errors import StoreError
from tasks.machine.checkout import CHECKOUT
from tasks.machine.full_disk import require_writable
from tasks.machine.terminal import EXIT_FAILED, leave

HOME = Path(os.environ.get("RIGHTCALL_HOME") or CHECKOUT / ".rightcall").expanduser().absolute()
MLFLOW_ARTIFACTS = HOME / "mlartifacts"

DEFAULTS = {
    "RIGHTCALL_STORE": str(HOME / "store"),
    "RIGHTCALL_MIRROR": str(HOME / "mirror"),  # what a store in S3 keeps on this machine
    "PREFECT_HOME": str(HOME / "prefect"),
    # An ad hoc run starts its own server; 20 s, Prefect's default, is too short for a busy laptop.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    # SQLite's own default of 60 s is Prefect's too, but a 2-core machine that trains needs longer.
    "PREFECT_SERVER_DATABASE_TIMEOUT": "120",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_TRACKING_URI": f"sqlite:///{HOME / 'mlflow.db'}",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
for _name, _value in DEFAULTS.items():
    os.environ.setdefault(_name, _value)
try:
    # Prefect's server makes its database, but not the folder around it: it would end in a connection time-out.
    for _folder in (HOME, Path(os.environ["PREFECT_HOME"])):
        require_writable(_folder, "set RIGHTCALL_HOME to a folder that you may write")
except StoreError as err:
    if sys.argv[:1] != ["-m"]:  # what Python puts there until it has found the module of `python -m flows.…`
        raise
    leave(EXIT_FAILED, f"\nStoreError: {err}\n")


def mirror_root() -> Path:
    """Folder below which every store in S3 keeps what it downloads and works on."""
    return Path(os.environ["RIGHTCALL_MIRROR"]).expanduser().absolute()
