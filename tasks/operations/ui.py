"""Prefect and MLflow in the browser, on what the runs left; no flow, so it has no deployment.

python -m tasks.operations.ui
"""

from __future__ import annotations

import argparse
import signal
import sys

from tasks.machine.terminal import errors_end_the_command
from tasks.machine.user_interfaces import user_interfaces, wait_for_one_to_end


def main() -> None:
    parser = argparse.ArgumentParser(
        "python -m tasks.operations.ui", description="Open Prefect and MLflow on what the runs left."
    )
    parser.add_argument("--prefect-port", type=int, default=4200)
    parser.add_argument("--mlflow-port", type=int, default=5000)
    given = parser.parse_args()
    sys.stdout.write(
        f"Prefect http://127.0.0.1:{given.prefect_port} · MLflow http://127.0.0.1:{given.mlflow_port} · Ctrl-C ends\n"
    )
    sys.stdout.flush()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: both servers end with this process
    with errors_end_the_command(), user_interfaces(given.prefect_port, given.mlflow_port) as children:
        wait_for_one_to_end(children)


if __name__ == "__main__":
    main()
