"""A probe: training steps that are set aside are answered freely now and then, and judged. What does the model write?

metrics.jsonl   {"step": 40, …, "probe_n": 32, "probe_right": 0.53, "probe_right_call": 0.5, "probe_overcall": 0.1}
progress.json   {"probes": {"0": {"probe_n": 32, …}, "40": {…}}}

A probe chooses among the weights of one run and warns; the evaluation steps stay unseen until the end.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from transformers import TrainerCallback, TrainerControl, TrainerState
from transformers import TrainingArguments as Arguments

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.decoder import Decoder
from rightcall.errors import DataError
from rightcall.parallel import processes
from rightcall.recipe.sections import TrainingSection
from rightcall.rows.conversations import judged_steps_of, steps_of
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.judging import beside_gold
from rightcall.training.callbacks import Metrics
from rightcall.training.checkpoints import best_step

logger = logging.getLogger(__name__)

STEPS_OF_GROUP = 4  # one long conversation says less than four others
LARGEST_SHARE = 10  # at most one group in so many is set aside
SPARE_TOKENS = 16

Numbers = dict[str, float]


class SetAside(NamedTuple):
    rows: list[Row]  # left to train on
    steps: list[Row]  # to be answered, of rows that are not trained on
    held: list[Row]  # the rows that are not trained on

    def without(self, pairs: Sequence[Row]) -> list[Row]:
        """The preference rows that ask for no turn of a held row."""
        known = {_key(step["messages"][:-1], step["tools"]) for row in self.held for step in steps_of(row)}
        return [pair for pair in pairs if _key(pair["prompt"], pair["tools"]) not in known]


def _key(*content: Any) -> str:
    return json.dumps(content, sort_keys=True)


def set_aside(rows: Sequence[Row], section: TrainingSection, template: ChatTemplate) -> SetAside:
    """Whole groups, in a seeded order, until they hold `probe_rows` steps, or are a tenth of all.

    The same rows, seed, `probe_rows` and `max_length` give the same groups to every stage.

    Raises:
        DataError: there is one group only, or no step of a group fits.
    """
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.get("group") or row["id"], []).append(row)
    if len(groups) < 2:
        raise DataError(
            f"all rows belong to one group, {next(iter(groups), None)!r}: none can be set aside for the probe; set "
            "probe_steps to 0, or bring conversations of several users"
        )
    order = sorted(groups)
    generator = random.Random(section.seed)  # noqa: S311 (not cryptography)
    generator.shuffle(order)
    steps: list[Row] = []
    taken: set[str] = set()
    for name in order[: max(1, len(order) // LARGEST_SHARE)]:
        if len(steps) >= section.probe_rows:
            break
        found = [
            step for row in groups[name] for step in judged_steps_of(row) if _fits(step, section.max_length, template)
        ]
        generator.shuffle(found)
        steps += found[: min(STEPS_OF_GROUP, section.probe_rows - len(steps))]
        taken.add(name)
    if not steps:
        raise DataError(
            f"no turn of the {len(taken)} groups that were set aside for the probe fits into "
            f"max_length={section.max_length!r} tokens; raise it, or set probe_steps to 0"
        )
    kept = [row for row in rows if (row.get("group") or row["id"]) not in taken]
    held = [row for row in rows if (row.get("group") or row["id"]) in taken]
    logger.info("probe: %d steps of %d groups, whose %d rows are not trained on", len(steps), len(taken), len(held))
    return SetAside(kept, steps, held)


def _fits(step: Row, max_length: int, template: ChatTemplate) -> bool:
    try:
        prompt, answer = template.encode_pair(step["messages"][:-1], step["tools"], step["messages"][-1])
    except DataError:  # the row's other turns may be trained on
        return False
    return len(prompt) + len(answer) <= max_length


class Probe:
    """The steps and the model that answers them; made before our forward is patched over the model's."""

    def __init__(self, steps: Sequence[Row], model: Any, template: ChatTemplate, *, low_precision: bool) -> None:
        self._steps, self._template, self._low_precision = steps, template, low_precision
        pairs = [template.encode_pair(step["messages"][:-1], step["tools"], step["messages"][-1]) for step in steps]
        self._prompts = [prompt for prompt, _ in pairs]
        # room for other words than gold's; an answer of twice its length is hardly ever right
        self._limits = [2 * len(answer) + SPARE_TOKENS for _, answer in pairs]
        self._decoder = Decoder(model, template.eos_ids, template.pad_id)

    def ask(self, model: Any, before_batch: Callable[[], None]) -> Numbers:
        """Shares of right answers; `model` is the trainer's, around the one that was given."""
        training = model.training
        model.eval()
        try:
            answers = self._decoder.decode(
                self._prompts, max_new_tokens=self._limits, low_precision=self._low_precision, before_batch=before_batch
            )
        finally:
            model.train(training)
        return numbers(self._steps, [self._template.decode(ids) for ids in answers])


def numbers(steps: Sequence[Row], texts: Sequence[str]) -> Numbers:
    """probe_n and the shares; one that no step asks about is left out."""
    flags: dict[str, list[bool]] = {"probe_right": [], "probe_right_call": [], "probe_overcall": []}
    for step, text in zip(steps, texts, strict=True):
        _, verdict, _ = beside_gold(step, text)
        flags["probe_right"].append(verdict.ok)
        if step["behaviour"] == "tool_call":
            flags["probe_right_call"].append(verdict.ok)
        else:
            flags["probe_overcall"].append(verdict.valid_call is not None)
    return {"probe_n": len(steps)} | {name: sum(some) / len(some) for name, some in flags.items() if some}


class _Stopped(Exception):
    pass


class Probing(TrainerCallback):
    """Asks before the first step, every `every` steps and after the last; rank 0 writes, and all ranks know."""

    def __init__(
        self, probe: Probe, trainer: Any, section: TrainingSection, metrics: Metrics, stopped: Callable[[], bool]
    ) -> None:
        self._probe, self._trainer, self._metrics, self._stopped = probe, trainer, metrics, stopped
        self._every, self._keeps_best = section.probe_steps, section.keep == "best"
        self._probes: dict[str, Numbers] = metrics.progress.setdefault("probes", {})

    def on_train_begin(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Also where a stop has cut off the probe of the checkpoint's step."""
        if found := self._ask(state):
            self._metrics.add_before(state, found)

    def on_step_end(self, args: Arguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if found := self._ask(state):
            self._metrics.add(found)
            if self._keeps_best and best_step(self._probes) == state.global_step:
                control.should_save = True

    def _ask(self, state: TrainerState) -> Numbers | None:
        step = state.global_step
        due = step % self._every == 0 or step >= state.max_steps
        if not due or str(step) in self._probes:
            return None
        started = time.monotonic()
        found: Numbers | None = None
        if processes.world().first:
            over = step >= state.max_steps  # then the run ends as if nobody had asked: it needs this probe
            try:
                found = self._probe.ask(self._trainer.model, (lambda: None) if over else self._stop)
            except _Stopped:
                logger.info("the probe of step %d is left to the next start: a stop was asked for", step)
        found = processes.from_first(found)
        seconds = time.monotonic() - started
        self._metrics.leave_out(seconds)
        if found is None:
            return None
        self._probes[str(step)] = found
        shares = ", ".join(f"{name.removeprefix('probe_')} {found[name]:.2f}" for name in found if name != "probe_n")
        logger.info("probe of step %d: %s (n=%d, %.1f s)", step, shares, found["probe_n"], seconds)
        return found

    def _stop(self) -> None:
        if self._stopped():
            raise _Stopped
