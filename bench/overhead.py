"""What Prefect costs a stage: the same stages through a flow, and called directly (no server, no task runs).

    python bench/overhead.py --stages 20

A stage here writes one small file, so its time is all overhead: key, lease, store commit, and in the flow Prefect's task run,
cache record and log. Prefect's server is started before the clock. Prints seconds per stage, and the ratio.
"""

from __future__ import annotations

import argparse
import logging
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
from tasks.store.folder_store import Store


@stage(name="small", kind="report", modules=("rightcall.errors",), slice=lambda recipe: recipe.data.seed)
def write_number(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    (run.folder / "number").write_text(str(recipe.data.seed))
    return {"number": recipe.data.seed}


def recipes(first: int, count: int) -> list[Recipe]:
    return [load_recipe(None, [f"data.seed={number}"]) for number in range(first, first + count)]


@flow(persist_result=False)
def through_prefect(store: Store, given: list[Recipe]) -> None:
    for recipe in given:
        write_number(recipe, store=store)


def directly(store: Store, given: list[Recipe], made: Stage = write_number) -> None:
    for recipe in given:
        made.run(recipe, store=store)


def seconds_per_stage(work: Callable[[Store, list[Recipe]], None], store: Store, given: list[Recipe]) -> float:
    started = time.perf_counter()
    work(store, given)
    return (time.perf_counter() - started) / len(given)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", type=int, default=20)
    count = parser.parse_args().stages
    logging.getLogger("prefect").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, prefect_test_harness(server_startup_timeout=120):
        store = Store(Path(folder) / "store")
        through_prefect(store, recipes(0, 1))  # imports and the first connection are not counted
        new = seconds_per_stage(through_prefect, store, recipes(1000, count))
        cached = seconds_per_stage(through_prefect, store, recipes(1000, count))
        direct = seconds_per_stage(directly, store, recipes(2000, count))
        found = seconds_per_stage(directly, store, recipes(2000, count))
    for name, prefect, plain in (("new", new, direct), ("cached", cached, found)):
        milliseconds = f"Prefect {prefect * 1e3:8.1f} ms   direct {plain * 1e3:8.1f} ms"
        print(
            f"{name:<6} stage   {milliseconds}   ratio {prefect / plain:6.1f}   adds {(prefect - plain) * 1e3:.1f} ms"
        )


if __name__ == "__main__":
    main()
