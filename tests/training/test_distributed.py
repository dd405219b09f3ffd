"""Many processes, on one host or several, for real: what they compute is what one computes, whoever shares the work."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from parallel_jobs import launch, lines, logs, make_hosts, wait
from processes import children, is_running, until
from pydantic import ValidationError
from safetensors.torch import load_file
from training_jobs import make_job, make_recipe, metrics, run_job
from transformers import AutoModelForCausalLM

from rightcall.errors import TrainingError
from rightcall.parallel import processes as distributed
from rightcall.recipe.schema import Recipe
from rightcall.training import weights as models
from rightcall.training.loop import STOPPED

# 22 rows in batches of 2, 4 batches a step: the epoch's third step has 3 batches, and one process none of them.
SFT: dict[str, Any] = {"max_steps": 6, "gradient_accumulation_steps": 4, "save_steps": 1000}
# 21 pairs in batches of 2, a step each: two processes cut every batch in two, and the last has one pair.
DPO: dict[str, Any] = {"max_steps": 12, "loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "save_steps": 1000}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "sft-ddp": ("sft", "ddp", {"method": "lora"}),
    "sft-zero1": ("sft", "zero1", {"behaviour_weights": {"tool_call": 2.0}}),
    "sft-zero2": ("sft", "zero2", {"method": "spectrum"}),
    "sft-zero3": ("sft", "zero3", {"method": "spectrum", "activation_checkpointing": True}),
    "sft-fsdp2": ("sft", "fsdp2", {"frozen_layers": 1, "weight_decay": 0.1}),
    "dpo-ddp": ("dpo", "ddp", {"length_normalised": True, "beta": 5.0}),
    "dpo-zero3": ("dpo", "zero3", {}),
    "dpo-fsdp2": ("dpo", "fsdp2", {"reference_free": True, "method": "spectrum"}),
}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize("case", CASES)
def test_two_hosts_stopped_and_one_host_that_goes_on_learn_what_one_process_learns(
    tiny_model: Path, tmp_path: Path, case: str
) -> None:
    """Two hosts of one process each until a stop that only the second host is told of; then two processes on one host."""
    stage, kind, changes = CASES[case]
    section, rows = ({**SFT, **changes}, 22) if stage == "sft" else ({**DPO, **changes}, 21)
    alone = make_job(tmp_path / "alone", tiny_model, stage, rows, **{stage: section})
    run_job(alone)
    apart = make_hosts(tmp_path / "apart", tiny_model, stage, section, hosts=2, rows=rows, parallel=kind)
    started = launch(apart)
    until(lambda: bool(children(started[1].pid)), seconds=120)
    started[1].terminate()
    assert wait(started) == [STOPPED, STOPPED], logs(apart)
    assert not list((apart[0] / "model").iterdir())
    done = lines(apart[0])
    assert len(done) < section["max_steps"]
    (together,) = make_hosts(
        tmp_path / "together", tiny_model, stage, section, hosts=1, rows=rows, parallel=kind, processes=2
    )
    shutil.copytree(apart[0] / "checkpoints", together / "checkpoints")
    assert wait(launch([together])) == [0], logs([together])
    curve = lines(together)
    assert curve[: len(done)] == done
    for name in ("loss", "grad_norm", "learning_rate"):
        assert [line[name] for line in curve] == pytest.approx([line[name] for line in metrics(alone)], abs=1e-4), name
    assert [line["tokens"] for line in curve] == [line["tokens"] for line in metrics(alone)]
    expected, found = (load_file(root / "model/model.safetensors") for root in (alone.folders.root, together))
    assert expected.keys() == found.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, atol=1e-4, rtol=1e-3)
    assert AutoModelForCausalLM.from_pretrained(together / "model").config.architectures == ["LlamaForCausalLM"]
    summary = json.loads((together / "output/data/summary.json").read_text())
    assert (summary["processes"], summary["parallel"]) == (2, kind)


def recipe_with(parallel: str, **section: Any) -> Recipe:
    return Recipe.model_validate(
        make_recipe(sft=section).model_dump(by_alias=True) | {"compute": {"parallel": parallel}}
    )


@pytest.mark.parametrize("parallel", ["zero3", "fsdp2"])
def test_four_bit_weights_are_not_sharded(parallel: str) -> None:
    with pytest.raises(ValidationError, match=f"{parallel} cannot share qlora's 4-bit weights; use ddp"):
        recipe_with(parallel, method="qlora")
    assert recipe_with("zero2", method="qlora").sft.method == "qlora"
    assert recipe_with(parallel, method="lora").sft.method == "lora"


def test_a_process_that_trains_as_something_else_than_asked_for_is_an_error() -> None:
    """accelerate's silent fallback, seen with FSDP on a CPU."""
    found = SimpleNamespace(num_processes=1, distributed_type="DistributedType.MULTI_CPU")
    with pytest.raises(TrainingError, match="1 processes train as 'ddp', but 1 were to train as 'fsdp2'"):
        distributed.check(found, "fsdp2")
    alone = SimpleNamespace(num_processes=1, distributed_type="DistributedType.NO")
    distributed.check(alone, "none")
    with pytest.raises(TrainingError, match="as 'none', but 1 were to train as 'zero3'"):
        distributed.check(alone, "zero3")
    zero = SimpleNamespace(
        num_processes=1, distributed_type="DistributedType.DEEPSPEED", deepspeed_plugin=SimpleNamespace(zero_stage=2)
    )
    distributed.check(zero, "zero2")


@pytest.mark.parametrize("kind", distributed.SHARDED)
def test_precision_is_the_recipes_whoever_shards(kind: str) -> None:
    """fp32 weights stay fp32 under autocast; bf16 weights get fp32 copies."""
    full, mixed, low = (
        distributed.settings(kind, bf16=bf16, bf16_weights=weights)
        for bf16, weights in ((False, False), (True, False), (True, True))
    )
    if kind == "fsdp2":
        assert full == mixed == low
        return
    assert "torch_autocast" not in full["deepspeed"]
    assert (full["bf16"], mixed["bf16"], low["bf16"]) == (False, False, True)
    assert mixed["deepspeed"]["torch_autocast"] == {
        "enabled": True, "dtype": "bfloat16", "lower_precision_safe_modules": [],
    }  # fmt: skip
    assert full["deepspeed"]["zero_optimization"]["stage"] == int(kind[-1])


@pytest.mark.parametrize(
    ("method", "on_gpu"),
    [("full", torch.float32), ("spectrum", torch.float32), ("lora", torch.bfloat16), ("qlora", torch.bfloat16)],
)
def test_what_is_trained_is_fp32_also_on_a_gpu(
    method: str, on_gpu: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = make_recipe(sft={"method": method, "bf16": True}).sft
    assert models.precision(section) == torch.float32
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert models.precision(section) == on_gpu
    assert models.precision(section.model_copy(update={"bf16": False})) == torch.float32


def test_a_rank_that_fails_on_another_host_is_named_by_both(tiny_model: Path, tmp_path: Path) -> None:
    """The second host's rows are broken: its error is in both failure files, not the connection that broke."""
    apart = make_hosts(tmp_path, tiny_model, "sft", SFT, hosts=2, rows=22)
    shutil.rmtree(apart[1] / "input/data/dataset")
    (apart[1] / "input/data/dataset").mkdir()
    assert wait(launch(apart)) == [1, 1], logs(apart)
    for root in apart:
        assert "[rank 1 of 2, algo-2]" in (root / "output/failure").read_text().splitlines()[0], logs(apart)


def test_a_killed_process_ends_its_whole_job_and_leaves_nothing_running(tiny_model: Path, tmp_path: Path) -> None:
    section = SFT | {"max_steps": 100000, "save_steps": 3}
    (root,) = make_hosts(tmp_path, tiny_model, "sft", section, hosts=1, rows=22, parallel="zero2", processes=2)

    def training() -> tuple[subprocess.Popen[bytes], list[int]]:
        seen = len(lines(root))
        (entry,) = launch([root], RIGHTCALL_METRICS_TO_LOG="1")
        until(lambda: len(lines(root)) > seen + 3, seconds=120)
        (torchrun,) = children(entry.pid)
        return entry, [torchrun, *children(torchrun)]

    entry, processes = training()
    assert len(processes) == 3
    os.kill(processes[-1], signal.SIGKILL)
    assert entry.wait(60) == 1, logs([root])
    assert "BackendError: a training process was killed" in (root / "output/failure").read_text()
    until(lambda: not any(map(is_running, processes)), seconds=10)
    told = [line for line in (root / "log").read_text().splitlines() if line.startswith("RIGHTCALL_METRICS ")]
    assert [json.loads(line.removeprefix("RIGHTCALL_METRICS ")) for line in told] == lines(root)[: len(told)]

    entry, processes = training()
    entry.kill()
    entry.wait(30)
    until(lambda: not any(map(is_running, processes)), seconds=10)
