"""The @stage decorator without Prefect: one store, one key, one lock; and which errors are tried again."""

from __future__ import annotations

import http.client
import socket
import urllib.error
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect_fixture import prefect_server  # noqa: F401
from stage_examples import make_first, make_second, ran, small_recipe
from store_roots import lies_in

from rightcall.errors import BackendError, DataError, RightcallError, SourceError, StoreError
from rightcall.recipe.schema import Recipe
from tasks.runtime.retries import is_transient
from tasks.runtime.stage import StageRun, stage, summary_line
from tasks.stages.training import train_dpo, train_sft
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store


@pytest.fixture
def store(any_root: str) -> Store:
    """One in a folder, one in S3."""
    ran.clear()
    return open_store(any_root)


@stage(name="fragile", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: None)
def make_fragile(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Fails the first time, and finds its checkpoint the second time."""
    assert list(run.folder.iterdir()) == []
    (run.folder / "half").write_text("half")
    checkpoint = run.scratch / "checkpoint"
    if not checkpoint.exists():
        checkpoint.write_text("step 5")
        raise BackendError("the program was killed")
    (run.folder / "half").unlink()
    (run.folder / "weights").write_text(checkpoint.read_text())
    return {}


def test_a_stage_runs_once_and_is_found_afterwards(store: Store) -> None:
    ref = make_first.run(small_recipe(), store=store)
    assert make_first.run(small_recipe(), store=store) == ref
    assert ran == ["first"]
    store.verify(ref)


def test_a_manifest_tells_where_the_result_came_from(store: Store) -> None:
    first = make_first.run(small_recipe(), store=store)
    second = make_second.run(small_recipe(), store=store, model=first, label="after sft")
    manifest = store.manifest(second)
    assert manifest["result"] == {"items": 3}
    assert manifest["slice"] == 0.1
    assert manifest["inputs"] == {"model": first.model_dump()}
    assert manifest["input_digests"] == {"model": store.digest(first, "model/")}
    assert {"python", "prefect", "numpy"} <= manifest["versions"].keys()
    assert manifest["seconds"] >= 0
    assert set(manifest["files"]) == {"scores"}
    assert summary_line(manifest).startswith("items 3, 1 files")


def test_a_label_names_the_run_and_does_not_change_the_result(store: Store) -> None:
    first = make_first.run(small_recipe(), store=store)
    assert make_second.run(small_recipe(), store=store, model=first, label="a") == make_second.run(
        small_recipe(), store=store, model=first, label="b"
    )


def test_an_input_that_is_not_in_the_store_is_an_error(store: Store) -> None:
    gone = ArtifactRef(uri="first/abc", digest="0", kind="model")
    with pytest.raises(StoreError, match="'first/abc' is not in the store"):
        make_second.run(small_recipe(), store=store, model=gone)


def test_an_input_that_is_no_ref_is_an_error(store: Store) -> None:
    with pytest.raises(RightcallError, match="takes refs and plain values, not"):
        make_second.run(small_recipe(), store=store, model=Path("/tmp"))


def test_an_absent_ref_is_another_key_than_a_given_one(store: Store) -> None:
    first = make_first.run(small_recipe(), store=store)
    assert make_second.key(small_recipe(), {"model": None}, store=store) != make_second.key(
        small_recipe(), {"model": first}, store=store
    )


def test_a_failed_stage_leaves_its_scratch_and_nothing_in_the_store(store: Store) -> None:
    with pytest.raises(BackendError, match="was killed"):
        make_fragile.run(small_recipe(), store=store)
    assert store.refs("fragile") == []
    ref = make_fragile.run(small_recipe(), store=store)
    assert (store.path(ref) / "weights").read_text() == "step 5"
    assert not (store.path(ref) / "half").exists()
    assert list((store.root / ".work/fragile").iterdir()) == []
    assert [path for path in lies_in(store, ".leases/") if path.endswith(".lease")] == []


def test_zero_steps_give_the_input_model(store: Store) -> None:
    model = ArtifactRef(uri="base/abc", digest="0", kind="model")
    rows = ArtifactRef(uri="ingest/abc", digest="0", kind="snapshot")
    none = {"max_steps": 0, "learning_rate": 1e-3}
    assert (
        train_sft.run(small_recipe(sft=none, dpo={"start_from": "base"}), store=store, base=model, snapshot=rows)
        == model
    )
    assert train_dpo.run(small_recipe(dpo=none), store=store, model=model, snapshot=rows) == model


attempts: list[str] = []


@stage(name="flaky", kind="model", modules=("rightcall.measurement.metrics",), slice=lambda recipe: recipe.name)
def make_flaky(run: StageRun, recipe: Recipe) -> dict[str, Any]:
    """Fails once: with a lost connection, or with rows that are wrong."""
    attempts.append(recipe.name)
    if len(attempts) == 1:
        if recipe.name == "network":
            raise SourceError("the Hub could not be reached") from ConnectionResetError("reset by peer")
        raise DataError("the rows are wrong")
    (run.folder / "weights").write_text("w")
    return {}


@flow
def flaky(address: str, recipe: Recipe) -> ArtifactRef:
    return make_flaky(recipe, store=open_store(address))


def test_a_task_is_tried_again_for_the_network_and_never_for_the_rows(
    store: Store,
    prefect_server: None,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(make_flaky.task, "retry_delay_seconds", [0.1, 0.1])
    attempts.clear()
    store.verify(flaky(store.address, small_recipe(name="network")))
    assert len(attempts) == 2
    attempts.clear()
    with pytest.raises(DataError, match="the rows are wrong"):
        flaky(store.address, small_recipe(name="rows"))
    assert len(attempts) == 1


def caused(error: Exception, cause: Exception | None) -> Exception:
    error.__cause__ = cause
    return error


def in_context(error: Exception, context: Exception) -> Exception:
    try:
        try:
            raise context
        except type(context):
            raise error  # noqa: B904  the context is what is tested
    except type(error) as err:
        return err


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(code)
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def status_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("GET", "http://x")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(), TimeoutError(), socket.gaierror(-3, "try again"), http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""), httpx.ConnectTimeout("slow"), httpx.RemoteProtocolError("half"),
        status_error(503), status_error(429), ClientError("ThrottlingException", 400), ClientError("x", 500),
        urllib.error.URLError(ConnectionRefusedError()), OSError(113, "no route"),
        caused(SourceError("x"), ConnectionError()), caused(SourceError("x"), caused(ValueError(), TimeoutError())),
        in_context(BackendError("x"), BrokenPipeError()), ExceptionGroup("two", [ValueError(), TimeoutError()]),
    ],
    ids=repr,
)  # fmt: skip
def test_what_passes_by_itself_is_tried_again(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        SourceError("x"), StoreError("x"), ValueError(), FileNotFoundError(2, "no"), OSError(28, "full"),
        status_error(404), status_error(401), ClientError("AccessDenied", 403), httpx.UnsupportedProtocol("ftp"),
        caused(DataError("x"), ValueError()), RecursionError(),
    ],
    ids=repr,
)  # fmt: skip
def test_what_stays_wrong_is_not_tried_again(error: Exception) -> None:
    assert not is_transient(error)


def test_a_circle_of_causes_ends() -> None:
    one, two = ValueError(), KeyError()
    one.__cause__, two.__cause__ = two, one
    assert not is_transient(one)
