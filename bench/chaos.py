"""Runs that are killed -9 at a random moment and started again, against one that nobody disturbed.

    python bench/chaos.py --runs 50 --seed 0

In turn the run's own process, its training program, or Prefect's server is killed, at a moment drawn from the length of
the undisturbed run. What died is started again, then the same command. A light pipeline on the tests' tiny model, each run
in a store and an MLflow database of its own. Prints a line per run and a table: runs that end with the undisturbed
digests, stages that were computed to their end twice, processes and leases that are left.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from light_runs import Place, Server, free_port, light, table


def kill_job(place: Place) -> None:
    """The training program, or where none is at work the next one that starts."""
    while not (jobs := place.jobs()):
        if place.process.poll() is not None:
            return
        time.sleep(0.05)
    for pid in jobs:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def kill_server(place: Place) -> None:
    place.server.kill()
    time.sleep(2)
    place.server.start()


TARGETS: dict[str, Callable[[Place], None]] = {
    "run": Place.kill,
    "training program": kill_job,
    "Prefect's server": kill_server,
}


def disturbed(place: Place, what: str, after: float) -> tuple[int, float]:
    """(exit code of the last start, seconds from the first one)."""
    began = time.monotonic()
    place.start()
    time.sleep(after)
    TARGETS[what](place)
    code = place.ends()
    while code != 0 and place.starts < 4:
        place.start()
        code = place.ends()
    return code, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50, help="killed runs; default 50")
    parser.add_argument("--seed", type=int, default=0, help="of the moments; default 0")
    parser.add_argument("--keep", type=Path, help="folder for everything; default: a temporary one, removed")
    given = parser.parse_args()
    folder = given.keep or Path(tempfile.mkdtemp(prefix="chaos-"))
    server = Server(folder, free_port())
    folder.mkdir(parents=True, exist_ok=True)
    server.start()
    try:
        compare(folder, server, given.runs, random.Random(given.seed))
    finally:
        server.kill()
        if given.keep is None:
            shutil.rmtree(folder, ignore_errors=True)


def compare(folder: Path, server: Server, runs: int, dice: random.Random) -> None:
    recipe = light(folder)

    def place(name: str) -> Place:
        (folder / name).mkdir()
        return Place(folder / name, recipe, server, folder / name / "store", f"sqlite:///{folder / name / 'mlflow.db'}")

    alone = place("undisturbed")
    began = time.monotonic()
    alone.start()
    if alone.ends() != 0:
        sys.exit(f"the undisturbed run failed; see {alone.folder / 'log'}")
    length, wanted = time.monotonic() - began, alone.digests()
    print(f"undisturbed: {length:.1f} s, {len(wanted)} results")
    totals: dict[str, Counter[str]] = {what: Counter() for what in TARGETS}
    for number in range(runs):
        what = list(TARGETS)[number % len(TARGETS)]
        here, after = place(f"run-{number}"), dice.uniform(0, length)
        code, seconds = disturbed(here, what, after)
        found = {
            "runs": 1, "complete": int(code == 0), "undisturbed digests": int(here.digests() == wanted),
            "computed twice": here.computed_twice(), "processes left": len(here.jobs()), "leases left": len(here.leases()),
            "starts": here.starts,
        }  # fmt: skip
        totals[what].update(found)
        said = ", ".join(f"{name} {count}" for name, count in found.items() if name != "runs")
        print(f"{number:3} {what} killed after {after:.1f} s: {said}, {seconds:.0f} s", flush=True)
        if code == 0 and found["undisturbed digests"]:
            shutil.rmtree(here.folder, ignore_errors=True)
    print(table(list(next(iter(totals.values()))), totals))


if __name__ == "__main__":
    main()
