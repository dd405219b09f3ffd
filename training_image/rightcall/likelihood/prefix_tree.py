"""Prefix trees over token sequences, flattened so that one forward pass scores them all.

    prompts ABC·x, ABC·yz, AD·x     A─B─C─x        flattened  A B C x y z D x
                                    │   └─y─z      depth      0 1 2 3 3 4 1 2    the position ids
                                    └─D─x          end        8 6 6 4 6 6 8 8    one past the last descendant

Flattened depth first, node j is node i or one of its ancestors exactly when j <= i < end[j]: the attention mask.
The last token of a sequence is only predicted, never fed, so real trees are without it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Trie = dict[int, Any]


@dataclass(frozen=True)
class PrefixTree:
    tokens: Ints
    depths: Ints
    ends: Ints
    paths: list[Ints]  # for every sequence, in the given order: its nodes from the root, without the last token's

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def build(cls, sequences: Sequence[list[int]]) -> PrefixTree:
        """Sequences of at least two tokens each; equal ones share everything."""
        order = sorted(range(len(sequences)), key=lambda index: sequences[index])
        tokens: list[int] = []
        depths: list[int] = []
        ends: list[int] = []
        paths: list[Ints] = [np.empty(0, np.int64)] * len(sequences)
        open_path: list[int] = []
        for index in order:
            fed = list(sequences[index][:-1])
            shared = _common(open_path, tokens, fed)
            for node in open_path[shared:]:
                ends[node] = len(tokens)
            del open_path[shared:]
            for depth in range(shared, len(fed)):
                open_path.append(len(tokens))
                tokens.append(fed[depth])
                depths.append(depth)
                ends.append(-1)
            paths[index] = np.array(open_path[: len(fed)])
        for node in open_path:
            ends[node] = len(tokens)
        return cls(np.array(tokens), np.array(depths), np.array(ends), paths)

    def mask(self) -> NDArray[np.bool_]:
        """(nodes, nodes); True where the row's node attends to the column's."""
        nodes = np.arange(len(self))
        return (nodes[None, :] <= nodes[:, None]) & (nodes[:, None] < self.ends[None, :])


def group(groups: Sequence[Sequence[list[int]]], max_tokens: int) -> list[list[int]]:
    """Indices of groups (an item's sequences) that share a tree of at most max_tokens, nearest neighbours together.

    A group that is larger by itself gets a tree of its own.
    """
    order = sorted(range(len(groups)), key=lambda index: (min(groups[index]), index))
    chunks: list[list[int]] = []
    branches: Trie = {}
    size = 0
    for index in order:
        added = _insert(branches, groups[index]) if chunks else 0
        if not chunks or size + added > max_tokens:
            chunks.append([])
            branches, size = {}, 0
            added = _insert(branches, groups[index])
        chunks[-1].append(index)
        size += added
    return chunks


def _insert(branches: Trie, sequences: Iterable[Sequence[int]]) -> int:
    """Adds sequences to a trie of nested dicts; returns how many nodes are new."""
    added = 0
    for sequence in sequences:
        node = branches
        for token in sequence[:-1]:
            child = node.get(token)
            if child is None:
                child = node[token] = {}
                added += 1
            node = child
    return added


def _common(path: Sequence[int], tokens: Sequence[int], sequence: Sequence[int]) -> int:
    """Length of the common prefix of the tokens along the path and the sequence."""
    length = min(len(path), len(sequence))
    for depth in range(length):
        if tokens[path[depth]] != sequence[depth]:
            return depth
    return length
