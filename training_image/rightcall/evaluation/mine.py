"""The stage `mine`: answers that the model samples on training steps, judged; the wrong ones become preference pairs.

    preference.parquet  the pairs, behind those of the dataset's own file if it has one: DPO trains on both
    mined.jsonl         every sampled answer with its judgement
    mining.json         the numbers of both
    metrics.jsonl       progress while it runs
    summary.json        seconds, memory, tokens per second

Answers that are done are kept among the checkpoints (mined.partial.jsonl); every answer has a seed of its own, so a job that
was killed goes on and ends with the same bytes.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

import torch

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.decoder import Decoder
from rightcall.decoding.next_token import Sampling
from rightcall.evaluation.model import load_model, model_folder
from rightcall.evaluation.score import write_lines
from rightcall.job import metrics_log
from rightcall.job.folders import STOPPED, Job
from rightcall.job.partial_results import PartialResults
from rightcall.parallel.processes import memory_bytes
from rightcall.rollouts.mining_report import report, require_pairs
from rightcall.rollouts.pairs import Line, judge, make_pairs, write_pairs
from rightcall.rollouts.steps import choose, fitting, seed_of, training_steps
from rightcall.rows.snapshots import iter_snapshot, read_snapshot
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.template_check import load_template

logger = logging.getLogger(__name__)


def run(job: Job) -> None:
    """Samples, judges and pairs.

    Raises:
        DataError: no step fits, or there is nothing to reject.
        SystemExit: with status 143, when stopped; what is done is kept for the next run.
    """
    started = time.monotonic()
    if job.recipe.compute.threads:
        torch.set_num_threads(job.recipe.compute.threads)
    settings, dataset = job.recipe.mine, job.channel("dataset")
    folder = model_folder(job.channel("model"))
    template = load_template(folder, job.recipe.model.chat_template)
    held_out = iter_snapshot(dataset, "step") if (dataset / "step.parquet").is_file() else ()
    there = training_steps(iter_snapshot(dataset, "sft"), held_out)
    steps = choose(fitting(there, template, job.recipe.dpo.max_length), settings.steps, settings.seed)
    model = load_model(folder, trust_remote_code=job.recipe.model.trust_remote_code)
    work = Sampled(job, template, steps)
    lines = work.answer(Decoder(model, template.eos_ids, template.pad_id))
    write_lines(job.output / "mined.jsonl", lines)
    pairs = make_pairs(steps, lines, template, settings, job.recipe.dpo.max_length)
    given = read_snapshot(dataset, "preference") if (dataset / "preference.parquet").is_file() else []
    found = report(lines, pairs, template, from_data=len(given))
    found |= {"steps_there": len(there), "n_tokens": sum(row["n_tokens"] for row in [*given, *pairs.rows])}
    require_pairs(found)
    write_pairs(job.output / "preference.parquet", [*given, *pairs.rows])
    (job.output / "mining.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    work.write_summary(found, time.monotonic() - started)
    work.kept.forget()


class Sampled:
    """The answers to all chosen steps, on disk as they are written."""

    def __init__(self, job: Job, template: ChatTemplate, steps: Sequence[Row]) -> None:
        settings = job.recipe.mine
        self.job, self.template = job, template
        self.asked = [(step, sample) for step in steps for sample in range(settings.samples)]
        prompts = [template.encode_prompt(step["messages"][:-1], step["tools"]) for step in steps]
        self.prompts = [prompt for prompt in prompts for _ in range(settings.samples)]
        self.seeds = [seed_of(settings.seed, step, sample) for step, sample in self.asked]
        plan = [self.prompts, self.seeds, settings.temperature, settings.max_new_tokens, list(template.eos_ids)]
        digest = hashlib.sha256(json.dumps(plan).encode()).hexdigest()
        self.kept = PartialResults(job.checkpoints / "mined.partial.jsonl", digest)
        self.started, self.computed, self.tokens = time.monotonic(), 0, 0

    def answer(self, decoder: Decoder) -> list[Line]:
        """Every answer, judged, in the order of the steps."""
        settings = self.job.recipe.mine
        if self.kept.pieces:
            logger.info("going on after %d of %d answers of an earlier run", len(self.kept.pieces), len(self.asked))
        metrics_log.cut(self.job.output / "metrics.jsonl", len(self.kept.pieces))
        self.started = time.monotonic()
        answers = decoder.decode(
            self.prompts, max_new_tokens=settings.max_new_tokens,
            sampling=Sampling(settings.temperature, self.seeds), known=self.kept.pieces,
            on_done=self._keep, before_batch=self._stop_if_asked,
        )  # fmt: skip
        return [
            judge(step, sample, self.template.decode(ids), cut=len(ids) >= settings.max_new_tokens)
            for (step, sample), ids in zip(self.asked, answers, strict=True)
        ]

    def write_summary(self, found: dict[str, Any], seconds: float) -> None:
        spent = max(time.monotonic() - self.started, 1e-9)
        summary = {
            "stage": "mine",
            "steps": found["steps"],
            "seconds": round(seconds, 1),
            "tokens": self.tokens,
            "tokens_per_second": round(self.tokens / spent, 1),
            "peak_memory_bytes": memory_bytes(),
            "warnings": ["no sampled answer is right: every chosen side is the gold turn"]
            if not found["right"]
            else [],
        }
        (self.job.output / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
        logger.info(
            "mine: %d answers to %d steps, %d right, %d pairs, %.1f s",
            found["answers"], found["steps"], found["right"], found["pairs"], seconds,
        )  # fmt: skip

    def _keep(self, indices: list[int], answers: list[list[int]]) -> None:
        for index, ids in zip(indices, answers, strict=True):
            self.kept.add(index, ids)
        self.computed += len(indices)
        self.tokens += sum(map(len, answers))
        seconds = time.monotonic() - self.started
        done = len(self.kept.pieces)
        line = {
            "step": done,
            "total_steps": len(self.asked),
            "seconds": round(seconds, 3),
            "eta_seconds": round(seconds * (len(self.asked) - done) / self.computed, 1),
            "tokens_per_second": round(self.tokens / max(seconds, 1e-9), 1),
        }
        metrics_log.append(self.job.output / "metrics.jsonl", line)

    def _stop_if_asked(self) -> None:
        if self.job.stop_flag.exists():
            logger.info("asked to stop: %d of %d answers are kept", len(self.kept.pieces), len(self.asked))
            raise SystemExit(STOPPED)
