"""A byte that changed in a stored result is found before the result is used: trained on, scored, judged, registered."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from s3_fixture import S3Server
from stage_examples import make_first, make_second, ran, small_recipe
from store_roots import overwrite

from rightcall.errors import StoreError
from tasks.machine import hashing
from tasks.stages.gate import decide_verdict
from tasks.stages.report import write_report
from tasks.stages.score import score_model
from tasks.stages.training import train_dpo, train_sft
from tasks.store import manifests
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind
from tasks.store.opening import open_store
from tasks.store.s3_store import S3Store
from tasks.tracking.registry import register_model


@pytest.fixture
def store(any_root: str) -> Store:
    """One in a folder, one in S3."""
    ran.clear()
    return open_store(any_root)


def put(store: Store, stage: str, kind: Kind, **files: str) -> ArtifactRef:
    work = store.workdir(stage, "k1", empty=True)
    for name, text in files.items():
        path = work / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return store.commit(stage, "k1", kind, work, {"result": {}})


def flip(path: Path) -> None:
    """One bit of the first byte; the size stays."""
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def test_a_stage_refuses_an_input_that_was_changed(store: Store) -> None:
    ref = make_first.run(small_recipe(), store=store)
    overwrite(store, f"{ref.uri}/model/weights", "0.002")
    with pytest.raises(StoreError, match=r"was changed after it was made: \['model/weights'\]; delete .* same command"):
        make_second.run(small_recipe(), store=store, model=ref)
    assert ran == ["first"]
    assert store.refs("second") == []


def test_what_a_stage_does_not_read_may_change(store: Store) -> None:
    ref = put(store, "first", "model", model__weights="w", output__log="a")
    overwrite(store, "first/k1/output/log", "b")
    store.check(ref, "model/")
    with pytest.raises(StoreError, match=r"\['output/log'\]"):
        store.check(ref)


def test_a_manifest_that_no_longer_fits_its_digest_is_refused(store: Store) -> None:
    ref = put(store, "first", "model", model__weights="w")
    text = (store.path(ref) / "manifest.json").read_text()
    overwrite(
        store,
        "first/k1/manifest.json",
        text.replace(hashing.hash_file(store.path(ref) / "model/weights")["sha256"], "0" * 64),
    )
    with pytest.raises(StoreError, match=r"was changed after it was made: \['manifest.json'\]"):
        store.path(ref)


@pytest.mark.parametrize("stage", [train_sft, train_dpo, score_model], ids=lambda stage: stage.name)
@pytest.mark.parametrize("changed", ["base/k1/model/model.safetensors", "ingest/k1/{stage}.parquet"])
def test_no_real_stage_starts_its_job_on_what_was_changed(store: Store, stage: object, changed: str) -> None:
    model = put(store, "base", "model", **{"model__model.safetensors": "weights", "model__config.json": "{}"})
    rows = {"sft.parquet": "rows", "preference.parquet": "rows", "choice.parquet": "rows"}
    snapshot = put(store, "ingest", "snapshot", **rows)
    part = {train_sft: "sft", train_dpo: "preference", score_model: "choice"}[stage]
    overwrite(store, changed.format(stage=part), "wEights" if "safe" in changed else "rOws")
    name = "base" if stage is train_sft else "model"
    with pytest.raises(StoreError, match=r"was changed after it was made: \['(model/model.safetensors|\w+.parquet)'\]"):
        stage.run(small_recipe(), store=store, **{name: model, "snapshot": snapshot})  # type: ignore[attr-defined]
    assert not (store.root / ".work" / stage.name).exists()  # type: ignore[attr-defined]


def test_gate_report_and_registration_refuse_what_was_changed(store: Store) -> None:
    line = '{"id": "a", "gold": "direct", "prediction": "direct", "prediction_norm": "direct", "has_tools": true}\n'
    scores = put(store, "score", "scores", **{"output__items.jsonl": line * 2})
    model = put(store, "dpo", "model", **{"model__model.safetensors": "weights"})
    snapshot = put(store, "ingest", "snapshot", **{"choice.parquet": "rows"})
    verdict = put(store, "gate", "verdict", **{"verdict.json": "{}"})
    overwrite(store, "dpo/k1/model/model.safetensors", "wEights")
    given = {"snapshot": snapshot, "verdict": verdict}
    with pytest.raises(StoreError, match=r"\['model/model.safetensors'\]"):
        register_model.fn(small_recipe(), model=model, scores=scores, store=store, **given)
    with pytest.raises(StoreError, match=r"\['model/model.safetensors'\]"):
        write_report.run(small_recipe(), store=store, models={"dpo": model}, scores={"dpo": scores}, **given)
    overwrite(store, "score/k1/output/items.jsonl", line + line.replace("direct", "dirEct"))
    with pytest.raises(StoreError, match=r"\['output/items.jsonl'\]"):
        decide_verdict.run(small_recipe(), store=store, candidate=scores, baseline=scores)


def test_a_byte_that_changes_between_two_uses_is_found_though_its_time_was_set_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifests, "SETTLED_NS", -(10**18))  # what was hashed is remembered however young it is
    store = Store(tmp_path)
    ref = put(store, "base", "model", model__weights="w")
    path = store.path(ref) / "model/weights"
    before = path.stat()
    while path.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of the file system ticks in milliseconds
        flip(path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.write_text("v")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StoreError, match=r"\['model/weights'\]"):
        store.path(ref)


def test_a_copy_in_the_mirror_that_was_changed_is_fetched_again(
    s3_bucket: str, s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    store = open_store(f"s3://{s3_bucket}/team")
    assert isinstance(store, S3Store)
    ref = make_first.run(small_recipe(), store=store)
    flip(store.path(ref) / "model/weights")
    second = make_second.run(small_recipe(), store=store, model=ref)
    assert (store.path(second) / "scores").read_text() == "0.001 0.1"
    s3_server.seen.clear()
    store.check(ref, "model/")  # asked for once in this process: neither the object nor its sha256
    assert not [request for request in s3_server.seen if request.path.endswith("weights")]


def test_an_object_that_came_without_its_sha256_is_read(
    s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `aws s3 sync` of a store from a folder."""
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    store = open_store(f"s3://{s3_bucket}/team")
    ref = put(store, "base", "model", model__weights="w")
    overwrite(store, "base/k1/model/weights", "w")
    store.check(ref)


def test_a_result_that_was_made_again_is_no_longer_held(store: Store) -> None:
    ref = put(store, "first", "model", model__weights="w")
    assert store.holds(ref)
    work = store.workdir("first", "k1", empty=True)
    (work / "weights").write_text("another")
    again = store.commit("first", "k1", "model", work, {"result": {}}, replace=True)
    assert (store.holds(ref), store.holds(again)) == (False, True)
