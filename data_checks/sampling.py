"""Which rows make the sample: balanced over classes, whole groups together, the same for the same seed."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LOOK_AHEAD = 64  # rows that one choice is made of


def shares(available: dict[str, int], wanted: int) -> dict[str, int]:
    """How many rows each class gives: equally many; what a small class lacks is shared out among the others.

    shares({"a": 10, "b": 2, "c": 10}, 12) = {"a": 5, "b": 2, "c": 5}
    """
    given = dict.fromkeys(available, 0)
    left = min(wanted, sum(available.values()))
    while left:
        unfilled = sorted((given[name], name) for name in available if given[name] < available[name])
        each = left // len(unfilled)
        for _, name in unfilled if each else unfilled[:left]:
            more = min(max(each, 1), available[name] - given[name])
            given[name] += more
            left -= more
    return given


def balanced_sample(classes: Sequence[tuple[str, ...]], wanted: int, seed: int) -> list[int]:
    """Sorted indexes of the sample; ``classes`` from outer to inner, as in (behaviour, rejected_kind)."""
    return sorted(_sample(list(range(len(classes))), classes, 0, wanted, np.random.default_rng(seed)))


def whole_groups(groups: Sequence[str], wanted: int, seed: int) -> list[int]:
    """Sorted indexes of the rows of whole groups, in an order that depends on their names, until there are enough."""
    members: dict[str, list[int]] = defaultdict(list)
    for row, name in enumerate(groups):
        members[name].append(row)
    chosen: list[int] = []
    for name in sorted(members, key=lambda name: hashlib.blake2b(f"{seed}\0{name}".encode()).digest()):
        if len(chosen) >= wanted:
            break
        chosen += members[name]
    return sorted(chosen)


def balanced_whole_rows(taught: NDArray[np.int64], wanted: int, seed: int) -> list[int]:
    """Sorted indexes of ``wanted`` rows whose turns, taken together, are as balanced as whole rows allow.

    taught: (rows, behaviours) numbers of turns. Of the next rows of a drawn order the one is taken that makes the
    behaviours' shares most even.
    """
    waiting = list(np.random.default_rng(seed).permutation(len(taught)))
    total = np.zeros(taught.shape[1])
    chosen: list[int] = []
    while waiting and len(chosen) < wanted:
        ahead = waiting[:LOOK_AHEAD]
        after = total + taught[ahead]
        share = after / after.sum(axis=1, keepdims=True)
        best = int((share**2).sum(axis=1).argmin())
        total = after[best]
        chosen.append(int(waiting.pop(best)))
    return sorted(chosen)


def _sample(
    rows: list[int], classes: Sequence[tuple[str, ...]], level: int, wanted: int, generator: np.random.Generator
) -> list[int]:
    if not rows or level == len(classes[rows[0]]):
        return [rows[index] for index in generator.permutation(len(rows))[:wanted]]
    by_class: dict[str, list[int]] = defaultdict(list)
    for row in rows:
        by_class[classes[row][level]].append(row)
    quota = shares({name: len(members) for name, members in by_class.items()}, wanted)
    return [
        row for name in sorted(by_class) for row in _sample(by_class[name], classes, level + 1, quota[name], generator)
    ]


def grouped_sample(
    classes: Sequence[str], groups: Sequence[str], wanted: int, seed: int, first: Sequence[int] = ()
) -> list[int]:
    """Sorted indexes of at most ``wanted`` rows, balanced over classes; a group is taken whole or not at all.

    A group is a contrast: the same tools, and another right behaviour for each question; "" = no group. ``first``
    are rows that are in the sample in any case.
    """
    available = Counter(classes)
    rank = {name: place for place, name in enumerate(sorted(available, key=lambda name: (available[name], name)))}
    members: dict[str, list[int]] = defaultdict(list)
    for row in sorted(set(range(len(classes))) - set(first)):
        members[groups[row] or f"\0{row}"].append(row)
    names = sorted(members)
    order = [members[names[index]] for index in np.random.default_rng(seed).permutation(len(names))]
    # groups with a scarce class first, or its room is used up by the plentiful ones beside it
    order.sort(key=lambda rows: min(rank[classes[row]] for row in rows))
    limit = shares(dict(available), wanted)
    chosen = list(first)
    counts = Counter(classes[row] for row in first)
    # First what every class still has room for, then whatever fits, so that a sample is full where it can be.
    for strict in (True, False):
        left = []
        for rows in order:
            more = Counter(classes[row] for row in rows)
            fits = len(chosen) + len(rows) <= wanted
            if fits and not (strict and any(counts[name] + n > limit[name] for name, n in more.items())):
                chosen += rows
                counts += more
            else:
                left.append(rows)
        order = left
    return sorted(chosen)
