"""The store in S3 against boto3's upload_file and download_file one by one: time, memory, bytes of a second upload.

python bench/s3_store.py                         2 GiB: three large files and 200 small ones
python bench/s3_store.py --mib 100 --latency-ms 30

The service is a moto server in a process of its own (which keeps the objects: 2 GiB need about 6 GiB of memory and
disk). It answers at once and is slower than S3's own; ``--latency-ms`` adds what a request to S3 takes before its first
byte. Every measurement runs in a fresh process; ours includes the sha256 of every file, and fsync.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
LARGE, SMALL = 3, 200
SMALL_SHARE = 0.1
BUCKET = "bench"
ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}",
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mib", type=int, default=2048, help="size of the folder")
    parser.add_argument("--latency-ms", type=int, default=0, help="what every request waits for at the service")
    parser.add_argument("--folder", type=Path, help="where to work; without it a temporary folder")
    parser.add_argument("--step", choices=[*STEPS, "serve"], help="one measurement, as the main process starts it")
    given = parser.parse_args()
    if given.step == "serve":
        serve(given.latency_ms)
    elif given.step:
        print(json.dumps(measured(STEPS[given.step], given.folder)))
    else:
        with tempfile.TemporaryDirectory(prefix="s3-bench-", dir=given.folder) as folder:
            compare(Path(folder), given.mib, given.latency_ms)


def compare(folder: Path, mib: int, latency_ms: int) -> None:
    make_files(folder / "files", mib)
    with service(latency_ms) as endpoint:
        found = {name: run(name, folder, endpoint) for name in STEPS}
    print(f"{mib} MiB in {LARGE} + {SMALL} files, {latency_ms} ms a request, {os.cpu_count()} cores")
    print(f"{'':22}{'seconds':>9}{'MiB/s':>9}{'peak MiB':>10}{'grew MiB':>10}{'body MiB sent':>15}")
    for name, values in found.items():
        speed = f"{mib / values['seconds']:9.1f}" if values["counts"] else f"{'–':>9}"
        sent = values["sent_bytes"] / 2**20
        print(
            f"{name:22}{values['seconds']:9.2f}{speed}{values['peak_mib']:10.0f}{values['grew_mib']:10.0f}{sent:15.2f}"
        )
    for kind in ("upload", "download"):
        ratio = found[f"{kind} one by one"]["seconds"] / found[f"{kind} store"]["seconds"]
        print(f"{kind}: {ratio:.2f}x boto3 {kind}_file one by one")
    again = found["second upload"]
    print(f"second upload: {again['sent_bytes']} bytes of files sent, {again['seconds']:.2f} s")


def make_files(folder: Path, mib: int) -> None:
    """Random bytes: nothing on the way can compress them."""
    small = int(mib * 2**20 * SMALL_SHARE / SMALL)
    sizes = {f"output/small-{number:03}.bin": small for number in range(SMALL)}
    large = int(mib * 2**20 * (1 - SMALL_SHARE) / LARGE)
    sizes |= {f"model/shard-{number}.safetensors": large for number in range(LARGE)}
    for name, size in sizes.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as stream:
            for start in range(0, size, 2**22):
                stream.write(os.urandom(min(2**22, size - start)))
    os.sync()


@contextmanager
def service(latency_ms: int) -> Iterator[str]:
    """A moto server process; its address."""
    command = [sys.executable, __file__, "--step", "serve", "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, env=os.environ | ENVIRONMENT, stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip() if process.stdout else ""
    finally:
        process.terminate()
        process.wait()


def serve(latency_ms: int) -> None:
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug.serving import make_server

    moto = DomainDispatcherApplication(create_backend_app)

    class Silent(MotoRequestHandler):
        def log(self, *_: Any) -> None:
            """A line per request would be part of what is measured."""

    def answer(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        time.sleep(latency_ms / 1000)
        return moto(environ, start_response)

    server = make_server("127.0.0.1", 0, answer, threaded=True, request_handler=Silent)
    print(f"http://127.0.0.1:{server.server_port}", flush=True)
    server.serve_forever()


def run(step: str, folder: Path, endpoint: str) -> dict[str, Any]:
    mirror = folder / ("mirror-2" if step == "download store" else "mirror")
    environment = os.environ | ENVIRONMENT | {
        "AWS_ENDPOINT_URL_S3": endpoint, "RIGHTCALL_HOME": str(folder / "home"), "RIGHTCALL_MIRROR": str(mirror),
        "RIGHTCALL_STORE": f"s3://{BUCKET}/store",
    }  # fmt: skip
    command = [sys.executable, __file__, "--step", step, "--folder", str(folder)]
    found: dict[str, Any] = json.loads(subprocess.check_output(command, env=environment, text=True).splitlines()[-1])
    return found


def measured(step: Callable[[Path], Callable[[], bool]], folder: Path) -> dict[str, Any]:
    """``step`` prepares, and gives what is timed."""
    from botocore.endpoint import Endpoint

    sent = 0
    original = Endpoint._send

    def counting(endpoint: Any, request: Any) -> Any:
        nonlocal sent
        if "manifest.json" not in request.url:
            sent += int(request.headers.get("Content-Length") or 0) if request.method == "PUT" else 0
        return original(endpoint, request)

    work = step(folder)
    Endpoint._send = counting
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.perf_counter()
    counts = work()
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "seconds": seconds, "peak_mib": peak / 1024, "grew_mib": (peak - before) / 1024, "sent_bytes": sent,
        "counts": counts,
    }  # fmt: skip


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def upload_one_by_one(folder: Path) -> Callable[[], bool]:
    import boto3

    client, files = boto3.client("s3"), folder / "files"
    client.create_bucket(Bucket=BUCKET)

    def work() -> bool:
        for name in names(files):
            client.upload_file(str(files / name), BUCKET, f"plain/{name}")
        return True

    return work


def upload_store(folder: Path) -> Callable[[], bool]:
    from tasks.store.opening import open_store

    store = open_store()
    work_folder = store.workdir("sft", "bench", empty=True)
    shutil.copytree(folder / "files", work_folder, copy_function=os.link, dirs_exist_ok=True)

    def work() -> bool:
        store.commit("sft", "bench", "model", work_folder, {"result": {}})
        return True

    return work


def second_upload(folder: Path) -> Callable[[], bool]:
    """The same commit after its manifest was lost, as after a kill just before the end: every file is looked at."""
    from tasks.aws import s3

    s3.delete(s3.parse_address(os.environ["RIGHTCALL_STORE"]), "sft/bench/manifest.json")
    commit = upload_store(folder)

    def work() -> bool:
        return not commit()

    return work


def download_one_by_one(folder: Path) -> Callable[[], bool]:
    import boto3

    client, target = boto3.client("s3"), folder / "plain"

    def work() -> bool:
        for name in names(folder / "files"):
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(BUCKET, f"plain/{name}", str(target / name))
        return True

    return work


def download_store(folder: Path) -> Callable[[], bool]:
    from tasks.store.opening import open_store

    store = open_store()
    ref = store.resolve("sft/bench")

    def work() -> bool:
        store.path(ref)
        return True

    return work


STEPS: dict[str, Callable[[Path], Callable[[], bool]]] = {
    "upload one by one": upload_one_by_one,
    "upload store": upload_store,
    "second upload": second_upload,
    "download one by one": download_one_by_one,
    "download store": download_store,
}

if __name__ == "__main__":
    main()
