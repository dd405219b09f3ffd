"""A command that cannot begin says so before a server is started; Ctrl-C is answered at once; errors are shown whole."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny import write_tiny_sources

from rightcall.errors import RecipeError
from rightcall.recipe.loading import load_recipe
from tasks.runs.inputs import check_inputs

ROOT = Path(__file__).parents[2]


def environment(folder: Path, **others: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith(("RIGHTCALL_", "PREFECT_"))}
    path = os.pathsep.join([str(ROOT), str(ROOT / "training_image")])
    return own | {"PYTHONPATH": path, "RIGHTCALL_HOME": str(folder)} | others


@pytest.fixture
def not_a_folder(tmp_path: Path) -> Path:
    """Root may write everywhere, but not below a file."""
    (tmp_path / "file").touch()
    return tmp_path / "file" / "folder"


def refused(folder: Path, *arguments: str, **others: str) -> str:
    run = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=folder, env=environment(folder, **others), capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (1, "")
    assert "Traceback" not in run.stderr
    assert "server" not in run.stderr
    return run.stderr


def test_what_a_recipe_names_is_looked_for_before_a_server_is_started(tmp_path: Path) -> None:
    said = refused(
        tmp_path, "flows.ingest", "--set", "model.chat_template=chatml-tool", "--set", "model.source=Org/name-1.7B",
        "--set", "data.sft=[{uri: /nowhere/rows.jsonl}]",
    )  # fmt: skip
    assert "model.chat_template is 'chatml-tool'; choose one of ['chatml-signatures', 'chatml-tools']" in said
    assert "data.sft: source '/nowhere/rows.jsonl' does not exist" in said
    assert "Did you mean hf:Org/name-1.7B@<commit of 40 hex digits>?" in said
    assert said.count("Did you mean") == 1


def test_a_store_and_a_home_that_cannot_be_made_are_one_message(tmp_path: Path, not_a_folder: Path) -> None:
    said = refused(tmp_path, "flows.ingest", "--store", str(not_a_folder))
    assert (
        f"StoreError: the folder {str(not_a_folder)!r} cannot be made: Not a directory; name another one with --store"
        in said
    )
    for module in ("flows.ingest", "flows.init", "tasks.operations.ui"):
        said = refused(tmp_path, module, RIGHTCALL_HOME=str(not_a_folder))
        assert "cannot be made: Not a directory; set RIGHTCALL_HOME to a folder that you may write" in said


def test_scoring_asks_for_the_suite_and_not_for_the_base_model(tmp_path: Path) -> None:
    said = refused(tmp_path, "flows.score", "dpo", "--suite", "nowhere.jsonl", "--set", "model.source=/gone")
    assert "data.evaluation: source" in said
    assert "/gone" not in said


def test_all_that_is_there_is_no_problem(tiny_model: Path, tmp_path: Path) -> None:
    rows = write_tiny_sources(tmp_path)
    named = [f"model={{source: {tiny_model}, chat_template: chatml-tools}}"]
    named += [f"data.{kind}=[{{uri: {rows[name]}}}]" for kind, name in (("sft", "sft"), ("preference", "preference"))]
    named += [f"data.evaluation=[{{uri: {rows['choice']}}}]"]
    check_inputs(load_recipe(None, named))
    for field, value in (("tools", tmp_path / "tools.json"), ("system", tmp_path / "policy.md")):
        recipe = load_recipe(None, [*named, f"data.conversations=[{{uri: {rows['sft']}, {field}: {value}}}]"])
        with pytest.raises(RecipeError, match=f"data.conversations: source '{value}' does not exist"):
            check_inputs(recipe)


@pytest.mark.parametrize("seconds", [0.0, 2.5])
def test_ctrl_c_is_answered_at_once(seconds: float, tmp_path: Path) -> None:
    """While libraries are imported, and while the server starts."""
    run = subprocess.Popen(
        [sys.executable, "-m", "flows.ingest"], cwd=tmp_path, env=environment(tmp_path), stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while (
        Path(f"/proc/{run.pid}/maps").read_text().find("pydantic") < 0
    ):  # rightcall.errors and our handler are there by then
        time.sleep(0.01)
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    _, said = run.communicate(timeout=60)
    assert run.returncode == 130
    assert "Stopp" in said
    assert "Traceback" not in said


def test_the_screen_never_shows_half_of_an_error() -> None:
    from flows.command_line import _in_brief

    message = "sources: " + 40 * "'a' is not there; " + "correct the path"
    for text in (
        f'Finished in state Failed("Task run encountered an exception RecipeError: {message}")',
        f'Finished in state Failed("Flow run encountered an exception: RecipeError: {message}")',
    ):
        record = logging.LogRecord("prefect", logging.ERROR, __file__, 1, text, None, None)
        assert _in_brief(record)
        assert record.getMessage() == "Finished in state Failed: RecipeError, all of it in the last lines"
    other = "Finished in state Failed('Flow run encountered an exception: KeyError: 1')"
    record = logging.LogRecord("prefect", logging.ERROR, __file__, 1, other, None, None)
    assert _in_brief(record)
    assert record.getMessage() == other
