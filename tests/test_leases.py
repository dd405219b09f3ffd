"""The lease: one holder at a time, the living are never robbed, and nobody waits for the dead."""

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
from pathlib import Path

import pytest
from prefect.locking.protocol import LockManager

from tasks.leases import LeaseLockManager

ROOT = Path(__file__).resolve().parents[1]

HOLDER = """
import sys, time
from pathlib import Path
from tasks.leases import LeaseLockManager

lock = LeaseLockManager(Path(sys.argv[1]), expiry_seconds=float(sys.argv[2]))
lock.acquire_lock("sft-1", "other")
print("held", flush=True)
time.sleep(60)
"""
COUNTER = """
import sys, time
from pathlib import Path
from tasks.leases import LeaseLockManager

lock, counter = LeaseLockManager(Path(sys.argv[1])), Path(sys.argv[2])
for turn in range(8):
    lock.acquire_lock("counter", sys.argv[3])
    value = int(counter.read_text())
    time.sleep(0.001)
    counter.write_text(str(value + 1))
    lock.release_lock("counter", sys.argv[3])
"""


@pytest.fixture
def lock(tmp_path: Path) -> LeaseLockManager:
    return LeaseLockManager(tmp_path / "leases", expiry_seconds=1.0)


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'training_image'}"}
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def other_process(lock: LeaseLockManager):
    process = start(HOLDER, lock.folder, 1.0)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def lease(lock: LeaseLockManager) -> Path:
    return lock.folder / "sft-1.lease"


def test_it_is_a_lock_manager_of_prefect(lock: LeaseLockManager) -> None:
    assert isinstance(lock, LockManager)


def test_a_lease_has_one_holder_until_it_is_given_back(lock: LeaseLockManager) -> None:
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


def test_leases_of_different_keys_do_not_meet(lock: LeaseLockManager) -> None:
    assert lock.acquire_lock("sft-1", "me")
    assert lock.acquire_lock("sft/2 ..", "you", acquire_timeout=0)
    lock.release_lock("sft-1", "me")
    lock.release_lock("sft/2 ..", "you")


def test_giving_back_what_another_holds_leaves_it_to_him(lock: LeaseLockManager) -> None:
    lock.acquire_lock("sft-1", "me")
    lock.release_lock("sft-1", "you")
    assert lock.is_lock_holder("sft-1", "me")
    lock.release_lock("sft-1", "me")


def test_a_waiter_gets_the_lease_when_it_is_given_back(lock: LeaseLockManager) -> None:
    lock.acquire_lock("sft-1", "me")
    threading.Timer(0.3, lock.release_lock, ("sft-1", "me")).start()
    started = time.monotonic()
    assert lock.acquire_lock("sft-1", "you", acquire_timeout=5)
    assert 0.2 < time.monotonic() - started < 2
    lock.release_lock("sft-1", "you")


def test_a_waiter_says_for_whom_it_waits(lock: LeaseLockManager, caplog: pytest.LogCaptureFixture) -> None:
    lock.acquire_lock("sft-1", "me")
    with caplog.at_level(logging.INFO):
        assert not lock.acquire_lock("sft-1", "you", acquire_timeout=0.3)
    lock.release_lock("sft-1", "me")
    assert caplog.text.count(f"sft-1 is being made by process {os.getpid()} on ") == 1


def test_the_async_variants_wait_without_blocking_the_loop(lock: LeaseLockManager) -> None:
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


def test_the_lease_of_a_killed_process_is_free_at_once(
    lock: LeaseLockManager, other_process: subprocess.Popen[str]
) -> None:
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    other_process.kill()
    started = time.monotonic()
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=5)
    assert time.monotonic() - started < 1
    lock.release_lock("sft-1", "me")


def test_a_zombie_holds_nothing(lock: LeaseLockManager, other_process: subprocess.Popen[str]) -> None:
    os.kill(other_process.pid, signal.SIGKILL)
    os.waitid(os.P_PID, other_process.pid, os.WEXITED | os.WNOWAIT)
    assert not lock.is_locked("sft-1")


def test_a_stopped_process_of_this_machine_keeps_its_lease(
    lock: LeaseLockManager, other_process: subprocess.Popen[str]
) -> None:
    """It would go on working beside us as soon as it is continued."""
    other_process.send_signal(signal.SIGSTOP)
    os.utime(lease(lock), (time.time() - 1000, time.time() - 1000))
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0.3)


def test_a_reused_pid_is_not_taken_for_the_holder(lock: LeaseLockManager) -> None:
    lock.acquire_lock("sft-1", "me")
    content = json.loads(lease(lock).read_text())
    lock.release_lock("sft-1", "me")
    lease(lock).write_text(json.dumps(content | {"holder": "you", "pid": 1}))
    assert not lock.is_locked("sft-1")


def test_a_lease_of_another_machine_is_free_when_it_was_not_renewed(lock: LeaseLockManager) -> None:
    lock.folder.mkdir()
    lease(lock).write_text(json.dumps({"holder": "you", "machine": "elsewhere", "pid": 1, "started": 1}))
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    os.utime(lease(lock), (time.time() - 0.5, time.time() - 0.5))
    assert not lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    started = time.monotonic()
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=5)
    assert time.monotonic() - started < 2
    lock.release_lock("sft-1", "me")


def test_a_held_lease_is_renewed(lock: LeaseLockManager) -> None:
    """Every quarter of the expiry of 1 s."""
    lock.acquire_lock("sft-1", "me")
    first = lease(lock).stat().st_mtime
    time.sleep(1.5)
    assert time.time() - lease(lock).stat().st_mtime < 0.8
    assert lease(lock).stat().st_mtime > first
    lock.release_lock("sft-1", "me")


def test_a_lease_that_was_taken_away_is_not_renewed_and_not_given_back(
    lock: LeaseLockManager, caplog: pytest.LogCaptureFixture
) -> None:
    lock.acquire_lock("sft-1", "me")
    other = {"holder": "you", "machine": "elsewhere", "pid": 1, "started": 1}
    lease(lock).write_text(json.dumps(other))
    time.sleep(0.8)
    lock.release_lock("sft-1", "me")
    assert json.loads(lease(lock).read_text()) == other
    assert "was lost" in caplog.text
    assert "had been taken over" in caplog.text


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"holder": "you"}'])
def test_a_file_that_is_no_lease_holds_nothing(lock: LeaseLockManager, text: str) -> None:
    lock.folder.mkdir()
    lease(lock).write_text(text)
    assert lock.acquire_lock("sft-1", "me", acquire_timeout=0)
    lock.release_lock("sft-1", "me")


def test_processes_never_hold_it_together(tmp_path: Path) -> None:
    """3 processes × 8 turns of read, wait, write back: a lost update would show in the sum."""
    counter = tmp_path / "counter"
    counter.write_text("0")
    processes = [start(COUNTER, tmp_path / "leases", counter, f"holder-{number}") for number in range(3)]
    assert [process.wait(60) for process in processes] == [0] * 3
    assert counter.read_text() == "24"
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
