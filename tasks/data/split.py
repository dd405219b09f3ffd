"""Conversations become rows: whole or turn by turn to train on, steps to be judged, a group never on both sides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from data_checks.held_out import HeldOutConversations
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.sections import DataSection
from rightcall.rows.conversations import later_starts, share_of, steps_of, without_front
from rightcall.rows.vocabulary import Row
from tasks.data import sources
from tasks.data.checked_rows import CheckedRows, Limit
from tasks.data.conversations import EVALUATION, TRAIN, Heard
from tasks.data.tally import Place

MOST_OF_ONE_GROUP = 0.5  # share of the steps; above it the split is that group's side
TRIED_SEEDS = 200


@dataclass
class Cut:
    """Conversations whose first turns were left out, on either side."""

    conversations: int = 0
    messages: int = 0
    turns: int = 0
    longest: int = 0  # tokens before


@dataclass
class Split:
    rows: CheckedRows
    data: DataSection
    template: ChatTemplate
    limits: dict[str, Limit]
    heard: Heard
    cuts: dict[str, Cut] = field(default_factory=lambda: {TRAIN: Cut(), EVALUATION: Cut()})

    def settle(self) -> None:
        """Finds who may not be trained on, and whether both sides have something.

        Raises:
            DataError: one group holds most of the steps, or a side that should have some has no group.
        """
        self._refuse_one_group()
        self._refuse_empty_side()
        held_out = {self.rows.group(n) for n in self.numbers(EVALUATION)}
        shared = {
            n: f"its group {self.rows.group(n)!r} is on the evaluation side too"
            for n in self.numbers(TRAIN)
            if self.rows.group(n) in held_out
        }
        self.rows.put_aside(shared, "leaks_evaluation")
        self.rows.put_aside(self._repeated(), "leaks_evaluation")

    def numbers(self, side: str) -> list[int]:
        return [int(n) for n in self.rows.candidates if self.rows.sides[n] == side]

    def training_rows(self) -> Iterator[tuple[Row, Place]]:
        """A conversation is a row, or, with train_on last, each of its turns."""
        for number, row in self.rows.stored():
            if row["side"] != TRAIN:
                continue
            place = self.rows.place(number)
            several = [row] if self.data.train_on == "all" else list(_turns(row))
            for each in several:
                fitted = self._fitted(each, TRAIN)
                sft = {name: value for name, value in fitted.items() if name not in ("side", "n_tokens")}
                yield sft | {"behaviour": fitted["trained"][-1][1]}, place

    def step_rows(self) -> Iterator[tuple[Row, Place]]:
        """Every assistant turn of the evaluation's conversations."""
        for number, row in self.rows.stored():
            if row["side"] == EVALUATION:
                for step in steps_of(row):
                    fitted = self._fitted(step | {"trained": [[len(step["messages"]) - 1, ""]]}, EVALUATION)
                    yield {name: value for name, value in fitted.items() if name != "trained"}, self.rows.place(number)

    def _repeated(self) -> dict[int, str]:
        """Training conversations that one of the evaluation's says as well, or nearly."""
        held_out = HeldOutConversations(self.data.near_duplicate_threshold)
        for batch in self._batches(EVALUATION):
            held_out.add([row for _, row in batch])
        found = {}
        for batch in self._batches(TRAIN):
            for (number, _), other in zip(batch, held_out.repeated([row for _, row in batch]), strict=True):
                if other is not None:
                    found[number] = f"it repeats {other!r} of the evaluation side, word for word or nearly"
        return found

    def _batches(self, side: str) -> Iterator[list[tuple[int, Row]]]:
        several = ((number, row) for number, row in self.rows.stored() if row["side"] == side)
        while batch := list(islice(several, 200)):
            yield batch

    def _fitted(self, row: Row, side: str) -> Row:
        """The row, or where the recipe says so the longest end of it that is short enough."""
        if self.data.too_long != "cut_front" or not later_starts(row):
            return row
        limit, tokens = self.limits[side].tokens, self._tokens(row, side)
        if tokens <= limit:
            return row
        starts = later_starts(row)
        low, high = 0, len(starts) - 1  # the first start that is short enough, by bisection
        while low < high:
            middle = (low + high) // 2
            if self._tokens(without_front(row, starts[middle]), side) <= limit:
                high = middle
            else:
                low = middle + 1
        shorter, cut = without_front(row, starts[low]), self.cuts[side]
        if not shorter["trained"] or self._tokens(shorter, side) > limit:
            return row  # too long all the same: the checks say so
        cut.conversations += 1
        cut.messages += len(row["messages"]) - len(shorter["messages"])
        cut.turns += len(row["trained"]) - len(shorter["trained"])
        cut.longest = max(cut.longest, tokens)
        return shorter

    def _tokens(self, row: Row, side: str) -> int:
        """0 = the template refuses the row, as the checks will find."""
        said = row["messages"] if side == TRAIN else row["messages"][:-1]
        try:
            text = self.template.render(said, row["tools"], add_generation_prompt=side != TRAIN)
            return len(self.template.tokenize(text))
        except DataError:
            return 0

    def _refuse_one_group(self) -> None:
        split = [n for n in map(int, self.rows.candidates) if self._is_split(n)]
        steps: Counter[str] = Counter()
        for number, turns in zip(split, self.rows.taught[split].sum(axis=1), strict=True):
            steps[self.rows.group(number)] += int(turns)
        total = sum(steps.values())
        if len(steps) < 2 or not total:
            return
        name, most = steps.most_common(1)[0]
        if most > MOST_OF_ONE_GROUP * total:
            raise DataError(
                f"the group {name!r} holds {most:,} of {total:,} steps ({most / total:.0%}) of the conversations "
                f"(data.group_by is {self.data.group_by!r}, {len(steps):,} groups): whichever side it falls on, the "
                "other has too little. Name another field in data.group_by, leave it out (then every conversation is a "
                "group of its own), or give the evaluation a source of its own with use: evaluation"
            )

    def _refuse_empty_side(self) -> None:
        groups = sorted({self.rows.group(n) for n in map(int, self.rows.candidates) if self._is_split(n)})
        if not groups:
            return
        for side in (EVALUATION, TRAIN):
            if self.numbers(side):
                continue
            raise DataError(
                f"all {len(groups):,} groups fall on the {'training' if side == EVALUATION else 'evaluation'} side, none "
                f"is left for {'evaluation' if side == EVALUATION else 'training'} (data.evaluation_share is "
                f"{self.data.evaluation_share:g}, data.seed {self.data.seed}, data.group_by {self.data.group_by!r}); "
                f"{self._seed_advice(groups)}"
            )

    def _seed_advice(self, groups: list[str]) -> str:
        share = self.data.evaluation_share
        others = "bring conversations of more groups, or name a source with use: evaluation"
        if len(groups) < 2:
            return f"one group cannot be split: name a finer data.group_by, or leave it out; or {others}"
        wanted = min(max(1, round(share * len(groups))), len(groups) - 1)
        for seed in range(self.data.seed + 1, self.data.seed + TRIED_SEEDS):
            if sum(share_of(name, seed) < share for name in groups) == wanted:
                return f"data.seed {seed} would hold out {wanted} of {len(groups)} groups; or {others}"
        return f"change data.evaluation_share; or {others}"

    def _is_split(self, number: int) -> bool:
        divided = {sources.short_name(each.uri, each.file) for each in self.data.conversations if each.use == "split"}
        return self.rows.tally.source(self.rows.place(number)) in divided


def _turns(row: Row) -> Iterator[Row]:
    """Each trained turn with all that was said before it."""
    for index, behaviour in row["trained"]:
        yield {
            **row,
            "id": f"{row['id']}/{index}",
            "messages": row["messages"][: index + 1],
            "trained": [[index, behaviour]],
        }


def describe_split(split: Split, kept: Sequence[int]) -> dict[str, Any]:
    """What checks.json says of conversations; ``kept``: numbers of those that became rows."""
    rows, heard = split.rows, split.heard
    sides = {
        side: {
            "conversations": len(own := [n for n in kept if rows.sides[n] == side]),
            "groups": len({rows.group(n) for n in own}),
            "steps": int(rows.taught[own].sum()),
        }
        for side in (TRAIN, EVALUATION)
    }
    return {
        "group_by": split.data.group_by,
        "sides": sides,
        "steps": {side: rows.behaviours([n for n in kept if rows.sides[n] == side]) for side in sides},
        "lengths": {source: percentiles(found) for source, found in rows.tally.lengths_of.items()},
        "limits": {side: limit._asdict() for side, limit in split.limits.items()},
        "cut": {side: asdict(cut) for side, cut in split.cuts.items() if cut.conversations},
        "redacted": dict(sorted(heard.redacted.items())),
        "endings_left_out": heard.endings,
        "greetings": heard.greetings,
    }


def percentiles(lengths: Sequence[int]) -> dict[str, int]:
    """{"n": 315, "p50": 1893, "p90": …, "p99": …, "longest": …}, in tokens."""
    found = {f"p{share}": int(np.percentile(lengths, share)) for share in (50, 90, 99)}
    return {"n": len(lengths), **found, "longest": max(lengths)}
