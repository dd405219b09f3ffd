"""Metrics of written answers, by arithmetic that a reader can follow, with intervals over conversations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rightcall.errors import ScoringError
from rightcall.measurement.clusters import agresti_min
from rightcall.measurement.intervals import wilson
from rightcall.measurement.written import (
    FREE,
    GRAMMAR,
    WRITTEN_METRICS,
    fault_table,
    flag,
    paired_written,
    plain_values,
    summarise,
)
from rightcall.recipe.sections import MetricName

SETTINGS: dict[str, Any] = {"confidence": 0.95, "bootstrap_samples": 4_000, "seed": 3}
NOT_ASKED = {"valid_call": None, "right_tool": None, "right_arguments": None}


def line(
    number: int, behaviour: str = "direct", *, ok: bool = True, conversation: Any = None, **verdict: Any
) -> dict[str, Any]:
    return {
        "id": f"s{number}", "conversation": number if conversation is None else conversation, "group": "g",
        "behaviour": behaviour, "text": "", "verdict": {"ok": ok, "right_behaviour": ok, **NOT_ASKED, **verdict},
        "error_kind": None if ok else "wrong_value", "faults": [], "grammar": None,
    }  # fmt: skip


def answers(flags: list[bool], size: int = 1) -> list[dict[str, Any]]:
    """One line a flag, `size` of them in each conversation."""
    return [line(number, ok=ok, conversation=number // size) for number, ok in enumerate(flags)]


def test_the_names_are_those_that_a_gate_may_ask_for() -> None:
    assert set(WRITTEN_METRICS) <= set(MetricName.__args__)  # type: ignore[attr-defined]
    assert len(WRITTEN_METRICS) == 2 * len(FREE) == 20


def test_each_metric_is_a_share_of_the_steps_that_it_asks_about() -> None:
    """Six steps:

    gold tool_call         written right                right_call 1    valid 1   tool 1   arguments 1
    gold tool_call         wrong value, fits schema     right_call 0    valid 1   tool 1   arguments 0
    gold tool_call         asked instead                right_call 0    valid –   tool 0   arguments 0
    gold request_for_info  asked                        right_ask 1
    gold cannot_answer     called, no such argument     right_decline 0 valid 0                         overcall 1
    gold direct            said                         right_talk 1                                    overcall 0

    right 3/6, right_call 1/3, right_ask 1/1, right_decline 0/1, right_talk 1/1, overcall 1/3, valid_call 2/3,
    right_tool 2/3, right_arguments 1/3
    """
    lines = [
        line(0, "tool_call", valid_call=True, right_tool=True, right_arguments=True),
        line(1, "tool_call", ok=False, valid_call=True, right_tool=True, right_arguments=False),
        line(2, "tool_call", ok=False, right_tool=False, right_arguments=False),
        line(3, "request_for_info"),
        line(4, "cannot_answer", ok=False, valid_call=False),
        line(5, "direct"),
    ]
    values = plain_values(lines)
    assert {name: (round(entry["value"] * entry["n"]), entry["n"]) for name, entry in values.items()} == {
        "right": (3, 6), "right_call": (1, 3), "right_ask": (1, 1), "right_decline": (0, 1), "right_talk": (1, 1),
        "overcall": (1, 3), "valid_call": (2, 3), "right_tool": (2, 3), "right_arguments": (1, 3),
    }  # fmt: skip
    measured = summarise(lines, **SETTINGS)
    assert {name: {"value": metric.value, "n": metric.n} for name, metric in measured.items()} == values
    assert list(measured) == list(values)
    assert all(0 <= metric.low <= metric.value <= metric.high <= 1 for metric in measured.values())


def test_the_grammars_metrics_ask_the_grammars_answer() -> None:
    free = line(0, "tool_call", ok=False, valid_call=False, right_tool=False, right_arguments=False)
    right = line(0, "tool_call", valid_call=True, right_tool=True, right_arguments=True)
    both = free | {"grammar": {name: right[name] for name in ("text", "verdict", "error_kind", "faults")}}
    assert [flag(both, name) for name in ("right", "right_grammar", "valid_call", "valid_call_grammar")] == [
        False,
        True,
        False,
        True,
    ]
    assert {name for name in GRAMMAR if flag(free, name) is not None} == set()
    values = plain_values([both])
    assert (values["right"]["value"], values["right_grammar"]["value"]) == (0, 1)


def test_right_strictly_is_right_with_nothing_forgiven() -> None:
    """Right and strict, right and forgiven, strict and wrong, a right text: right 3/4, right_strict 2/4."""
    called = {"valid_call": True, "right_tool": True, "right_arguments": True}
    lines = [
        line(0, "tool_call", **called, strict=True),
        line(1, "tool_call", **called, strict=False),
        line(2, "tool_call", ok=False, **called, strict=True),
        line(3, "direct", strict=True),
    ]
    assert [flag(each, "right_strict") for each in lines] == [True, False, False, True]
    values = plain_values(lines)
    assert (values["right"], values["right_strict"]) == ({"value": 0.75, "n": 4}, {"value": 0.5, "n": 4})
    metric = summarise(lines, **SETTINGS)["right_strict"]
    assert 0 < metric.low < metric.value < metric.high < 1
    assert (
        paired_written(lines[:2], [lines[0], line(1, "tool_call", strict=True)], **SETTINGS)["right_strict"].value
        == -0.5
    )
    assert flag(line(0), "right_strict") is None  # judged before it was kept


def test_how_calls_look_moves_no_other_metric() -> None:
    """Also where it alone varies, and so could lend its design effect to those that do not."""
    lines = [line(number, strict=number % 2 > 0, conversation=number // 4) for number in range(80)]
    others = [line(number, conversation=number // 4) for number in range(80)]
    measured, gaps = summarise(lines, **SETTINGS), paired_written(lines, lines[::-1], **SETTINGS)
    assert measured.pop("right_strict").value == 0.5
    assert gaps.pop("right_strict").value == 0
    assert measured == summarise(others, **SETTINGS)
    assert gaps == paired_written(others, others, **SETTINGS)


def test_no_lines_measure_nothing() -> None:
    assert summarise([], **SETTINGS) == plain_values([]) == paired_written([], [], **SETTINGS) == {}


def test_one_step_a_conversation_is_the_ordinary_bootstrap() -> None:
    flags = [number % 3 > 0 for number in range(120)]
    found = summarise(answers(flags), **SETTINGS)["right"]
    draws = np.random.default_rng(1).choice(np.array(flags, float), (4_000, 120)).mean(axis=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.012)
    first, second = answers(flags), answers([number % 2 > 0 for number in range(120)])
    gap = paired_written(first, second, **SETTINGS)["right"]
    gaps = np.array(flags, float) - np.arange(120) % 2
    draws = np.random.default_rng(1).choice(gaps, (4_000, 120)).mean(axis=1)
    assert gap.value == pytest.approx(gaps.mean())
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.015)
    assert gap.standard_error == pytest.approx(draws.std(), rel=0.06)
    assert gap.mcnemar_p is not None
    assert (gap.won, gap.lost) == (40, 20)


def test_steps_that_go_right_or_wrong_together_count_as_few() -> None:
    """60 conversations of 6 equal steps say as much as 60 steps: the interval is √6 times as wide as that of 360."""
    kinds = [True, False] * 30
    together = answers([kind for kind in kinds for _ in range(6)], size=6)
    apart = [entry | {"conversation": number} for number, entry in enumerate(together)]
    wide, narrow = summarise(together, **SETTINGS)["right"], summarise(apart, **SETTINGS)["right"]
    assert (wide.high - wide.low) / (narrow.high - narrow.low) == pytest.approx(6**0.5, rel=0.1)


def test_what_never_varies_has_wilsons_interval_at_the_steps_that_count() -> None:
    """40 of 40 right, nothing else to learn a design effect from: the 10 conversations count, Wilson 10 of 10."""
    found = summarise(answers([True] * 40, size=4), **SETTINGS)["right"]
    assert (found.value, found.high, found.n) == (1, 1, 40)
    assert found.low == pytest.approx(wilson(10, 10, 0.95)[0])
    # beside a metric that varies, with every step for itself, all 40 count
    lines = answers([number % 2 > 0 for number in range(40)])
    lines = [entry | {"behaviour": "direct"} for entry in lines]
    overcall = summarise(lines, **SETTINGS)["overcall"]
    assert (overcall.value, overcall.low) == (0, 0)
    assert overcall.high == pytest.approx(wilson(0, 40, 0.95)[1], rel=0.15)


def test_a_share_over_a_few_conversations_is_as_unsure_as_they_are_few() -> None:
    """Two conversations that are alike give resamples that are all the same: [0.5, 0.5]."""
    share = summarise(answers([True, False] * 10, size=10), **SETTINGS)["right"]
    assert (share.value, share.n) == (0.5, 20)
    assert (share.low, share.high) == pytest.approx(wilson(1, 2, 0.95))


def test_models_that_never_differ_still_have_an_interval() -> None:
    """No step of 6 differs: half a step more on either side of 8: ±1.96·√1/8 = ±.245."""
    lines = answers([True, False] * 3)
    gap = paired_written(lines, lines, **SETTINGS)["right"]
    assert (gap.value, gap.mcnemar_p, gap.won, gap.lost) == (0, 1, 0, 0)
    assert (gap.low, gap.high) == pytest.approx((-0.245, 0.245), abs=0.001)
    assert agresti_min(0, 0, 300, 0.95) == pytest.approx((-0.0065, 0.0065), abs=0.0001)


def test_a_step_that_only_one_model_is_asked_about_is_left_out_of_the_pair() -> None:
    """Only the first called at step 0, both at step 1: valid_call is compared on one step."""
    first = [line(0, valid_call=True), line(1, valid_call=True)]
    second = [line(0), line(1, valid_call=False)]
    assert paired_written(first, second, **SETTINGS)["valid_call"].n == 1
    assert paired_written(first, second[::-1], **SETTINGS)["valid_call"].value == 1


@pytest.mark.parametrize("second", [answers([True]), answers([True, True, True]), [line(0), line(0)]])
def test_other_steps_do_not_pair(second: list[dict[str, Any]]) -> None:
    with pytest.raises(ScoringError, match=r"cannot pair .* score both models on the same steps"):
        paired_written(answers([True, False]), second, **SETTINGS)


def test_a_conversation_that_a_resample_leaves_out_makes_no_nan() -> None:
    lines = [*answers([True, False] * 8), line(99, "cannot_answer", ok=False)]
    found = summarise(lines, **SETTINGS)
    assert found["right_decline"].value == 0
    assert all(np.isfinite([metric.low, metric.high]).all() for metric in found.values())


def test_the_table_of_faults_counts_answers_not_calls() -> None:
    first = line(0, ok=False) | {"faults": ["ungrounded_value", "ungrounded_value"]}
    first["grammar"] = {"text": "", "verdict": {}, "error_kind": None, "faults": ["ungrounded_value"]}
    second = line(1, ok=False) | {"error_kind": "wrong_tool"}
    third = line(2, ok=False) | {"error_kind": "wrong_tool"}
    assert fault_table([first, second, third, line(3)]) == {
        "wrong_tool": {"free": 2, "grammar": 0},
        "ungrounded_value": {"free": 1, "grammar": 1},
        "wrong_value": {"free": 1, "grammar": 0},
    }
