"""The lease: one holder at a time, the living are never robbed, and nobody waits for the dead; as files and in S3."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prefect.locking.protocol import LockManager
from s3_fixture import Fault, S3Server

from tasks.aws import s3
from tasks.store.file_leases import FileLeases
from tasks.store.leases import Leases
from tasks.store.opening import open_store
from tasks.store.s3_leases import S3Leases

ROOT = Path(__file__).resolve().parents[2]
EXPIRY_SECONDS = 60.0

OPEN = """
import sys, time
from pathlib import Path
from tasks.store.opening import open_store

lock = open_store(sys.argv[1]).locks()
lock.poll_seconds = 0.02
"""
HOLDER = (
    OPEN
    + """
lock.acquire_lock("sft-1", "other")
print("held", flush=True)
time.sleep(60)
"""
)
COUNTER = (
    OPEN
    + """
counter = Path(sys.argv[2])
for turn in range(8):
    lock.acquire_lock("counter", sys.argv[3])
    value = int(counter.read_text())
    time.sleep(0.001)
    counter.write_text(str(value + 1))
    lock.release_lock("counter", sys.argv[3])
"""
)


@pytest.fixture
def lock(any_root: str) -> Leases:
    return leases(any_root)


def leases(root: str, expiry_seconds: float = EXPIRY_SECONDS) -> Leases:
    found = open_store(root).locks()
    found.expiry_seconds, found.poll_seconds = expiry_seconds, 0.05
    return found


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def other_process(any_root: str):
    process = start(HOLDER, any_root)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def read(lock: Leases) -> str:
    if isinstance(lock, S3Leases):
        found = s3.get(lock.address, ".leases/sft-1.lease")
        assert found is not None
        return found.body.decode()
    assert isinstance(lock, FileLeases)
    return (lock.folder / "sft-1.lease").read_text()


def write(lock: Leases, text: str, *, age_seconds: float = 0.0) -> None:
    """A lease as somebody else left it."""
    if isinstance(lock, S3Leases):
        s3.put(lock.address, ".leases/sft-1.lease", text.encode())
        key = moto_key(lock)
        key.last_modified = datetime.now(UTC).replace(tzinfo=None) - timedelta(seconds=age_seconds)
        return
    assert isinstance(lock, FileLeases)
    lock.folder.mkdir(parents=True, exist_ok=True)
    path = lock.folder / "sft-1.lease"
    path.write_text(text)
    os.utime(path, (time.time() - age_seconds,) * 2)


def moto_key(lock: S3Leases):
    """The object inside the server, which runs in this process: S3 lets nobody set when it was written."""
    from moto.backends import get_backend

    return get_backend("s3")["123456789012"]["aws"].buckets[lock.address.bucket].keys["team/store/.leases/sft-1.lease"]


OF_ANOTHER_MACHINE = json.dumps({"holder": "you", "machine": "elsewhere", "pid": 1, "started": 1})


def test_it_is_a_lock_manager_of_prefect(lock: Leases) -> None:
    assert isinstance(lock, LockManager)


def test_a_lease_has_one_holder_until_it_is_given_back(lock: Leases) -> None:
    assert lock.acquire_lock("sft-1", "me")
    assert lock.acquire_lock("sft-1", "me")
    assert not lock.acquire_lock("sft-1", "you", acquire_timeout=0)
    assert lock.is_locked("sft-1")
    assert lock.is_lock_holder("sft-1", "me")
    assert not lock.is_lock_holder("sft-1", "you")
    assert not lock.wait_for_lock("sft-1", timeout=0.1)
    lock.release_lock("sft-1", "me")
    assert not lock.is_locked("sft-1")
    assert lock.wait_for_lock("sft-1")
    assert lock.acquire_lock("sft-1", "you", acquire_timeout=0)
    lock.release_lock("sft-1", "you")


def test_leases_of_different_keys_do_not_meet(lock: Leases) -> None:
    assert lock.acquire_lock("sft-1", "me")
    assert lock.acquire_lock("sft/2 ..", "you", acquire_timeout=0)
    lock.release_lock("sft-1", "me")
    lock.release_lock("sft/2 ..", "you")


def test_giving_back_what_another_holds_leaves_it_to_him(lock: Leases) -> None:
    lock.acquire_lock("sft-1", "me")
    lock.release_lock("sft-1", "you")
    assert lock.is_lock_holder("sft-1", "me")
    lock.release_lock("sft-1", "me")


def test_a_waiter_gets_the_lease_when_it_is_given_back(lock: Leases) -> None:
    lock.acquire_lock("sft-1", "me")
    threading.Timer(0.3, lock.release_lock, ("sft-1", "me")).start()
    started = time.monotonic()
    assert lock.acquire_lock("sft-1", "you", acquire_timeout=5)
    assert 0.2 < time.monotonic() - started < 2
    lock.release_lock("sft-1", "you")


def test_a_waiter_says_for_whom_it_waits(lock: Leases, caplog: pytest.LogCaptureFixture) -> None:
    lock.acquire_lock("sft-1", "me")
    with caplog.at_level(logging.INFO):
        assert not lock.acquire_lock("sft-1", "you", acquire_timeout=0.3)
    lock.release_lock("sft-1", "me")
    assert caplog.text.count(f"sft-1 is being made by process {os.getpid()} on ") == 1


def test_the_async_variants_wait_without_blocking_the_loop(lock: Leases) -> None:
    async def wait() -> tuple[bool, bool, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.01)

        ticking = asyncio.create_task(tick())
        busy = await lock.aacquire_lock("sft-1", "you", acquire_timeout=0.3)
        lock.release_lock("sft-1", "me")
        free = await lock.await_for_lock("sft-1", timeout=1)
        ticking.cancel()
        return busy, free, ticks

    lock.acquire_lock("sft-1", "me")
    busy, free, ticks = asyncio.run(wait())
    assert (busy, free) == (False, True)
    assert ticks > 5


def test_the_lease_of_a_killed_process_is_free_at_once(lock: Leases, other_process: subprocess.Popen[str]) -> None:
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    other_process.kill()
    started = time.monotonic()
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=5)
    assert time.monotonic() - started < 1
    lock.release_lock("sft-1", "me")


def test_a_zombie_holds_nothing(lock: Leases, other_process: subprocess.Popen[str]) -> None:
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert not lock.is_locked("sft-1")


def test_a_stopped_process_of_this_machine_keeps_its_lease(lock: Leases, other_process: subprocess.Popen[str]) -> None:
    """It would go on working beside us as soon as it is continued."""
    other_process.send_signal(signal.SIGSTOP)
    write(lock, read(lock), age_seconds=1000)
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0.3)


def test_a_reused_pid_is_not_taken_for_the_holder(lock: Leases) -> None:
    lock.acquire_lock("sft-1", "me")
    content = json.loads(read(lock))
    lock.release_lock("sft-1", "me")
    write(lock, json.dumps(content | {"holder": "you", "pid": 1}))
    assert not lock.is_locked("sft-1")


def test_a_lease_of_another_machine_is_free_when_it_was_not_renewed(lock: Leases) -> None:
    for age_seconds in (0.0, EXPIRY_SECONDS - 10):
        write(lock, OF_ANOTHER_MACHINE, age_seconds=age_seconds)
        assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    write(lock, OF_ANOTHER_MACHINE, age_seconds=EXPIRY_SECONDS + 1)
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    lock.release_lock("sft-1", "me")


def test_a_held_lease_is_renewed(any_root: str) -> None:
    """Every quarter of the expiry of 1 s; in S3 each time with other bytes, so that its ETag tells them apart."""
    lock = leases(any_root, expiry_seconds=1.0)
    lock.acquire_lock("sft-1", "me")
    first = written(lock)
    for _ in range(100):
        if written(lock) != first:
            break
        time.sleep(0.1)
    assert written(lock) != first
    assert json.loads(read(lock))["holder"] == "me"
    lock.release_lock("sft-1", "me")


def written(lock: Leases) -> object:
    if isinstance(lock, S3Leases):
        return moto_key(lock).etag
    assert isinstance(lock, FileLeases)
    return (lock.folder / "sft-1.lease").stat().st_mtime_ns


def test_a_lease_that_was_taken_away_is_not_renewed_and_not_given_back(
    any_root: str, caplog: pytest.LogCaptureFixture
) -> None:
    lock = leases(any_root, expiry_seconds=1.0)
    lock.acquire_lock("sft-1", "me")
    write(lock, OF_ANOTHER_MACHINE)
    for _ in range(100):
        if "was lost" in caplog.text:
            break
        time.sleep(0.1)
    lock.release_lock("sft-1", "me")
    assert read(lock) == OF_ANOTHER_MACHINE
    assert "was lost" in caplog.text
    assert "had been taken over" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"holder": "you"}'])
def test_a_file_that_is_no_lease_holds_nothing(lock: Leases, text: str) -> None:
    write(lock, text)
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    lock.release_lock("sft-1", "me")


def test_processes_never_hold_it_together(any_root: str, tmp_path: Path) -> None:
    """3 processes × 8 turns of read, wait, write back: a lost update would show in the sum."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNTER, any_root, counter, f"holder-{number}") for number in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3
    assert counter.read_text() == "24"
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()


def remote(bucket: str) -> S3Leases:
    return S3Leases(s3.parse_address(f"s3://{bucket}/team/store"), EXPIRY_SECONDS, poll_seconds=0.05)


def test_of_two_machines_that_find_an_expired_lease_one_gets_it(s3_bucket: str) -> None:
    """Both read the same old lease; the second to write names an ETag that is gone."""
    lock = remote(s3_bucket)
    write(lock, OF_ANOTHER_MACHINE, age_seconds=1000)
    there = s3.get(lock.address, ".leases/sft-1.lease")
    assert there is not None
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    assert s3.put(lock.address, ".leases/sft-1.lease", b"{}", replaces=there.etag) is None
    assert lock.is_lock_holder("sft-1", "me")
    lock.release_lock("sft-1", "me")


def test_a_write_whose_answer_was_lost_is_known_as_our_own(s3_bucket: str, s3_server: S3Server) -> None:
    """S3 wrote the lease and answered 500; botocore's retry meets the lease and gets 412."""
    lock = remote(s3_bucket)
    s3_server.faults.append(Fault("^PUT .*lease", 500, "InternalError", times=1, after=True))
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    s3_server.faults.append(Fault("^PUT .*lease", 500, "InternalError", times=1, after=True))
    assert lock.renew("sft-1", "me")
    assert [request.method for request in s3_server.seen].count("PUT") == 4
    lock.release_lock("sft-1", "me")
    assert not lock.is_locked("sft-1")


def test_a_renewal_that_s3_refuses_is_said_and_tried_again(
    s3_bucket: str, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    lock = remote(s3_bucket)
    lock.expiry_seconds = 1.0
    lock.acquire_lock("sft-1", "me")
    first = written(lock)
    s3_server.faults.append(Fault("^PUT .*lease", 403, "AccessDenied", times=1))
    for _ in range(100):
        if written(lock) != first:
            break
        time.sleep(0.1)
    assert "the lease 'sft-1' could not be renewed yet: S3 refused" in caplog.text
    assert written(lock) != first
    lock.release_lock("sft-1", "me")


def test_a_lease_that_s3_does_not_take_back_is_given_back_later(
    s3_bucket: str, s3_server: S3Server, caplog: pytest.LogCaptureFixture
) -> None:
    """The work is done: raising would undo it. This process lives on, so the lease would never be free by itself."""
    lock = remote(s3_bucket)
    lock.expiry_seconds = 1.0
    lock.acquire_lock("sft-1", "me")
    s3_server.faults.append(Fault("^DELETE .*lease", 403, "AccessDenied", times=1))
    lock.release_lock("sft-1", "me")
    assert "could not be given back yet: S3 refused" in caplog.text
    assert lock.wait_for_lock("sft-1", timeout=10)
