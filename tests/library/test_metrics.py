"""Metrics: hand-worked numbers, and intervals against a plain bootstrap that resamples items one by one."""

from __future__ import annotations

import itertools
import tracemalloc
from typing import Any

import numpy as np
import pytest

from rightcall.errors import ScoringError
from rightcall.measurement.intervals import mcnemar, wilson
from rightcall.measurement.metrics import METRICS, confusion, paired, summarise
from rightcall.rows.vocabulary import BEHAVIOURS

SAMPLING: dict[str, Any] = {"confidence": 0.95, "bootstrap_samples": 2_000, "seed": 7}
SHORT = {"d": "direct", "t": "tool_call", "r": "request_for_info", "c": "cannot_answer"}


def items(
    golds: str, predictions_norm: str, predictions: str | None = None, toolless: str = ""
) -> list[dict[str, Any]]:
    """One letter an item; `toolless` has an x where no tool is offered."""
    rows = itertools.zip_longest(golds, predictions_norm, predictions or predictions_norm, toolless)
    return [
        {
            "id": str(number),
            "gold": SHORT[gold],
            "prediction_norm": SHORT[norm],
            "prediction": SHORT[plain],
            "has_tools": mark != "x",
        }
        for number, (gold, norm, plain, mark) in enumerate(rows)
    ]


def random_items(n: int, seed: int, right: float, like: list[dict[str, Any]] | None = None) -> list[dict[str, Any]]:
    generator = np.random.default_rng(seed)
    golds = "".join(SHORT[key][0] for key in generator.choice(list("trc"), n))
    if like is not None:
        golds = "".join(item["gold"][0] for item in like)
    guess = [gold if generator.random() < right else generator.choice(list("dtrc")) for gold in golds]
    return items(golds, "".join(guess), toolless="".join(generator.choice(list("x-"), n)))


def test_shares_and_f1_are_those_of_a_small_confusion_matrix() -> None:
    """
    gold t t t r r c c c, predicted t t r r t c d t: 4 of 8 right.
    F1 = 2·hits / (gold + predicted): t 4/(3+4) = 4/7, r 2/(2+2) = 1/2, c 2/(3+1) = 1/2, d 0/(0+1) = 0.
    Over four classes (4/7 + 1/2 + 1/2 + 0) / 4 = 11/28, over the three that occur as gold 11/21.
    """
    found = summarise(items("tttrrccc", "ttrrtcdt"), **SAMPLING)
    assert found["acc_norm"].value == 0.5
    assert found["macro_f1"].value == pytest.approx(11 / 28)
    assert found["macro_f1_3"].value == pytest.approx(11 / 21)
    assert found["recall_tool_call"].value == pytest.approx(2 / 3)
    assert found["recall_tool_call"].n == 3
    assert found["recall_cannot_answer"].value == pytest.approx(1 / 3)


def test_confusion_matrix_has_gold_rows_and_predicted_columns() -> None:
    matrix = confusion(items("tttrrccc", "ttrrtcdt"))
    assert matrix["tool_call"] == {"direct": 0, "tool_call": 2, "request_for_info": 1, "cannot_answer": 0}
    assert matrix["cannot_answer"] == {"direct": 1, "tool_call": 1, "request_for_info": 0, "cannot_answer": 1}
    assert sum(sum(row.values()) for row in matrix.values()) == 8


def test_the_two_decision_rules_are_kept_apart() -> None:
    found = summarise(items("trc", "trc", predictions="ttt"), **SAMPLING)
    assert found["acc_norm"].value == 1
    assert found["acc"].value == pytest.approx(1 / 3)
    assert found["macro_f1"].value == pytest.approx(3 / 4)
    assert found["macro_f1_acc"].value == pytest.approx(0.5 / 4)


def test_tool_hallucination_counts_calls_where_no_tool_is_offered() -> None:
    found = summarise(items("cccct", "tccct", toolless="xxx--"), **SAMPLING)
    assert found["tool_hallucination"].value == pytest.approx(1 / 3)
    assert found["tool_hallucination"].n == 3
    assert "tool_hallucination" not in summarise(items("ct", "tt"), **SAMPLING)


def test_a_class_without_gold_items_has_no_recall() -> None:
    found = summarise(items("tttt", "tttr"), **SAMPLING)
    assert [name for name in found if name.startswith("recall_")] == ["recall_tool_call"]
    assert found["macro_f1_3"].value == pytest.approx(2 * 3 / (4 + 3))


def test_every_reported_name_is_a_known_metric() -> None:
    found = summarise(items("dtrc", "dtrc", toolless="x"), **SAMPLING)
    assert tuple(found) == METRICS


def test_intervals_hold_the_value_and_shrink_with_more_items() -> None:
    few, many = (summarise(random_items(n, 1, 0.6), **SAMPLING) for n in (40, 4_000))
    for metric in (*few.values(), *many.values()):
        assert 0 <= metric.low <= metric.value <= metric.high <= 1
    assert many["macro_f1"].high - many["macro_f1"].low < 0.2 * (few["macro_f1"].high - few["macro_f1"].low)


def test_wilson_interval_is_the_published_one_and_not_empty_at_the_ends() -> None:
    """81 of 263: [0.2553, 0.3662] (Newcombe 1998, table I)."""
    assert wilson(81, 263, 0.95) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    low, high = wilson(0, 29, 0.95)
    assert (low, high) == (0, pytest.approx(0.1170, abs=5e-5))
    assert wilson(29, 29, 0.95)[0] == pytest.approx(1 - high)


def test_paired_difference_is_that_of_the_two_values() -> None:
    second = random_items(200, 3, 0.4)
    first = random_items(200, 4, 0.7, like=second)
    for item, other in zip(first, second, strict=True):
        item["has_tools"] = other["has_tools"]
    ours, theirs = summarise(first, **SAMPLING), summarise(second, **SAMPLING)
    for name, gap in paired(first, second, **SAMPLING).items():
        assert gap.value == pytest.approx(ours[name].value - theirs[name].value), name
        assert gap.low <= gap.value <= gap.high
        assert gap.n == ours[name].n


def test_counting_cells_gives_the_interval_of_resampling_items() -> None:
    """The reference draws item indices, as a textbook does; both are random, hence the tolerance."""
    second = random_items(150, 5, 0.4)
    first = random_items(150, 6, 0.6, like=second)
    gap = paired(first, second, confidence=0.9, bootstrap_samples=20_000, seed=1)["acc_norm"]
    right = [
        np.array([item["prediction_norm"] == item["gold"] for item in model], dtype=float) for model in (first, second)
    ]
    drawn = np.random.default_rng(2).integers(0, 150, (20_000, 150))
    low, high = np.quantile((right[0] - right[1])[drawn].mean(1), [0.05, 0.95])
    assert gap.low == pytest.approx(low, abs=0.007)
    assert gap.high == pytest.approx(high, abs=0.007)


def test_identical_models_differ_by_exactly_nothing() -> None:
    same = random_items(50, 8, 0.5)
    for gap in paired(same, same, **SAMPLING).values():
        assert (gap.value, gap.low, gap.high) == (0, 0, 0)
        assert gap.mcnemar_p in (None, 1)


def test_mcnemar_is_exact() -> None:
    """1 against 8 discordant items: 2 · (C(9,0) + C(9,1)) / 2⁹ = 20/512."""
    assert mcnemar(1, 8) == pytest.approx(20 / 512)
    assert mcnemar(8, 1) == mcnemar(1, 8)
    assert mcnemar(0, 0) == mcnemar(5, 5) == 1
    assert 0 < mcnemar(1_000, 1_300) < 1e-9


def test_mcnemar_of_a_recall_looks_at_its_class_only() -> None:
    second, first = items("ttttrr", "ttrrrr"), items("ttttrr", "tttttt")
    found = paired(first, second, **SAMPLING)
    assert found["recall_tool_call"].mcnemar_p == pytest.approx(2 / 4)
    assert found["recall_tool_call"].n == 4
    assert found["macro_f1"].mcnemar_p is None


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = random_items(80, 9, 0.5)
    assert summarise(rows, **SAMPLING) == summarise(rows, **SAMPLING)


def test_memory_of_the_bootstrap_does_not_grow_with_items_or_samples() -> None:
    rows = random_items(20_000, 10, 0.5)
    tracemalloc.start()
    paired(rows, rows, confidence=0.95, bootstrap_samples=20_000, seed=0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 40 * 2**20  # resampling items would take 20,000 × 20,000 × 8 bytes


def test_nothing_to_measure_is_an_error_that_says_so() -> None:
    with pytest.raises(ScoringError, match="n = 0"):
        summarise([], **SAMPLING)
    with pytest.raises(ScoringError, match="n = 0"):
        paired([], [], **SAMPLING)


def test_items_of_different_sets_do_not_pair() -> None:
    with pytest.raises(ScoringError, match="2 items with 1"):
        paired(items("tr", "tr"), items("t", "t"), **SAMPLING)
    with pytest.raises(ScoringError, match="do not pair"):
        paired(items("tr", "tr"), items("tc", "tc"), **SAMPLING)


def test_an_unknown_behaviour_is_named() -> None:
    rows = items("t", "t")
    rows[0]["prediction"] = "shrug"
    with pytest.raises(ScoringError, match=r"prediction \['shrug'\]"):
        summarise(rows, **SAMPLING)


def test_the_classes_stand_in_the_order_of_when2calls_answer_keys() -> None:
    assert BEHAVIOURS == ("direct", "tool_call", "request_for_info", "cannot_answer")
