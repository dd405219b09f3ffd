"""The store: a result is there whole or not at all, and says when it was changed; the same in a folder and in S3."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from store_roots import lies_in, overwrite, remove

from rightcall.errors import StoreError
from tasks.machine.full_disk import disk_errors
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, digest_files
from tasks.store.opening import open_store
from tasks.store.s3_store import S3Store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def store(any_root: str) -> Store:
    """One in a folder, one in S3: every test that takes it holds for both."""
    return open_store(any_root)


def put(store: Store, key: str = "k1", **files: str) -> ArtifactRef:
    work = store.workdir("sft", key, empty=True)
    for name, text in (files or {"model__weights": "w", "output__metrics.jsonl": "{}"}).items():
        path = work / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return store.commit("sft", key, "model", work, {"result": {"rows": 1}})


def test_a_committed_result_is_found_and_holds_its_files(store: Store) -> None:
    ref = put(store)
    assert store.find("sft", "k1") == ref
    assert (store.path(ref) / "model/weights").read_text() == "w"
    assert store.manifest(ref)["result"] == {"rows": 1}
    store.verify(ref)


def test_the_layout_and_the_manifest_are_the_same_in_both(store: Store) -> None:
    ref = put(store)
    assert lies_in(store) == ["sft/k1/manifest.json", "sft/k1/model/weights", "sft/k1/output/metrics.jsonl"]
    manifest = store.manifest(ref)
    assert list(manifest) == ["stage", "key", "kind", "digest", "result", "files"]
    assert ref == ArtifactRef(uri="sft/k1", digest=digest_files({"model/weights": sha256("w")}), kind="model")
    assert manifest["files"] == {
        "model/weights": {"sha256": sha256("w"), "size_bytes": 1},
        "output/metrics.jsonl": {"sha256": sha256("{}"), "size_bytes": 2},
    }
    text = (store.path(ref) / "manifest.json").read_text()
    assert text == json.dumps(manifest, indent=1) + "\n"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_nothing_is_found_before_the_commit(store: Store) -> None:
    (store.workdir("sft", "k1") / "model").write_text("half")
    assert store.find("sft", "k1") is None
    assert store.refs("sft") == []


def test_the_work_folder_is_gone_after_the_commit(store: Store) -> None:
    (store.scratch("sft", "k1") / "checkpoint").write_text("c")
    put(store)
    assert not (store.root / ".work/sft/k1").exists()


def test_equal_work_has_equal_digests_whatever_its_timings(store: Store) -> None:
    first = put(store, "k1", weights="w", **{"metrics.jsonl": "1 s", "job.log": "a", "data_docs__index.html": "a"})
    second = put(store, "k2", weights="w", **{"metrics.jsonl": "2 s", "job.log": "b", "data_docs__index.html": "b"})
    third = put(store, "k3", weights="v")
    assert first.digest == second.digest != third.digest


def test_a_part_of_a_result_has_its_own_digest(store: Store) -> None:
    first = put(store, "k1", **{"sft.parquet": "a", "preference.parquet": "b"})
    second = put(store, "k2", **{"sft.parquet": "a", "preference.parquet": "c"})
    assert store.digest(first, "sft.parquet") == store.digest(second, "sft.parquet")
    assert store.digest(first, "preference.parquet") != store.digest(second, "preference.parquet")
    with pytest.raises(StoreError, match=r"has no 'choice.parquet'"):
        store.digest(first, "choice.parquet")


def test_a_moved_store_still_has_its_results(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    ref = put(store)
    store.root.rename(tmp_path / "elsewhere")
    Store(tmp_path / "elsewhere").verify(ref)


@pytest.mark.parametrize("damage", ["remove", "truncate", "manifest", "no manifest"])
def test_a_damaged_result_is_not_found_and_is_made_again(store: Store, damage: str) -> None:
    ref = put(store)
    if damage == "remove":
        remove(store, "sft/k1/model/weights")
    elif damage == "truncate":
        overwrite(store, "sft/k1/model/weights", "")
    elif damage == "manifest":
        overwrite(store, "sft/k1/manifest.json", "{")
    else:
        remove(store, "sft/k1/manifest.json")
    assert store.find("sft", "k1") is None
    assert store.refs("sft") == []
    assert store.finish_commit("sft", "k1") is None
    with pytest.raises(StoreError, match=r"'sft/k1' is not in the store .* run the flow"):
        store.path(ref)
    assert put(store) == ref
    store.verify(ref)
    assert (store.path(ref) / "model/weights").read_text() == "w"


def test_what_a_damaged_result_held_besides_is_gone_when_it_is_made_again(store: Store) -> None:
    """A job reads the whole prefix as its channel: a shard too many would be loaded."""
    put(store, "k1", model__one="1", model__two="2")
    remove(store, "sft/k1/manifest.json")
    put(store, "k1", model__one="1")
    assert lies_in(store, "sft/k1/") == ["manifest.json", "model/one"]


def test_a_changed_byte_is_found_by_verify(store: Store) -> None:
    ref = put(store)
    overwrite(store, "sft/k1/model/weights", "x")
    with pytest.raises(StoreError, match=r"was changed after it was made: \['model/weights'\]"):
        store.verify(ref)


def test_a_ref_of_another_store_is_refused(store: Store) -> None:
    ref = put(store)
    with pytest.raises(StoreError, match="comes from another store"):
        store.path(ref.model_copy(update={"digest": "0" * 64}))


def test_the_first_of_two_commits_stays(store: Store) -> None:
    first = put(store, weights="w")
    assert put(store, weights="other") == first
    store.verify(first)


def test_a_link_is_refused_because_it_would_dangle(store: Store, tmp_path: Path) -> None:
    work = store.workdir("sft", "k1")
    (work / "weights").symlink_to(tmp_path / "cache")
    with pytest.raises(StoreError, match=r"holds links .*'weights'.* copy their content"):
        store.commit("sft", "k1", "model", work, {"result": {}})
    assert store.find("sft", "k1") is None


def test_results_of_a_stage_come_newest_first(store: Store) -> None:
    first, second, third = (put(store, key) for key in ("k2", "k1", "k3"))
    if not isinstance(store, S3Store):  # S3 counts in seconds
        for age, key in enumerate(("k3", "k1", "k2")):
            os.utime(store.root / f"sft/{key}/manifest.json", (1e9 - age, 1e9 - age))
        assert store.refs("sft") == [third, second, first]
    assert {ref.uri for ref in store.refs("sft")} == {"sft/k1", "sft/k2", "sft/k3"}
    assert store.refs("dpo") == []


def test_a_part_has_its_size(store: Store) -> None:
    ref = put(store, "k1", model__a="12", model__b="345", log="x")
    assert (store.size_bytes(ref), store.size_bytes(ref, "model/")) == (6, 5)


def test_a_result_is_named_by_the_beginning_of_its_key(store: Store) -> None:
    first, second = put(store, "aa11"), put(store, "ab22")
    assert store.resolve("sft/aa") == first
    assert store.resolve("sft/ab22/") == second
    for text, count in (("sft/a", 2), ("sft/", 0), ("sft/zz", 0)):
        with pytest.raises(StoreError, match=rf"'{text}' names {count} results.*sft/a"):
            store.resolve(text)


@pytest.mark.parametrize("uri", ["../x/k1", "sft/..", "sft/a/b", "sft", "/etc/passwd"])
def test_a_ref_cannot_lead_out_of_the_store(store: Store, uri: str) -> None:
    with pytest.raises(StoreError, match="is no name of a stage or key"):
        store.path(ArtifactRef(uri=uri, digest="0", kind="model"))


def test_a_digest_is_the_hash_of_sorted_path_hash_pairs() -> None:
    """sha256 of '{"a": "1", "b": "2"}', timings left out."""
    expected = hashlib.sha256(b'{"a": "1", "b": "2"}').hexdigest()
    assert digest_files({"b": "2", "a": "1", "output/summary.json": "3"}) == expected


def test_too_little_space_is_said_before_the_work(store: Store) -> None:
    with pytest.raises(StoreError, match=r"bytes are free, 1,000,000,000,000,000 bytes needed"):
        store.require_space(10**15)


def test_a_folder_has_no_url_and_says_what_has(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    with pytest.raises(StoreError, match=r"store'? is a folder.*--store s3://bucket/prefix.*'sft/k1'"):
        store.url(put(store), "model/")


@pytest.mark.parametrize("text", ["s3://", "s3:///x", "s3://B_d/x", "s3://bucket/../x", "s3://bucket/a//b"])
def test_an_address_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(StoreError, match=r"is no address in S3; write s3://bucket/prefix"):
        open_store(text)


def test_a_store_that_cannot_be_made_says_which_variable_to_set(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="RIGHTCALL_HOME"):
        Store(tmp_path / "file").workdir("sft", "k1")


def test_no_space_left_is_a_store_error_wherever_it_happens(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"is full: .* Nothing was lost: .* same command"), disk_errors(tmp_path):
        Path("/dev/full").write_text("x")


FULL_DISK = """
import json, sys
from pathlib import Path
from rightcall.errors import StoreError
from tasks.store.folder_store import Store; from tasks.machine.full_disk import disk_errors

store = Store(Path(sys.argv[1]) / "store")
first = store.workdir("sft", "first")
(first / "weights").write_bytes(b"w" * 100_000)
ref = store.commit("sft", "first", "model", first, {})
checkpoint = store.scratch("sft", "second") / "checkpoint"
checkpoint.write_bytes(b"c" * 50_000)
said = []
work = store.workdir("sft", "second", empty=True)
filler = Path(sys.argv[1]) / "filler"
try:
    with disk_errors(work):
        (work / "weights").write_bytes(b"w" * 1_000_000)
except StoreError as err:
    said.append(str(err))
(work / "weights").write_bytes(b"w" * 20_000)
try:
    filler.write_bytes(b"f" * 10_000_000)
except OSError:
    pass
try:
    store.commit("sft", "second", "model", work, {"padding": "p" * 100_000})
except StoreError as err:
    said.append(str(err))
store.verify(ref)
survived = checkpoint.read_bytes() == b"c" * 50_000
missing = store.find("sft", "second") is None
filler.unlink()
store.verify(store.commit("sft", "second", "model", work, {}))
print(json.dumps({"said": said, "survived": survived, "missing": missing}))
"""


def test_on_a_full_disk_nothing_is_lost_and_the_same_work_goes_on_after(tmp_path: Path) -> None:
    """A real tmpfs of 512 KiB, in a mount namespace of its own."""
    mount = 'mount -t tmpfs -o size=512k none "$1" && exec "$2" -c "$3" "$1"'
    arguments = ["sh", "-c", mount, "sh", str(tmp_path), sys.executable, FULL_DISK]
    paths = {
        "PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}",
        "PATH": "/usr/bin:/bin",
        "RIGHTCALL_HOME": str(tmp_path),
    }
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", *arguments],
        cwd=ROOT,
        env=paths,
        capture_output=True,
        text=True,
        check=False,
    )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["survived"]
    assert found["missing"]
    assert len(found["said"]) == 2
    assert all("is full" in text and "Nothing was lost" in text for text in found["said"])
