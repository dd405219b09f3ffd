"""The flows for real: a tiny model through the whole pipeline, from the cache, and with one number changed."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_fixture import prefect_server  # noqa: F401
from tiny import tiny_recipe

from rightcall.errors import RecipeError, StoreError
from tasks.store.folder_store import Store

ROOT = Path(__file__).parents[2]
ORDER = ["base", "ingest", "sft", "dpo", "score", "score", "score", "gate", "register", "report"]


class Recorder(logging.Handler):
    """The end states of task runs, in order: ("sft", "Cached" or "Completed")."""

    def __init__(self) -> None:
        super().__init__()
        self.ended: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if text.startswith("Finished in state "):
            name = str(getattr(record, "task_run_name", "")).split("-")[0]
            self.ended.append((name, text.removeprefix("Finished in state ").split("(")[0]))


@pytest.fixture
def ended() -> Iterator[list[tuple[str, str]]]:
    recorder, logger = Recorder(), logging.getLogger("prefect.task_runs")
    logger.addHandler(recorder)
    yield recorder.ended
    logger.removeHandler(recorder)


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, prefect_server: None) -> Iterator[Path]:  # noqa: F811
    """A folder with a recipe, a store and an MLflow database, shared by this module's tests in their order."""
    folder = tmp_path_factory.mktemp("flows")
    tiny_recipe(folder, tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RIGHTCALL_STORE", str(folder / "store"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield folder


@pytest.fixture(scope="module")
def first(workshop: Path) -> dict[str, Any]:
    """The one run that computes everything."""
    from flows.pipeline import run_pipeline

    recorder, logger = Recorder(), logging.getLogger("prefect.task_runs")
    logger.addHandler(recorder)
    text = run_pipeline(recipe=str(workshop / "tiny.yaml"))
    logger.removeHandler(recorder)
    return {"text": text, "ended": recorder.ended}


def test_the_pipeline_runs_every_stage_once_and_in_order(first: dict[str, Any]) -> None:
    assert first["ended"] == [(name, "Completed") for name in ORDER]


def test_it_ends_with_one_table_the_verdict_the_report_and_what_to_type_next(
    first: dict[str, Any], workshop: Path
) -> None:
    text = first["text"]
    for word in (
        "base",
        "SFT",
        "SFT+DPO",
        "acc_norm",
        "macro_f1",
        "verdict: ",
        "-m tasks.operations.ui",
        "models:/rightcall@",
    ):
        assert word in text
    (report,) = (workshop / "store" / "report").glob("*/report.html")
    assert f"report: {report}" in text


def test_every_stage_leaves_its_artifacts(first: dict[str, Any]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter

    with get_client(sync_client=True) as client:
        found = client.read_artifacts(artifact_filter=ArtifactFilter())
    keys = {artifact.key for artifact in found}
    for stage, names in {
        "ingest": ["summary", "classes"],
        "sft": ["summary", "curves"],
        "dpo": ["summary", "curves"],
    }.items():
        assert {f"{stage}-{name}" for name in names} <= keys
    assert {"scores", "verdict", "report"} <= keys
    assert {key for key in keys if key and key.startswith("progress-")}
    assert all(len(json.dumps(artifact.data)) <= 210_000 for artifact in found)
    (curves, *_) = [artifact for artifact in found if artifact.key == "dpo-curves"]
    assert re.search(r"\| loss \| [▁▂▃▄▅▆▇█]+ \|", str(curves.data))
    assert not any("base64" in str(artifact.data) for artifact in found)


def test_the_same_command_again_computes_nothing(
    first: dict[str, Any], workshop: Path, ended: list[tuple[str, str]]
) -> None:
    from flows.pipeline import run_pipeline

    text = run_pipeline(recipe=str(workshop / "tiny.yaml"))
    assert [name for name, state in ended if state != "Cached"] == ["register"]
    assert text == first["text"]


def test_another_beta_runs_dpo_and_what_follows_and_nothing_before(
    first: dict[str, Any], workshop: Path, ended: list[tuple[str, str]]
) -> None:
    from flows.pipeline import run_pipeline

    run_pipeline(recipe=str(workshop / "tiny.yaml"), overrides=["dpo.beta=0.2"])
    assert [name for name, state in ended if state != "Cached"] == ["dpo", "score", "gate", "register", "report"]


def test_publishing_takes_what_is_in_the_store_and_never_trains(
    first: dict[str, Any], workshop: Path, ended: list[tuple[str, str]]
) -> None:
    from flows.publish import publish_model

    assert publish_model(recipe=str(workshop / "tiny.yaml")).splitlines()[0] == first["text"].splitlines()[0]
    assert {name for name, _ in ended} == {"gate", "register", "report"}
    with pytest.raises(StoreError, match=r"stage 'sft' .* run `python -m flows\.train`"):
        publish_model(recipe=str(workshop / "tiny.yaml"), overrides=["sft.learning_rate=0.5"])


def test_a_person_can_approve_a_version(first: dict[str, Any], workshop: Path) -> None:
    from flows.publish import publish_model

    assert (
        publish_model(recipe=str(workshop / "tiny.yaml"), approve=1)
        == "models:/rightcall/1 is now models:/rightcall@champion"
    )


def test_a_model_is_found_by_every_kind_of_name(first: dict[str, Any], workshop: Path) -> None:
    from rightcall.recipe.loading import load_recipe
    from tasks.runs.model_names import find_model

    recipe, store = load_recipe(workshop / "tiny.yaml"), Store(workshop / "store")
    newest = store.refs("dpo")[0]
    assert find_model(store, recipe, "dpo") == newest
    assert find_model(store, recipe, newest.uri[:12]) == newest
    assert find_model(store, recipe, "models:/rightcall/1").kind == "model"
    with pytest.raises(StoreError, match="names 0 results"):
        find_model(store, recipe, "dpo/ffffffffffff")
    with pytest.raises(StoreError, match=r"^'\./nowhere' is not a folder; name one with a model's config"):
        find_model(store, recipe, "./nowhere")


def test_a_folder_is_scored_on_a_file_of_when2call_items(
    first: dict[str, Any], workshop: Path, tiny_model: Path
) -> None:
    from tiny import tiny_choice_rows

    from flows.score import score_suite

    suite = workshop / "suite.jsonl"
    suite.write_text("".join(json.dumps(row) + "\n" for row in tiny_choice_rows(8)))
    text = score_suite(
        model=str(tiny_model),
        suite=suite,
        recipe=str(workshop / "tiny.yaml"),
        overrides=["model.chat_template=chatml-tools"],
    )
    assert "acc_norm" in text
    assert "n=8" in text


def test_a_recipe_is_read_once_a_run_and_again_when_it_was_changed(
    first: dict[str, Any], workshop: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the command line, for the run's name and by the flow."""
    from flows.command_line import run
    from flows.ingest import ingest_rows
    from flows.parameters import read_recipe
    from rightcall.recipe import loading

    read: list[Path] = []
    read_file = loading._read
    monkeypatch.setattr(loading, "_read", lambda file: read.append(file) or read_file(file))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    recipe = workshop / "again.yaml"
    recipe.write_text((workshop / "tiny.yaml").read_text())
    with pytest.raises(SystemExit) as end:
        run(ingest_rows, recipe=str(recipe), overrides=["data.tolerance=0.5"], store=str(workshop / "store"), fresh=())
    assert (end.value.code, read) == (0, [recipe])
    recipe.write_text(recipe.read_text() + "dpo: wrong\n")
    for count in (2, 3):  # an error is not kept
        with pytest.raises(RecipeError, match="given twice"):
            read_recipe(str(recipe), ["data.tolerance=0.5"])
        assert len(read) == count


def test_a_recipe_that_trains_nothing_cannot_be_published() -> None:
    from flows.publish import _candidate
    from tasks.store.manifests import ArtifactRef

    with pytest.raises(RecipeError, match="no stage trains"):
        _candidate({"base": ArtifactRef(uri="base/1", digest="0", kind="model")})


@pytest.mark.parametrize("name", ["pipeline", "ingest", "train", "publish"])
def test_a_wrong_recipe_ends_with_one_message_before_a_server_is_started(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", f"flows.{name}", "--set", "dpo.bata=0.2", "--store", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "training_image")])}
    run = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 1
    assert run.stdout == ""
    assert "RecipeError" in run.stderr
    assert "dpo.bata: no such field; did you mean 'beta'?" in run.stderr
    assert "Traceback" not in run.stderr
    assert "server" not in run.stderr
