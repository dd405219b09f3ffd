"""What entry.py starts on which host, with which variables; and what becomes of secrets and of errors of many processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rightcall.errors import BackendError
from rightcall.job import failures, folders, launch

PROGRAM = Path("train.py")
PYTHON = [sys.executable, "-u"]
LATE_SIGNAL = """
import os, signal, subprocess, sys
sys.path.insert(0, sys.argv[1])
import entry
child = subprocess.Popen(["sleep", "5"]).pid
signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
waitpid, sent = os.waitpid, []
def just_before(pid, options):
    if sent:
        return waitpid(pid, options)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    sent.append(os.kill(os.getpid(), signal.SIGTERM))
    try:
        return waitpid(pid, options)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
os.waitpid = just_before
print(entry.wait_for(child))
"""


def job(stage: str = "sft", **compute: Any) -> dict[str, Any]:
    return {"stage": stage, "recipe": {"compute": compute}}


def resources(*hosts: str, this: str = "", instance: str = "ml.p4d.24xlarge") -> dict[str, Any]:
    names = list(hosts) or ["algo-1"]
    return {
        "current_host": this or names[0], "hosts": names, "network_interface_name": "eth0",
        "current_instance_type": instance, "current_group_name": "homogeneousCluster",
    }  # fmt: skip


def test_one_p4d_trains_with_a_process_for_each_of_its_8_gpus() -> None:
    start = launch.plan(resources(), job(), 8, {}, PROGRAM)
    assert start
    assert start.argv == [
        *PYTHON, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1", "--nnodes=1",
        "--nproc-per-node=8", "--max-restarts=0", "train.py",
    ]  # fmt: skip
    assert start.environment == {"GLOO_SOCKET_IFNAME": "lo"}
    assert (start.processes, start.torchrun) == (8, True)


def test_two_p4d_meet_at_the_first_in_sorted_order_over_efa() -> None:
    hosts = resources("algo-2", "algo-1", this="algo-2")
    start = launch.plan(hosts, job(parallel="zero3"), 8, {"TRAINING_JOB_NAME": "rightcall-sft-1"}, PROGRAM)
    assert start
    assert start.argv == [
        *PYTHON, "-m", "torch.distributed.run", "--nnodes=2", "--node-rank=1", "--master-addr=algo-1",
        "--master-port=23674", "--rdzv-conf=timeout=1800", "--nproc-per-node=8", "--max-restarts=0", "train.py",
    ]  # fmt: skip
    assert start.environment == {
        "NCCL_SOCKET_IFNAME": "eth0", "GLOO_SOCKET_IFNAME": "eth0",
        "FI_PROVIDER": "efa", "FI_EFA_FORK_SAFE": "1", "FI_EFA_USE_DEVICE_RDMA": "1",
    }  # fmt: skip
    assert start.processes == 16


def test_one_process_on_a_cpu_needs_no_torchrun() -> None:
    for compute in ({}, {"parallel": "ddp"}, {"processes": 1, "parallel": "auto"}):
        start = launch.plan(resources(instance="ml.m5.xlarge"), job(**compute), 0, {}, PROGRAM)
        assert start == launch.Launch([*PYTHON, "train.py"])


@pytest.mark.parametrize("parallel", ["zero1", "zero2", "zero3", "fsdp2"])
def test_one_process_that_shall_shard_gets_torchrun(parallel: str) -> None:
    start = launch.plan(resources(), job(parallel=parallel), 1, {}, PROGRAM)
    assert start
    assert start.torchrun
    assert "--nproc-per-node=1" in start.argv


@pytest.mark.parametrize("stage", ["base", "score"])
def test_base_and_score_are_one_process_on_the_first_host(stage: str) -> None:
    first = launch.plan(resources("algo-1", "algo-2"), job(stage, processes=4), 8, {}, PROGRAM)
    assert first == launch.Launch([*PYTHON, "train.py"])
    assert launch.plan(resources("algo-1", "algo-2", this="algo-2"), job(stage), 8, {}, PROGRAM) is None


@pytest.mark.parametrize(
    ("instance", "variables"),
    [
        ("ml.g5.12xlarge", set()),
        ("ml.p3.16xlarge", set()),
        ("ml.p3dn.24xlarge", {"FI_PROVIDER", "FI_EFA_FORK_SAFE"}),
        ("ml.p5en.48xlarge", {"FI_PROVIDER", "FI_EFA_FORK_SAFE", "FI_EFA_USE_DEVICE_RDMA"}),
        ("ml.p6-b200.48xlarge", {"FI_PROVIDER", "FI_EFA_FORK_SAFE", "FI_EFA_USE_DEVICE_RDMA"}),
        ("", set()),
    ],
)
def test_efa_variables_are_set_only_where_there_is_an_adapter(instance: str, variables: set[str]) -> None:
    found = launch.network(["algo-1", "algo-2"], resources("algo-1", "algo-2", instance=instance))
    assert set(found) - {"NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME"} == variables


def test_an_address_and_a_port_may_stand_for_a_name_that_does_not_resolve() -> None:
    environ = {"RIGHTCALL_MASTER_ADDR": "127.0.0.1", "RIGHTCALL_MASTER_PORT": "29111"}
    start = launch.plan(resources("algo-1", "algo-2"), job(), 1, environ, PROGRAM)
    assert start
    assert {"--master-addr=127.0.0.1", "--master-port=29111", "--node-rank=0"} <= set(start.argv)


def test_all_hosts_of_a_job_choose_the_same_port_and_other_jobs_another() -> None:
    def port(host: str, name: str) -> str:
        start = launch.plan(resources("a", "b", this=host), job(), 1, {"TRAINING_JOB_NAME": name}, PROGRAM)
        assert start
        return next(argument for argument in start.argv if argument.startswith("--master-port="))

    assert port("a", "job-1") == port("b", "job-1") != port("a", "job-2")


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(BackendError, match="compute.processes is 4, but this host has 2 GPUs"):
        launch.plan(resources(), job(processes=4), 2, {}, PROGRAM)


@pytest.mark.parametrize("hosts", [[], ["algo-2"], ["algo-1", "algo-1"], "algo-1", None])
def test_hosts_that_make_no_sense_are_refused(hosts: object) -> None:
    with pytest.raises(BackendError, match=r"resourceconfig.json names the hosts .* the backend must write it again"):
        launch.plan({"hosts": hosts, "current_host": "algo-1"}, job(), 0, {}, PROGRAM)


def test_gpus_are_counted_without_torch(tmp_path: Path) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert launch.gpu_count({}, tmp_path) == 3
    assert launch.gpu_count({"CUDA_VISIBLE_DEVICES": "1,10"}, tmp_path) == 2
    assert launch.gpu_count({"CUDA_VISIBLE_DEVICES": ""}, tmp_path) == 0
    assert launch.gpu_count({"CUDA_VISIBLE_DEVICES": "-1"}, tmp_path) == 0


@pytest.fixture
def where(tmp_path: Path) -> folders.Folders:
    return folders.folders({"SM_ML_ROOT": str(tmp_path)})


def leave_report(where: folders.Folders, rank: int, err: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setenv("RIGHTCALL_HOST", "algo-1")
    failures.report(err, where)


def test_the_error_that_ends_a_job_is_not_that_of_a_process_which_lost_its_neighbour(
    where: folders.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost = RuntimeError("[../gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.2]:5323")
    leave_report(where, 0, lost, monkeypatch)
    leave_report(where, 1, ValueError("a row has no answer"), monkeypatch)
    leave_report(where, 2, ValueError("a later error"), monkeypatch)
    text = failures.collect(where)
    assert text
    assert text.startswith("ValueError: a row has no answer [rank 1 of 3, algo-1]")


def test_processes_that_only_lost_each_other_point_to_one_that_was_killed(
    where: folders.Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_report(where, 0, RuntimeError("Connection reset by peer"), monkeypatch)
    text = failures.collect(where)
    assert text
    assert text.startswith("BackendError: a training process was killed without a word")
    assert "Connection reset by peer [rank 0 of 3, algo-1]" in text
    failures.clear(where)
    assert failures.collect(where) is None


def test_our_own_errors_are_never_taken_for_a_lost_neighbour() -> None:
    from rightcall.errors import TrainingError

    assert not failures.lost_neighbour(TrainingError("loss became nan"))
    assert not failures.lost_neighbour(RuntimeError("shape '[2, 3]' is invalid"))
    assert failures.lost_neighbour(RuntimeError("Timed out waiting 1800000ms for recv operation to complete"))


def test_secrets_reach_the_training_process_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the module that asks AWS."""
    import entry

    monkeypatch.setenv("SM_ML_ROOT", str(tmp_path))
    (tmp_path / "fake").mkdir()
    (tmp_path / "fake/secrets_from_aws.py").write_text(
        "def fetch_secrets(environ):\n    return {'HF_TOKEN': 'value of ' + environ['RIGHTCALL_SECRET_HF_TOKEN']}\n"
    )
    monkeypatch.setattr(sys, "path", [str(tmp_path / "fake"), *sys.path])
    monkeypatch.delitem(sys.modules, "secrets_from_aws", raising=False)
    monkeypatch.setenv("RIGHTCALL_SECRET_HF_TOKEN", "arn:1")
    start = entry.prepare(folders.folders())
    monkeypatch.delitem(sys.modules, "secrets_from_aws", raising=False)
    assert start
    assert start.environment == {"HF_TOKEN": "value of arn:1", "RIGHTCALL_HOST": "algo-1"}
    assert "HF_TOKEN" not in os.environ


def test_a_stop_that_comes_at_the_moment_of_waiting_is_heard_while_the_child_works() -> None:
    """A signal between Python's look at signals and the system call is seen only after that call: it must not block."""
    folder = str(Path(folders.__file__).parents[2])
    said = subprocess.run([sys.executable, "-c", LATE_SIGNAL, folder], capture_output=True, text=True, check=True)
    assert said.stdout == "-9\n"
