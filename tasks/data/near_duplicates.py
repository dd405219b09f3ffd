"""The near duplicates among the rows of one kind: their signatures lie on disk, a few hashes a row in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_checks.duplicates import PERMUTATIONS, Hashes, bands, combined_signatures, near_duplicates
from data_checks.row_content import calls_key, row_parts
from rightcall.rows.vocabulary import Row, RowKind


class NearDuplicates:
    """A threshold of None finds none."""

    def __init__(self, kind: RowKind, threshold: float | None, path: Path) -> None:
        self._kind, self._threshold, self._path = kind, threshold, path
        self._file = path.open("wb")
        self._bands: list[Hashes] = []
        self._count = 0

    def add(self, rows: Sequence[Row], classes: Sequence[tuple[str, ...]]) -> None:
        self._count += len(rows)
        if self._threshold is None:
            return
        found = combined_signatures([row_parts(row, self._kind) for row in rows])
        found.tofile(self._file)
        # rows of unlike behaviour, or with another call, are contrasts: the best rows there are
        names = zip(classes, (calls_key(row, self._kind) for row in rows), strict=True)
        self._bands.append(
            bands(found, self._threshold, ["\0".join([*row_class, calls]) for row_class, calls in names])
        )

    def find(self) -> NDArray[np.int64]:
        """For each row the earlier one that it repeats, -1 = none; after this no row may be added."""
        self._file.close()
        if self._threshold is None or not self._count:
            return np.full(self._count, -1, dtype=np.int64)
        found = np.memmap(self._path, dtype=np.uint32, mode="r").reshape(-1, PERMUTATIONS)
        return near_duplicates(found, np.concatenate(self._bands), self._threshold)
