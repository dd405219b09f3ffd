"""Pinned sources, fetched for real: a local wheel by pip, S3 from moto, the Hub from a small server of our own."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from rightcall.errors import SourceError, StoreError
from tasks.data.downloads import unzip
from tasks.data.sources import digest, fetch, short_name
from tasks.machine.hashing import content_digest

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"
NAME = "rightcall-test-data"


def fetch_in_child(code: str, **environment: str) -> subprocess.Popen[str]:
    """A process of its own that runs ``code`` with fetch and Path at hand."""
    head = "from pathlib import Path\nfrom tasks.data.sources import fetch\n"
    path = os.pathsep.join([str(ROOT), str(ROOT / "training_image")])
    return subprocess.Popen(
        [sys.executable, "-c", head + code], env=os.environ | {"PYTHONPATH": path} | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A wheel that pip can find without a network; its module would betray that it was imported."""
    folder = tmp_path / "index"
    folder.mkdir()
    name = NAME.replace("-", "_")
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/rows.jsonl", '{"id": "1"}\n')
        archive.writestr(f"{name}/__init__.py", f"open({str(tmp_path / 'imported')!r}, 'w').close()\n")
        archive.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: 1.0\n")
        archive.writestr(
            f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{name}-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


def test_a_local_file_is_used_where_it_lies(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    sha256 = hashlib.sha256(b"{}\n").hexdigest()
    assert fetch(str(path), sha256=None, cache=tmp_path / "cache") == path
    assert fetch(str(path), sha256=sha256, cache=tmp_path / "cache") == path
    assert digest(str(path)) == sha256
    assert fetch(str(tmp_path), sha256=None, cache=tmp_path / "cache", file="rows.jsonl") == path
    assert not (tmp_path / "cache").exists()


def test_a_missing_file_is_named_with_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"'.*nothing\.jsonl' does not exist.*correct the path"):
        fetch(str(tmp_path / "nothing.jsonl"), sha256=None, cache=tmp_path)
    (tmp_path / "a.jsonl").touch()
    with pytest.raises(SourceError, match=r"has no file 'b\.jsonl'; it holds a\.jsonl"):
        fetch(str(tmp_path), sha256=None, cache=tmp_path, file="b.jsonl")
    with pytest.raises(SourceError, match="has no file"):
        fetch(str(tmp_path), sha256=None, cache=tmp_path, file="../../etc/passwd")


def test_a_hash_that_does_not_match_names_both_and_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n")
    with pytest.raises(SourceError) as caught:
        fetch(str(path), sha256="0" * 64, cache=tmp_path)
    assert "0" * 64 in str(caught.value)
    assert content_digest(path) in str(caught.value)
    assert path.read_text() == "{}\n"


def test_the_digest_is_of_the_content_not_of_the_place(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name / "deep").mkdir(parents=True)
        (tmp_path / name / "deep" / "rows.jsonl").write_text("{}\n")
    assert digest(str(tmp_path / "here")) == digest(str(tmp_path / "there"))
    (tmp_path / "there" / "deep" / "rows.jsonl").write_text("{} \n")
    assert digest(str(tmp_path / "here")) != digest(str(tmp_path / "there"))
    assert short_name(str(tmp_path / "here")) == "here"
    assert short_name(f"hf:a/b@{COMMIT}", "train.jsonl") == f"hf:a/b@{COMMIT}/train.jsonl"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://example.org/rows.jsonl", "unknown scheme 'ftp'.*hf:owner/name@revision"),
        ("pypi:bfcl-eval", "not pinned.*pypi:name==version"),
        ("pypi:bfcl-eval>=2026", "not pinned"),
        ("pypi:bfcl-eval==2026.3.23", "needs the wheel's sha256"),
        ("hf:nvidia/When2Call", "not pinned.*40 hex digits"),
        ("hf:nvidia/When2Call@main", "not pinned"),
        ("s3://bucket", "not an S3 address"),
    ],
)
def test_a_source_that_is_not_pinned_is_refused(uri: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=message):
        fetch(uri, sha256=None, cache=tmp_path)
    with pytest.raises(SourceError, match=message):
        digest(uri)


def test_a_wheel_is_unzipped_never_imported_and_fetched_once(wheel: Path, tmp_path: Path) -> None:
    sha256, cache = content_digest(wheel), tmp_path / "cache"
    first = fetch(f"pypi:{NAME}==1.0", sha256=sha256, cache=cache)
    assert (first / NAME.replace("-", "_") / "rows.jsonl").read_text() == '{"id": "1"}\n'
    wheel.unlink()
    assert fetch(f"pypi:{NAME}==1.0", sha256=sha256, cache=cache) == first
    assert digest(f"pypi:{NAME}==1.0", sha256) == sha256
    assert not (tmp_path / "imported").exists()
    assert [path.name for path in (cache / "pypi").iterdir()] == [first.parent.name]


def test_a_wheel_with_another_hash_is_deleted(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="does not match its hash") as caught:
        fetch(f"pypi:{NAME}==1.0", sha256="0" * 64, cache=tmp_path / "cache")
    assert content_digest(wheel) in str(caught.value)
    assert not list((tmp_path / "cache" / "pypi").iterdir())


def test_a_wheel_that_is_not_there_says_what_pip_said(wheel: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"could not download 'pypi:rightcall-test-data==9\.9' with pip"):
        fetch(f"pypi:{NAME}==9.9", sha256="0" * 64, cache=tmp_path / "cache")


def test_two_processes_may_fetch_the_same_source_at_once(wheel: Path, tmp_path: Path) -> None:
    code = (
        f"print(fetch('pypi:{NAME}==1.0', sha256={content_digest(wheel)!r}, cache=Path({str(tmp_path / 'cache')!r})))"
    )
    children = [fetch_in_child(code) for _ in range(2)]
    outputs = [child.communicate(timeout=120) for child in children]
    assert [child.returncode for child in children] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0]
    assert len(list((tmp_path / "cache" / "pypi").iterdir())) == 1


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside"])
def test_a_member_that_leads_out_of_the_folder_refuses_the_archive(name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "evil.whl", "w") as archive:
        archive.writestr("fine.txt", "")
        archive.writestr(name, "")
    with pytest.raises(SourceError, match="leads out of its folder"):
        unzip(tmp_path / "evil.whl", tmp_path / "in")
    assert not (tmp_path / "in").exists()
    assert not (tmp_path / "outside").exists()


def test_a_link_or_a_broken_archive_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "link.whl", "w") as archive:
        link = zipfile.ZipInfo("link")
        link.external_attr = 0o120777 << 16
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(SourceError, match="leads out"):
        unzip(tmp_path / "link.whl", tmp_path / "in")
    (tmp_path / "broken.whl").write_bytes((tmp_path / "link.whl").read_bytes()[:-30])
    with pytest.raises(SourceError, match="not a readable zip"):
        unzip(tmp_path / "broken.whl", tmp_path / "in")


def test_a_full_disk_is_said_and_leaves_no_half_source(wheel: Path, tmp_path: Path) -> None:
    """A disk of 200 KB, really full: a tmpfs that only the child sees."""
    with zipfile.ZipFile(wheel, "a") as archive:
        archive.writestr("big.bin", b"0" * 1_000_000, compress_type=zipfile.ZIP_DEFLATED)
    cache = tmp_path / "cache"
    cache.mkdir()
    mount = f"mount -t tmpfs -o size=200k none {cache}"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], check=False, capture_output=True).returncode != 0:
        pytest.skip("no user namespaces here, so no small disk to fill")
    code = (
        "from tasks.data.sources import fetch; from pathlib import Path\n"
        f"try: fetch('pypi:{NAME}==1.0', sha256={content_digest(wheel)!r}, cache=Path({str(cache)!r}))\n"
        f"finally: print('left', list(Path({str(cache / 'pypi')!r}).iterdir()))"
    )
    path = os.pathsep.join([str(ROOT), str(ROOT / "training_image")])
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f'{mount} && exec "$@"', "sh", sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": path}, text=True, capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert f"{StoreError.__name__}: the disk of" in done.stderr, done.stderr
    assert done.stdout.strip() == "left []"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="rows")
    yield client
    server.stop()


def test_s3_gives_an_object_or_a_prefix_and_notices_new_content(s3: object, tmp_path: Path) -> None:
    for key, body in {"data/a.jsonl": "a", "data/deep/b.jsonl": "b", "data-old/c.jsonl": "c"}.items():
        s3.put_object(Bucket="rows", Key=key, Body=body.encode())  # type: ignore[attr-defined]
    folder = fetch("s3://rows/data", sha256=None, cache=tmp_path)
    assert sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jsonl")) == [
        "a.jsonl",
        "deep/b.jsonl",
    ]
    assert fetch("s3://rows/data/a.jsonl", sha256=None, cache=tmp_path).read_text() == "a"
    assert fetch("s3://rows/data", sha256=None, cache=tmp_path, file="a.jsonl").read_text() == "a"
    before = digest("s3://rows/data/a.jsonl")
    s3.put_object(Bucket="rows", Key="data/a.jsonl", Body=b"new")  # type: ignore[attr-defined]
    assert digest("s3://rows/data/a.jsonl") != before
    assert fetch("s3://rows/data/a.jsonl", sha256=None, cache=tmp_path).read_text() == "new"
    recorded = json.loads(next(tmp_path.glob("s3/*a.jsonl*/source.json")).read_text())
    assert len(recorded["sha256"]) == 64


def test_s3_that_has_nothing_or_other_content_is_refused(s3: object, tmp_path: Path) -> None:
    s3.put_object(Bucket="rows", Key="a.jsonl", Body=b"a")  # type: ignore[attr-defined]
    with pytest.raises(SourceError, match="no object 'nothing' in bucket 'rows'"):
        fetch("s3://rows/nothing", sha256=None, cache=tmp_path)
    with pytest.raises(SourceError, match="S3 refused 's3://absent/a'"):
        fetch("s3://absent/a", sha256=None, cache=tmp_path)
    with pytest.raises(SourceError, match="does not match its hash"):
        fetch("s3://rows/a.jsonl", sha256="0" * 64, cache=tmp_path)
    right = hashlib.sha256(b"a").hexdigest()
    assert fetch("s3://rows/a.jsonl", sha256=right, cache=tmp_path).read_text() == "a"
    assert digest("s3://rows/a.jsonl", right) == right


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a snapshot download asks: repository "o/r" has rows.jsonl, "o/gated" is gated."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        body, headers, status = b"", {}, 200
        if "gated" in self.path:
            status, headers = 403, {"X-Error-Code": "GatedRepo"}
        elif "o/r" not in self.path:
            status, headers = 401, {"X-Error-Code": "RepoNotFound"}
        elif "/resolve/" in self.path:
            body = b'{"id": "1"}\n'
            headers = {"ETag": '"abc"', "X-Repo-Commit": COMMIT}
        elif "/tree/" in self.path:
            body = json.dumps([{"type": "file", "path": "rows.jsonl", "size": 12, "oid": "abc"}]).encode()
        else:
            body = json.dumps({"id": "o/r", "sha": COMMIT, "siblings": [{"rfilename": "rows.jsonl"}]}).encode()
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body)), "Content-Type": "application/json"}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def from_hub(repository: str, endpoint: str, tmp_path: Path) -> subprocess.Popen[str]:
    uri = f"hf:{repository}@{COMMIT}"
    cache = f"cache=Path({str(tmp_path / 'cache')!r})"
    code = f"print(fetch({uri!r}, sha256=None, {cache}, file='rows.jsonl', hub_type='dataset'))"
    return fetch_in_child(
        code, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE="0", HF_HOME=str(tmp_path / "home"), HF_HUB_DISABLE_XET="1"
    )


def test_a_file_of_the_hub_is_fetched_once(hub: str, tmp_path: Path) -> None:
    output, errors = from_hub("o/r", hub, tmp_path).communicate(timeout=120)
    assert output, errors
    assert Path(output.strip()).read_text() == '{"id": "1"}\n'
    again, errors = from_hub("o/r", "http://127.0.0.1:9", tmp_path).communicate(timeout=120)
    assert again == output, errors
    assert digest(f"hf:o/r@{COMMIT}") == f"o/r@{COMMIT}"


@pytest.mark.parametrize("repository", ["o/gated", "o/private"])
def test_a_repository_that_is_gated_or_absent_says_what_to_do(repository: str, hub: str, tmp_path: Path) -> None:
    _, errors = from_hub(repository, hub, tmp_path).communicate(timeout=120)
    assert "SourceError: the Hub refused" in errors
    assert "set HF_TOKEN" in errors


def test_without_a_network_the_hub_is_said_to_be_out_of_reach(tmp_path: Path) -> None:
    _, errors = from_hub("o/r", "http://127.0.0.1:9", tmp_path).communicate(timeout=300)
    assert "SourceError: the Hub could not be reached" in errors
    with pytest.raises(SourceError, match="HF_HUB_OFFLINE"):  # conftest sets it
        fetch(f"hf:o/r@{COMMIT}", sha256=None, cache=tmp_path / "cache")
