"""Near duplicates and leakage by MinHash over word 3-shingles, in numpy: nothing here grows faster than the rows do.

Two texts are near duplicates when the estimated Jaccard similarity of their shingle sets reaches the recipe's
threshold; with 128 permutations the estimate's standard error at 0.9 is 0.027. Rows have parts (the user's turn, the
answer, …), and are as alike as the product of their parts' similarities.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint32]  # (rows, PERMUTATIONS)
Hashes = NDArray[np.uint64]

PERMUTATIONS = 128
SHINGLE_WORDS = 3
RECALL = 0.99  # chance that a pair exactly at the threshold shares a band
MAX_LEADERS = 32  # rows of one bucket that a new one is compared with; a bucket of thousands would be quadratic
_MIX = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], dtype=np.uint64)
_generator = np.random.Generator(np.random.PCG64(20261121))
_FACTORS = _generator.integers(1, 2**63, PERMUTATIONS, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_OFFSETS = _generator.integers(0, 2**63, PERMUTATIONS, dtype=np.uint64)


class _WordHashes(dict[str, int]):
    def __missing__(self, word: str) -> int:
        if len(self) > 500_000:
            self.clear()
        self[word] = value = int.from_bytes(hashlib.blake2b(word.encode(), digest_size=8).digest(), "little")
        return value


_words = _WordHashes()


def normalise(text: str) -> str:
    """Words in lower case with single blanks: "Weather in  ROME?!" and "weather in rome" are the same question."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(re.findall(r"\w+", text.casefold())) or text.strip()


def text_hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def shingles(normalised: str, labels: Iterable[str] = ()) -> Hashes:
    """Hashes of all runs of three words (a shorter text: of the whole), and of the labels (names of tools)."""
    words = np.fromiter(map(_words.__getitem__, normalised.split()), dtype=np.uint64)
    if len(words) > SHINGLE_WORDS:
        runs = words[:-2] * _MIX[0] + words[1:-1] * _MIX[1] + words[2:] * _MIX[2]
    else:
        runs = (words * _MIX[: len(words)]).sum(keepdims=True, dtype=np.uint64)
    extra = np.fromiter((_words[f"label\0{label}"] for label in labels), dtype=np.uint64)
    found = np.concatenate([runs, extra])
    return found ^ (found >> np.uint64(29))


def signatures(sets: Sequence[Hashes]) -> Signatures:
    """MinHash signature of each shingle set; every set has at least one shingle."""
    result = np.empty((len(sets), PERMUTATIONS), dtype=np.uint32)
    if not sets:
        return result
    joined = np.concatenate(sets)
    starts = [0, *accumulate(len(each) for each in sets)][:-1]
    for index in range(PERMUTATIONS):
        permuted = ((joined * _FACTORS[index] + _OFFSETS[index]) >> np.uint64(32)).astype(np.uint32)
        result[:, index] = np.minimum.reduceat(permuted, starts)
    return result


def combined_signatures(rows: Sequence[Sequence[Hashes]]) -> Signatures:
    """One signature for each row of several parts, the same number in all.

    Two rows agree in a column where all their parts do: the estimate is the product of the parts' similarities, and a
    long part that is the same everywhere cannot make up for a short one that differs.
    """
    if not rows:
        return signatures([])
    found = signatures([part for row in rows for part in row]).reshape(len(rows), -1, PERMUTATIONS)
    mixed = np.zeros((len(rows), PERMUTATIONS), dtype=np.uint64)
    for part in range(found.shape[1]):
        mixed = (mixed ^ found[:, part]) * _MIX[0]
        mixed ^= mixed >> np.uint64(31)
    return mixed.astype(np.uint32)


def rows_per_band(threshold: float) -> int:
    """The most selective banding that still finds a pair at the threshold with probability ``RECALL``."""
    fits = (r for r in range(PERMUTATIONS, 0, -1) if 1 - (1 - threshold**r) ** (PERMUTATIONS // r) >= RECALL)
    return next(fits, 1)


def bands(found: Signatures, threshold: float, partitions: Sequence[str] | None = None) -> Hashes:
    """(rows, bands) hashes; rows that share one are candidates. Rows of different partitions share none."""
    width = rows_per_band(threshold)
    count = PERMUTATIONS // width
    seeds = np.fromiter(map(text_hash, partitions or [""] * len(found)), dtype=np.uint64)
    result = np.empty((len(found), count), dtype=np.uint64)
    for band in range(count):
        mixed = seeds + np.uint64(band)
        for column in range(band * width, (band + 1) * width):
            mixed = (mixed ^ found[:, column]) * _MIX[0]
            mixed ^= mixed >> np.uint64(31)
        result[:, band] = mixed
    return result


def near_duplicates(found: Signatures, keys: Hashes, threshold: float) -> NDArray[np.int64]:
    """For each row the earlier row that makes it a near duplicate, -1 = none; ``found`` may be a file on disk.

    A row counts as a near duplicate only of one that itself is kept, so that a chain of small changes keeps its ends.
    """
    pairs = np.unique(
        np.array([pair for band in keys.T for pair in _pairs(found, band, threshold)], dtype=np.int64).reshape(-1, 2),
        axis=0,
    )
    first = np.full(len(found), -1, dtype=np.int64)
    for later, earlier in pairs:  # sorted by the later row: the earlier one is decided already
        if first[later] < 0 and first[earlier] < 0:
            first[later] = earlier
    return first


def _pairs(found: Signatures, band: Hashes, threshold: float) -> Iterable[tuple[int, int]]:
    """(later, earlier) rows of one band that are similar enough."""
    order = np.argsort(band, kind="stable")
    ordered = band[order]
    edges = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    for start, end in pairwise(edges):
        if end - start < 2:
            continue
        members = order[start:end]
        leaders = [members[0]]
        for member in members[1:]:
            similar = (found[leaders] == found[member]).mean(axis=1) >= threshold
            yield from ((int(member), int(leaders[index])) for index in np.flatnonzero(similar))
            if not similar.any() and len(leaders) < MAX_LEADERS:
                leaders.append(member)


class EvaluationIndex:
    """The evaluation's questions, to be looked up by training rows: equal after normalisation, or nearly so.

    A threshold of None finds the equal ones only.
    """

    def __init__(self, questions: Sequence[str], threshold: float | None) -> None:
        texts = list(dict.fromkeys(map(normalise, questions)))
        self._threshold = threshold
        self._exact = {text_hash(text) for text in texts}
        self._buckets: dict[int, list[int]] = {}
        if threshold is None:
            return
        self._signatures = signatures([shingles(text) for text in texts])
        keys = bands(self._signatures, threshold)
        for row, row_keys in enumerate(keys):
            for key in row_keys:
                self._buckets.setdefault(int(key), []).append(row)
        self._keys = np.unique(keys)

    def __len__(self) -> int:
        return len(self._exact)

    def leaks(self, questions: Sequence[Sequence[str]]) -> list[bool]:
        """Per row: is one of its (normalised) questions in the evaluation? The tools do not matter."""
        flat = [(row, text) for row, texts in enumerate(questions) for text in texts]
        leaked = [False] * len(questions)
        for row, text in flat:
            leaked[row] = leaked[row] or text_hash(text) in self._exact
        open_texts = [(row, text) for row, text in flat if not leaked[row]]
        if not open_texts or not self._exact or self._threshold is None:
            return leaked
        found = signatures([shingles(text) for _, text in open_texts])
        keys = bands(found, self._threshold)
        for index in np.flatnonzero(np.isin(keys, self._keys).any(axis=1)):
            rows = sorted({row for key in keys[index] for row in self._buckets.get(int(key), ())})
            similar = (self._signatures[rows] == found[index]).mean(axis=1)
            if (similar >= self._threshold).any():
                leaked[open_texts[index][0]] = True
        return leaked
