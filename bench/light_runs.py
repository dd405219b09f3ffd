"""Runs of a light pipeline on the tests' tiny model, against a Prefect server that can be killed and started again."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import yaml

import tasks  # noqa: F401  its settings come before Prefect's import
from rightcall.job.parent_death import die_with_parent
from tasks.machine.child_processes import marked
from tasks.store.folder_store import Store

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests/support"), str(ROOT / "tests")]

from tiny import build_tiny_model, tiny_recipe  # noqa: E402

PYTHON = sys.executable
STAGES = ("base", "ingest", "sft", "dpo", "score", "gate", "report")
DONE = re.compile(r"\b(\w+-[0-9a-f]{8})(?: \([^)]*\))? done in")
LONGEST = 1800.0  # seconds that a run may take


@dataclass
class Server:
    """Prefect's, which can be killed and started again on the same database."""

    folder: Path
    port: int
    database: str | None = None  # URL; None = SQLite
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("RIGHTCALL_", "MLFLOW_"))}
        database = {"PREFECT_API_DATABASE_CONNECTION_URL": self.database} if self.database else {}
        return ours | database | {
            "PREFECT_API_URL": f"http://127.0.0.1:{self.port}/api", "PREFECT_HOME": str(self.folder / "prefect"),
            "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training_image'}",
        }  # fmt: skip

    def start(self) -> None:
        command = [PYTHON, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment, stdout=log, stderr=log, start_new_session=True,
                preexec_fn=die_with_parent(parent=os.getpid()),  # noqa: PLW1509
            )  # fmt: skip
        deadline = time.monotonic() + 180
        while not self._answers():
            if time.monotonic() > deadline:
                raise TimeoutError(f"Prefect's server did not start; see {self.folder / 'server.log'}")
            time.sleep(0.3)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _answers(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/api/health").is_success
        except httpx.HTTPError:
            return False


@dataclass
class Place:
    """One run's store, MLflow database and output; several runs may share the first two."""

    folder: Path
    recipe: Path
    server: Server
    store: Path
    mlflow: str
    settings: Sequence[str] = ()
    starts: int = 0
    process: subprocess.Popen[bytes] = field(init=False, repr=False)

    def start(self) -> None:
        self.starts += 1
        environment = self.server.environment | {
            "RIGHTCALL_STORE": str(self.store), "RIGHTCALL_HOME": str(self.folder), "MLFLOW_TRACKING_URI": self.mlflow,
        }  # fmt: skip
        settings = [part for setting in self.settings for part in ("--set", setting)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [PYTHON, "-m", "flows.pipeline", str(self.recipe), *settings],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip

    def ends(self) -> int:
        return self.process.wait(LONGEST)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def jobs(self) -> list[int]:
        return [pid for root in (self.store / ".work").glob("*/*/scratch") for pid in marked(str(root))]

    def digests(self) -> dict[str, str]:
        """Of every result but the report's page, which holds timings."""
        store = Store(self.store)
        refs = [ref for stage in STAGES for ref in store.refs(stage)]
        return {ref.uri: "" if ref.kind == "report" else ref.digest for ref in refs}

    def computed_twice(self) -> int:
        done = Counter(DONE.findall((self.folder / "log").read_text(errors="replace")))
        return sum(count - 1 for count in done.values())

    def leases(self) -> list[Path]:
        return list((self.store / ".leases").glob("*.lease"))


def light(folder: Path) -> Path:
    path = tiny_recipe(folder, build_tiny_model(folder / "model"))
    values = yaml.safe_load(path.read_text())
    for stage in ("sft", "dpo"):
        values[stage] |= {"max_steps": 6, "save_steps": 1}
    path.write_text(yaml.safe_dump(values))
    return path


def table(columns: Sequence[str], totals: Mapping[str, Mapping[str, object]]) -> str:
    rows = [["", *columns], *([what, *(str(found[name]) for name in columns)] for what, found in totals.items())]
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        return int(reserved.getsockname()[1])
