"""This process among those that train together: who it is, what the others know, and what they decide together.

With one process every function here is the identity, and torch.distributed is never initialised.
"""

from __future__ import annotations

import datetime
import json
import os
import resource
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch
from torch import distributed

from rightcall.errors import TrainingError
from rightcall.recipe.sections import ComputeSection

TIMEOUT = datetime.timedelta(hours=1)  # the others wait this long while the first writes a model or a checkpoint
SHARDED = ("zero1", "zero2", "zero3", "fsdp2")


@dataclass(frozen=True)
class World:
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """The process that writes."""
        return self.rank == 0

    @property
    def first_here(self) -> bool:
        """The process that deletes on this host."""
        return self.local_rank == 0


def world() -> World:
    """As torchrun says; a process that it has not started is alone."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    return World(*(int(os.environ[name]) for name in names)) if "RANK" in os.environ else World()


def meet(compute: ComputeSection) -> World:
    """Connects the processes: before anything is decided that all of them must decide alike."""
    this = world()
    if "RANK" not in os.environ:
        return this
    if torch.cuda.is_available():
        torch.cuda.set_device(this.local_rank)
    if not distributed.is_initialized():
        if kind(compute).startswith("zero"):
            prepare_deepspeed()
        distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    return this


def prepare_deepspeed() -> None:
    """Keeps DeepSpeed on a CPU from compiling its shared-memory collective, which takes minutes; gloo needs none."""
    os.environ.setdefault("DS_BUILD_OPS", "0")
    if torch.cuda.is_available():
        return
    os.environ["DS_ACCELERATOR"] = "cpu"
    import deepspeed.ops

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False


def kind(compute: ComputeSection) -> str:
    """none, ddp, zero1, zero2, zero3 or fsdp2."""
    if compute.parallel in SHARDED:
        return compute.parallel
    return "ddp" if world().size > 1 else "none"


def settings(kind: str, *, bf16: bool, bf16_weights: bool) -> dict[str, Any]:
    """The fields of TRL's config for `kind`: the files of rightcall/parallel, with the recipe's precision.

    fp32 weights are trained under autocast, as they are by one process. DeepSpeed has its own autocast, and for bf16
    weights fp32 copies of its own, each process holding its share.
    """
    if kind == "none":
        return {}
    if kind == "ddp":
        return {"ddp_find_unused_parameters": False}
    config = json.loads(files("rightcall").joinpath(f"parallel/{kind}.json").read_text(encoding="utf-8"))
    if kind == "fsdp2":
        return {"fsdp": True, "fsdp_config": config}
    config["zero_optimization"]["overlap_comm"] = torch.cuda.is_available()
    if bf16 and not bf16_weights:
        config["torch_autocast"] = {"enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": []}
    return {"deepspeed": config, "bf16": bf16 and bf16_weights}


def check(accelerator: Any, expected_kind: str) -> None:
    """accelerate falls back to plain DDP, or to independent copies, without an error: compare with what was asked."""
    size, name = world().size, str(accelerator.distributed_type).rpartition(".")[2]
    found = {"NO": "none", "MULTI_GPU": "ddp", "MULTI_CPU": "ddp", "FSDP": "fsdp2"}.get(name, name)
    if name == "DEEPSPEED":
        found = f"zero{accelerator.deepspeed_plugin.zero_stage}"
    elif name == "FSDP" and accelerator.state.fsdp_plugin.fsdp_version != 2:
        found = "fsdp1"
    if (accelerator.num_processes, found) != (size, expected_kind):
        raise TrainingError(
            f"{accelerator.num_processes} processes train as {found!r}, but {size} were to train as {expected_kind!r}; "
            "start the job through entry.py, and look for what the environment says about accelerate"
        )


def _together() -> bool:
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def device() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def any_of(flag: bool) -> bool:
    """True on every rank when it is true on one."""
    return bool(reduced([float(flag)], largest=True)[0])


def reduced(values: list[float], *, largest: bool = False) -> list[float]:
    """Sum, or maximum, over all ranks, element by element."""
    if not _together():
        return values
    tensor = torch.tensor(values, dtype=torch.float64, device=device())
    distributed.all_reduce(tensor, op=distributed.ReduceOp.MAX if largest else distributed.ReduceOp.SUM)
    return tensor.tolist()


def gathered(values: list[float]) -> list[list[float]]:
    """Every rank's values, in the order of the ranks."""
    if not _together():
        return [values]
    tensor = torch.tensor(values, dtype=torch.float64, device=device())
    parts = [torch.empty_like(tensor) for _ in range(distributed.get_world_size())]
    distributed.all_gather(parts, tensor)
    return [part.tolist() for part in parts]


def from_first(value: Any) -> Any:
    """What rank 0 has, on every rank; any picklable object of a few MB."""
    if not _together():
        return value
    box = [value]
    distributed.broadcast_object_list(box, src=0, device=device())
    return box[0]


def to_first(value: Any) -> list[Any]:
    """Every rank's object on rank 0, an empty list elsewhere."""
    if not _together():
        return [value]
    boxes: list[Any] = [None] * distributed.get_world_size()
    distributed.all_gather_object(boxes, value)
    return boxes if distributed.get_rank() == 0 else []


def tensor_from_first(value: torch.Tensor | None, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
    """Rank 0's tensor on every rank's device; the others give None."""
    tensor = torch.empty(shape, dtype=dtype, device=device()) if value is None else value.to(device()).contiguous()
    if _together():
        distributed.broadcast(tensor, src=0)
    return tensor


def wait_for_all() -> None:
    any_of(False)


def use_fsdp(accelerator: Any, plugin_arguments: dict[str, Any]) -> None:
    """Turns FSDP2 on where accelerate does not: on a CPU it silently takes DDP, though FSDP2 works there."""
    from accelerate import DistributedType, FullyShardedDataParallelPlugin, PartialState

    if accelerator.distributed_type in (DistributedType.MULTI_CPU, DistributedType.NO):
        accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(**plugin_arguments)
        accelerator.state.distributed_type = DistributedType.FSDP
        PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def set_fsdp_precision(accelerator: Any, *, bf16: bool) -> None:
    """Compute in bf16, but add gradients and hand out results in fp32; accelerate's choice is bf16 for all three."""
    from torch.distributed.fsdp import MixedPrecisionPolicy

    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False) if bf16 else None
    accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def memory_bytes() -> int:
    """Peak memory of this process: the GPU's where there is one, else resident memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
