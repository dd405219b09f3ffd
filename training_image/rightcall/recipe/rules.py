"""What a recipe must satisfy beyond the types of its fields; plain functions, no torch, no network.

``trl_fields.json`` holds the names and types of TRL's config fields, so that a wrong name under ``trl:`` is found by
a process that has no TRL. `tests/generators/trl_table.py` writes it; a test holds it equal to the installed TRL.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from rightcall.recipe.pins import SECRET_ARN, looks_secret, source_problem, tools_problem
from rightcall.recipe.sections import ComputeSection, DataSection, DpoSection, MineSection, SftSection
from rightcall.rows.vocabulary import REJECTED_KINDS

# Fields of TRL's configs that rightcall sets itself: a value under `trl:` would break resume, metrics or the loss mask.
SET_BY_RIGHTCALL = frozenset({
    "accelerator_config", "assistant_only_loss", "auto_find_batch_size", "average_tokens_across_devices",
    "chat_template_path", "completion_only_loss", "dataset_kwargs", "dataset_num_proc", "dataset_text_field",
    "deepspeed", "disable_tqdm", "do_eval", "do_predict", "do_train", "enable_jit_checkpoint", "eos_token",
    "eval_on_start", "eval_packing", "eval_steps", "eval_strategy", "fp16", "fsdp", "fsdp_config",
    "gradient_checkpointing", "gradient_checkpointing_kwargs", "hub_always_push", "hub_model_id", "hub_private_repo",
    "hub_revision", "hub_strategy", "hub_token", "ignore_data_skip", "load_best_model_at_end", "local_rank",
    "log_level", "log_level_replica", "log_on_each_node", "logging_strategy", "model_init_kwargs", "output_dir",
    "pad_token", "padding_free", "parallelism_config", "precompute_ref_batch_size", "precompute_ref_log_probs",
    "project", "push_to_hub", "remove_unused_columns", "report_to", "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint", "run_name", "save_on_each_node", "save_only_model", "save_strategy", "save_total_limit",
    "trackio_bucket_id", "trackio_space_id", "trackio_static_space_id", "truncation_mode", "trust_remote_code",
    "use_cpu",
})  # fmt: skip
RENAMED = {
    "warmup_ratio": "warmup_steps below 1 is the share of all steps",
    "max_seq_length": "it is now max_length",
    "max_prompt_length": "TRL dropped it; use data.max_prompt_tokens",
    "group_by_length": "it is now train_sampling_strategy: group_by_length",
    "torch_dtype": "the training program chooses the dtype; see bf16",
}


@dataclass(frozen=True)
class Problem:
    """``fields`` are the dotted names that the check looked at, the one to correct first."""

    fields: tuple[str, ...]
    message: str


@cache
def trl_table() -> dict[str, Any]:
    return json.loads(files("rightcall.recipe").joinpath("trl_fields.json").read_text())


def suggestion(wrong: str, allowed: list[str]) -> str:
    """`; did you mean 'x'?` when a name is close, else the allowed names while the list is short enough to read."""
    if close := difflib.get_close_matches(wrong, allowed, n=1, cutoff=0.6):
        return f"; did you mean {close[0]!r}?"
    return f"; allowed: {', '.join(sorted(allowed))}" if len(allowed) <= 40 else ""


def contradictions(
    data: DataSection, sft: SftSection, dpo: DpoSection, mine: MineSection, compute: ComputeSection
) -> list[Problem]:
    """Every pair of fields that cannot both be meant, and every name that TRL does not know."""
    return [
        *_stages(data, sft, dpo, mine),
        *_conversations(data),
        *_rejected_kinds(data),
        *_training("sft", sft),
        *_training("dpo", dpo),
        *_probe("sft", sft, compute),
        *_probe("dpo", dpo, compute),
        *_trl("sft", "SFTConfig", sft),
        *_trl("dpo", "DPOConfig", dpo),
        *_preference_loss(dpo),
        *_parallel(sft, dpo, compute),
        *_compute(compute),
    ]


def _stages(data: DataSection, sft: SftSection, dpo: DpoSection, mine: MineSection) -> Iterator[Problem]:
    if sft.max_steps == 0 and dpo.max_steps != 0 and dpo.start_from == "sft":
        yield Problem(
            ("dpo.start_from", "sft.max_steps"),
            "'sft', but sft.max_steps is 0: there is no SFT model; set dpo.start_from to base",
        )
    if not (data.conversations or data.sft or data.preference or data.evaluation):
        yield Problem(
            ("data.conversations",), "the recipe names no rows at all; name logged conversations, or other rows"
        )
    elif not data.evaluation and all(each.use == "train" for each in data.conversations):
        yield Problem(
            ("data.evaluation", "data.conversations"),
            "nothing to evaluate on: name logged conversations (data.conversations) that are split or held out, or items",
        )
    talks = [each for each in data.conversations if each.use != "evaluation"]
    if sft.max_steps != 0 and not data.sft and not talks:
        yield Problem(
            ("data.conversations" if not data.sft and data.conversations else "data.sft", "sft.max_steps"),
            "no source, but sft would train: name one (data.conversations or data.sft), or set sft.max_steps to 0",
        )
    if dpo.max_steps != 0 and not data.preference and mine.samples == 0:
        yield Problem(
            ("data.preference", "dpo.max_steps", "mine.samples"),
            "no source, but dpo would train: name one, let mine.samples make pairs of the model's own answers, or set "
            "dpo.max_steps to 0",
        )
    if mine.samples > 0 and dpo.max_steps == 0:
        yield Problem(
            ("mine.samples", "dpo.max_steps"),
            f"{mine.samples}, but dpo.max_steps is 0: nothing would train on the pairs; set one of them to match",
        )
    if mine.samples > 0 and not data.sft and not talks:
        yield Problem(
            ("mine.samples",), f"{mine.samples}, but there is no training turn to answer; name data.conversations"
        )
    for stage, section in (("sft", sft), ("dpo", dpo)):
        longest = data.max_prompt_tokens
        if section.max_steps != 0 and longest is not None and longest >= section.max_length:
            yield Problem(
                ("data.max_prompt_tokens", f"{stage}.max_length"),
                f"{longest} leaves no room for an answer within {stage}.max_length {section.max_length}; lower it",
            )


def _conversations(data: DataSection) -> Iterator[Problem]:
    for number, source in enumerate(data.conversations):
        for name, uri in (("tools", source.tools), ("system", source.system)):
            place = f"data.conversations.{number}.{name}"
            if uri is not None and uri.startswith("pypi:"):
                yield Problem((place,), f"{uri!r} is a wheel; name a file, local or s3://bucket/key")
            elif uri is not None and (
                problem := (tools_problem(uri) if name == "tools" else source_problem(uri, None))
            ):
                yield Problem((place,), problem)
        if source.uri.startswith("traces:") and not data.traces_consent:
            yield Problem(
                ("data.traces_consent", "data.conversations"),
                f"false, but {source.uri!r} is what people said to an agent, recorded for another purpose; set it to true if "
                "they, or whoever may decide for them, agreed that models are trained on it",
            )
    if data.step_rows is not None and not data.conversations:
        yield Problem(("data.step_rows",), f"{data.step_rows}, but data.conversations names no source of steps")
    if data.group_by is not None and not data.conversations:
        yield Problem(("data.group_by",), f"{data.group_by!r}, but data.conversations names no source to split")


def _rejected_kinds(data: DataSection) -> Iterator[Problem]:
    for name in data.rejected_kinds or ():
        if name not in REJECTED_KINDS:
            hint = suggestion(name, list(REJECTED_KINDS))
            yield Problem(("data.rejected_kinds",), f"{name!r} is no kind of rejected answer{hint}")


def _training(stage: str, section: SftSection | DpoSection) -> Iterator[Problem]:
    schedulers = trl_table()["schedulers"]
    if section.lr_scheduler_type not in schedulers:
        hint = suggestion(section.lr_scheduler_type, schedulers)
        yield Problem(
            (f"{stage}.lr_scheduler_type",), f"{section.lr_scheduler_type!r} is not a scheduler of transformers{hint}"
        )
    if section.warmup_steps >= 1 and section.warmup_steps % 1:
        yield Problem(
            (f"{stage}.warmup_steps",), f"{section.warmup_steps} is neither a share below 1 nor a whole number of steps"
        )
    if 0 < section.max_steps <= section.warmup_steps and section.warmup_steps >= 1:
        yield Problem(
            (f"{stage}.warmup_steps", f"{stage}.max_steps"),
            f"{section.warmup_steps:g} steps of warm-up, but only {section.max_steps} steps in all; below 1 = a share",
        )


def _probe(stage: str, section: SftSection | DpoSection, compute: ComputeSection) -> Iterator[Problem]:
    if section.keep == "best" and section.probe_steps == 0:
        yield Problem(
            (f"{stage}.keep", f"{stage}.probe_steps"),
            f"'best' needs probes to choose by: set {stage}.probe_steps, as 20, or keep: last",
        )
    if section.probe_steps and section.max_steps != 0 and compute.parallel in ("zero3", "fsdp2"):
        yield Problem(
            ("compute.parallel", f"{stage}.probe_steps"),
            f"{compute.parallel} gives no process a whole model to write with; use ddp, zero1 or zero2, or set "
            f"{stage}.probe_steps to 0",
        )


def _trl(stage: str, config: str, section: SftSection | DpoSection) -> Iterator[Problem]:
    known: dict[str, str] = trl_table()[config]
    ours = set(type(section).model_fields) - {"trl"}
    for name, value in section.trl.items():
        where = (f"{stage}.trl.{name}",)
        if name in ours:
            yield Problem(where, f"has a field of its own: set {stage}.{name}")
        elif name in RENAMED:
            yield Problem(where, f"not a field of TRL's {config} any more: {RENAMED[name]}")
        elif name not in known:
            yield Problem(
                where, f"not a field of TRL's {config}{suggestion(name, sorted(set(known) - SET_BY_RIGHTCALL))}"
            )
        elif name in SET_BY_RIGHTCALL:
            yield Problem(where, "rightcall sets it itself; leave it out")
        elif not _fits(value, known[name]):
            yield Problem(where, f"TRL expects {known[name]}, got {value!r}")
        elif stage == "sft" and name == "loss_type" and value not in trl_table()["supervised_losses"]:
            yield Problem(
                where, f"{value!r} is not a loss of {config}{suggestion(str(value), trl_table()['supervised_losses'])}"
            )


def _fits(value: object, annotation: str) -> bool:
    """True unless the annotation is made of plain types alone and the value is none of them."""
    plain = {"bool": bool, "int": int, "float": (int, float), "str": str, "dict": dict, "None": type(None)}
    names = [name.split("[")[0].strip() for name in annotation.split("|")]
    if any(name not in plain for name in names):
        return True
    if isinstance(value, bool):  # an int for Python, never one for a recipe
        return "bool" in names
    return any(isinstance(value, plain[name]) for name in names)  # type: ignore[arg-type]


def _preference_loss(dpo: DpoSection) -> Iterator[Problem]:
    losses = trl_table()["preference_losses"]
    for name in dpo.loss_type:
        if name not in losses:
            yield Problem(("dpo.loss_type",), f"{name!r} is not a loss of TRL's DPOConfig{suggestion(name, losses)}")
    if len(set(dpo.loss_type)) < len(dpo.loss_type):
        yield Problem(
            ("dpo.loss_type",), f"{list(dpo.loss_type)!r} names a loss twice; give it one larger weight instead"
        )
    if dpo.loss_weights is not None and len(dpo.loss_weights) != len(dpo.loss_type):
        yield Problem(
            ("dpo.loss_weights", "dpo.loss_type"),
            f"{len(dpo.loss_weights)} weights for the losses {list(dpo.loss_type)!r}; give one weight each",
        )
    if dpo.loss_weights is not None and not any(dpo.loss_weights):
        yield Problem(("dpo.loss_weights",), f"{list(dpo.loss_weights)!r}: with every weight 0 nothing is learnt")


def _parallel(sft: SftSection, dpo: DpoSection, compute: ComputeSection) -> Iterator[Problem]:
    for stage, section in (("sft", sft), ("dpo", dpo)):
        if section.method == "qlora" and compute.parallel in ("zero3", "fsdp2") and section.max_steps != 0:
            yield Problem(
                ("compute.parallel", f"{stage}.method"),
                f"{compute.parallel} cannot share qlora's 4-bit weights; use ddp, zero1 or zero2, or method: lora",
            )


def _compute(compute: ComputeSection) -> Iterator[Problem]:
    sagemaker = compute.sagemaker
    where = "compute.sagemaker"
    if compute.backend == "sagemaker" and sagemaker.instance_type is None:
        yield Problem(
            (f"{where}.instance_type", "compute.backend"),
            "none, but the backend is sagemaker; name one, as ml.g5.2xlarge",
        )
    if sagemaker.spot and sagemaker.max_wait_minutes is None:
        yield Problem(
            (f"{where}.max_wait_minutes", f"{where}.spot"),
            "none, but spot is on: say how long to wait for capacity and train, both together",
        )
    if sagemaker.max_wait_minutes is not None and not sagemaker.spot:
        yield Problem(
            (f"{where}.max_wait_minutes", f"{where}.spot"), "is for spot alone; set spot: true or leave it out"
        )
    if sagemaker.max_wait_minutes is not None and sagemaker.max_wait_minutes < sagemaker.max_runtime_minutes:
        yield Problem(
            (f"{where}.max_wait_minutes", f"{where}.max_runtime_minutes"),
            f"{sagemaker.max_wait_minutes} is less than max_runtime_minutes {sagemaker.max_runtime_minutes}; it includes it",
        )
    if sagemaker.spot and sagemaker.warm_pool_minutes is not None:
        yield Problem((f"{where}.warm_pool_minutes", f"{where}.spot"), "SageMaker keeps no warm pool of spot instances")
    if bool(sagemaker.subnets) != bool(sagemaker.security_group_ids):
        yield Problem(
            (f"{where}.subnets", f"{where}.security_group_ids"),
            "a VPC needs both, subnets and security groups; add the other",
        )
    for name, value in sagemaker.environment.items():
        if looks_secret(name, value):
            yield Problem(
                (f"{where}.environment.{name}",),
                "looks like a secret, which DescribeTrainingJob would show; use secrets: ",
            )
    for name, arn in sagemaker.secrets.items():
        if not SECRET_ARN.fullmatch(arn):
            yield Problem(
                (f"{where}.secrets.{name}",),
                "is not the ARN of a Secrets Manager secret; never put the secret itself here",
            )
