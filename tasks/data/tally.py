"""What is counted of one kind of rows: read, quarantined, why, of which source, with an example of each reason."""

from __future__ import annotations

from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from data_checks.rules import severity_of

EXAMPLE_CHARACTERS = 240


class Place(NamedTuple):
    source: str
    line: int
    size_bytes: int


@dataclass
class Tally:
    read: int = 0
    quarantined: int = 0
    critical: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    read_of: Counter[str] = field(default_factory=Counter)  # source → rows
    reasons_of: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))  # source → reason → rows
    lengths_of: dict[str, array[int]] = field(
        default_factory=lambda: defaultdict(lambda: array("i"))
    )  # source → tokens
    unused: dict[str, Counter[str]] = field(
        default_factory=lambda: defaultdict(Counter)
    )  # source → column or field of a message that no part of a row is made of → distinct rows
    _source_of: dict[str, str] = field(default_factory=dict)  # file → the source it belongs to

    def belongs(self, file: str, source: str) -> None:
        """A folder's files are counted together."""
        self._source_of[file] = source

    def note_read(self, place: Place) -> None:
        self.read += 1
        self.read_of[self.source(place)] += 1

    def note_length(self, place: Place, tokens: int) -> None:
        self.lengths_of[self.source(place)].append(tokens)

    def note_put_aside(self, reasons: Iterable[str]) -> None:
        self.quarantined += 1
        self.critical += any(severity_of(reason) == "critical" for reason in reasons)

    def note_reason(self, reason: str, place: Place, shown: str) -> None:
        self.reasons[reason] += 1
        self.reasons_of[self.source(place)][reason] += 1
        if reason not in self.examples:
            self.examples[reason] = f"{place.source} line {place.line}: {shown}"[:EXAMPLE_CHARACTERS]

    def unused_of(self, file: str) -> Counter[str]:
        return self.unused[self._source_of.get(file, file)]

    def source(self, place: Place) -> str:
        return self._source_of.get(place.source, place.source)
