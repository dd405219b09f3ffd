"""The words of docstrings: what a function raises is written in one layout, Google's."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
ENTRY = re.compile(r"    [A-Za-z_][\w.]*: \S")  # "    DataError: why", the continuation indented once more
CONTINUATION = re.compile(r"        \S")
LOOSE = re.compile(r"Raises:.|.Raises:|\b[Rr]aises:? `{0,2}[A-Z]\w*(?:Error|Exit|Exception)\b")


def docstrings(folder: str) -> Iterator[tuple[str, str]]:
    """(file:line, docstring without its indentation) of every module, class and function."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node, clean=False)):
                yield f"{path.relative_to(ROOT)}:{node.body[0].lineno}", inspect.cleandoc(text)


def problem(text: str) -> str | None:
    """What is wrong with the docstring's section `Raises:`; None where it is right or there is none."""
    if loose := LOOSE.search(text):
        return f"{loose[0]!r} within a sentence"
    lines = text.split("\n")
    if "Raises:" not in lines:
        return None
    header = lines.index("Raises:")
    if header < 2 or lines[header - 1]:
        return "no sentence, or no empty line, before Raises:"
    section = lines[header + 1 :]
    section = section[: section.index("")] if "" in section else section
    if not section or not ENTRY.match(section[0]):
        return "no entry below Raises:"
    odd = [line for line in section if not ENTRY.match(line) and not CONTINUATION.match(line)]
    return f"no entry: {odd[0]!r}" if odd else None


@pytest.mark.parametrize("folder", ["training_image", "data_checks", "tasks", "flows"])
def test_what_is_raised_is_written_in_one_layout(folder: str) -> None:
    found = dict(docstrings(folder))
    assert found
    assert {where: wrong for where, text in found.items() if (wrong := problem(text))} == {}


@pytest.mark.parametrize(
    "text",
    [
        "Raises: DataError when there is no row.",
        "Raises:\n    DataError: there is no row.",
        "The rows.  Raises: DataError.",
        "The rows.\n\nRaises: DataError when there is no row.",
        "The rows.\n\nRaises:\nDataError: there is no row.",
        "The rows.\n\nRaises:\n    when there is no row.",
        "The rows.\nRaises:\n    DataError: there is no row.",
        "Raises DataError unless there are rows.",
    ],
)
def test_another_layout_is_found(text: str) -> None:
    assert problem(text)


def test_the_layout_may_have_several_entries_and_long_ones() -> None:
    text = "The rows.\n\nRaises:\n    DataError: there is\n        no row.\n    OSError: the disk is full."
    assert problem(text) is None
