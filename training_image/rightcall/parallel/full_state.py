"""Whole weights and optimiser states of a model that processes share, and the way back into any other sharing.

    gathered to rank 0   weights by name, optimiser state as torch writes it for one process
    given back           rank 0 reads, every rank gets what it holds of each tensor

So a checkpoint does not depend on how many processes wrote it, nor on how they shared the model: another number of
processes, or another kind of sharing, can go on from it.
Every function here is called by all ranks at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor

from rightcall.errors import TrainingError
from rightcall.parallel import processes

State = dict[str, Any]


def trained_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def is_zero(parameter: nn.Parameter) -> bool:
    return hasattr(parameter, "ds_id") or hasattr(parameter, "_hp_mapping")


def whole_of(parameter: nn.Parameter) -> torch.Tensor:
    """The parameter as one process would hold it; ZeRO's fp32 copy where it keeps one."""
    if is_zero(parameter):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(parameter)
    return parameter.full_tensor() if isinstance(parameter, DTensor) else parameter.detach()


def gather_weights(model: nn.Module) -> dict[str, torch.Tensor]:
    """Trained parameters by name on rank 0, in its memory; nothing elsewhere."""
    return dict(_on_first((name, whole_of(parameter)) for name, parameter in trained_parameters(model).items()))


def _on_first(values: Iterator[tuple[Any, torch.Tensor]]) -> Iterator[tuple[Any, torch.Tensor]]:
    first = processes.world().first
    for key, value in values:  # every rank takes part in making each value
        if first:
            yield key, value.detach().to("cpu").contiguous()


def put_weights(model: nn.Module, weights: dict[str, torch.Tensor] | None, source: str) -> None:
    """Copies rank 0's weights into a model that is not wrapped yet; the others give None.

    Raises:
        TrainingError: on every rank, when the weights are those of other parameters.
    """
    parameters = trained_parameters(model)
    different = sorted(weights.keys() ^ parameters.keys()) if weights is not None else []
    if different := processes.from_first(different):
        raise TrainingError(f"{source} trained other parameters, {different[:3]!r} among them; delete the checkpoints")
    for name, parameter in parameters.items():
        value = weights[name].to(torch.float32) if weights is not None else None
        parameter.data.copy_(processes.tensor_from_first(value, parameter.shape, torch.float32))


def put_fp32_copies(model: nn.Module, weights: dict[str, torch.Tensor] | None) -> None:
    """Restores the fp32 copies of bf16 weights, which were made of the weights and so had lost precision."""
    for name, parameter in trained_parameters(model).items():
        lossy = parameter.dtype != torch.float32 if is_zero(parameter) else isinstance(parameter, DTensor)
        if lossy:
            shape = getattr(parameter, "ds_shape", parameter.shape)
            saved = weights[name].to(torch.float32) if weights is not None else None
            value = processes.tensor_from_first(saved, shape, torch.float32)
            if is_zero(parameter):
                _set_zero(parameter, value, None)
            else:
                parameter.data.copy_(_share_of(parameter, value))


def gather_optimizer(model: nn.Module, optimizer: Any, names: list[list[str]]) -> State:
    """`optimizer.state_dict()` with whole tensors on rank 0; `names` are each group's parameters, in its order."""
    parameters = trained_parameters(model)
    flat = [name for group in names for name in group]
    if is_zero(parameters[flat[0]]):
        return _gather_zero(optimizer, [parameters[name] for name in flat], names)
    state = optimizer.state_dict()
    entries = ((index, key, value) for index, entry in state["state"].items() for key, value in entry.items())
    found: dict[int, State] = {}
    for index, key, value in entries:
        whole = value.full_tensor() if isinstance(value, DTensor) else value
        found.setdefault(index, {})[key] = whole.to("cpu") if torch.is_tensor(whole) else whole
    return {**state, "state": found}


def _gather_zero(optimizer: Any, parameters: list[nn.Parameter], names: list[list[str]]) -> State:
    from deepspeed.utils import safe_get_full_optimizer_state

    inner = torch_optimizer(optimizer)
    _link_states(_sharing(optimizer))
    some = next(iter(inner.state.values()))
    keys = [key for key, value in some.items() if torch.is_tensor(value) and value.dim()]
    scalars = {
        key: value.to("cpu") if torch.is_tensor(value) else value for key, value in some.items() if key not in keys
    }
    # a counter for each parameter: torch counts in place, and torch.save keeps one shared tensor shared
    state = {index: {key: _copied(value) for key, value in scalars.items()} for index in range(len(parameters))}
    values = (
        ((index, key), safe_get_full_optimizer_state(parameter, key))
        for index, parameter in enumerate(parameters)
        for key in keys
    )
    for (index, key), value in _on_first(values):
        state[index][key] = value
    groups, start = [], 0
    for group, members in zip(_groups(inner, names), names, strict=True):
        settings = {key: value for key, value in group.items() if key != "params" and not torch.is_tensor(value)}
        groups.append({**settings, "params": list(range(start, start + len(members)))})
        start += len(members)
    return {"state": state, "param_groups": groups}


def _groups(inner: torch.optim.Optimizer, names: list[list[Any]]) -> list[State]:
    """The group of each entry of `names`: ZeRO-3 drops groups without parameters; another stands in for them."""
    kept: list[State] = inner.param_groups
    if len(kept) == len(names):
        return kept
    found = iter(kept)
    return [next(found) if members else kept[0] for members in names]


def torch_optimizer(optimizer: Any) -> torch.optim.Optimizer:
    """The optimiser inside accelerate's and DeepSpeed's wrappers."""
    while not isinstance(optimizer, torch.optim.Optimizer) or hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    return optimizer


def put_optimizer(model: nn.Module, optimizer: Any, names: list[list[str]], state: State | None) -> None:
    """Loads rank 0's whole state into a wrapped model's optimiser; the others give None."""
    parameters = trained_parameters(model)
    members = [parameters[name] for group in names for name in group]
    outline = processes.from_first(_outline(state) if state is not None else None)
    if is_zero(members[0]):
        _put_zero(optimizer, members, outline, state)
        return
    entries: dict[int, State] = {}
    for index, entry in outline["state"].items():
        entries[index] = {}
        for key, value in entry.items():
            entries[index][key] = value
            if isinstance(value, _Whole):
                known = state["state"][index][key] if state is not None else None
                told = processes.tensor_from_first(known, value.shape, value.dtype)
                entries[index][key] = _share_of(members[index], told)
    optimizer.load_state_dict({"state": entries, "param_groups": outline["param_groups"]})


class _Whole:
    """Stands for a tensor that follows."""

    def __init__(self, value: torch.Tensor) -> None:
        self.shape, self.dtype = value.shape, value.dtype


def _outline(state: State) -> State:
    """The state with a note in the place of each large tensor, to be told to all ranks."""
    entries = {
        index: {key: _Whole(value) if torch.is_tensor(value) and value.dim() else value for key, value in entry.items()}
        for index, entry in state["state"].items()
    }
    return {"state": entries, "param_groups": state["param_groups"]}


def _share_of(parameter: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    if not isinstance(parameter, DTensor):
        return value
    # every rank has the whole value already: no rank needs to send it
    return distribute_tensor(value, parameter.device_mesh, parameter.placements, src_data_rank=None)


def _put_zero(optimizer: Any, members: list[nn.Parameter], outline: State, state: State | None) -> None:
    """Makes and fills the optimiser states, which DeepSpeed itself makes in the first step only."""
    inner, sharing, first = torch_optimizer(optimizer), _sharing(optimizer), outline["state"][0]
    groups = outline["param_groups"]
    for group, saved in zip(_groups(inner, [saved["params"] for saved in groups]), groups, strict=True):
        if saved["params"]:
            group.update({key: value for key, value in saved.items() if key != "params"})
    stage3 = hasattr(sharing, "fp32_partitioned_groups_flat")
    for flat in sharing.fp32_partitioned_groups_flat if stage3 else sharing.single_partition_of_fp32_groups:
        inner.state[flat] = {
            key: torch.zeros_like(flat) if isinstance(value, _Whole) else _copied(value) for key, value in first.items()
        }
    _link_states(sharing)
    for index, member in enumerate(members):
        for key, note in outline["state"][index].items():
            if isinstance(note, _Whole):
                value = state["state"][index][key] if state is not None else None
                _set_zero(member, processes.tensor_from_first(value, note.shape, note.dtype), key)


def _copied(value: Any) -> Any:
    return value.clone() if torch.is_tensor(value) else value


def _sharing(optimizer: Any) -> Any:
    """DeepSpeed's optimiser, between accelerate's wrapper and torch's optimiser."""
    while not hasattr(optimizer, "fp32_partitioned_groups_flat") and not hasattr(optimizer, "bit16_groups"):
        optimizer = optimizer.optimizer
    return optimizer


def _link_states(sharing: Any) -> None:
    """ZeRO 1 and 2 link states to parameters once, after the first group's step: too early for the other groups."""
    if hasattr(sharing, "bit16_groups"):
        sharing._hp_optimizer_states_linked = False
        sharing._lazy_init_hp_params_optimizer_state()


def _set_zero(parameter: Any, value: torch.Tensor, key: str | None) -> None:
    from deepspeed import utils

    if not hasattr(parameter, "ds_id"):
        if key is None:
            utils.safe_set_full_fp32_param(parameter, value)
        else:
            utils.safe_set_full_optimizer_state(parameter, value, key)
        return
    held = parameter.ds_tensor.numel()  # DeepSpeed's own setter for whole values fails where the last share is padded
    padded = value.new_zeros(held * processes.world().size)
    padded[: value.numel()] = value.flatten()
    mine = padded.narrow(0, held * processes.world().rank, held)
    if key is None:
        utils.safe_set_local_fp32_param(parameter, mine)
    else:
        utils.safe_set_local_optimizer_state(parameter, mine, key)
