"""--fresh computes a stage again and replaces its result in one step; results of other versions are named once a run."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.flows import load_flow_from_entrypoint
from prefect_fixture import prefect_server  # noqa: F401
from s3_fixture import Fault, S3Server
from stage_examples import make_first, ran, small_recipe
from store_roots import lies_in, overwrite

from rightcall.errors import BackendError, StoreError
from rightcall.recipe.schema import Recipe
from tasks.machine import full_disk
from tasks.runtime import freshness
from tasks.runtime.stage import StageRun, stage
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store
from tasks.store.s3_store import S3Store

ROOT = Path(__file__).resolve().parents[2]
made: list[str] = []


@stage(name="random", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: None)
def make_random(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Another result every time, in another file."""
    made.append(f"weights-{len(made)}")
    (run.folder / "model").mkdir()
    (run.folder / "model" / made[-1]).write_text(made[-1])
    return {}


@pytest.fixture
def store(any_root: str) -> Store:
    """One in a folder, one in S3."""
    ran.clear()
    made.clear()
    return open_store(any_root)


def content(store: Store, ref: ArtifactRef) -> dict[str, str]:
    folder = store.path(ref)
    return {path.name: path.read_text() for path in (folder / "model").iterdir()}


def test_a_fresh_result_replaces_the_stored_one(store: Store) -> None:
    first = make_random.run(small_recipe(), store=store)
    for number in (1, 2):
        again = make_random.run(small_recipe(), store=store, fresh=True)
        assert again.uri == first.uri
        assert again.digest != first.digest
        assert content(store, again) == {f"weights-{number}": f"weights-{number}"}
        assert make_random.run(small_recipe(), store=store) == again
        assert store.refs("random") == [again]
        store.verify(again)
        assert len(lies_in(store, "random/")) == 2
        assert list((store.root / ".work/random").iterdir()) == []
    with pytest.raises(StoreError, match="the result was made again meanwhile"):
        store.path(first)


job_keys: list[str] = []


@stage(name="job", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: None)
def make_by_job(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Fails the second time, as when its orchestrator is killed."""
    job_keys.append(run.job_key)
    if len(job_keys) == 2:
        raise BackendError("the orchestrator was killed")
    (run.folder / "weights").write_text("w")
    return {}


def test_a_job_elsewhere_has_another_name_when_its_result_is_made_again_and_keeps_it_over_kills(tmp_path: Path) -> None:
    """The job of the same name is done: SageMaker would give its old result."""
    job_keys.clear()
    store = Store(tmp_path)
    key = make_by_job.run(small_recipe(), store=store).uri.partition("/")[2]
    with pytest.raises(BackendError):
        make_by_job.run(small_recipe(), store=store, fresh=True)
    make_by_job.run(small_recipe(), store=store, fresh=True)
    assert job_keys[0] == key
    assert job_keys[1] == job_keys[2] != key


def test_a_fresh_result_that_is_the_same_keeps_its_ref_and_heals_a_changed_file(store: Store) -> None:
    ref = make_first.run(small_recipe(), store=store)
    overwrite(store, f"{ref.uri}/model/weights", "0.002")
    assert make_first.run(small_recipe(), store=store, fresh=True) == ref
    assert ran == ["first", "first"]
    store.verify(ref)


def test_a_replaced_result_is_the_same_on_another_machine(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores = []
    for machine in ("one", "two"):
        monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / machine))
        stores.append(open_store(f"s3://{s3_bucket}/team"))
    here, there = stores
    content(there, make_random.run(small_recipe(), store=here))
    ref = make_random.run(small_recipe(), store=here, fresh=True)
    assert there.find(*ref.uri.split("/")) == ref
    assert content(there, ref) == content(here, ref)
    (relative,) = [path for path in lies_in(there, "random/") if "/model/" in path]
    assert there.url(ref, "model/") == f"s3://{s3_bucket}/team/random/{relative.rpartition('/')[0]}/"
    there.verify(ref)


@pytest.mark.parametrize("refused", ["^PUT .*again-", "^PUT .*manifest.json", "^DELETE .*weights"])
def test_in_s3_an_interrupted_replacement_leaves_the_old_result_or_the_new_one(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    made.clear()
    store = open_store(f"s3://{s3_bucket}/team")
    old = make_random.run(small_recipe(), store=store)
    s3_server.faults.append(Fault(refused, 403, "AccessDenied"))
    with pytest.raises(StoreError, match="access denied"):
        make_random.run(small_recipe(), store=store, fresh=True)
    found = store.find(*old.uri.split("/"))
    assert found is not None
    assert (found == old) is refused.startswith("^PUT")
    store.verify(found)
    s3_server.faults.clear()
    new = make_random.run(small_recipe(), store=store, fresh=True)
    assert len(made) == 2  # the interrupted one is sent, not made again
    assert content(store, new) == {"weights-1": "weights-1"}
    assert len(lies_in(store, "random/")) == 2


REPLACE_FOR_EVER = """
import sys
from pathlib import Path
from tasks.store.folder_store import Store

store, number = Store(Path(sys.argv[1])), 0
while True:
    work = store.workdir("sft", "k1", empty=True)
    for name in range(20):
        (work / f"{number}-{name}").write_text(str(number))
    store.commit("sft", "k1", "model", work, {"result": {}}, replace=True)
    number += 1
    print(number, flush=True)
"""


def test_a_kill_leaves_one_whole_result_in_a_folder(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}"}
    store = Store(tmp_path)
    for kill in range(6):
        child = subprocess.Popen(
            [sys.executable, "-c", REPLACE_FOR_EVER, str(tmp_path)], env=environment, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(5 + kill):
            child.stdout.readline()
        os.kill(child.pid, signal.SIGKILL)
        child.communicate()
        (ref,) = store.refs("sft")
        store.verify(ref)
        assert len(list(store.path(ref).iterdir())) == 21


def test_two_folders_change_places_in_one_step_or_nothing_happens(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert full_disk.exchange(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "b").exists()
    with pytest.raises(FileNotFoundError):
        full_disk.exchange(tmp_path / "a", tmp_path / "gone")
    assert (tmp_path / "a" / "b").exists()


# In flows, with a real Prefect server.


@stage(
    name="second",
    kind="scores",
    modules=("rightcall.measurement.metrics",),
    slice=lambda recipe: None,
    reads={"model": "model/"},
)
def make_second(run: StageRun, recipe: Recipe, model: ArtifactRef) -> dict[str, Any]:
    """Something that depends on the model."""
    ran.append("second")
    (run.folder / "scores").write_text(str(content(run.store, model)))
    return {}


@flow
def stages(address: str, recipe: Recipe, fresh: tuple[str, ...], *, twice: bool = False) -> ArtifactRef:
    freshness.begin_run(fresh)
    store = open_store(address)
    ref = make_random(recipe, store=store)
    if twice:
        assert make_random(recipe, store=store) == ref
    make_second(recipe, store=store, model=ref)
    freshness.warn_of_old_versions()
    return ref


@pytest.fixture
def flow_of_two(store: Store, prefect_server: None) -> Callable[..., ArtifactRef]:  # noqa: F811
    def call(*fresh: str, twice: bool = False) -> ArtifactRef:
        try:
            return stages(store.address, small_recipe(), fresh, twice=twice)
        finally:
            freshness.begin_run()

    return call


def test_a_fresh_stage_runs_again_in_a_flow_and_what_follows_it_by_digest(
    store: Store, flow_of_two: Callable[..., ArtifactRef]
) -> None:
    old = flow_of_two()
    assert flow_of_two() == old
    assert (made, ran) == (["weights-0"], ["second"])
    new = flow_of_two("random", twice=True)  # once a run: an approval lets the same run begin anew
    assert new != old
    assert (made, ran) == (["weights-0", "weights-1"], ["second", "second"])
    assert flow_of_two() == new  # Prefect's record is the new one's too
    flow_of_two("second")
    assert (made, ran) == (["weights-0", "weights-1"], ["second"] * 3)
    if isinstance(store, S3Store):
        assert len(lies_in(store, "random/")) == 2


class Warnings(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())


def test_results_of_other_versions_are_used_and_named_once(
    store: Store, flow_of_two: Callable[..., ArtifactRef], monkeypatch: pytest.MonkeyPatch
) -> None:
    flow_of_two()
    for name in ("random", "second"):
        (ref,) = store.refs(name)
        manifest = store.manifest(ref)
        manifest["versions"]["transformers"] = "4.0"
        overwrite(store, f"{ref.uri}/manifest.json", json.dumps(manifest))
    logger, handler = logging.getLogger("prefect.flow_runs"), Warnings()
    logger.addHandler(handler)
    try:
        flow_of_two()
        (said,) = [text for text in handler.texts if "other versions" in text]
        assert "random by transformers 4.0 (installed: 5." in said
        assert "--fresh random --fresh second" in said
        handler.texts.clear()
        flow_of_two("random", "second")
        flow_of_two()
        assert not [text for text in handler.texts if "other versions" in text]
    finally:
        logger.removeHandler(handler)
    assert len(made) == 2


def test_a_jobs_own_versions_are_those_of_its_result() -> None:
    result = {"steps": 3, "versions": {"torch": "2.9.0+cu128"}}
    found = freshness.versions_of(result)
    assert found["torch"] == "2.9.0+cu128"
    assert {"trl", "transformers"} & found.keys() == set()  # it did not load them
    assert found["prefect"]
    assert result == {"steps": 3}


@pytest.mark.parametrize("name", ["pipeline", "ingest", "train", "score", "publish"])
def test_an_unknown_stage_ends_with_the_names_that_there_are(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-m", f"flows.{name}", *(["x"] if name == "score" else []), "--fresh", "dqo"]
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "invalid choice: 'dqo' (choose from " in done.stderr
    monkeypatch.chdir(ROOT)
    entry = {"pipeline": "run_pipeline", "ingest": "ingest_rows", "train": "train_model", "score": "score_suite"}
    loaded = load_flow_from_entrypoint(
        f"flows/{name}.py:{entry.get(name, 'publish_model')}", use_placeholder_flow=False
    )
    required = {"model": "base"} if name == "score" else {}
    known = "gate" if name == "publish" else "base"
    loaded.validate_parameters({**required, "fresh": [known]})
    with pytest.raises(Exception, match=rf"Input should be .*'{known}'"):
        loaded.validate_parameters({**required, "fresh": ["dqo"]})
