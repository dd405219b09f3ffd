"""MLflow for real, in a temporary SQLite file: versions by reference, aliases by verdict, lineage, races."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flows import publish
from rightcall.errors import RegistryError
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from tasks.machine import checkout
from tasks.stages.gate import decide_verdict
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind
from tasks.tracking import connection, mlflow_runs, redaction, registry
from tasks.tracking.versions import LAYOUT_TAG

ROOT = Path(__file__).parents[2]
POLICY = ['gate.must_improve=["acc_norm"]', "gate.must_not_drop={}", "evaluation.bootstrap_samples=200"]


def items(right: int, n: int = 60) -> list[dict[str, Any]]:
    """n items of which the first `right` are answered rightly."""
    found = []
    for index in range(n):
        answer = "tool_call" if index < right else "direct"
        found.append(
            {
                "id": f"item-{index}",
                "gold": "tool_call",
                "prediction": answer,
                "prediction_norm": answer,
                "has_tools": True,
            }
        )
    return found


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


@dataclass
class Workshop:
    """A store with results made by hand; `put` is what a stage would leave."""

    store: Store

    def put(self, stage: str, key: str, kind: Kind, files: dict[str, str], **fields: Any) -> ArtifactRef:
        folder = self.store.workdir(stage, key)
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        manifest = {"slice": {}, "inputs": {}, "result": {}, "created": "2026-11-21T08:00:00+00:00", "seconds": 12.5}
        return self.store.commit(stage, key, kind, folder, manifest | fields)

    def scores(self, key: str, right: int) -> ArtifactRef:
        return self.put("score", key, "scores", {"output/items.jsonl": lines(items(right))})

    def model(self, key: str, **fields: Any) -> ArtifactRef:
        steps = [{"step": step, "total_steps": 3, "loss": 2.0 / step, "seconds": float(step)} for step in (1, 2, 3)]
        files = {
            "model/model.safetensors": f"weights of {key}",
            "model/config.json": "{}",
            "output/metrics.jsonl": lines(steps),
        }
        return self.put("dpo", key, "model", files, **fields)

    def snapshot(self) -> ArtifactRef:
        return self.store.find("ingest", "rows") or self.put("ingest", "rows", "snapshot", {"choice.parquet": "rows"})

    def candidate(self, recipe: Recipe, key: str, right: int, base_right: int = 20) -> dict[str, Any]:
        """What `register_model` takes, for a model that answers `right` of 60 items."""
        scores, base = self.scores(f"{key}-scores", right), self.scores(f"{key}-base", base_right)
        verdict = decide_verdict.run(recipe, store=self.store, candidate=scores, baseline=base, champion=None)
        common = {"scores": scores, "snapshot": self.snapshot(), "verdict": verdict, "store": self.store}
        return {"model": self.model(key), **common}


@pytest.fixture(scope="module")
def mlflow_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        yield os.environ["MLFLOW_TRACKING_URI"]


@pytest.fixture
def workshop(tmp_path: Path, mlflow_uri: str) -> Workshop:
    return Workshop(Store(tmp_path / "store"))


def recipe_named(name: str, *more: str) -> Recipe:
    return load_recipe(None, [*POLICY, f"register.name={name}", "register.experiment=tests", *more])


def register(recipe: Recipe, **given: Any) -> registry.Registration:
    return registry.register_model.fn(recipe, **given)


def test_go_becomes_champion_with_its_lineage(workshop: Workshop) -> None:
    recipe = recipe_named("go")
    given = workshop.candidate(recipe, "better", right=50)
    assert registry.champion("go") is None
    registered = register(recipe, **given, others={"base": given["scores"]})
    assert (registered.version, registered.alias, registered.verdict) == (1, "champion", "GO")
    found = registry.champion("go")
    assert found is not None
    assert (found.weights, found.scores) == (given["model"], given["scores"])
    assert found.snapshot_digest == given["snapshot"].digest
    tags = connection.connect().get_model_version("go", "1").tags
    assert json.loads(tags["rightcall.metrics"])["acc_norm"]["n"] == 60
    assert json.loads(tags["rightcall.recipe"])["register"]["name"] == "go"
    assert tags["rightcall.reason"].startswith("acc_norm improves on the base model by +0.500")
    assert tags["rightcall.git_commit"] == checkout.git_commit()
    assert ArtifactRef.model_validate_json(tags["rightcall.base"]) == given["scores"]


def test_what_is_no_go_becomes_challenger_and_leaves_the_champion(workshop: Workshop) -> None:
    recipe = recipe_named("no-go")
    register(recipe, **workshop.candidate(recipe, "better", right=50))
    worse = register(recipe, **workshop.candidate(recipe, "worse", right=2))
    assert (worse.version, worse.alias, worse.verdict) == (2, "challenger", "NO-GO")
    found = registry.champion("no-go")
    assert found is not None
    assert found.version == 1


def test_the_same_candidate_is_registered_once_and_a_new_verdict_moves_it(workshop: Workshop) -> None:
    recipe = recipe_named("again")
    unsure = workshop.candidate(recipe, "model", right=20)
    assert register(recipe, **unsure).alias == "challenger"
    assert register(recipe, **unsure).version == 1
    scores, base = workshop.scores("rescored", 50), workshop.scores("rebased", 20)
    verdict = decide_verdict.run(recipe, store=workshop.store, candidate=scores, baseline=base, champion=None)
    registered = register(recipe, **(unsure | {"scores": scores, "verdict": verdict}))
    assert (registered.version, registered.alias, registered.verdict) == (1, "champion", "GO")
    assert "challenger" not in connection.connect().get_registered_model("again").aliases


def test_a_champion_of_another_layout_is_said_and_the_same_candidate_registered_anew_in_its_place(
    workshop: Workshop, caplog: pytest.LogCaptureFixture
) -> None:
    """As after rooms: a version without a layout, approved by a person, whose weights come out the same again."""
    recipe, client = recipe_named("older", "gate.approval=required"), connection.connect()
    given = workshop.candidate(recipe, "model", right=50)
    register(recipe, **given)
    registry.promote("older", 1, approved_by="Ada")
    client.delete_model_version_tag("older", "1", LAYOUT_TAG)
    before = registry.champion("older")
    assert before is not None
    assert before.weights == given["model"]
    assert "'models:/older/1' was registered by another rightcall" in caplog.text
    assert f"run its recipe {recipe.name!r} again: python -m flows.pipeline RECIPE" in caplog.text
    caplog.clear()
    registered = register(recipe, **given)
    assert (registered.version, registered.alias, registered.pending_approval) == (2, "champion", False)
    assert registry.champion("older") == replace(before, version=2)
    assert register(recipe, **given).version == 2
    assert LAYOUT_TAG not in client.get_model_version("older", "1").tags
    assert "another rightcall" not in caplog.text


def test_a_version_holds_no_weights(workshop: Workshop) -> None:
    import mlflow

    recipe = recipe_named("small")
    registered = register(recipe, **workshop.candidate(recipe, "model", right=50))
    folder = Path(mlflow.artifacts.download_artifacts(registered.uri))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 100_000
    assert not [path for path in files if path.suffix == ".safetensors"]


def test_approval_keeps_a_go_as_challenger_until_a_person_promotes_it(workshop: Workshop) -> None:
    recipe = recipe_named("approved", "gate.approval=required")
    given = workshop.candidate(recipe, "model", right=50)
    waiting = register(recipe, **given)
    assert (waiting.alias, waiting.pending_approval) == ("challenger", True)
    assert registry.champion("approved") is None
    promoted = registry.promote("approved", waiting.version, approved_by="Ada")
    assert (promoted.alias, promoted.pending_approval) == ("champion", False)
    found = registry.champion("approved")
    assert found is not None
    assert found.approved_by == "Ada"
    assert register(recipe, **given).alias == "champion"


def test_a_go_beside_a_champion_whose_weights_are_gone_waits_for_a_person(
    workshop: Workshop, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its weights were made anew in their place (--fresh), or lie in another store: nothing can be compared."""
    recipe = recipe_named("gone")
    assert register(recipe, **workshop.candidate(recipe, "first", right=50)).alias == "champion"
    new, elsewhere = workshop.candidate(recipe, "second", right=55), Store(tmp_path / "elsewhere")
    rival, comparable = publish.score_champion(elsewhere, recipe, new["snapshot"], candidate=new["model"])
    assert (rival, comparable) == (None, False)
    assert "version 1 of 'gone', is not compared with" in caplog.text
    waiting = register(publish.for_a_person(recipe), **new)
    assert (waiting.verdict, waiting.alias, waiting.pending_approval) == ("GO", "challenger", True)
    current = registry.champion("gone")
    assert current is not None
    assert current.version == 1
    assert registry.promote("gone", waiting.version).alias == "champion"


def test_when_publishing_fails_halfway_nothing_of_it_is_left(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The alias is the last step; a server that refuses it stands for any failure there."""
    from mlflow.exceptions import MlflowException

    recipe = recipe_named("rollback")
    client = connection.connect()

    def refuse(*_: Any) -> None:
        raise MlflowException("the database is read-only")

    with monkeypatch.context() as patch:
        patch.setattr(type(client), "set_registered_model_alias", refuse)
        with pytest.raises(RegistryError, match="read-only"):
            register(recipe, **workshop.candidate(recipe, "model", right=50))
    assert not client.search_registered_models("name = 'rollback'")
    assert not client.search_model_versions("name = 'rollback'")


def test_a_champion_that_rightcall_did_not_register_is_an_error(mlflow_uri: str) -> None:
    client = connection.connect()
    client.create_registered_model("foreign")
    client.create_model_version("foreign", "file:///nowhere")
    client.set_registered_model_alias("foreign", "champion", "1")
    with pytest.raises(RegistryError, match="not registered by rightcall"):
        registry.champion("foreign")


def test_registered_weights_are_found_by_alias_and_by_version(workshop: Workshop) -> None:
    recipe = recipe_named("found")
    given = workshop.candidate(recipe, "model", right=50)
    register(recipe, **given)
    assert registry.find_registered("models:/found@champion") == given["model"]
    assert registry.find_registered("models:/found/1") == given["model"]
    for wrong in ("models:/found/2", "models:/found@loser", "models:/nobody@champion"):
        with pytest.raises(RegistryError, match="is not in MLflow"):
            registry.find_registered(wrong)


REGISTER = """
import sys
from rightcall.recipe.loading import load_recipe
from tasks.tracking import registry
from tasks.store.manifests import ArtifactRef; from tasks.store.folder_store import Store
from pathlib import Path
store = Store(Path(sys.argv[1]))
names = ("model", "scores", "snapshot", "verdict")
refs = {name: ArtifactRef.model_validate_json(text) for name, text in zip(names, sys.argv[2:6])}
print(registry.register_model.fn(load_recipe(None, sys.argv[6:]), store=store, **refs).model_dump_json())
"""


def test_two_processes_at_once_make_one_version_in_a_new_database(workshop: Workshop, tmp_path: Path) -> None:
    overrides = [*POLICY, "register.name=race", "register.experiment=race"]
    given = workshop.candidate(load_recipe(None, overrides), "model", right=50)
    refs = [given[name].model_dump_json() for name in ("model", "scores", "snapshot", "verdict")]
    environment = os.environ | {
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'race.db'}",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'training_image'}",
    }

    def start(_: int) -> dict[str, Any]:
        command = [sys.executable, "-c", REGISTER, str(workshop.store.root), *refs, *overrides]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=200)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(start, range(2))
    assert first == second
    assert first["version"] == 1


def test_runs_that_end_together_with_the_same_result_record_it_once(workshop: Workshop) -> None:
    recipe = load_recipe(None, [*POLICY, "register.experiment=together"])
    model = workshop.candidate(recipe, "together", right=50)["model"]
    parents = [mlflow_runs.start_pipeline_run(recipe) for _ in range(6)]
    with ThreadPoolExecutor(len(parents)) as pool:
        children = pool.map(
            lambda parent: mlflow_runs.record_stage(recipe, model, parent, store=workshop.store), parents
        )
        assert len(set(children)) == 1


def test_an_mlflow_that_does_not_answer_is_a_clear_error_within_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://user:geheim@127.0.0.1:{port}")
    started = time.monotonic()
    with pytest.raises(
        RegistryError, match=f"cannot be reached at 'http://user:\\*\\*\\*@127.0.0.1:{port}'.*MLFLOW_TRACKING_URI"
    ):
        registry.champion("anything")
    assert time.monotonic() - started < 10


def test_a_database_whose_driver_is_missing_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        uri = f"postgresql+pg8000://me:geheim@127.0.0.1:{listening.getsockname()[1]}/mlflow"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(
            RegistryError, match=r"me:\*\*\*@.*needs the Python module 'pg8000'.*postgresql\+psycopg://"
        ):
            registry.champion("anything")


def test_a_database_in_a_place_that_cannot_be_written_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////proc/nowhere/mlflow.db")
    with pytest.raises(RegistryError, match="cannot be written"):
        registry.champion("anything")


def test_a_pipeline_run_has_one_child_per_stage_with_its_numbers(workshop: Workshop) -> None:
    recipe = recipe_named("runs")
    snapshot = workshop.snapshot()
    inputs = {"snapshot": snapshot.model_dump(mode="json")}
    model = workshop.model("tracked", slice={"beta": 0.1}, inputs=inputs, result={"steps": 3, "note": "fine"})
    scores = workshop.scores("tracked-scores", 30)
    parent = mlflow_runs.start_pipeline_run(recipe)
    child = mlflow_runs.record_stage(recipe, model, parent, store=workshop.store)
    scored = mlflow_runs.record_stage(recipe, scores, parent, store=workshop.store, label="dpo scores")
    mlflow_runs.end_pipeline_run(parent, verdict="GO")

    client = connection.connect()
    assert [round(point.value, 3) for point in client.get_metric_history(child, "loss")] == [2.0, 1.0, 0.667]
    found = client.get_run(child)
    assert found.data.tags["mlflow.parentRunId"] == parent
    assert found.data.tags["rightcall.digest"] == model.digest
    assert found.data.params["recipe.beta"] == "0.1"
    assert found.data.metrics["steps"] == 3
    assert found.inputs.dataset_inputs[0].dataset.digest == snapshot.digest[:36]
    metrics = client.get_run(scored).data.metrics
    assert metrics["acc_norm"] == 0.5
    assert metrics["acc_norm.low"] < 0.5 < metrics["acc_norm.high"]
    whole = client.get_run(parent)
    assert whole.info.status == "FINISHED"
    assert whole.data.params["dpo.beta"] == str(recipe.dpo.beta)
    assert whole.data.metrics["dpo scores.acc_norm"] == 0.5
    assert whole.data.tags["rightcall.verdict"] == "GO"


def test_a_prefect_run_that_begins_anew_goes_on_with_its_run(workshop: Workshop) -> None:
    """As after an approval, for which the flow was suspended; another recipe of the same Prefect run has its own."""
    recipe = recipe_named("resumed")
    first = mlflow_runs.start_pipeline_run(recipe, flow_run="1a2b")
    mlflow_runs.end_pipeline_run(first, verdict="GO")
    assert mlflow_runs.start_pipeline_run(recipe, flow_run="1a2b") == first
    assert connection.connect().get_run(first).info.status == "RUNNING"
    others = [
        mlflow_runs.start_pipeline_run(recipe, flow_run="3c4d"),
        mlflow_runs.start_pipeline_run(recipe_named("another"), flow_run="1a2b"),
        mlflow_runs.start_pipeline_run(recipe),
    ]
    assert len({first, *others}) == 4


def test_a_rerun_with_cached_stages_logs_no_number_twice(workshop: Workshop) -> None:
    recipe, model = recipe_named("cached"), workshop.model("cached")
    first, second = (mlflow_runs.start_pipeline_run(recipe) for _ in range(2))
    child = mlflow_runs.record_stage(recipe, model, first, store=workshop.store)
    assert mlflow_runs.record_stage(recipe, model, second, store=workshop.store) == child
    client = connection.connect()
    assert len(client.get_metric_history(child, "loss")) == 3
    assert client.get_run(child).data.tags["mlflow.parentRunId"] == first
    assert client.get_run(second).data.tags["rightcall.dpo.run"] == child


def test_a_growing_metrics_file_is_mirrored_once_although_a_resumed_run_repeats_steps(workshop: Workshop) -> None:
    recipe = recipe_named("mirror")
    steps = [{"step": step, "loss": 1.0 / step, "seconds": float(step)} for step in (1, 2, 3, 4)]
    before, after = mlflow_runs.MetricsMirror(recipe, "sft/growing"), None
    for line in steps[:3]:
        before(line)
    before.flush()
    after = mlflow_runs.MetricsMirror(recipe, "sft/growing")
    for line in steps[1:]:
        after(line)
    after.flush()
    client = connection.connect()
    run = mlflow_runs._child_run(client, "tests", "sft/growing", "sft-growing")
    assert [point.step for point in client.get_metric_history(run, "loss")] == [1, 2, 3, 4]


def test_training_goes_on_when_mlflow_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    mirror = mlflow_runs.MetricsMirror(recipe_named("away"), "sft/away")
    mirror({"step": 1, "loss": 1.0, "seconds": 1.0})
    mirror.flush()
    assert "not mirrored into MLflow" in caplog.text


def test_secrets_never_reach_mlflow() -> None:
    values = {
        "trl": {
            "hub_token": "hf_abc",
            "max_tree_tokens": 5,
            "pad_token": "<pad>",
            "report": {"api_key": "k", "SECRET": "s"},
        },
        "data": [{"uri": "https://me:pass@host/rows"}],
        "none": None,
    }
    flat = redaction.flatten(values)
    assert flat["trl.hub_token"] == flat["trl.report.api_key"] == flat["trl.report.SECRET"] == "***"
    assert flat["trl.max_tree_tokens"] == "5"
    assert flat["trl.pad_token"] == "<pad>"
    assert "pass" not in flat["data"]
    assert flat["none"] == "null"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[str]:
    """A real PostgreSQL of our own on a free port, ended afterwards; its server refuses to run as root."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    data = tmp_path / "postgres"
    data.mkdir()
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        shutil.chown(data, "nobody")
        as_user = {"user": "nobody"}
    bin_folder = Path(shutil.which("initdb") or "").resolve().parent
    quiet = {"stdout": subprocess.DEVNULL, "cwd": data, "timeout": 120, **as_user}
    subprocess.run([bin_folder / "initdb", "-D", data, "-A", "trust", "-U", "me", "-N"], check=True, **quiet)
    options = f"-p {port} -k '' -h 127.0.0.1 -F"
    subprocess.run(
        [bin_folder / "pg_ctl", "-D", data, "-w", "-l", data / "log", "-o", options, "start"], check=True, **quiet
    )
    try:
        yield f"postgresql+psycopg://me@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([bin_folder / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop"], check=False, **quiet)


@pytest.mark.skipif(shutil.which("initdb") is None, reason="no PostgreSQL (initdb) on this machine")
def test_the_registry_works_on_postgresql(postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psycopg", reason="MLflow's PostgreSQL driver is not installed: pip install 'psycopg[binary]'")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", postgres)
    monkeypatch.setattr(connection, "MLFLOW_ARTIFACTS", tmp_path / "mlartifacts")
    workshop, recipe = Workshop(Store(tmp_path / "store")), recipe_named("postgres")
    given = workshop.candidate(recipe, "model", right=50)
    parent = mlflow_runs.start_pipeline_run(recipe)
    mlflow_runs.record_stage(recipe, given["model"], parent, store=workshop.store)
    assert register(recipe, **given, run=parent).alias == "champion"
    assert register(recipe, **given, run=parent).version == 1
    assert registry.find_registered("models:/postgres@champion") == given["model"]


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:geheim@db/mlflow",
        "postgresql:///mlflow?user=me&password=geheim",
        "postgresql://me:ge/heim@db/x",
    ],
)
def test_no_form_of_a_password_is_shown(address: str) -> None:
    from tasks.tracking.redaction import without_password

    assert "heim" not in without_password(f"MLflow at {address!r} refused")


def test_a_version_that_is_not_ours_is_not_promoted(mlflow_uri: str) -> None:
    client = connection.connect()
    client.create_registered_model("somebody-elses")
    client.create_model_version("somebody-elses", "file:///nowhere")
    with pytest.raises(RegistryError):
        registry.promote("somebody-elses", 1)
    assert client.get_registered_model("somebody-elses").aliases == {}


def test_the_parent_run_begins_with_its_flow_run_and_is_named_by_flow(workshop: Workshop) -> None:
    begun = datetime(2026, 11, 21, 8, 0, tzinfo=UTC)
    recipe = recipe_named("begins")
    run = mlflow_runs.start_pipeline_run(recipe, begun=begun)
    info = connection.connect().get_run(run).info
    assert info.start_time == begun.timestamp() * 1000
    assert info.run_name == f"pipeline-{recipe.name}-{recipe.digest}"
    mlflow_runs.end_pipeline_run(run)


def test_a_description_says_the_verdict_and_holds_no_link_by_accident(workshop: Workshop) -> None:
    """Markdown makes a link of brackets before parentheses."""
    recipe = recipe_named("described")
    register(recipe, **workshop.candidate(recipe, "described", right=50))
    (version,) = connection.connect().search_model_versions("name = 'described'")
    assert version.description.startswith("GO: acc_norm improves on the base model by +0.500 [+0.")
    assert "](" not in version.description.replace(" ", "")
