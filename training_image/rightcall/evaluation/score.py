"""The stage `score`: the model channel's model on the dataset channel's items.

    items.jsonl        a line per item: log-likelihoods, predictions
    generations.jsonl  a sample answered freely, parsed and judged
    scores.json        every metric with n, confusion matrix, the keyword rule beside it; no intervals: they are
                       computed from the items when shown, so that their settings may change without scoring again
    metrics.jsonl      progress while it runs
    summary.json       seconds, memory, tokens per second

Timings stand in summary.json and metrics.jsonl only, so that equal models get equal items and scores.
Trees and batches that are done are kept among the checkpoints (items.partial.jsonl, generations.partial.jsonl): a job
that was killed, or asked to stop, goes on after them.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from rightcall.errors import ScoringError
from rightcall.evaluation.generation import answer_rows, sample
from rightcall.evaluation.multiple_choice import Item, Plan, Scored
from rightcall.evaluation.questions import read_questions
from rightcall.job import metrics_log
from rightcall.job.folders import STOPPED, Job
from rightcall.job.partial_results import PartialResults
from rightcall.likelihood.scorer import Scorer
from rightcall.measurement import metrics
from rightcall.measurement.baseline import rule_items
from rightcall.parallel.processes import memory_bytes
from rightcall.recipe.sections import EvaluationSection
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.template_check import load_template

logger = logging.getLogger(__name__)

FLOAT32_SHARE = 0.6  # of the GPU's free memory that float32 weights may take


def run(job: Job) -> None:
    started = time.monotonic()
    if job.recipe.compute.threads:
        torch.set_num_threads(job.recipe.compute.threads)
    settings = job.recipe.evaluation
    folder = model_folder(job.channel("model"))
    items_read = read_snapshot(job.channel("dataset"), "choice")
    template = load_template(folder, job.recipe.model.chat_template)
    questions = read_questions(template, items_read, settings.prompt)
    model = load_model(folder, trust_remote_code=job.recipe.model.trust_remote_code)
    plan = Plan(Scorer(model), questions, settings)
    work = ScoringWork(job, plan)
    items = work.score()
    write_lines(job.output / "items.jsonl", items)
    asked = sample(items_read, settings.generation_items, settings.seed)
    answered = job.checkpoints / "generations.partial.jsonl"
    generations = answer_rows(model, template, asked, settings, kept=answered, before_batch=work.stop_if_asked)
    write_lines(job.output / "generations.jsonl", generations)
    scores = summarise(items_read, items, generations, settings)
    scores |= {"tokens_forward": work.tokens, "tokens_naive": plan.tokens_naive}
    _write_json(job.output / "scores.json", scores)
    seconds = time.monotonic() - started
    _write_json(job.output / "summary.json", _summary(work, len(items), seconds))
    work.finished.forget()
    answered.unlink(missing_ok=True)
    logger.info("scored %d items in %.1f s: acc_norm %.3f", len(items), seconds, scores["metrics"]["acc_norm"]["value"])


class ScoringWork:
    """Trees scored so far, on disk as they are done."""

    def __init__(self, job: Job, plan: Plan) -> None:
        self.job, self.plan = job, plan
        self.finished = PartialResults(job.checkpoints / "items.partial.jsonl", plan.digest)
        self.done = {number: Scored(**piece) for number, piece in self.finished.pieces.items()}
        self.computed = 0  # tokens fed to the model in this process
        self.fed = 0  # what one sequence at a time would have fed for them
        self.seconds = 0.0

    @property
    def tokens(self) -> int:
        return sum(scored.tokens for scored in self.done.values())

    def stop_if_asked(self) -> None:
        """Ends the process when the job was asked to stop.

        Raises:
            SystemExit: with status 143; what is done is kept for the next run.
        """
        if self.job.stop_flag.exists():
            logger.info("asked to stop: %d of %d trees are kept", len(self.done), len(self.plan.chunks))
            raise SystemExit(STOPPED)

    def score(self) -> list[Item]:
        """All items in the order of the rows.

        Raises:
            SystemExit: with status 143, when the job was asked to stop; what is done is kept for the next run.
        """
        started = time.monotonic()
        if self.done:
            logger.info(
                "going on after %d of %d trees that an earlier run scored", len(self.done), len(self.plan.chunks)
            )
        metrics_log.cut(self.job.output / "metrics.jsonl", self._items_done())
        for number, chunk in enumerate(self.plan.chunks):
            if number in self.done:
                continue
            self.stop_if_asked()
            scored = self.plan.score(chunk)
            self.done[number] = scored
            self.computed += scored.tokens
            self.fed += self._naive(number)
            self.seconds = time.monotonic() - started
            self.finished.add(number, scored._asdict())
            metrics_log.append(self.job.output / "metrics.jsonl", self._progress())
        return self.plan.in_order(self.done)

    def _progress(self) -> dict[str, Any]:
        left = self.plan.tokens_naive - sum(map(self._naive, self.done))
        return {
            "step": self._items_done(),
            "total_steps": len(self.plan.questions),
            "seconds": round(self.seconds, 3),
            "eta_seconds": round(self.seconds * left / self.fed, 1),
            "tokens_per_second": round(self.computed / self.seconds, 1),
        }

    def _items_done(self) -> int:
        return sum(len(scored.items) for scored in self.done.values())

    def _naive(self, number: int) -> int:
        return sum(
            len(sequence) - 1 for index in self.plan.chunks[number] for sequence in self.plan.questions[index].sequences
        )


def summarise(
    choice_rows: Sequence[Row],
    items: Sequence[Item],
    generations: Sequence[Item],
    settings: EvaluationSection,
) -> dict[str, Any]:
    """scores.json: nothing in it depends on how long the work took, or on settings that are not in the stage's key."""
    rule = rule_items(choice_rows)
    return {
        "metrics": metrics.plain_values(items, generations),
        "confusion": metrics.confusion(items),
        "confusion_acc": metrics.confusion(items, "prediction"),
        "error_kinds": dict(Counter(line["error_kind"] for line in generations if line["error_kind"]).most_common()),
        "baseline_rule": {
            "metrics": metrics.plain_values(rule, []),
            "confusion": metrics.confusion(rule),
        },
        "prompt": settings.prompt,
        "dtype": settings.dtype,
        "n": len(items),
        "rescored": sum(item["rescored"] for item in items),
    }


def model_folder(channel: Path) -> Path:
    """The channel itself, or its `model` folder (a stage's folder in the store).

    Raises:
        ScoringError: neither holds a config.json.
    """
    for folder in (channel, channel / "model"):
        if (folder / "config.json").is_file():
            return folder
    raise ScoringError(
        f"{str(channel)!r} holds no model: neither config.json nor model/config.json is there; name a model folder"
    )


def load_model(folder: Path, *, trust_remote_code: bool = False) -> Any:
    """In float32 (near-ties need it), on the GPU if there is one.

    Raises:
        ScoringError: the model cannot be loaded.
    """
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype="auto", trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as err:
        raise ScoringError(
            f"the model in {str(folder)!r} cannot be loaded: {err}; check config.json and model.safetensors"
        ) from err
    if not torch.cuda.is_available():
        return model.float()
    free, _ = torch.cuda.mem_get_info()
    if 4 * model.num_parameters() > FLOAT32_SHARE * free:
        logger.warning(
            "float32 weights do not fit beside the work in %.1f GiB of free GPU memory: near-ties stay in bf16",
            free / 2**30,
        )
        return model.to("cuda")
    return model.float().to("cuda")


def _summary(work: ScoringWork, n: int, seconds: float) -> dict[str, Any]:
    return {
        "steps": n,
        "seconds": round(seconds, 1),
        "scoring_seconds": round(work.seconds, 1),
        "tokens": work.computed,
        "tokens_per_second": round(work.computed / work.seconds, 1) if work.seconds else None,
        "peak_memory_bytes": memory_bytes(),
        "warnings": []
        if work.plan.scorer.uses_trees
        else ["scored question by question: the model's attention takes no prefix trees"],
    }


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # half of a surrogate pair has no UTF-8; its backslash escape is JSON's own
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
