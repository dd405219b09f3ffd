"""Stage `dpo`: preference optimisation on pairs, with one loss or several (MPO), against the model it starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from trl import DPOConfig, DPOTrainer

from rightcall.chat.template import ChatTemplate
from rightcall.errors import RecipeError
from rightcall.job.folders import Job
from rightcall.likelihood.scorer import Scorer
from rightcall.parallel import processes
from rightcall.parallel.global_batch import split
from rightcall.parallel.shared_steps import SharedSteps
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import DpoSection
from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.template_check import load_template
from rightcall.training import loop
from rightcall.training import weights as models
from rightcall.training.checkpoints import Checkpointed
from rightcall.training.encoding import PairCollator, encode_pairs, needed_rows
from rightcall.training.health import Health, length_drift
from rightcall.training.probe import Probe, SetAside, set_aside
from rightcall.training.reference import add_reference


class Trainer(Checkpointed, SharedSteps, DPOTrainer):
    """TRL's trainer over pairs that are encoded and have their reference log-probabilities already."""

    # Weight of the sft term where we compute it: TRL's would be per character, or over a piece of the batch only.
    sft_weight = 0.0

    reference_free = False

    averages_pairs = True

    def create_accelerator_and_postprocess(self) -> None:
        """Hides FSDP until `run` restores it: TRL would load a reference model, whose values are already there."""
        super().create_accelerator_and_postprocess()
        self.shards_by_fsdp, self.is_fsdp_enabled = self.is_fsdp_enabled, False

    def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _precompute_ref_logps(self, dataset: Dataset, *args: Any) -> Dataset:
        return dataset

    def _compute_loss(self, model: Any, inputs: dict[str, torch.Tensor], return_outputs: bool) -> Any:
        seen: dict[str, Any] = {}

        def watched(**arguments: Any) -> Any:
            seen["out"] = model(**arguments)
            return seen["out"]

        loss = super()._compute_loss(watched, inputs, return_outputs)
        if not self.reference_free:
            self._watch_lengths(seen["out"].log_probs.detach(), inputs)
        if self.sft_weight:
            chosen = inputs["completion_mask"][:, 1:].bool().chunk(2)[0]
            log_probs = seen["out"].log_probs
            if "row_factors" in inputs:
                log_probs = log_probs / inputs["row_factors"][:, None]
            loss = loss - self.sft_weight * self.mean_of_batch(log_probs.chunk(2)[0][chosen])
        return loss

    def _watch_lengths(self, log_probs: torch.Tensor, inputs: dict[str, torch.Tensor]) -> None:
        chosen, rejected = log_probs.sum(1).chunk(2)
        counts = inputs["completion_mask"].sum(1).chunk(2)
        policy = list(zip(chosen.tolist(), rejected.tolist(), strict=True))
        reference = list(zip(inputs["ref_chosen_logps"].tolist(), inputs["ref_rejected_logps"].tolist(), strict=True))
        lengths = list(zip(counts[0].tolist(), counts[1].tolist(), strict=True))
        self._metrics["train"]["length_drift"].append(length_drift(policy, reference, lengths))


def run(job: Job) -> None:
    """Trains on the snapshot's pairs; the model of the channel is also the reference.

    Raises:
        TrainingError: the loss became NaN.
        DataError: no pair fits.
        SystemExit: with status 143, when stopped.
    """
    section = job.recipe.dpo
    models.prepare_torch(job.recipe.compute.threads)
    processes.meet(job.recipe.compute)
    template = load_template(job.channel("model"), job.recipe.model.chat_template)
    per_step = section.per_device_train_batch_size * section.gradient_accumulation_steps
    rows = read_snapshot(job.channel("dataset"), "preference")
    aside = held_back(job, template) if section.probe_steps else None
    rows = needed_rows(aside.without(rows) if aside else rows, section.max_steps, per_step, section.seed)
    encoded = encode_pairs(rows, template, section.max_length)
    model = models.load(job, section)
    scorer = Scorer(model)
    probe = Probe(aside.steps, model, template, low_precision=section.bf16) if aside else None
    computed = 0 if section.reference_free else reference_of(encoded.rows, scorer, job)
    if section.reference_free:  # SimPO (Meng et al. 2024, arXiv 2405.14734): the reward is the log-probability itself
        for pair in encoded.rows:
            pair["ref_chosen_logps"] = pair["ref_rejected_logps"] = 0.0
    adapter = models.choose_parameters(model, section, job.channel("model"), job.cache)
    args = dpo_config(job.recipe, job.checkpoints, bf16_weights=model.dtype == torch.bfloat16)
    sft_weight = sft_term(args, section)
    trainer = Trainer(
        model=model,
        args=args,
        train_dataset=Dataset.from_list(encoded.rows),
        data_collator=PairCollator(template.pad_id, section.length_normalised),
        processing_class=models.load_tokenizer(job.channel("model")),
        peft_config=adapter,
    )
    trainer.sft_weight, trainer.reference_free = sft_weight, section.reference_free
    trainer.is_fsdp_enabled = trainer.shards_by_fsdp
    loop.prepare_head(trainer, uses_trees=scorer.uses_trees)
    # tokens that one unit of reward stands for: an answer's, or a character's
    per = "chosen_characters" if section.length_normalised else None
    lengths = [len(pair["chosen_ids"]) / (pair[per] if per else 1) for pair in encoded.rows]
    facts = {"pairs": len(encoded.rows), "pairs_too_long": encoded.too_long, "reference_computed": computed}
    health = Health(section.beta, sum(lengths) / len(lengths), reference_free=section.reference_free)
    loop.run(trainer, job, section, template, facts, health=health, probe=probe)


def held_back(job: Job, template: ChatTemplate) -> SetAside:
    """The rows that the stage sft sets aside with the same seed and probe_rows.

    Raises:
        RecipeError: the job's dataset has no SFT rows.
    """
    dataset = job.folders.channel("rows")  # pairs may lie elsewhere: those that are mined do
    dataset = dataset if dataset.is_dir() else job.channel("dataset")
    if not (dataset / "sft.parquet").is_file():
        raise RecipeError(
            f"dpo.probe_steps is {job.recipe.dpo.probe_steps!r}, but the probe's turns come from SFT rows, and "
            f"{str(dataset)!r} has no sft.parquet; set dpo.probe_steps to 0, or name data.conversations or data.sft"
        )
    return set_aside(read_snapshot(dataset, "sft"), job.recipe.dpo, template)


def reference_of(pairs: list[dict[str, Any]], scorer: Scorer, job: Job) -> int:
    """Adds the reference's log-probabilities to the pairs; returns how many had to be computed."""
    section = job.recipe.dpo
    return add_reference(
        pairs,
        scorer,
        identity=f"{models.weights_digest(job.channel('model'))} {scorer.model.dtype} {section.method == 'qlora'}",
        low_precision=section.bf16,
        folder=(job.cache or job.checkpoints) / "reference",
        stopped=job.stop_flag.exists,
    )


def sft_term(args: DPOConfig, section: DpoSection) -> float:
    """The weight of the sft term where we compute it; 0 where TRL does.

    Raises:
        RecipeError: a loss is over a whole batch, and processes cut the recipe's batches into pieces.
    """
    rows, accumulation = section.per_device_train_batch_size, section.gradient_accumulation_steps
    pieces = split(rows, accumulation, processes.world().size).pieces
    if pieces > 1 and (whole := sorted({"aot", "aot_unpaired"} & set(args.loss_type))):
        raise RecipeError(
            f"the loss {whole[0]!r} compares all pairs of a batch, and {processes.world().size} processes would cut "
            f"batches of {rows} into {pieces} pieces; raise dpo.gradient_accumulation_steps, or use fewer processes"
        )
    if pieces > 1 and args.loss_type == ["sft"]:
        raise RecipeError("dpo.loss_type is 'sft' alone; train the stage sft, or name a preference loss")
    return take_sft_term(args) if section.length_normalised or pieces > 1 else 0.0


def take_sft_term(args: DPOConfig) -> float:
    """Removes the loss `sft` from TRL's list and returns its weight; 0 where the recipe has none."""
    weights = args.loss_weights or [1.0] * len(args.loss_type)
    terms = list(zip(args.loss_type, weights, strict=True))
    kept = [(name, weight) for name, weight in terms if name != "sft"]
    if not kept:
        raise RecipeError(
            "dpo.loss_type is 'sft' alone, and length_normalised has nothing to normalise; set it to false"
        )
    args.loss_type, args.loss_weights = [name for name, _ in kept], [weight for _, weight in kept]
    return sum(weight for name, weight in terms if name == "sft")


def dpo_config(recipe: Recipe, output_dir: Path, *, bf16_weights: bool = False) -> DPOConfig:
    """TRL's config for this recipe.

    Raises:
        RecipeError: TRL refuses a value.
    """
    section = recipe.dpo
    try:
        return DPOConfig(
            beta=section.beta,
            loss_type=list(section.loss_type),
            loss_weights=list(section.loss_weights) if section.loss_weights else None,
            precompute_ref_log_probs=True,
            **loop.arguments(section, output_dir, processes.kind(recipe.compute), bf16_weights=bf16_weights),
        )
    except (TypeError, ValueError) as err:
        raise RecipeError(f"TRL's DPOConfig refuses {recipe.name!r}: {err}; correct the section dpo") from err
