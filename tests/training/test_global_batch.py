"""How a step's rows are shared: every number of processes sees the same rows in the same steps, once."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import pytest
import torch
from accelerate.data_loader import SeedableRandomSampler
from torch.utils.data import SequentialSampler

from rightcall.errors import RecipeError
from rightcall.likelihood.answer_head import IGNORED
from rightcall.parallel.global_batch import Order, Piece, Pieces, Split, Together, split


def orders(
    rows: int, batch: int, accumulation: int, processes: int, groups: list[str] | None = None, **settings: Any
) -> list[Order]:
    """The order of every rank, epoch 1 of seed 42."""
    found = []
    for rank in range(processes):
        sampler: Any = SeedableRandomSampler(range(rows), generator=torch.Generator(), data_seed=42)
        sampler = Together(sampler, groups, batch) if groups else sampler
        found.append(Order(sampler, batch, accumulation, split(batch, accumulation, processes), rank, **settings))
        found[-1].set_epoch(1)
    return found


def steps(ranks: list[Order]) -> list[list[Piece]]:
    """All ranks' pieces, by step."""
    each = [list(order) for order in ranks]
    accumulation = ranks[0].shared.accumulation
    return [
        [piece for pieces in each for piece in pieces[start : start + accumulation]]
        for start in range(0, len(each[0]), accumulation)
    ]


@pytest.mark.parametrize("rows", [16, 21, 22, 23, 5, 40])
@pytest.mark.parametrize(
    ("batch", "accumulation", "processes"), [(2, 4, 2), (2, 4, 8), (4, 1, 2), (4, 2, 4), (3, 4, 6)]
)
@pytest.mark.parametrize("grouped", [False, True])
def test_each_step_has_the_rows_that_one_process_would_take(
    rows: int, batch: int, accumulation: int, processes: int, grouped: bool
) -> None:
    groups = [f"agent {row % 3}" for row in range(rows)] if grouped else None
    alone, shared = orders(rows, batch, accumulation, 1, groups), orders(rows, batch, accumulation, processes, groups)
    assert {len(order) for order in shared} == {
        len(list(order)) for order in orders(rows, batch, accumulation, processes, groups)
    }
    expected, found = steps(alone), steps(shared)
    assert len(expected) == len(found)
    for one, many in zip(expected, found, strict=True):
        weights: dict[int, float] = defaultdict(float)
        for piece in many:
            for row in piece.rows:
                weights[row] += piece.share / len(piece.rows)
        for piece in one:
            for row in piece.rows:
                assert weights.pop(row) == pytest.approx(piece.share / len(piece.rows))
        assert not any(weights.values())
        assert sum(piece.share for piece in many) == pytest.approx(1)


def test_every_rank_has_equally_many_pieces_in_every_epoch() -> None:
    for rows in range(1, 30):
        assert len({len(list(order)) for order in orders(rows, 2, 2, 4)}) == 1


def test_the_order_is_that_of_accelerate_for_one_process() -> None:
    sampler = SeedableRandomSampler(range(10), generator=torch.Generator(), data_seed=42)
    sampler.set_epoch(1)
    (order,) = orders(10, 3, 1, 1)
    assert [row for piece in order for row in piece.rows] == list(sampler)


def test_rows_of_one_group_fill_batches_of_their_own() -> None:
    order = Together(SequentialSampler(range(9)), list("abababaab"), 2)
    assert list(order) == [0, 2, 1, 3, 4, 6, 5, 8, 7]
    assert len(order) == 9


@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_one_group_keeps_the_order_and_every_epoch_its_own(rows: int) -> None:
    plain = SeedableRandomSampler(range(20), generator=torch.Generator(), data_seed=42)
    grouped = SeedableRandomSampler(range(20), generator=torch.Generator(), data_seed=42)
    order = Together(grouped, [""] * 20, rows)
    for epoch in (0, 1, 3, 1):
        plain.set_epoch(epoch)
        order.set_epoch(epoch)
        assert list(order) == list(plain)


def test_a_short_last_batch_may_be_dropped() -> None:
    (order,) = orders(10, 3, 1, 1, drop_last=True)
    assert [len(piece.rows) for piece in order] == [3, 3, 3]
    assert len(order) == 3


def test_a_split_keeps_the_global_batch() -> None:
    assert split(4, 8, 1) == Split(1, 4, 8, 1)
    assert split(4, 8, 8) == Split(8, 4, 1, 1)
    assert split(4, 2, 8) == Split(8, 1, 1, 4)
    assert split(2, 6, 4) == Split(4, 1, 3, 2)


@pytest.mark.parametrize(("rows", "accumulation", "processes"), [(1, 1, 2), (3, 1, 2), (4, 2, 16), (5, 2, 4)])
def test_a_batch_that_cannot_be_shared_equally_is_a_recipe_error(rows: int, accumulation: int, processes: int) -> None:
    with pytest.raises(RecipeError, match=rf"{processes} processes cannot share a step of {rows * accumulation} rows"):
        split(rows, accumulation, processes)


def test_a_piece_that_only_keeps_a_process_busy_trains_nothing() -> None:
    rows = [{"labels": torch.tensor([[IGNORED, 5, 6]])}]
    pieces = Pieces(rows, lambda found: dict(found[0]))
    busy = pieces.collate(pieces.__getitems__(Piece((0,), (0,), 0.0)))
    assert busy["labels"].tolist() == [[IGNORED] * 3]
    assert pieces.collate(pieces.__getitems__(Piece((0,), (0,), 1.0)))["labels"].tolist() == [[IGNORED, 5, 6]]


def test_rows_may_come_as_they_are() -> None:
    order = Order(SequentialSampler(range(4)), 2, 1, split(2, 1, 2), 1)
    order.set_epoch(3)
    assert [piece.rows for piece in order] == [(1,), (3,)]
