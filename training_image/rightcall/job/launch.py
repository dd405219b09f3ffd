"""Which processes a job starts on this host: a pure function of resourceconfig.json, the recipe and the GPUs.

    1 host × 1 process, parallel auto or ddp    python train.py
    everything else                             python -m torch.distributed.run … train.py, once per host
    base and score                              python train.py on the first host; the others have nothing to do

The first host in sorted order is where the processes meet. As on SageMaker its name (algo-1) must resolve; where it
does not, RIGHTCALL_MASTER_ADDR names an address instead, and RIGHTCALL_MASTER_PORT a port (two jobs on one machine).
This module imports nothing heavy, so that entry.py can use it.
"""

from __future__ import annotations

import re
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rightcall.errors import BackendError
from rightcall.job.stage_table import STAGES

STOPPED_FILE = "STOPPED"  # beside the stop flag: the processes of this host ended after a checkpoint, on request
PORTS = range(20000, 29000)  # below the ports that Linux gives to outgoing connections
MEETING_SECONDS = 1800  # hosts of one job may start minutes apart
# Instance families with an Elastic Fabric Adapter, and those of them whose adapter reads GPU memory by itself.
EFA = re.compile(r"ml\.(p3dn|p4d|p4de|p5|p5e|p5en|p6-\w+|trn1|trn1n|trn2)\.\w+")
EFA_RDMA = re.compile(r"ml\.(p4d|p4de|p5|p5e|p5en|p6-\w+)\.\w+")


@dataclass(frozen=True)
class Launch:
    argv: list[str]
    environment: dict[str, str] = field(default_factory=dict)  # beside the one that entry.py was started with
    processes: int = 1  # on all hosts together
    torchrun: bool = False


def plan(
    resources: Mapping[str, Any], job: Mapping[str, Any], gpus: int, environ: Mapping[str, str], program: Path
) -> Launch | None:
    """What to start on this host, None where there is nothing to do; `job` is job.json.

    Raises:
        BackendError: the hosts, or the processes asked for, make no sense.
    """
    hosts, this = sorted_hosts(resources)
    alone = Launch([sys.executable, "-u", str(program)])
    facts = STAGES.get(str(job.get("stage")))
    if facts is None or not facts.shares_work:
        return alone if this == hosts[0] else None
    compute = dict(dict(job.get("recipe") or {}).get("compute") or {})
    processes = processes_per_host(compute.get("processes"), gpus)
    if len(hosts) == processes == 1 and compute.get("parallel", "auto") in ("auto", "ddp"):
        return alone
    return Launch(
        [sys.executable, "-u", "-m", "torch.distributed.run", *meeting(hosts, this, environ),
         f"--nproc-per-node={processes}", "--max-restarts=0", str(program)],
        network(hosts, resources),
        processes * len(hosts),
        torchrun=True,
    )  # fmt: skip


def sorted_hosts(resources: Mapping[str, Any]) -> tuple[list[str], str]:
    """(all hosts in the order of their ranks, this one).

    Raises:
        BackendError: this host is not one of them, or one is named twice.
    """
    hosts, this = resources.get("hosts"), resources.get("current_host")
    if not isinstance(hosts, list) or not hosts or this not in hosts or len(set(hosts)) != len(hosts):
        raise BackendError(
            f"resourceconfig.json names the hosts {hosts!r} and this one {this!r}, which must be one of them; "
            "the backend must write it again"
        )
    return sorted(hosts), str(this)


def processes_per_host(wanted: int | None, gpus: int) -> int:
    """`wanted`, else one per GPU where there are any, else one.

    Raises:
        BackendError: more processes than GPUs are wanted.
    """
    if wanted and gpus and wanted > gpus:
        raise BackendError(
            f"compute.processes is {wanted}, but this host has {gpus} GPUs and a process needs one of its own; "
            "lower it, or leave it out"
        )
    return wanted or gpus or 1


def meeting(hosts: list[str], this: str, environ: Mapping[str, str]) -> list[str]:
    """torchrun's arguments by which the hosts find each other."""
    if len(hosts) == 1:  # any free port, and no name that would have to resolve
        return ["--standalone", "--local-addr=127.0.0.1", "--nnodes=1"]
    name = environ.get("TRAINING_JOB_NAME", "")
    port = environ.get("RIGHTCALL_MASTER_PORT") or PORTS[zlib.crc32(name.encode()) % len(PORTS)]
    return [
        f"--nnodes={len(hosts)}", f"--node-rank={hosts.index(this)}",
        f"--master-addr={environ.get('RIGHTCALL_MASTER_ADDR') or hosts[0]}", f"--master-port={port}",
        f"--rdzv-conf=timeout={MEETING_SECONDS}",
    ]  # fmt: skip


def network(hosts: list[str], resources: Mapping[str, Any]) -> dict[str, str]:
    """Variables for NCCL, gloo and libfabric: none where all processes are on one host but the loopback interface."""
    if len(hosts) == 1:
        return {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}
    found = {}
    if interface := resources.get("network_interface_name"):
        found = {"NCCL_SOCKET_IFNAME": str(interface), "GLOO_SOCKET_IFNAME": str(interface)}
    instance = str(resources.get("current_instance_type", ""))
    if EFA.fullmatch(instance):
        found |= {"FI_PROVIDER": "efa", "FI_EFA_FORK_SAFE": "1"}
    if EFA_RDMA.fullmatch(instance):
        found |= {"FI_EFA_USE_DEVICE_RDMA": "1"}
    return found


def gpu_count(environ: Mapping[str, str], devices: Path = Path("/dev")) -> int:
    """GPUs that a process of this host may use, found without loading torch."""
    visible = environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([name for name in visible.split(",") if name.strip() and name.strip() != "-1"])
    return len([path for path in devices.glob("nvidia*") if re.fullmatch(r"nvidia\d+", path.name)])
