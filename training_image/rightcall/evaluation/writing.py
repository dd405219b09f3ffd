"""Steps answered freely (greedy), and again with what a call holds constrained to the tools' schemas; each answer judged.

The grammar mostly agrees with what the model writes: its answer is the free one up to the first token that it forbids, and
only from there on is decoded again. Batches are kept on disk as they are done, so that a job which was killed goes on
after them; which prompts share a batch does not depend on what is done, so it ends as one that was never stopped.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.decoder import Decoder
from rightcall.decoding.grammar import Grammar
from rightcall.decoding.next_token import Constraint
from rightcall.evaluation.progress import NEW_TOKEN, Progress
from rightcall.evaluation.steps import tokens_read
from rightcall.job.partial_results import PartialResults
from rightcall.recipe.sections import EvaluationSection, PolicySection
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.conduct import Conduct
from rightcall.toolcalls.judging import judge_step

EXPECTED_TOKENS = 40  # of an answer, before any is written
EXPECTED_VIOLATIONS = 0.2  # share of free answers that the grammar changes, before they are known


@dataclass(frozen=True)
class Turns:
    """What is to be written: steps, the prompt of each, and how long an answer may be."""

    template: ChatTemplate
    steps: Sequence[Row]
    prompts: Sequence[Sequence[int]]
    settings: EvaluationSection


class Writing:
    """One model writing the turns; `kept` is the folder of what is done."""

    def __init__(self, model: Any, turns: Turns, progress: Progress, kept: Path) -> None:
        self._template, self._settings = turns.template, turns.settings
        self._steps, self._prompts = turns.steps, turns.prompts
        self.decoder = Decoder(model, turns.template.eos_ids, turns.template.pad_id)
        self._progress = progress
        self._kept = kept
        self._files: list[PartialResults] = []

    def free(self) -> list[list[int]]:
        """Ids of the free answers."""
        n, limit = len(self._prompts), self._settings.max_new_tokens
        return self._answers("free", range(n), self._prompts, [limit] * n, None)

    def under_grammar(self, free: Sequence[Sequence[int]], grammar: Grammar) -> list[list[int]]:
        """Ids of the answers under the grammar: the free one where it allows that, else decoded on from the first violation.

        A call that would be longer than an answer may be is closed.
        """
        violations = {
            index: place
            for index, (ids, step) in enumerate(zip(free, self._steps, strict=True))
            if (place := grammar.first_violation(ids, step["tools"])) is not None
        }
        changed = list(violations)
        prompts = [[*self._prompts[index], *free[index][: violations[index]]] for index in changed]
        room = self.decoder.limits(self._prompts, self._settings.max_new_tokens)
        limits = [room[index] - violations[index] for index in changed]
        constraints = []
        for index in changed:
            constraint = grammar.constraint(self._steps[index]["tools"])
            for token in free[index][: violations[index]]:
                constraint.accept(token)
            constraints.append(constraint)
        found = self._answers("grammar", changed, prompts, limits, constraints)
        answers = [list(ids) for ids in free]
        for index, ids in zip(changed, found, strict=True):
            answer = [*free[index][: violations[index]], *ids]
            answers[index] = grammar.close(answer, self._steps[index]["tools"], room[index])
        return answers

    def forget(self) -> None:
        """The answers are stored elsewhere now."""
        for file in self._files:
            file.forget()

    def _answers(
        self,
        part: str,
        indices: Sequence[int],
        prompts: Sequence[Sequence[int]],
        limits: Sequence[int],
        constraints: Sequence[Constraint] | None,
    ) -> list[list[int]]:
        tools = [self._steps[index]["tools"] for index in indices] if constraints is not None else None
        file = PartialResults(self._kept / f"{part}.partial.jsonl", self._digest(prompts, limits, tools))
        self._files.append(file)
        progress = self._progress
        known: dict[int, list[int]] = {}
        for indices_done, answers_done in file.pieces.values():
            known |= zip(indices_done, answers_done, strict=True)
        progress.expect(part, self._weight(prompts, []) + self._expected_new(len(prompts)))
        progress.known(part, len(self._prompts) - len(prompts), 0.0)
        progress.known(part, len(known), self._weight([prompts[index] for index in known], list(known.values())))
        before = [time.monotonic(), float(progress.tokens)]

        def keep(done: Sequence[int], answers: Sequence[Sequence[int]]) -> None:
            file.add(len(file.pieces), [list(done), [list(ids) for ids in answers]])
            now = [time.monotonic(), float(progress.tokens)]
            weight = self._weight([prompts[index] for index in done], answers)
            progress.add(part, len(done), weight, now[0] - before[0], int(now[1] - before[1]))
            before[:] = now

        with progress.watching(self.decoder.model, part):
            found = self.decoder.decode(
                prompts,
                max_new_tokens=limits,
                low_precision=self._settings.dtype == "bfloat16",
                constraints=constraints,
                known=known,
                on_done=keep,
                before_batch=progress.stop_if_asked,
            )
        progress.settle(part)
        return found

    def _expected_new(self, answers: int) -> float:
        return NEW_TOKEN * min(EXPECTED_TOKENS, self._settings.max_new_tokens) * answers

    @staticmethod
    def _weight(prompts: Sequence[Sequence[int]], answers: Sequence[Sequence[int]]) -> float:
        return tokens_read(prompts) + NEW_TOKEN * sum(map(len, answers))

    def _digest(self, *plan: Any) -> str:
        """sha256 of all that decides which batches there are and what a model writes."""
        text = json.dumps([*plan, self._settings.dtype, list(self._template.eos_ids)])
        return hashlib.sha256(text.encode()).hexdigest()


def expected_weights(turns: Turns) -> tuple[float, float]:
    """Of the free answers and of those under the grammar, before anything is written."""
    new = min(EXPECTED_TOKENS, turns.settings.max_new_tokens) * len(turns.prompts)
    free = tokens_read(turns.prompts) + NEW_TOKEN * new
    return free, EXPECTED_VIOLATIONS * free


def written_lines(
    turns: Turns, free: Sequence[Sequence[int]], grammar: Sequence[Sequence[int]] | None
) -> list[dict[str, Any]]:
    """Lines of written.jsonl in the order of the steps; `cut`: the answer is as long as an answer may be."""
    lines = []
    for index, step in enumerate(turns.steps):
        judged = _judge(turns, step, free[index])
        line = {name: step[name] for name in ("id", "conversation", "group", "behaviour")} | judged
        if step.get("situation"):
            line["situation"] = step["situation"]
        same = grammar is not None and list(grammar[index]) == list(free[index])
        line["grammar"] = None if grammar is None else judged if same else _judge(turns, step, grammar[index])
        lines.append(line)
    return lines


def _judge(turns: Turns, step: Row, ids: Sequence[int]) -> dict[str, Any]:
    text, conduct = turns.template.decode(ids), conduct_of(turns.settings.policy)
    judged = judge_step(step, text, conduct, turns.template.dialect)
    return judged | {"cut": len(ids) >= turns.settings.max_new_tokens}


def conduct_of(policy: PolicySection | None) -> Conduct | None:
    if policy is None:
        return None
    return Conduct(frozenset(policy.authenticate), frozenset(policy.write), frozenset(policy.open), policy.confirm)
