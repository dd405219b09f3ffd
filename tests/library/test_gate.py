"""The gate: whole paired intervals decide, reasons carry the numbers, and swapping the two models turns the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rightcall.errors import RecipeError, ScoringError
from rightcall.measurement.gate import Comparison, Verdict, decide
from rightcall.recipe.sections import GateSection
from rightcall.rows.vocabulary import BEHAVIOURS

Item = dict[str, object]
QUICK = {"confidence": 0.95, "bootstrap_samples": 400, "seed": 7}
ACCURACY = GateSection(must_improve=("acc_norm",), must_not_drop={})


def item(index: int, gold: str, prediction: str, *, has_tools: bool = True) -> Item:
    both = {"prediction": prediction, "prediction_norm": prediction}
    return {"id": f"item-{index}", "gold": gold, **both, "has_tools": has_tools}


def items(right: int, n: int = 100, gold: str = "tool_call") -> list[Item]:
    """n items of one gold behaviour of which the first `right` are answered rightly."""
    return [item(index, gold, gold if index < right else "direct") for index in range(n)]


def test_a_clear_gain_is_go_and_the_reason_has_the_numbers() -> None:
    """60 of 100 right against 30 of the same 100: +0.300, and by hand the standard deviation of the paired difference
    is sqrt(.3 × .7 / 100) = .046, so the interval is about .3 ± .09, far above 0."""
    verdict = decide(ACCURACY, items(60), items(30), **QUICK)
    gap = verdict.differences["baseline"]["acc_norm"]
    assert verdict.verdict == "GO"
    assert gap.value == pytest.approx(0.3)
    assert gap.low == pytest.approx(0.21, abs=0.02)
    assert gap.high == pytest.approx(0.39, abs=0.02)
    assert verdict.reasons[0].startswith("acc_norm improves on the baseline by +0.300 [+0.2")
    assert "(n=100)" in verdict.reasons[0]


def test_a_gain_whose_interval_covers_0_is_inconclusive() -> None:
    """2 of 100 more: the resamples without either of the two items (13 in 100) put 0 inside the interval."""
    verdict = decide(ACCURACY, items(32), items(30), **QUICK)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "covers 0" in verdict.sentence


def test_a_clear_loss_is_no_go() -> None:
    verdict = decide(ACCURACY, items(30), items(60), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert "worse than the baseline by -0.300" in verdict.sentence


def test_identical_models_are_inconclusive() -> None:
    assert decide(GateSection(must_not_drop={}), items(40), items(40), **QUICK).verdict == "INCONCLUSIVE"


def two_classes(calls_right: int, refusals_right: int) -> list[Item]:
    """200 items: 100 calls, 100 refusals."""
    refusals = items(refusals_right, gold="cannot_answer")
    return items(calls_right) + [entry | {"id": f"refusal-{index}"} for index, entry in enumerate(refusals)]


def test_a_behaviour_that_drops_is_no_go_although_accuracy_rises() -> None:
    """What SFT alone does: calls 30 → 90, refusals 50 → 30, accuracy +.200."""
    policy = GateSection(must_improve=("acc_norm",), must_not_drop={"recall_cannot_answer": 0.0})
    verdict = decide(policy, two_classes(90, 30), two_classes(30, 50), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert verdict.reasons[0].startswith("recall_cannot_answer drops from the baseline by -0.200")
    assert verdict.reasons[1].startswith("acc_norm improves")


def test_a_drop_within_the_margin_is_allowed() -> None:
    """-.200 ± .08 lies wholly below 0 but not wholly below -.15."""
    policy = GateSection(must_improve=("acc_norm",), must_not_drop={"recall_cannot_answer": 0.15})
    assert decide(policy, two_classes(90, 30), two_classes(30, 50), **QUICK).verdict == "GO"


def test_worse_than_the_champion_is_no_go_although_better_than_the_baseline() -> None:
    verdict = decide(ACCURACY, items(60), items(30), items(90), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert "worse than the champion by -0.300" in verdict.sentence


def test_the_champion_itself_passes_again() -> None:
    assert decide(ACCURACY, items(60), items(30), items(60), **QUICK).verdict == "GO"


def test_fewer_hallucinated_calls_count_as_a_gain() -> None:
    policy = GateSection(must_improve=("tool_hallucination",), must_not_drop={})
    calm = [item(index, "cannot_answer", "cannot_answer", has_tools=False) for index in range(50)]
    wild = [item(index, "cannot_answer", "tool_call", has_tools=False) for index in range(50)]
    assert decide(policy, calm, wild, **QUICK).verdict == "GO"
    assert decide(policy, wild, calm, **QUICK).verdict == "NO-GO"


def test_items_are_matched_by_id_not_by_place() -> None:
    straight = decide(ACCURACY, items(60), items(30), **QUICK)
    assert decide(ACCURACY, items(60), items(30)[::-1], **QUICK) == straight


def test_different_item_sets_are_an_error_that_counts_the_difference() -> None:
    with pytest.raises(ScoringError, match=r"and baseline .* 2 only in the candidate's, 1 only in the baseline's"):
        decide(ACCURACY, items(5, n=5), [*items(3, n=3), item(99, "tool_call", "direct")], **QUICK)
    with pytest.raises(ScoringError, match="candidate and champion"):
        decide(ACCURACY, items(5, n=5), items(5, n=5), items(4, n=4), **QUICK)


def test_the_same_item_twice_is_an_error() -> None:
    with pytest.raises(ScoringError, match="each item once"):
        decide(ACCURACY, items(2, n=2), [*items(2, n=2), *items(1, n=1)], **QUICK)


def test_no_items_is_an_error() -> None:
    with pytest.raises(ScoringError, match=r"no scored items \(0\)"):
        decide(ACCURACY, [], [], **QUICK)


def test_an_unknown_metric_is_an_error_that_lists_the_valid_ones() -> None:
    policy = GateSection.model_construct(must_improve=("acc_nrom",), must_not_drop={"recall_calls": 0.0})
    with pytest.raises(RecipeError, match=r"\['acc_nrom', 'recall_calls'\]; choose from acc, acc_norm, macro_f1"):
        decide(policy, items(5), items(3), **QUICK)


def test_a_policy_without_aim_and_a_negative_margin_are_errors() -> None:
    with pytest.raises(RecipeError, match="any model would pass"):
        decide(GateSection.model_construct(must_improve=(), must_not_drop={}), items(5), items(3), **QUICK)
    policy = GateSection.model_construct(must_improve=("acc",), must_not_drop={"acc": -0.1})
    with pytest.raises(RecipeError, match="negative margins"):
        decide(policy, items(5), items(3), **QUICK)


def test_a_metric_that_these_items_cannot_measure_is_inconclusive_not_passed() -> None:
    policy = GateSection(must_improve=("acc_norm",), must_not_drop={"recall_request_for_info": 0.0})
    verdict = decide(policy, items(60), items(30), **QUICK)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "no item of this evaluation set measures it" in verdict.sentence


def test_a_verdict_survives_json() -> None:
    verdict = decide(GateSection(must_not_drop={}), items(60), items(30), items(50), **QUICK)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert isinstance(verdict.differences["champion"]["acc_norm"], Comparison)


answers = st.lists(st.tuples(*[st.sampled_from(BEHAVIOURS)] * 3), min_size=4, max_size=60)
TURNED = {"GO": "NO-GO", "NO-GO": "GO", "INCONCLUSIVE": "INCONCLUSIVE"}


@settings(max_examples=40, deadline=None)
@given(answers)
def test_swapping_candidate_and_baseline_turns_the_verdict(rows: list[tuple[str, str, str]]) -> None:
    ours = [item(index, gold, mine) for index, (gold, mine, _) in enumerate(rows)]
    theirs = [item(index, gold, other) for index, (gold, _, other) in enumerate(rows)]
    policy = GateSection(must_improve=("acc_norm",), must_not_drop={})
    there, back = decide(policy, ours, theirs, **QUICK), decide(policy, theirs, ours, **QUICK)
    gap, mirrored = there.differences["baseline"]["acc_norm"], back.differences["baseline"]["acc_norm"]
    assert gap.value == pytest.approx(-mirrored.value)
    # The cells of the resample table are numbered the other way round, so the draws differ by bootstrap noise.
    if min(abs(bound) for bound in (gap.low, gap.high, mirrored.low, mirrored.high)) > 0.05:
        assert back.verdict == TURNED[there.verdict]


@settings(max_examples=25, deadline=None)
@given(answers)
def test_a_candidate_that_answers_like_the_baseline_is_inconclusive(rows: list[tuple[str, str, str]]) -> None:
    same = [item(index, gold, mine) for index, (gold, mine, _) in enumerate(rows)]
    verdict = decide(GateSection(must_not_drop={}), same, same, same, **QUICK)
    assert verdict.verdict == "INCONCLUSIVE"
    assert all(gap.low == gap.high == 0 for gap in verdict.differences["baseline"].values())


def test_the_stage_reads_scores_from_the_store_and_leaves_a_verdict(tmp_path: Path) -> None:
    from rightcall.recipe.loading import load_recipe
    from tasks.results.files import read_verdict
    from tasks.stages.gate import decide_verdict
    from tasks.store.folder_store import Store
    from tasks.store.manifests import ArtifactRef

    store = Store(tmp_path / "store")

    def scores(key: str, lines: list[Item]) -> ArtifactRef:
        output = store.workdir("score", key) / "output"
        output.mkdir()
        (output / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        return store.commit("score", key, "scores", output.parent, {"result": {}})

    recipe = load_recipe(None, ["gate.must_not_drop={}"])
    base, better = scores("base", items(30)), scores("better", items(60))
    ref = decide_verdict.run(recipe, store=store, candidate=better, baseline=base, champion=None)
    verdict = read_verdict(store, ref)
    assert verdict.verdict == "GO"
    assert store.manifest(ref)["result"]["verdict"] == "GO"
    again = decide_verdict.run(recipe, store=store, candidate=better, baseline=base, champion=None)
    assert again == ref
