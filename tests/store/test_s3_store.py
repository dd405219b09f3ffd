"""The store in S3: nothing is sent or fetched twice, an interrupted commit goes on, and every refusal says what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect_fixture import prefect_server  # noqa: F401
from processes import until
from s3_fixture import Fault, S3Server
from stage_examples import make_first, make_second, ran, small_recipe
from store_roots import lies_in, overwrite, remove

from rightcall.errors import RegistryError, StoreError
from tasks.aws import transfers
from tasks.runtime.retries import is_transient
from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store
from tasks.store.s3_store import S3Store

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "team/store"
FILES = {"model/a.safetensors": "a" * 1000, "model/b.safetensors": "b" * 2000, "output/summary.json": "{}"}


@pytest.fixture
def store(s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("RIGHTCALL_STORE", f"s3://{s3_bucket}/{PREFIX}")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    ran.clear()
    return opened()


def opened() -> S3Store:
    found = open_store()
    assert isinstance(found, S3Store)
    return found


@pytest.fixture
def elsewhere(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """The same store seen from a machine that has nothing of it yet."""
    monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "other-mirror"))
    return opened()


def put(store: S3Store, key: str = "k1", files: dict[str, str] | None = None) -> ArtifactRef:
    return store.commit("sft", key, "model", written(store, key, files), {"result": {}})


def written(store: S3Store, key: str = "k1", files: dict[str, str] | None = None) -> Path:
    work = store.workdir("sft", key, empty=True)
    for name, text in (files or FILES).items():
        (work / name).parent.mkdir(parents=True, exist_ok=True)
        (work / name).write_text(text)
    return work


def gets(server: S3Server) -> list[str]:
    """Files (not manifests) that were read."""
    seen = [request.path.rsplit("/", 1)[1] for request in server.seen if request.method == "GET"]
    return sorted(name for name in seen if "." in name and name != "manifest.json" and "?" not in name)


def sent(server: S3Server) -> list[str]:
    """Files that were written, leases left out."""
    written = [request.path.partition("?")[0] for request in server.seen if request.method == "PUT"]
    return [path.rsplit("/", 1)[1] for path in written if "/.leases/" not in path]


def test_the_manifest_is_sent_last_and_a_job_reads_the_same_layout(store: S3Store, s3_server: S3Server) -> None:
    ref = put(store)
    assert sent(s3_server)[-1] == "manifest.json"
    assert sorted(sent(s3_server)) == ["a.safetensors", "b.safetensors", "manifest.json", "summary.json"]
    assert store.url(ref, "model/") == f"s3://{store.remote.bucket}/team/store/sft/k1/model/"
    assert lies_in(store, "sft/k1/model/") == ["a.safetensors", "b.safetensors"]


def test_a_second_commit_moves_no_bytes(store: S3Store, elsewhere: S3Store, s3_server: S3Server) -> None:
    first = put(store)
    s3_server.seen.clear()
    assert put(store) == put(elsewhere) == first
    assert s3_server.sent_bytes() == 0
    remove(store, "sft/k1/manifest.json")  # as after a kill just before the end: now every file is looked at
    assert put(store) == first
    assert sent(s3_server) == ["manifest.json"]


def test_what_this_machine_made_or_fetched_is_not_fetched_again(
    store: S3Store, elsewhere: S3Store, s3_server: S3Server
) -> None:
    ref = put(store)
    s3_server.seen.clear()
    store.path(ref)
    assert gets(s3_server) == []
    assert (elsewhere.path(ref) / "model/a.safetensors").read_text() == FILES["model/a.safetensors"]
    assert gets(s3_server) == ["a.safetensors", "b.safetensors", "summary.json"]
    elsewhere.path(ref)
    assert len(gets(s3_server)) == 3


def test_keys_need_manifests_and_not_models(store: S3Store, elsewhere: S3Store, s3_server: S3Server) -> None:
    ref = put(store)
    s3_server.seen.clear()
    assert elsewhere.digest(ref, "model/") == store.digest(ref, "model/")
    assert elsewhere.size_bytes(ref, "model/") == 3000
    assert elsewhere.resolve("sft/k") == ref
    assert gets(s3_server) == []


def test_a_large_file_goes_and_comes_in_parts_and_is_the_same(
    store: S3Store, elsewhere: S3Store, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """17 MiB in parts of 5 MiB, S3's smallest."""
    monkeypatch.setattr(transfers, "PART_BYTES", 5 * 2**20)
    work = store.workdir("sft", "k1")
    content = os.urandom(17 * 2**20)
    (work / "weights").write_bytes(content)
    ref = store.commit("sft", "k1", "model", work, {})
    assert sum("partNumber=" in request.path for request in s3_server.seen) == 4
    s3_server.seen.clear()
    assert (elsewhere.path(ref) / "weights").read_bytes() == content
    assert sum(request.path.endswith("/weights") for request in s3_server.seen) == 4
    elsewhere.verify(ref)


def test_an_interrupted_commit_goes_on_where_it_stopped(store: S3Store, s3_server: S3Server) -> None:
    s3_server.faults.append(Fault("^PUT .*b.safetensors", 403, "AccessDenied"))
    with pytest.raises(StoreError, match="access denied"):
        put(store)
    assert store.find("sft", "k1") is None
    s3_server.faults.clear()
    there = lies_in(store, "sft/k1/")
    s3_server.seen.clear()
    ref = store.finish_commit("sft", "k1")
    assert ref is not None
    assert sorted(sent(s3_server)) == sorted(
        {"a.safetensors", "b.safetensors", "summary.json", "manifest.json"} - {path.rsplit("/")[-1] for path in there}
    )
    store.verify(ref)
    assert store.finish_commit("sft", "k1") is None
    assert not (store.root / ".work/sft/k1").exists()


def test_a_stage_whose_upload_failed_is_not_computed_again(store: S3Store, s3_server: S3Server) -> None:
    s3_server.faults.append(Fault("^PUT .*weights", 403, "AccessDenied"))
    with pytest.raises(StoreError, match="access denied"):
        make_first.run(small_recipe(), store=store)
    s3_server.faults.clear()
    store.verify(make_first.run(small_recipe(), store=store))
    assert ran == ["first"]


def test_a_sealed_result_that_was_changed_meanwhile_is_computed_again(store: S3Store, s3_server: S3Server) -> None:
    s3_server.faults.append(Fault("^PUT .*weights", 403, "AccessDenied"))
    with pytest.raises(StoreError):
        make_first.run(small_recipe(), store=store)
    s3_server.faults.clear()
    next(store.root.glob(".work/first/*/sealed/model/weights")).write_text("changed")
    store.verify(make_first.run(small_recipe(), store=store))
    assert ran == ["first", "first"]


COMMIT = """
from pathlib import Path
from tasks.store.opening import open_store

store = open_store()
work = store.workdir("sft", "k1", empty=True)
for number in range(4):
    (work / f"{number}.bin").write_bytes(bytes([number]) * 6_000_000)
store.commit("sft", "k1", "model", work, {})
"""
FETCH = """
import sys
from tasks.store.manifests import ArtifactRef; from tasks.store.opening import open_store

store = open_store()
folder = store.path(store.resolve("sft/k1"))
print(sorted((path.name, path.stat().st_size) for path in folder.iterdir()))
"""


def start(code: str, **environment: str) -> subprocess.Popen[str]:
    paths = {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}"}
    return subprocess.Popen(
        [sys.executable, "-c", code], env=os.environ | paths | environment, stdout=subprocess.PIPE, text=True
    )


def kill_while_held(
    request: str, s3_server: S3Server, reached: Callable[[], bool], code: str, **environment: str
) -> None:
    """Starts ``code`` and kills it with -9 once ``reached``; until then the server holds back what ``request`` names."""
    answer = threading.Event()
    s3_server.faults.append(Fault(request, 200, delay=answer))
    process = start(code, **environment)
    until(reached, seconds=30)
    process.kill()
    process.communicate()
    answer.set()
    s3_server.faults.clear()


def wait_for(happened: threading.Event) -> None:
    assert happened.wait(60)


def test_after_kill_9_in_an_upload_the_next_run_sends_the_rest(store: S3Store, s3_server: S3Server) -> None:
    kill_while_held("^PUT .*/3.bin", s3_server, lambda: len(lies_in(store, "sft/k1/")) == 3, COMMIT)
    assert store.find("sft", "k1") is None
    remove(store, "sft/k1/3.bin")  # the server may have got it all the same
    s3_server.seen.clear()
    ref = store.finish_commit("sft", "k1")
    assert ref is not None
    assert sent(s3_server) == ["3.bin", "manifest.json"]
    store.verify(ref)


def test_after_kill_9_in_a_download_the_next_run_fetches_the_rest(
    store: S3Store, tmp_path: Path, s3_server: S3Server
) -> None:
    assert start(COMMIT).wait(60) == 0
    mirror = tmp_path / "third"
    parts = "*/team/store/.downloads/sft/k1/*.bin"
    kill_while_held(
        "^GET .*/3.bin", s3_server, lambda: len(list(mirror.glob(parts))) == 3, FETCH, RIGHTCALL_MIRROR=str(mirror)
    )
    s3_server.seen.clear()
    said, _ = start(FETCH, RIGHTCALL_MIRROR=str(mirror)).communicate(timeout=60)
    assert said.count("6000000") == 4
    assert gets(s3_server) == ["3.bin"]


def test_processes_that_need_the_same_result_download_it_once(
    store: S3Store, tmp_path: Path, s3_server: S3Server
) -> None:
    put(store)
    s3_server.seen.clear()
    processes = [start(FETCH, RIGHTCALL_MIRROR=str(tmp_path / "shared")) for _ in range(3)]
    said = {process.communicate(timeout=60)[0] for process in processes}
    assert len(said) == 1
    assert "manifest.json" in said.pop()
    assert gets(s3_server) == ["a.safetensors", "b.safetensors", "summary.json"]


@pytest.mark.parametrize("damage", ["cut", "deleted", "manifest"])
def test_a_damaged_mirror_is_fetched_again(store: S3Store, damage: str) -> None:
    ref = put(store)
    folder = store.path(ref)
    if damage == "cut":
        (folder / "model/a.safetensors").write_text("a")
    elif damage == "deleted":
        shutil.rmtree(folder)
    else:
        (folder / "manifest.json").write_text("{}")
    assert (store.path(ref) / "model/a.safetensors").read_text() == FILES["model/a.safetensors"]


def test_verify_throws_a_changed_copy_away(store: S3Store) -> None:
    ref = put(store)
    (store.path(ref) / "model/a.safetensors").write_text("x" * 1000)
    store.verify(ref)
    assert (store.path(ref) / "model/a.safetensors").read_text() == FILES["model/a.safetensors"]


def test_an_object_with_other_content_is_not_taken(store: S3Store, elsewhere: S3Store) -> None:
    ref = put(store)
    overwrite(store, "sft/k1/model/a.safetensors", "x" * 1000)
    with pytest.raises(StoreError, match=r"model/a.safetensors' was changed or cut after .*it will be made again"):
        elsewhere.path(ref)
    assert not (elsewhere.root / "sft/k1").exists()


def test_an_answer_that_is_cut_is_asked_for_again(store: S3Store, elsewhere: S3Store, s3_server: S3Server) -> None:
    ref = put(store)
    s3_server.faults.append(Fault("^GET .*b.safetensors", 200, truncate=100, times=2))
    assert (elsewhere.path(ref) / "model/b.safetensors").read_text() == FILES["model/b.safetensors"]
    assert gets(s3_server).count("b.safetensors") == 3


def test_answers_that_are_always_cut_end_in_an_error_that_passes_by_itself(
    store: S3Store, elsewhere: S3Store, s3_server: S3Server
) -> None:
    ref = put(store)
    s3_server.faults.append(Fault("^GET .*b.safetensors", 200, truncate=100))
    with pytest.raises(StoreError, match=r"broke off again and again.*what has arrived is kept") as caught:
        elsewhere.path(ref)
    assert is_transient(caught.value)
    s3_server.faults.clear()
    s3_server.seen.clear()
    elsewhere.path(ref)
    assert gets(s3_server) == ["b.safetensors"]


def test_a_stage_whose_objects_were_deleted_is_made_again(store: S3Store) -> None:
    ref = make_first.run(small_recipe(), store=store)
    remove(store, f"{ref.uri}/model/weights")
    assert store.find(*ref.uri.split("/")) is None
    with pytest.raises(StoreError, match=rf"'{ref.uri}' is not in the store 's3://.*files of it are missing; run the"):
        store.path(ref)
    assert make_first.run(small_recipe(), store=store) == ref
    assert ran == ["first", "first"]


def test_of_two_commits_at_once_the_first_stays_whole(store: S3Store, elsewhere: S3Store, s3_server: S3Server) -> None:
    """Both machines found nothing, because the stage's lease was missed; the second comes while the first sends."""
    answer = threading.Event()
    s3_server.faults.append(Fault("^PUT .*/sft/k1/weights", 200, times=1, delay=answer))
    refs: list[ArtifactRef] = []
    commits = [
        threading.Thread(
            target=lambda where=where, text=text: refs.append(put(where, "k1", {"weights": text, text: "1"}))
        )
        for where, text in ((store, "first"), (elsewhere, "second"))
    ]
    for commit in commits:
        commit.start()
        while s3_server.faults[0].times:
            time.sleep(0.01)
    while sum("commit-sft-k1" in request.path for request in s3_server.seen) < 5:  # the second one asks for the lease
        time.sleep(0.01)
    answer.set()
    for commit in commits:
        commit.join(60)
    assert refs[0] == refs[1]
    assert lies_in(store, "sft/k1/") == ["first", "manifest.json", "weights"]
    for where in (store, elsewhere):
        where.verify(refs[0])
        assert (where.path(refs[0]) / "weights").read_text() == "first"


def test_a_manifest_that_appears_at_the_last_moment_is_not_overwritten(store: S3Store, s3_server: S3Server) -> None:
    """As when the lease of a commit ran out because the network was away."""
    s3_server.faults.append(Fault("^PUT .*/sft/k1/manifest.json", 412, "PreconditionFailed", times=1))
    with pytest.raises(StoreError, match=r"'sft/k1' .* written by another run at the same time; run the same command"):
        put(store)
    ref = store.finish_commit("sft", "k1")
    assert ref is not None
    store.verify(ref)


def test_a_manifest_whose_answer_was_lost_counts_as_sent(store: S3Store, s3_server: S3Server) -> None:
    s3_server.faults.append(Fault("^PUT .*/manifest.json", 500, "InternalError", times=1, after=True))
    store.verify(put(store))
    assert sent(s3_server).count("a.safetensors") == 1


def test_a_full_disk_in_a_download_is_said(store: S3Store, tmp_path: Path) -> None:
    """24 MB into a real tmpfs of 20 MiB, in a mount namespace of its own."""
    assert start(COMMIT).wait(60) == 0
    mirror = tmp_path / "small-disk"
    mirror.mkdir()
    mount = 'mount -t tmpfs -o size=20m none "$1" && exec "$2" -c "$3"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh", mirror, sys.executable, FETCH],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}", "RIGHTCALL_MIRROR": str(mirror)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"no mount namespace here: {done.stderr}")
    assert "StoreError: the disk of" in done.stderr
    assert "is full" in done.stderr
    assert "Nothing was lost" in done.stderr


# In flows.


def test_a_flow_takes_an_s3_address_as_text(store: S3Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.pipeline import run_pipeline

    schema = run_pipeline.parameters.properties["store"]
    assert {option["type"] for option in schema["anyOf"]} == {"string", "null"}
    other = f"s3://{store.remote.bucket}/other"
    assert open_store(other).address == other
    monkeypatch.chdir(tmp_path)
    assert open_store("here").address == str(tmp_path / "here")
    assert open_store().address == store.address


def test_prefects_records_lie_in_s3_and_serve_every_machine(
    store: S3Store,
    elsewhere: S3Store,
    prefect_server: None,  # noqa: F811
) -> None:
    from prefect import flow

    @flow
    def two_stages() -> ArtifactRef:
        return make_second(small_recipe(), store=elsewhere, model=make_first(small_recipe(), store=elsewhere))

    ref = two_stages()
    assert ran == ["first", "second"]
    assert len(lies_in(store, ".results/")) == 2
    assert store.recorded_digest(ref.uri.replace("/", "-")) == ref.digest
    shutil.rmtree(elsewhere.root)
    assert two_stages() == ref
    assert ran == ["first", "second"]
    assert lies_in(store, ".leases/") == []
    remove(store, f"{ref.uri}/scores")
    assert two_stages() == ref
    assert ran == ["first", "second", "second"]


# The registered model.


def test_a_registered_model_finds_its_weights_in_s3(store: S3Store, elsewhere: S3Store, s3_server: S3Server) -> None:
    from tasks.serving.served_model import check_files, find_weights

    ref = put(store)
    hashes = {
        name: store.manifest(ref)["files"][f"model/{name}"]["sha256"] for name in ("a.safetensors", "b.safetensors")
    }
    s3_server.seen.clear()
    for _ in range(2):
        folder = find_weights(f"{ref.uri}/model", store.address, hashes)
        check_files(folder, hashes)
    assert folder == elsewhere.root / "sft/k1/model"
    assert gets(s3_server) == ["a.safetensors", "b.safetensors"]


def test_a_registered_model_whose_objects_are_gone_or_forbidden_says_so(
    store: S3Store, elsewhere: S3Store, s3_server: S3Server
) -> None:
    from tasks.serving.served_model import find_weights

    with pytest.raises(RegistryError, match=r"are in none of \['s3://.*set RIGHTCALL_STORE"):
        find_weights("sft/k1/model", store.address, {"a.safetensors": "0"})
    s3_server.faults.append(Fault("", 403, "AccessDenied"))
    with pytest.raises(RegistryError, match=r"S3 refused 's3://.*check that your AWS credentials may read this bucket"):
        find_weights("sft/k1/model", store.address, {"a.safetensors": "0"})
    assert not list(elsewhere.root.glob("sft/k1/*"))
