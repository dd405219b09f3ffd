"""The service as a process of its own, so that its jobs outlive the client that started them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from rightcall.job.parent_death import die_with_parent
from tasks.machine.child_processes import end_group

CHECKOUT = Path(__file__).resolve().parents[3]


class ServiceProcess:
    """Dies with the thread that started it."""

    def __init__(self, root: Path, *options: str) -> None:
        """`options`: of `python -m sagemaker_service`, e.g. "--limit-scale", "0.01"."""
        self.root, self.options = root, options

    def __enter__(self) -> ServiceProcess:
        self.root.mkdir(parents=True, exist_ok=True)
        self.log = self.root / "service.log"
        path = f"{CHECKOUT / 'tests'}:{CHECKOUT / 'tests' / 'support' / 'services'}:{CHECKOUT}"
        with self.log.open("ab") as sink:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "sagemaker_service", "--root", str(self.root), *self.options],
                env={name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {"PYTHONPATH": path},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=sink, start_new_session=True,
                preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509  one system call, no locks
            )  # fmt: skip
        assert self._child.stdout is not None
        ready = self._child.stdout.readline()
        if not ready:
            raise RuntimeError(f"the service did not start:\n{self.log.read_text()}")
        self.environment: dict[str, str] = json.loads(ready)
        self.endpoint_url = self.environment["AWS_ENDPOINT_URL_SAGEMAKER"]
        return self

    def __exit__(self, *_: object) -> None:
        end_group(self._child, 20)
        if self._child.stdout is not None:
            self._child.stdout.close()

    @property
    def pid(self) -> int:
        return self._child.pid

    def control(self, do: str, **arguments: Any) -> Any:
        request = urllib.request.Request(  # noqa: S310  a loopback address of ours
            f"{self.endpoint_url}/control", json.dumps({"do": do, **arguments}).encode(), method="POST"
        )
        try:
            with urllib.request.urlopen(request) as reply:  # noqa: S310
                return json.load(reply)["result"]
        except urllib.error.HTTPError as err:
            raise ValueError(json.load(err)["message"]) from err

    def state(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.endpoint_url}/control") as reply:  # noqa: S310
            return dict(json.load(reply))
