"""The same question with another right answer: the same policy, tools, history and last turn, but another call, or none.

Two texts of one behaviour are wordings; a call against another call, or against a text, cannot both be right.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from data_checks.duplicates import normalise
from rightcall.rows.conversations import trained_turns
from rightcall.rows.vocabulary import Row, RowKind

NO_CALL = 0  # the answer of every turn without a call
KINDS: tuple[RowKind, ...] = ("sft", "step")


class Contradiction(NamedTuple):
    turn: int  # of the row: index of its message
    other: int  # number of the other row
    other_turn: int


class Contradictions:
    """Two hashes and a number for each turn."""

    def __init__(self, kind: RowKind) -> None:
        self._active = kind in KINDS
        self._asked, self._answered, self._row, self._index = array("Q"), array("Q"), array("q"), array("i")
        self._count = 0

    def add(self, rows: Sequence[Row]) -> None:
        for number, row in enumerate(rows, self._count):
            for index, asked, answered in _turns(row) if self._active else ():
                self._index.append(index)
                self._asked.append(asked)
                self._answered.append(answered)
                self._row.append(number)
        self._count += len(rows)

    def find(self) -> dict[int, Contradiction]:
        """Rows of which another answers a question differently."""
        other: dict[int, Contradiction] = {}
        if not self._asked:
            return other
        asked, answered = (np.frombuffer(each, dtype=np.uint64) for each in (self._asked, self._answered))
        row = np.frombuffer(self._row, dtype=np.int64)
        order = np.lexsort((row, asked))
        edges = np.flatnonzero(np.r_[True, asked[order][1:] != asked[order][:-1], True])
        for start, end in pairwise(edges):
            turns = order[start:end]
            if end - start < 2 or len(set(answered[turns].tolist())) < 2:
                continue
            for turn in turns:
                unlike = turns[answered[turns] != answered[turn]]
                against = int(unlike[0])
                found = Contradiction(self._index[turn], int(row[against]), self._index[against])
                other.setdefault(int(row[turn]), found)
        return other


def _turns(row: Row) -> list[tuple[int, int, int]]:
    """(index of the message, question, answer) of every turn that is trained or judged."""
    last = len(row["messages"]) - 1
    wanted = {index for index, _ in trained_turns(row)} if "conversation" not in row else {last}
    if not row.get("trained") and "conversation" not in row:
        wanted = {last}  # a row of one label: its earlier turns have none
    so_far = hashlib.blake2b(json.dumps(row["tools"], sort_keys=True).encode(), digest_size=8)
    found = []
    for index, message in enumerate(row["messages"]):
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        answer = json.dumps(calls, sort_keys=True)
        if index in wanted:
            found.append((index, _number(so_far.digest()), _answer(answer) if calls else NO_CALL))
        said = normalise(message["content"]) if message["role"] == "user" else message["content"]
        so_far.update(f"\0{message['role']}\0{said}\0{answer}".encode())
    return found


def _answer(calls: str) -> int:
    return _number(hashlib.blake2b(calls.encode(), digest_size=8).digest())


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")
