"""The evaluation's conversations or steps, to be looked up by what would be trained on: equal to one, or nearly so."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np

from data_checks.duplicates import Signatures, bands, combined_signatures, text_hash
from data_checks.row_content import calls_key, row_parts
from rightcall.rows.vocabulary import Row


class HeldOutConversations:
    """Grows by a hash and, with a threshold, by a signature of 512 bytes a conversation."""

    def __init__(self, threshold: float | None) -> None:
        self._threshold = threshold
        self._ids: list[str] = []
        self._exact: dict[int, int] = {}
        self._signatures: list[Signatures] = []
        self._buckets: dict[int, list[int]] = {}

    def add(self, rows: Sequence[Row]) -> None:
        first = len(self._ids)
        self._ids += [row["id"] for row in rows]
        for number, row in enumerate(rows, first):
            self._exact.setdefault(said_key(row["messages"]), number)
        if self._threshold is None or not rows:
            return
        found = _signatures(rows)
        self._signatures += list(found)
        for number, keys in enumerate(_bands(rows, found, self._threshold), first):
            for key in keys:
                self._buckets.setdefault(int(key), []).append(number)

    def repeated(self, rows: Sequence[Row]) -> list[str | None]:
        """Of each row the id of a held-out conversation that it repeats."""
        equal = [self._exact.get(said_key(row["messages"])) for row in rows]
        found: list[str | None] = [None if number is None else self._ids[number] for number in equal]
        if self._threshold is None or not rows:
            return found
        signatures = _signatures(rows)
        for row, keys in enumerate(_bands(rows, signatures, self._threshold)):
            near = sorted({number for key in keys for number in self._buckets.get(int(key), ())})
            if found[row] is not None or not near:
                continue
            alike = [(self._signatures[number] == signatures[row]).mean() for number in near]
            if max(alike) >= self._threshold:
                found[row] = self._ids[near[int(np.argmax(alike))]]
        return found


def said_key(messages: Sequence[Row]) -> int:
    """Of a whole conversation or step, without ids of calls and the system message."""
    spoken = [
        [message["role"], message["content"], [call["function"] for call in message.get("tool_calls") or ()]]
        for message in messages
        if message["role"] != "system"
    ]
    return text_hash(json.dumps(spoken, sort_keys=True))


def _signatures(rows: Sequence[Row]) -> Signatures:
    return combined_signatures([row_parts(row, "conversation") for row in rows])


def _bands(rows: Sequence[Row], found: Signatures, threshold: float) -> list[list[int]]:
    """Only conversations with equal calls can be alike."""
    return bands(found, threshold, [calls_key(row, "conversation") for row in rows]).tolist()
