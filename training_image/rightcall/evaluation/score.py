"""The stage `score`: the model channel's model on the dataset channel's steps and items; one of the two must be there.

    written.jsonl  a line per step: what the model wrote in its place, freely and under the grammar, judged
    items.jsonl    a line per multiple-choice item: log-likelihoods, predictions; empty when there are none
    scores.json    every metric with n, faults, confusion matrix, the keyword rule beside it; no intervals: they are
                   computed from the lines when shown, so that their settings may change without scoring again
    metrics.jsonl  progress while it runs
    summary.json   seconds, memory, tokens per second

Timings stand in summary.json and metrics.jsonl only, so that equal models get equal lines and scores.
What is done is kept among the checkpoints (items, free, grammar: *.partial.jsonl): a job that was killed, or asked to
stop, goes on after it.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.grammar import Grammar
from rightcall.errors import RecipeError, ScoringError
from rightcall.evaluation.model import load_model, model_folder
from rightcall.evaluation.multiple_choice import PART, Item, Plan, score_items
from rightcall.evaluation.progress import Part, Progress
from rightcall.evaluation.questions import Question, read_questions
from rightcall.evaluation.steps import read_prompts, steps_to_write
from rightcall.evaluation.writing import Turns, Writing, conduct_of, expected_weights, written_lines
from rightcall.job.folders import Job
from rightcall.job.partial_results import PartialResults
from rightcall.likelihood.scorer import Scorer
from rightcall.measurement import metrics, written
from rightcall.measurement.baseline import rule_items
from rightcall.parallel.processes import memory_bytes
from rightcall.recipe.sections import EvaluationSection
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.schema import tool_function
from rightcall.toolcalls.template_check import load_template

logger = logging.getLogger(__name__)


def run(job: Job) -> None:
    started = time.monotonic()
    if job.recipe.compute.threads:
        torch.set_num_threads(job.recipe.compute.threads)
    settings = job.recipe.evaluation
    folder = model_folder(job.channel("model"))
    choice_rows, step_rows = read_rows(job.channel("dataset"))
    template = load_template(folder, job.recipe.model.chat_template)
    questions = read_questions(template, choice_rows, settings.prompt)
    steps = steps_to_write(step_rows, choice_rows, settings.generation_items, settings.seed)
    grammar = known_grammar(template) if settings.grammar and steps else None
    settings = settings.model_copy(update={"grammar": grammar is not None})
    turns = Turns(template, steps, read_prompts(template, steps), settings)
    model = load_model(folder, trust_remote_code=job.recipe.model.trust_remote_code)
    scoring = Scoring(job, model, questions, turns)
    items = scoring.choose()
    lines = scoring.write(grammar)
    scores = summarise(choice_rows, items, lines, settings)
    scores |= {"tokens_forward": scoring.tokens_forward, "tokens_naive": scoring.tokens_naive}
    write_lines(job.output / "items.jsonl", items)
    write_lines(job.output / "written.jsonl", lines)
    _write_json(job.output / "scores.json", scores)
    seconds = time.monotonic() - started
    _write_json(job.output / "summary.json", scoring.summary(seconds))
    scoring.forget()
    logger.info(
        "scored %d items and %d written steps in %.1f s: %s", len(items), len(lines), seconds, _headline(scores)
    )


def known_grammar(template: ChatTemplate) -> Grammar | None:
    """None, and a warning, where nobody knows how the template writes calls: then only free answers are scored."""
    try:
        return Grammar(template)
    except RecipeError as err:
        logger.warning("free answers only: %s", err)
        return None


def read_rows(snapshot: Path) -> tuple[list[Row], list[Row]]:
    """Multiple-choice items and steps of a snapshot; either may be missing.

    Raises:
        ScoringError: it holds neither.
    """
    choices, steps = (
        list(read_snapshot(snapshot, kind)) if (snapshot / f"{kind}.parquet").is_file() else []
        for kind in ("choice", "step")
    )
    if not choices and not steps:
        raise ScoringError(
            f"the snapshot {str(snapshot)!r} has nothing to evaluate: 0 multiple-choice items and 0 steps of conversations; "
            "check data.evaluation and data.conversations in the recipe"
        )
    return choices, steps


class Scoring:
    """One model's work on one evaluation: items chosen, steps written; on disk as it is done."""

    def __init__(self, job: Job, model: Any, questions: Sequence[Question], turns: Turns) -> None:
        self._turns = turns
        self._plan = Plan(Scorer(model), questions, turns.settings)
        self._finished = PartialResults(job.checkpoints / "items.partial.jsonl", self._plan.digest)
        free, grammar = expected_weights(turns)
        n = len(turns.steps)
        parts = [Part(PART, len(questions), self._plan.tokens_naive), Part("free", n, free)]
        parts += [Part("grammar", n, grammar)] if turns.settings.grammar and n else []
        self._progress = Progress(job, *parts)
        self._writing = Writing(model, turns, self._progress, job.checkpoints)
        self.tokens_forward = 0  # of the items, whoever computed them
        self.warnings = unknown_policy_tools(turns.steps, turns.settings)

    @property
    def tokens_naive(self) -> int:
        """What one sequence at a time would feed to the model for the items."""
        return self._plan.tokens_naive

    def choose(self) -> list[Item]:
        """Lines of items.jsonl."""
        scored = score_items(self._plan, self._finished, self._progress)
        self.tokens_forward = sum(each.tokens for each in scored.values())
        return self._plan.in_order(scored)

    def write(self, grammar: Grammar | None) -> list[dict[str, Any]]:
        """Lines of written.jsonl."""
        free = self._writing.free()
        constrained = self._writing.under_grammar(free, grammar) if grammar is not None else None
        return written_lines(self._turns, free, constrained)

    def forget(self) -> None:
        self._finished.forget()
        self._writing.forget()

    def summary(self, seconds: float) -> dict[str, Any]:
        parts = self._progress.parts.values()
        tokens, worked = sum(part.tokens for part in parts), self._progress.seconds
        warnings = list(self.warnings)
        if self._plan.tokens_naive and not self._plan.scorer.uses_trees:
            warnings.append("scored question by question: the model's attention takes no prefix trees")
        if self._turns.steps and not self._writing.decoder.uses_trees:
            warnings.append("answers were written without shared prefixes: the model's attention takes no prefix trees")
        return {
            "steps": self._progress.total,
            "seconds": round(seconds, 1),
            "scoring_seconds": round(worked, 1),
            **{f"{part.name}_seconds": round(part.seconds, 1) for part in parts},
            "tokens": tokens,
            "tokens_per_second": round(tokens / worked, 1) if worked else None,
            "peak_memory_bytes": memory_bytes(),
            "warnings": warnings,
        }


def unknown_policy_tools(steps: Sequence[Row], settings: EvaluationSection) -> list[str]:
    """A warning when the policy names tools that no step offers: its faults would never be found."""
    conduct = conduct_of(settings.policy)
    if conduct is None or not steps:
        return []
    offered = {tool_function(tool).get("name") for step in steps for tool in step["tools"]}
    unknown = sorted((conduct.authenticate | conduct.write | conduct.open) - offered)
    if not unknown:
        return []
    warning = f"evaluation.policy names tools that no step offers: {unknown!r}; correct the names"
    logger.warning("%s", warning)
    return [warning]


def summarise(
    choice_rows: Sequence[Row], items: Sequence[Item], lines: Sequence[Mapping[str, Any]], settings: EvaluationSection
) -> dict[str, Any]:
    """scores.json: nothing in it depends on how long the work took, or on settings that are not in the stage's key."""
    chosen: dict[str, Any] = {}
    if items:
        rule = rule_items(choice_rows)
        chosen = {
            "confusion": metrics.confusion(items),
            "confusion_acc": metrics.confusion(items, "prediction"),
            "baseline_rule": {"metrics": metrics.plain_values(rule), "confusion": metrics.confusion(rule)},
            "prompt": settings.prompt,
            "rescored": sum(item["rescored"] for item in items),
        }
    return {
        "metrics": written.plain_values(lines) | (metrics.plain_values(items) if items else {}),
        "faults": written.fault_table(lines),
        **chosen,
        "dtype": settings.dtype,
        "n": len(items),
        "n_written": len(lines),
    }


def _headline(scores: Mapping[str, Any]) -> str:
    found = scores["metrics"]
    return ", ".join(
        f"{name} {found[name]['value']:.3f}" for name in ("right", "overcall", "acc_norm") if name in found
    )


def write_lines(path: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    # half of a surrogate pair has no UTF-8; its backslash escape is JSON's own
    path.write_text(text, encoding="utf-8", errors="backslashreplace")


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
