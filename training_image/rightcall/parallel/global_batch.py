"""One optimiser step's rows, shared by any number of processes without a change to the result.

A recipe's step has `accumulation` batches of `rows` rows (or packed sequences), in an order that only its seed decides:

    1 process     [a b] [c d] [e f] [g h] → step            rows 2, accumulation 4
    2 processes   rank 0: [a b] [e f]     rank 1: [c d] [g h]
    8 processes   rank 0: [a]   rank 1: [b]   …             each batch cut into 2 pieces

The last step of an epoch may have fewer rows: processes that have none left take a piece again with the share 0,
because all must run the model equally often. A piece's share is its part of the step's mean over batches.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from rightcall.errors import RecipeError
from rightcall.likelihood.answer_head import IGNORED


@dataclass(frozen=True)
class Split:
    """What one of `processes` does of a step."""

    processes: int
    rows: int  # in each of its batches
    accumulation: int  # its batches a step
    pieces: int  # that each batch of the recipe is cut into


def split(rows: int, accumulation: int, processes: int) -> Split:
    """Each process's equal part of a step of `accumulation` batches of `rows` rows.

    Raises:
        RecipeError: the rows of a step cannot be shared equally.
    """
    total = rows * accumulation
    if total % processes:
        raise RecipeError(
            f"{processes} processes cannot share a step of {total} rows equally (per_device_train_batch_size {rows} × "
            f"gradient_accumulation_steps {accumulation}); choose a multiple of {processes}, or other compute.processes"
        )
    pieces = processes // math.gcd(accumulation, processes)
    return Split(processes, rows // pieces, accumulation * pieces // processes, pieces)


class Together(Sampler[int]):
    """Another sampler's rows, those of one group batch by batch: what they share is then computed once for the batch.

        rows       a1 b1 a2 b2 b3 a3 a4 b4 a5     in batches of 2
        together   a1 a2 b1 b2 a3 a4 b3 b4 a5     a batch stands where its last row stood; what fills none comes last

    Rows of one group only keep the sampler's order.
    """

    def __init__(self, order: Sampler[int], groups: Sequence[Hashable], rows: int) -> None:
        self.order, self.groups, self.rows = order, groups, rows

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.order, "set_epoch"):
            self.order.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.groups)

    def __iter__(self) -> Iterator[int]:
        waiting: dict[Hashable, list[int]] = {}
        for row in list(self.order):
            batch = waiting.setdefault(self.groups[row], [])
            batch.append(row)
            if len(batch) == self.rows:
                yield from waiting.pop(self.groups[row])
        for batch in waiting.values():
            yield from batch


@dataclass(frozen=True)
class Piece:
    rows: tuple[int, ...]
    batch: tuple[int, ...]  # the recipe's batch that it is cut from
    share: float  # of the step; 0 where it only keeps a process busy


class Order(BatchSampler):
    """The pieces of one rank, epoch by epoch; `rows` and `accumulation` are the recipe's."""

    def __init__(
        self, order: Sampler[int], rows: int, accumulation: int, shared: Split, rank: int, *, drop_last: bool = False
    ) -> None:
        self.batch_sampler = order  # under this name transformers looks for something that has set_epoch
        self.batch_rows, self.accumulation, self.shared, self.rank = rows, accumulation, shared, rank
        self.dropped = drop_last

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.batch_sampler, "set_epoch"):
            self.batch_sampler.set_epoch(epoch)

    def __len__(self) -> int:
        count = len(self.batch_sampler)  # type: ignore[arg-type]
        batches = count // self.batch_rows if self.dropped else math.ceil(count / self.batch_rows)
        steps, left = divmod(batches, self.accumulation)
        pieces = 0
        if left:
            last = self.batch_rows if self.dropped else count - (batches - 1) * self.batch_rows
            pieces = (left - 1) * self.shared.pieces + math.ceil(last / self.shared.rows)
        return steps * self.shared.accumulation + math.ceil(pieces / self.shared.processes)

    def __iter__(self) -> Iterator[Piece]:  # type: ignore[override]
        rows = list(self.batch_sampler)
        batches = [tuple(rows[start : start + self.batch_rows]) for start in range(0, len(rows), self.batch_rows)]
        if self.dropped and batches and len(batches[-1]) < self.batch_rows:
            batches.pop()
        for start in range(0, len(batches), self.accumulation):
            yield from mine(pieces_of(batches[start : start + self.accumulation], self.shared.rows), self)


def pieces_of(batches: Sequence[tuple[int, ...]], rows: int) -> list[Piece]:
    """The step's pieces of at most `rows` rows; their shares sum to 1."""
    return [
        Piece(batch[start : start + rows], batch, len(batch[start : start + rows]) / len(batch) / len(batches))
        for batch in batches
        for start in range(0, len(batch), rows)
    ]


def mine(pieces: list[Piece], order: Order) -> Iterator[Piece]:
    processes = order.shared.processes
    for start in range(0, len(pieces), processes):
        group = pieces[start : start + processes]
        spare = Piece(group[0].rows[:1], group[0].batch, 0.0)
        yield group[order.rank] if order.rank < len(group) else spare


class Pieces(Dataset[Any]):
    """Rows by piece: what a DataLoader asks for, and what `collate` makes of it."""

    def __init__(self, rows: Any, collate: Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]) -> None:
        self.rows, self._collate = rows, collate

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, piece: Piece) -> tuple[Piece, list[dict[str, Any]]]:
        return piece, [self.rows[index] for index in piece.rows]

    def collate(self, found: tuple[Piece, list[dict[str, Any]]]) -> dict[str, torch.Tensor]:
        """The collator's batch, with the share, the part of the recipe's batch, and that batch's answer tokens."""
        piece, examples = found
        batch = self._collate(examples)
        if piece.share == 0 and "labels" in batch:
            batch["labels"] = torch.full_like(batch["labels"], IGNORED)
        batch["share"] = torch.tensor(piece.share, dtype=torch.float64)
        batch["part"] = torch.tensor(len(piece.rows) / len(piece.batch), dtype=torch.float64)
        if "chosen_ids" in examples[0]:
            batch["chosen_tokens"] = torch.tensor(sum(len(self.rows[index]["chosen_ids"]) for index in piece.batch))
        return batch


def loader(pieces: Pieces, order: Order, **settings: Any) -> DataLoader[Any]:
    collate: Any = pieces.collate  # not of a list: of what __getitems__ has made of a piece
    return DataLoader(pieces, batch_sampler=order, collate_fn=collate, **settings)
