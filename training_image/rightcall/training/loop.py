"""What SFT and DPO share around their trainers: the arguments for TRL, the run itself, and the summary at its end."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PrinterCallback

from rightcall.chat.template import ChatTemplate
from rightcall.job import metrics_log
from rightcall.job.folders import STOPPED, Job
from rightcall.likelihood.answer_head import install
from rightcall.parallel import full_state, global_batch, processes
from rightcall.parallel.processes import memory_bytes
from rightcall.recipe.sections import TrainingSection
from rightcall.training import checkpoints
from rightcall.training import weights as models
from rightcall.training.callbacks import Metrics, ReturnsMemory, SaveAndStop
from rightcall.training.health import Health
from rightcall.training.probe import Probe, Probing

logger = logging.getLogger(__name__)

PASSED_ON = ("max_steps", "num_train_epochs", "learning_rate", "lr_scheduler_type", "warmup_steps", "seed",
             "max_length", "per_device_train_batch_size", "gradient_accumulation_steps", "weight_decay",
             "max_grad_norm")  # fmt: skip


def arguments(
    section: TrainingSection, output_dir: Path, kind: str = "none", *, bf16_weights: bool = False
) -> dict[str, Any]:
    """The fields that SFTConfig and DPOConfig share; the recipe's `trl` section has the last word.

    Raises:
        RecipeError: the rows of a step cannot be shared equally by the processes.
    """
    shared = global_batch.split(
        section.per_device_train_batch_size, section.gradient_accumulation_steps, processes.world().size
    )
    return {
        **{name: getattr(section, name) for name in PASSED_ON},
        "per_device_train_batch_size": shared.rows,
        "gradient_accumulation_steps": shared.accumulation,
        "output_dir": str(output_dir),
        "bf16": section.bf16,
        "use_cpu": not torch.cuda.is_available(),
        "activation_checkpointing": section.activation_checkpointing,  # TRL's default is on
        "logging_steps": 1,  # metrics.jsonl averages over the recipe's logging_steps, also across a resume
        "logging_nan_inf_filter": False,  # it would hide a NaN behind the average of the steps before
        "save_strategy": "no",  # callbacks.SaveAndStop decides
        "report_to": "none",
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": torch.cuda.is_available(),
        **processes.settings(kind, bf16=section.bf16, bf16_weights=bf16_weights),
        **section.trl,
    }


def share(trainer: Any, job: Job, section: TrainingSection) -> None:
    """Prepares a trainer for the processes that train together; nothing changes for one that trains alone."""
    kind = processes.kind(job.recipe.compute)
    processes.check(trainer.accelerator, kind)
    trainer.gathers = kind != "none"
    if processes.world().size > 1:
        rows, accumulation = section.per_device_train_batch_size, section.gradient_accumulation_steps
        trainer.share_steps(global_batch.split(rows, accumulation, processes.world().size), section)
    if kind == "fsdp2":
        processes.set_fsdp_precision(trainer.accelerator, bf16=section.bf16)


def run(
    trainer: Any,
    job: Job,
    section: TrainingSection,
    template: ChatTemplate,
    facts: dict[str, Any],
    *,
    health: Health | None = None,
    probe: Probe | None = None,
) -> None:
    """Trains from the newest complete checkpoint, or from the start, and writes model and summary.

    Raises:
        SystemExit: with status 143, after the checkpoint that a stop request asks for.
    """
    share(trainer, job, section)
    checkpoint = checkpoints.newest(job.checkpoints)
    trainer.progress = checkpoints.read_progress(checkpoint)
    watch = SaveAndStop(job.stop_flag, section.save_steps, section.save_minutes)
    trainer.metrics_file = job.output / checkpoints.METRICS
    if checkpoint and processes.world().first:
        metrics_log.restore(trainer.metrics_file, checkpoint / checkpoints.METRICS)
    metrics = Metrics(trainer.metrics_file, section.logging_steps, trainer.progress, health)
    trainer.add_callback(metrics)
    if probe:
        trainer.keeps_best = section.keep == "best"
        trainer.add_callback(Probing(probe, trainer, section, metrics, job.stop_flag.exists))
    trainer.add_callback(watch)
    trainer.add_callback(ReturnsMemory())
    trainer.remove_callback(PrinterCallback)
    counts = models.parameter_counts(trainer.model)
    logger.info(
        "%s: %s, %s of %s parameters trained%s", job.stage, section.method, f"{counts['trained_parameters']:,}",
        f"{counts['total_parameters']:,}", f", resumes from {checkpoint.name}" if checkpoint else "",
    )  # fmt: skip
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if watch.stopped:
        logger.info("stopped on request after step %d", trainer.state.global_step)
        raise SystemExit(STOPPED)
    save(trainer, job, section, template)
    warnings = [*facts.get("warnings", []), *(health.warnings() if health else [])]
    write_summary(job, trainer, {**counts, **facts, **probed(trainer, warnings), "warnings": warnings})
    processes.wait_for_all()


def save(trainer: Any, job: Job, section: TrainingSection, template: ChatTemplate) -> None:
    """Rank 0 writes the model; what the others hold of it is gathered first."""
    step, shared = trainer.kept_step(), processes.kind(job.recipe.compute) in processes.SHARDED
    if step not in (0, trainer.state.global_step):
        saved = trainer.weights_of(step) if processes.world().first else None
        if not shared:
            full_state.put_weights(trainer.model, saved, f"checkpoint-{step}")
    elif shared:
        saved = full_state.gather_weights(trainer.model) if step else {}
    if not processes.world().first:
        return
    if step == 0:
        models.save(models.as_it_came(trainer.model, job, section), job, template)
    else:
        models.save(models.rebuild(job, section, saved or {}) if shared else trainer.model, job, template)


def probed(trainer: Any, warnings: list[str]) -> dict[str, Any]:
    """What the summary says of the probes, the kept model's numbers among it."""
    if not (probes := trainer.progress.get("probes")):
        return {}
    step = trainer.kept_step()
    if step == 0:
        warnings.append("no probe wrote more right answers than the one before the first step: the model is as it came")
    elif step < trainer.state.global_step:
        logger.info("the model is that of step %d, whose probe was the best", step)
    return {"kept_step": step, "probe_right_start": probes.get("0", {}).get("probe_right"), **probes[str(step)]}


def prepare_head(trainer: Any, *, uses_trees: bool) -> None:
    """Patches our forward over the one that TRL has patched; under an adapter that is the model inside."""
    model: PreTrainedModel = trainer.model.get_base_model() if hasattr(trainer.model, "peft_config") else trainer.model
    trainer.computed = install(model, uses_trees=uses_trees)


def write_summary(job: Job, trainer: Any, facts: dict[str, Any]) -> None:
    done = trainer.progress
    memory = int(processes.reduced([memory_bytes()], largest=True)[0])
    if not processes.world().first:
        return
    summary = {
        "stage": job.stage,
        "steps": trainer.state.global_step,
        "tokens": done["tokens"],
        "tokens_computed": done["tokens_computed"],
        "seconds": round(done["seconds"], 3),
        "tokens_per_second": round(done["tokens"] / max(done["seconds"], 1e-9), 2),
        "peak_memory_bytes": memory,
        "device": models.device_name(),
        "processes": processes.world().size,
        "parallel": processes.kind(job.recipe.compute),
        **facts,
    }
    (job.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    logger.info("%(stage)s: %(steps)d steps, %(tokens)d tokens, %(tokens_per_second).1f tokens/s", summary)
