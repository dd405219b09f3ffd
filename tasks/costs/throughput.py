"""How long a job takes: floating-point operations from tokens and parameters, divided by what the hardware does.

Operations per token, with N parameters (Kaplan et al. 2020, arXiv 2001.08361): forward 2N; backward 2N for the gradients of
the activations and 2N for those of the weights, so 6N for full fine-tuning. Attention's own part (12 · layers · width · length,
below 15% of 6N at 2,048 tokens for the models of our recipes) is left to the assumed utilisation.

- frozen_layers: both gradients stop above them: the share of trained layers counts.
- spectrum: weight gradients for the trained share alone. lora, qlora: for none; qlora also unpacks 4-bit weights.
- activation_checkpointing: the forward pass again, 2N.
- DPO: both sides of a pair, each with its prompt (an upper bound: where attention allows it the prompt is fed once), and the
  reference's forward pass, once per pair and not per epoch.
- mining: forward only, and every new token of every sampled answer.
- scoring: forward only; the four answers of an item share one prompt. A step is counted with its whole conversation before it,
  which is computed once for all of its steps: an upper bound.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from rightcall.job.stage_table import STAGES, training_section
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import DpoSection, SftSection

# Peak FLOP/s of one accelerator, bf16 without sparsity, from NVIDIA's data sheets.
PEAK_FLOPS = {
    "A10G": 70e12,
    "L4": 121e12,
    "L40S": 362e12,
    "A100": 312e12,
    "H100": 989e12,
    "H200": 989e12,
}
ONE_TO_EIGHT = {
    "xlarge": 1,
    "2xlarge": 1,
    "4xlarge": 1,
    "8xlarge": 1,
    "16xlarge": 1,
    "12xlarge": 4,
    "24xlarge": 4,
    "48xlarge": 8,
}
ACCELERATORS = {  # family: accelerator, how many by size
    "g5": ("A10G", ONE_TO_EIGHT),
    "g6": ("L4", ONE_TO_EIGHT),
    "g6e": ("L40S", ONE_TO_EIGHT),
    "p4d": ("A100", {"24xlarge": 8}),
    "p4de": ("A100", {"24xlarge": 8}),
    "p5": ("H100", {"4xlarge": 1, "48xlarge": 8}),
    "p5e": ("H200", {"48xlarge": 8}),
    "p5en": ("H200", {"48xlarge": 8}),
}
# Families without bf16 or without CUDA (p3, g4dn, trn1) have no entry: their speed is not known.
CPU_FAMILIES = ("m5", "m6i", "m7i", "c5", "c6i", "c7i", "r5")
# Measured on 2 cores of this project's machine, SmolLM2-135M, SFT: 6N × 149 tokens/s = 120e9; a vCPU is half a core.
CPU_FLOPS_PER_VCPU = 30e9

# A stage's utilisation stands in the table of stages: assumed, recomputed forward passes counted as work. To be replaced
# by measurements on a GPU.
UNPACKED = 0.30  # SFT without packing: short sequences and padding
QLORA_SLOWDOWN = 1.4  # dequantisation of 4-bit weights in every pass
ONE_HOST, MANY_HOSTS = 0.90, 0.80  # share of the speed that is left when several processes, or hosts, work together
ANSWERS = 1.3  # tokens of an item with its four answers, per token of the prompt with one
ANSWERS_AT_ONCE = 64  # rightcall.decoding grows as many side by side
DECODING_SECONDS = 0.03  # one token for a batch on a GPU: bound by kernel launches
START_SECONDS = 300  # image, data and model onto the host, and the result away from it: billed, not trained


@dataclass(frozen=True)
class Work:
    """What a job has to get through; None = not known. ``tokens`` and ``rows`` are of the snapshot's rows, one pass."""

    tokens: int | None = None
    rows: int | None = None
    parameters: int | None = None
    layers: int | None = None
    steps: int = 0  # of conversations, to be written
    step_tokens: int = 0


@dataclass(frozen=True)
class Hardware:
    """One host."""

    name: str  # "8 × A100"
    devices: int
    flops: float  # of one device: a GPU's peak, or what a CPU was measured to do
    is_gpu: bool


@dataclass(frozen=True)
class Duration:
    seconds: float
    basis: str


def hardware(instance_type: str) -> Hardware | None:
    """None: a type that is not known, or one that the training program does not run on."""
    match = re.fullmatch(r"ml\.([a-z0-9-]+)\.([a-z0-9]+)", instance_type)
    if match is None:
        return None
    family, size = match.groups()
    if family in ACCELERATORS and size in ACCELERATORS[family][1]:
        name, sizes = ACCELERATORS[family]
        return Hardware(f"{sizes[size]} × {name}", sizes[size], PEAK_FLOPS[name], is_gpu=True)
    vcpus = _vcpus(size) if family in CPU_FAMILIES else None
    return Hardware(f"{vcpus} vCPU", 1, vcpus * CPU_FLOPS_PER_VCPU, is_gpu=False) if vcpus else None


def _vcpus(size: str) -> int | None:
    if size == "large":
        return 2
    match = re.fullmatch(r"(\d*)xlarge", size)
    return 4 * int(match[1] or 1) if match else None


def duration(stage: str, recipe: Recipe, work: Work, instance_type: str, hosts: int) -> Duration | None:
    """Seconds from start to end of a job with its start-up; None when the hardware, the tokens or the model is not known."""
    machine = hardware(instance_type)
    if machine is None or work.tokens is None or not (work.rows or work.steps) or work.parameters is None:
        return None
    if stage == "mine":
        return _mining(recipe, work, machine)
    if not STAGES[stage].shares_work:
        return _scoring(recipe, work, machine)
    section = training_section(stage, recipe)
    batch = section.per_device_train_batch_size * section.gradient_accumulation_steps
    processes = min(batch, machine.devices * hosts)
    tokens = trained_tokens(section, work)
    per_token, share = flops_per_token(section, work), utilisation(stage, section)
    total = tokens * per_token
    if isinstance(section, DpoSection) and not section.reference_free:
        rows = work.rows or 1
        pairs = min(rows, section.max_steps * batch) if section.max_steps > 0 else rows
        total += 2 * (pairs * work.tokens / rows) * 2 * work.parameters
    speed = processes * machine.flops * (share if machine.is_gpu else 1.0) * _scaling(processes, hosts)
    basis = f"{tokens:,.0f} tokens × {per_token / work.parameters:.1f} × {work.parameters / 1e9:.2f}e9 parameters"
    return Duration(total / speed + START_SECONDS, f"{basis}; {_speed(machine, hosts, share)}; {_start()}")


def _scoring(recipe: Recipe, work: Work, machine: Hardware) -> Duration:
    """One process, whatever the host has."""
    assert work.tokens is not None  # noqa: S101  asked by the caller
    assert work.parameters is not None  # noqa: S101
    share = STAGES["score"].utilisation if machine.is_gpu else 1.0
    tokens = work.tokens * ANSWERS + work.step_tokens
    answers = work.steps + min(recipe.evaluation.generation_items, work.rows or 0)
    modes = 2 if recipe.evaluation.grammar else 1
    step = DECODING_SECONDS if machine.is_gpu else ANSWERS_AT_ONCE * 2 * work.parameters / machine.flops
    decoding = modes * -(-answers // ANSWERS_AT_ONCE) * recipe.evaluation.max_new_tokens * step
    seconds = tokens * 2 * work.parameters / (machine.flops * share) + decoding
    one = Hardware(machine.name.partition(" × ")[2] or machine.name, 1, machine.flops, machine.is_gpu)
    basis = f"{tokens:,.0f} tokens × 2 × {work.parameters / 1e9:.2f}e9 parameters and {decoding:,.0f} s for {answers:,} written answers"
    return Duration(seconds + START_SECONDS, f"{basis}; {_speed(one, 1, share)}; {_start()}")


def _mining(recipe: Recipe, work: Work, machine: Hardware) -> Duration:
    """One process: every chosen step's prompt once, at most a training row long, then its answers token by token."""
    steps, per_row, parameters = mined_steps(recipe, work), (work.tokens or 0) / (work.rows or 1), work.parameters or 0
    share = STAGES["mine"].utilisation if machine.is_gpu else 1.0
    answers = steps * recipe.mine.samples
    passes = -(-answers // ANSWERS_AT_ONCE) * recipe.mine.max_new_tokens
    step = DECODING_SECONDS if machine.is_gpu else ANSWERS_AT_ONCE * 2 * parameters / machine.flops
    seconds = steps * per_row * 2 * parameters / (machine.flops * share) + passes * step
    one = Hardware(machine.name.partition(" × ")[2] or machine.name, 1, machine.flops, machine.is_gpu)
    basis = f"{answers:,} answers of {recipe.mine.max_new_tokens} tokens to {steps:,} steps of {per_row:,.0f} tokens"
    return Duration(seconds + START_SECONDS, f"{basis}; {_speed(one, 1, share)}; {_start()}")


def mined_steps(recipe: Recipe, work: Work) -> int:
    """Steps that are answered, where the rows say only how many conversations there are: as many as the recipe asks for."""
    return recipe.mine.steps or work.rows or 0


def pairs_to_come(work: Work, recipe: Recipe) -> Work:
    """The most that mining can give DPO, from the work of mining."""
    pairs = mined_steps(recipe, work) * recipe.mine.samples
    tokens = None if work.tokens is None or not work.rows else round(pairs * work.tokens / work.rows)
    return Work(tokens, pairs, work.parameters, work.layers)


def trained_tokens(section: SftSection | DpoSection, work: Work) -> float:
    """Tokens that pass through the trained model, over all steps or epochs."""
    if work.tokens is None or not work.rows:
        return 0.0
    sides = 2 if isinstance(section, DpoSection) else 1
    if section.max_steps < 0:
        return sides * section.num_train_epochs * work.tokens
    packed = isinstance(section, SftSection) and section.packing
    per_row = section.max_length if packed else work.tokens / work.rows
    rows = section.max_steps * section.per_device_train_batch_size * section.gradient_accumulation_steps
    return sides * rows * per_row


def flops_per_token(section: SftSection | DpoSection, work: Work) -> float:
    """Forward and backward of the trained model, as the module's docstring counts them."""
    trained_layers = 1.0
    if section.frozen_layers and work.layers:
        trained_layers = max(0.0, 1 - section.frozen_layers / work.layers)
    trained_weights = {"full": trained_layers, "spectrum": section.spectrum_top_fraction}.get(section.method, 0.0)
    again = trained_layers if section.activation_checkpointing else 0.0
    passes = 1 + trained_layers + trained_weights + again
    return 2 * (work.parameters or 0) * passes * (QLORA_SLOWDOWN if section.method == "qlora" else 1.0)


def utilisation(stage: str, section: SftSection | DpoSection) -> float:
    """Assumed share of a GPU's peak."""
    return UNPACKED if isinstance(section, SftSection) and not section.packing else STAGES[stage].utilisation


def _scaling(processes: int, hosts: int) -> float:
    return 1.0 if processes == 1 else ONE_HOST if hosts == 1 else MANY_HOSTS


def _speed(machine: Hardware, hosts: int, share: float) -> str:
    several = f"{hosts} hosts of " if hosts > 1 else ""
    if not machine.is_gpu:
        return f"{several}{machine.name} at {machine.flops / 1e9:,.0f} GFLOP/s (measured elsewhere)"
    return f"{several}{machine.name} of {machine.flops / 1e12:,.0f} TFLOP/s at {share:.0%} (assumed)"


def _start() -> str:
    return f"{START_SECONDS / 60:.0f} min for start and upload (assumed)"
