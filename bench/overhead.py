"""What Prefect costs a stage: the same stages through a flow, and called directly (no server, no task runs).

    python bench/overhead.py --stages 20

A stage here writes one small file, so its time is all overhead: key, lease, store commit, and in the flow Prefect's task run,
cache record and log. Prefect's server is started before the clock. Prints seconds per stage, and the ratio.
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.testing.utilities import prefect_test_harness

import tasks  # noqa: F401  its settings come before Prefect's import
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.runtime.stage import Stage, StageRun, stage


@stage(name="small", kind="report", modules=("rightcall.errors",), slice=lambda recipe: recipe.data.seed)
def write_number(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    (run.folder / "number").write_text(str(recipe.data.seed))
    return {"number": recipe.data.seed}


def recipes(first: int, count: int) -> list[Recipe]:
    return [load_recipe(None, [f"data.seed={number}"]) for number in range(first, first + count)]


@flow(persist_result=False)
def through_prefect(given: list[Recipe]) -> None:
    for recipe in given:
        write_number(recipe)


def directly(given: list[Recipe], made: Stage = write_number) -> None:
    for recipe in given:
        made.run(recipe)


def seconds_per_stage(work: Callable[[list[Recipe]], None], given: list[Recipe]) -> float:
    started = time.perf_counter()
    work(given)
    return (time.perf_counter() - started) / len(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=20)
    count = parser.parse_args().stages
    logging.getLogger("prefect").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        os.environ["RIGHTCALL_STORE"] = str(Path(folder) / "store")
        through_prefect(recipes(0, 1))  # imports and the first connection are not counted
        new = seconds_per_stage(through_prefect, recipes(1000, count))
        cached = seconds_per_stage(through_prefect, recipes(1000, count))
        direct = seconds_per_stage(directly, recipes(2000, count))
        found = seconds_per_stage(directly, recipes(2000, count))
    for name, prefect, plain in (("new", new, direct), ("cached", cached, found)):
        milliseconds = f"Prefect {prefect * 1e3:8.1f} ms   direct {plain * 1e3:8.1f} ms"
        print(
            f"{name:<6} stage   {milliseconds}   ratio {prefect / plain:6.1f}   adds {(prefect - plain) * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
