"""A sample of items answered freely: greedy decoding through the template of training, each answer judged."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedModel

from rightcall.chat.template import ChatTemplate
from rightcall.evaluation.questions import answer_message
from rightcall.job.partial_results import PartialResults
from rightcall.recipe.sections import EvaluationSection
from rightcall.rows.vocabulary import BEHAVIOURS
from rightcall.toolcalls import verifier

logger = logging.getLogger(__name__)

BATCH_ROWS = 16
Row = Mapping[str, Any]


def sample(rows: Sequence[Row], n: int, seed: int) -> list[Row]:
    """Up to n rows, as many of each gold behaviour as there are, in the order of the rows."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    waiting = []
    for name in BEHAVIOURS:
        indices = [index for index, row in enumerate(rows) if row["correct_answer"] == name]
        generator.shuffle(indices)
        waiting.append(indices)
    taken: list[int] = []
    while len(taken) < n and any(waiting):
        for indices in waiting:
            if indices and len(taken) < n:
                taken.append(indices.pop())
    return [rows[index] for index in sorted(taken)]


def answer_rows(
    model: PreTrainedModel,
    template: ChatTemplate,
    rows: Sequence[Row],
    settings: EvaluationSection,
    *,
    kept: Path | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> list[dict[str, Any]]:
    """Lines of generations.jsonl for these choice rows, in their order; `kept`: file of the batches that are done."""
    prompts = [template.encode_prompt([{"role": "user", "content": row["question"]}], row["tools"]) for row in rows]
    finished = PartialResults(kept, _digest(template, prompts, settings)) if kept is not None else None
    texts = complete(model, template, prompts, settings, finished=finished, before_batch=before_batch)
    return [judge(row, text) for row, text in zip(rows, texts, strict=True)]


def complete(
    model: PreTrainedModel,
    template: ChatTemplate,
    prompts: Sequence[Sequence[int]],
    settings: EvaluationSection,
    *,
    finished: PartialResults | None = None,
    before_batch: Callable[[], None] = lambda: None,
) -> list[str]:
    """What the model writes after each prompt, up to its end-of-turn token or `max_new_tokens`.

    Batches in `finished` are not computed again; `before_batch` may raise to end the work between two of them.
    """
    started, written = time.monotonic(), 0
    decoding = GenerationConfig(
        max_new_tokens=settings.max_new_tokens,
        do_sample=False,
        eos_token_id=template.eos_ids,
        pad_token_id=template.pad_id,
    )
    # batches of equal lengths hold little padding
    order = sorted(range(len(prompts)), key=lambda index: (len(prompts[index]), index))
    texts: dict[int, str] = {}
    for number, start in enumerate(range(0, len(order), BATCH_ROWS)):
        batch = order[start : start + BATCH_ROWS]
        if finished is None or number not in finished.pieces:
            before_batch()
            answers = _decode(model, [prompts[index] for index in batch], decoding, settings.dtype)
            lines = [_until(ids, template.eos_ids) for ids in answers]
            written += sum(map(len, lines))
            if finished is not None:
                finished.add(number, lines)
                logger.info("%d of %d prompts answered", min(start + BATCH_ROWS, len(order)), len(order))
        else:
            lines = finished.pieces[number]
        texts |= {index: template.decode(ids) for index, ids in zip(batch, lines, strict=True)}
    logger.info("generated %d tokens for %d prompts in %.1f s", written, len(prompts), time.monotonic() - started)
    return [texts[index] for index in range(len(prompts))]


def judge(row: Row, text: str) -> dict[str, Any]:
    """One line of generations.jsonl."""
    gold = row["correct_answer"]
    call = answer_message(row, gold)["tool_calls"][0]["function"] if gold == "tool_call" else None
    parsed = verifier.parse(text)
    verdict = verifier.compare(parsed, call, row["tools"], gold_behaviour=gold)
    error = None if parsed.error is None else str(parsed.error)
    return {
        "id": row["id"],
        "gold": gold,
        "text": parsed.text,
        "parsed": {"behaviour": parsed.behaviour_guess, "calls": parsed.calls, "error": error},
        "verdict": verdict._asdict(),
        "error_kind": verdict.error_kind,
    }


def _digest(template: ChatTemplate, prompts: Sequence[Sequence[int]], settings: EvaluationSection) -> str:
    """sha256 of all that decides which batches there are and what a model writes."""
    plan = [list(map(list, prompts)), BATCH_ROWS, settings.max_new_tokens, settings.dtype, list(template.eos_ids)]
    return hashlib.sha256(json.dumps(plan).encode()).hexdigest()


def _decode(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], decoding: GenerationConfig, dtype: str
) -> list[list[int]]:
    device = next(model.parameters()).device
    longest = max(map(len, prompts))
    pad = decoding.pad_token_id
    ids = torch.tensor([[pad] * (longest - len(prompt)) + list(prompt) for prompt in prompts], device=device)
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=device)
    with torch.no_grad(), torch.autocast(device.type, dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
        out = model.eval().generate(input_ids=ids, attention_mask=mask, generation_config=decoding)
    new: list[list[int]] = out[:, longest:].tolist()
    return new


def _until(ids: Sequence[int], ends: Sequence[int]) -> list[int]:
    for position, token in enumerate(ids):
        if token in ends:
            return list(ids[:position])
    return list(ids)
