"""The store is a value: a flow opens it and hands it on; nothing below asks the environment where it is."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PRODUCT = ("flows", "tasks", "data_checks", "training_image/rightcall")
VARIABLE = "RIGHTCALL_STORE"
NAMED_IN = {
    "tasks/machine/environment.py",  # its default, before anything else is imported
    "tasks/store/opening.py",  # read: open_store(None)
    "tasks/reporting/closing_table.py",  # printed for the next command, where the store is not the default
    "tasks/serving/served_model.py",  # MLflow runs it far from any flow, after the store was moved
}
OPENED_IN = {f"flows/{name}.py" for name in ("ingest", "mine", "pipeline", "publish", "score", "train")}
# Looked at only: whether it can be written, before a server is started; whether a base model with a tokenizer is there.
OPENED_IN |= {"flows/command_line.py", "flows/init.py"}


def nodes() -> Iterator[tuple[str, ast.AST]]:
    """Everything in the product's files, by file."""
    for side in PRODUCT:
        found = sorted((ROOT / side).rglob("*.py"))
        assert found, side
        for path in found:
            name = path.relative_to(ROOT).as_posix()
            yield from ((name, node) for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))))


def test_one_place_reads_where_the_store_is_and_none_sets_it() -> None:
    """One run must not send another run of the same process elsewhere."""
    named = {name for name, node in nodes() if isinstance(node, ast.Constant) and node.value == VARIABLE}
    assert named == NAMED_IN


def test_flows_alone_open_a_store_each_once() -> None:
    calls = [
        name
        for name, node in nodes()
        if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "open_store"
    ]
    assert sorted(calls) == sorted(OPENED_IN)
