"""Stage `sft`: supervised fine-tuning on conversations, with the loss on what the assistant wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import SFTConfig, SFTTrainer

from rightcall.errors import RecipeError, TrainingError
from rightcall.job.folders import Job
from rightcall.likelihood.scorer import Scorer
from rightcall.parallel import processes
from rightcall.parallel.shared_steps import SharedSteps
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import SftSection
from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.template_check import load_template
from rightcall.training import loop, weights
from rightcall.training.checkpoints import Checkpointed
from rightcall.training.encoding import ConversationCollator, encode_conversations, needed_rows, pack, ungroup
from rightcall.training.probe import Probe, set_aside


class Trainer(Checkpointed, SharedSteps, SFTTrainer):
    """TRL's trainer with our checkpoints, and steps that do not depend on the number of processes."""


def run(job: Job) -> None:
    """Trains on the snapshot's conversations.

    Raises:
        TrainingError: the loss became NaN, or the model cannot take packed rows.
        DataError: no row fits.
        SystemExit: with status 143, when stopped.
    """
    section = job.recipe.sft
    weights.prepare_torch(job.recipe.compute.threads)
    processes.meet(job.recipe.compute)
    template = load_template(job.channel("model"), job.recipe.model.chat_template)
    rows = read_snapshot(job.channel("dataset"), "sft")
    aside = set_aside(rows, section, template) if section.probe_steps else None
    rows = aside.rows if aside else rows
    if not section.packing:  # packed steps take as many rows as fit
        per_step = section.per_device_train_batch_size * section.gradient_accumulation_steps
        rows = needed_rows(rows, section.max_steps, per_step, section.seed)
    encoded = encode_conversations(
        rows, template, section.max_length, section.behaviour_weights, section.first_token_weight
    )
    model = weights.load(job, section)
    uses_trees = Scorer(model).uses_trees
    probe = Probe(aside.steps, model, template, low_precision=section.bf16) if aside else None
    examples = batches_of(encoded.rows, section)
    if section.packing and not uses_trees:
        raise TrainingError(
            f"packing would let rows of {model.config.model_type!r} see each other: its attention takes no such mask; "
            "set sft.packing: false"
        )
    adapter = weights.choose_parameters(model, section, job.channel("model"), job.cache)
    trainer = Trainer(
        model=model,
        args=sft_config(job.recipe, job.checkpoints, bf16_weights=model.dtype == torch.bfloat16),
        train_dataset=Dataset.from_list(examples),
        data_collator=ConversationCollator(template.pad_id),
        processing_class=weights.load_tokenizer(job.channel("model")),
        peft_config=adapter,
    )
    if uses_trees and any(groups := [example["shared"] for example in examples]):
        trainer.groups, trainer.group_rows = groups, section.per_device_train_batch_size
    loop.prepare_head(trainer, uses_trees=uses_trees)
    facts = {**encoded.facts(), "rows_set_aside": len(aside.held) if aside else 0}
    loop.run(trainer, job, section, template, facts, probe=probe)


def batches_of(rows: list[dict[str, Any]], section: SftSection) -> list[dict[str, Any]]:
    """What a batch holds some of: the rows, or bins of them; each says whom it shares policy and tools with."""
    ungroup(rows, section.per_device_train_batch_size)
    if not section.packing:
        return rows
    return [{"rows": members, "shared": members[0]["shared"]} for members in pack(rows, section.max_length)]


def sft_config(recipe: Recipe, output_dir: Path, *, bf16_weights: bool = False) -> SFTConfig:
    """TRL's config for this recipe.

    Raises:
        RecipeError: TRL refuses a value.
    """
    weighs = recipe.sft.behaviour_weights or recipe.sft.first_token_weight != 1
    if weighs and (loss := recipe.sft.trl.get("loss_type", "nll")) != "nll":
        raise RecipeError(
            f"sft.behaviour_weights and sft.first_token_weight are for the loss 'nll', not {loss!r}; leave one of them out"
        )
    try:
        # packing stays off for TRL: our collator packs, and our attention keeps the rows apart
        return SFTConfig(
            dataset_kwargs={"skip_prepare_dataset": True},
            packing=False,
            **loop.arguments(recipe.sft, output_dir, processes.kind(recipe.compute), bf16_weights=bf16_weights),
        )
    except (TypeError, ValueError) as err:
        raise RecipeError(f"TRL's SFTConfig refuses {recipe.name!r}: {err}; correct the section sft") from err
