"""Training jobs of several processes on one machine, each host with a folder and an entry.py of its own."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from training_jobs import make_root

from rightcall.job import folders

ENTRY = Path(folders.__file__).parents[2] / "entry.py"


def make_hosts(
    folder: Path, model: Path, stage: str, section: Mapping[str, Any], *, hosts: int, rows: int, **compute: Any
) -> list[Path]:
    """The roots of the hosts algo-1, algo-2, … of one job; `compute` goes into the recipe."""
    names = [f"algo-{number + 1}" for number in range(hosts)]
    roots = []
    for name in names:
        root = make_root(folder / name, model, stage, rows, **{stage: section})
        path = root / "input/data/job/job.json"
        description = json.loads(path.read_text())
        description["recipe"]["compute"] |= compute
        path.write_text(json.dumps(description))
        (root / "input/config").mkdir()
        resources = {"current_host": name, "hosts": names[::-1], "network_interface_name": "lo"}
        (root / "input/config/resourceconfig.json").write_text(json.dumps(resources))
        roots.append(root)
    return roots


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def launch(roots: list[Path], **environment: str) -> list[subprocess.Popen[bytes]]:
    """entry.py on every host; its output goes to the host's `log`."""
    port = str(free_port())
    started = []
    for root in roots:
        settings = os.environ | {
            "SM_ML_ROOT": str(root), "RIGHTCALL_MASTER_ADDR": "127.0.0.1", "RIGHTCALL_MASTER_PORT": port, **environment,
        }  # fmt: skip
        with (root / "log").open("ab") as log:
            started.append(subprocess.Popen([sys.executable, str(ENTRY)], env=settings, stdout=log, stderr=log))
    return started


def wait(started: list[subprocess.Popen[bytes]], seconds: float = 300) -> list[int]:
    try:
        return [process.wait(seconds) for process in started]
    finally:
        for process in started:
            process.kill()


def lines(root: Path) -> list[dict[str, Any]]:
    path = root / "output/data/metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def logs(roots: list[Path]) -> str:
    """What a failing assertion shows."""
    return "\n".join(f"--- {root.name}\n{(root / 'log').read_text()[-3000:]}" for root in roots)
