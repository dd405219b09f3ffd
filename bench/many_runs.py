"""Many runs of a light pipeline at once, on one store, one MLflow database and one Prefect server.

    python bench/many_runs.py --runs 20                        # the same recipe: every stage is computed once
    python bench/many_runs.py --runs 20 --different            # recipes that share base and ingest
    python bench/many_runs.py --runs 20 --prefect-database postgresql+asyncpg://… --mlflow postgresql+psycopg://…

Prints how many runs complete, stages that were computed more than once, seconds, stages a minute, the largest memory of all
processes together, and what the runs and the server complained about.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from light_runs import DONE, LONGEST, Place, Server, free_port, light, table

COMPLAINTS = re.compile(r"^(?:\S+\.)?(\w+(?:Error|Exception|Timeout))\b|database is locked", re.MULTILINE)


def memory_bytes(folder: Path) -> int:
    """Of all processes that have something to do with the folder, what they share counted once."""
    total, mark = 0, str(folder).encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (process / "environ").read_bytes():
                found = re.search(r"^Pss: +(\d+) kB", (process / "smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
    return total


def measured(folder: Path, server: Server, runs: int, *, different: bool, mlflow: str) -> dict[str, object]:
    recipe = light(folder)
    places = []
    for number in range(runs):
        (folder / f"run-{number}").mkdir()
        settings = [f"sft.seed={number}"] if different else []
        places.append(Place(folder / f"run-{number}", recipe, server, folder / "store", mlflow, settings))
    began, largest = time.monotonic(), 0
    for place in places:
        place.start()
    while any(place.process.poll() is None for place in places) and time.monotonic() - began < LONGEST:
        largest = max(largest, memory_bytes(folder))
        time.sleep(1)
    seconds = time.monotonic() - began
    said = [(place.folder / "log").read_text(errors="replace") for place in places]
    done = Counter(name for text in said for name in DONE.findall(text))
    logs = [*said, (folder / "server.log").read_text(errors="replace")]
    complaints = Counter(found[1] or found[0] for text in logs for found in COMPLAINTS.finditer(text))
    return {
        "complete": f"{sum(place.process.poll() == 0 for place in places)} of {runs}",
        "stages": len(done), "more than once": sum(count - 1 for count in done.values()),
        "seconds": f"{seconds:.0f}", "stages/min": f"{60 * len(done) / seconds:.1f}",
        "runs/min": f"{60 * runs / seconds:.1f}", "memory": f"{largest / 2**30:.1f} GiB",
        "complaints": ", ".join(f"{count} × {name}" for name, count in complaints.most_common(4)) or "none",
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20, help="started at the same moment; default 20")
    parser.add_argument("--different", action="store_true", help="each run has a recipe of its own from SFT on")
    parser.add_argument("--prefect-database", help="URL for Prefect's server; default: SQLite")
    parser.add_argument("--mlflow", help="MLflow's tracking URI; default: SQLite")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="many-"))
    server = Server(folder, free_port(), database=given.prefect_database)
    server.start()
    try:
        mlflow = given.mlflow or f"sqlite:///{folder / 'mlflow.db'}"
        found = measured(folder, server, given.runs, different=given.different, mlflow=mlflow)
    finally:
        server.kill()
    print(table(list(found), {f"{given.runs} {'different' if given.different else 'identical'}": found}))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
