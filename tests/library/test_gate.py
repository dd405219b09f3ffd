"""The gate: whole paired intervals decide, a handful of items proves nothing, and the n that it asks for is enough."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_models import two_models

from rightcall.errors import RecipeError, ScoringError
from rightcall.measurement import gate
from rightcall.measurement.gate import Answers, Comparison, Verdict
from rightcall.measurement.intervals import Difference
from rightcall.measurement.proof import holm, items_needed, p_above, widened
from rightcall.recipe.sections import GateSection
from rightcall.rows.vocabulary import BEHAVIOURS

Item = dict[str, object]
QUICK = {"confidence": 0.95, "bootstrap_samples": 400, "seed": 7}
ACCURACY = GateSection(must_improve=("acc_norm",), must_not_drop={})
RIGHT = GateSection(must_improve=("right",), must_not_drop={})


def decide(policy: GateSection, *models: list[Item], **named: Any) -> Verdict:
    """The gate on models of which only the choices among given answers are known."""
    return gate.decide(policy, *(Answers(items=items) for items in models), **named)


def decide_written(policy: GateSection, *models: list[Item], **named: Any) -> Verdict:
    return gate.decide(policy, *(Answers(lines=lines) for lines in models), **(QUICK | named))


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
    assert verdict.reasons[0].startswith("acc_norm improves on the base model by +0.300 [+0.2")
    assert ", n=100: the whole interval is above 0" in verdict.reasons[0]


def test_a_gain_whose_interval_covers_0_is_inconclusive() -> None:
    """2 of 100 more: the resamples without either of the two items (13 in 100) put 0 inside the interval."""
    verdict = decide(ACCURACY, items(32), items(30), **QUICK)
    assert verdict.verdict == "INCONCLUSIVE"
    assert "does not lie above 0" in verdict.sentence


def test_a_clear_loss_is_no_go() -> None:
    verdict = decide(ACCURACY, items(30), items(60), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert "worse than the base model by -0.300" in verdict.sentence


def test_identical_models_are_inconclusive() -> None:
    assert decide(ACCURACY, items(40), items(40), **QUICK).verdict == "INCONCLUSIVE"


def two_classes(calls_right: int, refusals_right: int) -> list[Item]:
    """200 items: 100 calls, 100 refusals."""
    refusals = items(refusals_right, gold="cannot_answer")
    return items(calls_right) + [entry | {"id": f"refusal-{index}"} for index, entry in enumerate(refusals)]


def test_a_behaviour_that_drops_is_no_go_although_accuracy_rises() -> None:
    """What SFT alone does: calls 30 → 90, refusals 50 → 30, accuracy +.200."""
    policy = GateSection(must_improve=("acc_norm",), must_not_drop={"recall_cannot_answer": 0.0})
    verdict = decide(policy, two_classes(90, 30), two_classes(30, 50), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert verdict.reasons[0].startswith("recall_cannot_answer is worse than the base model by -0.200")
    assert verdict.reasons[1].startswith("acc_norm improves")


def test_a_drop_is_allowed_when_the_whole_interval_is_within_the_margin() -> None:
    """-.200 ± .08: wholly above -.3, GO; across -.25, not proven; wholly below -.1, NO-GO."""
    for margin, expected in ((0.3, "GO"), (0.25, "INCONCLUSIVE"), (0.1, "NO-GO")):
        policy = GateSection(must_improve=("acc_norm",), must_not_drop={"recall_cannot_answer": margin})
        verdict = decide(policy, two_classes(90, 30), two_classes(30, 50), **QUICK)
        assert verdict.verdict == expected
        assert f"-{margin:g}, the margin" in "".join(verdict.reasons)


def test_worse_than_the_champion_is_no_go_although_better_than_the_baseline() -> None:
    verdict = decide(ACCURACY, items(60), items(30), items(90), **QUICK)
    assert verdict.verdict == "NO-GO"
    assert "worse than the champion by -0.300" in verdict.sentence


def test_a_challenger_as_good_as_the_champion_passes_where_there_are_enough_items() -> None:
    """Equal answers on n items: nothing was won or lost, so at most 3.84 / (n + 3.84) may have been missed."""
    few = decide(ACCURACY, items(45, n=60), items(15, n=60), items(45, n=60), **QUICK)
    many = decide(ACCURACY, items(90, n=120), items(30, n=120), items(90, n=120), **QUICK)
    assert (few.verdict, many.verdict) == ("INCONCLUSIVE", "GO")
    assert few.differences["champion"]["acc_norm"].low == pytest.approx(-3.84 / 63.84, abs=0.001)
    assert "60 items are too few" in few.sentence
    assert "against the champion" in many.reasons[1]


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
    with pytest.raises(ScoringError, match=r"no scored items and no written steps \(0\)"):
        decide(ACCURACY, [], [], **QUICK)


def test_an_unknown_metric_is_an_error_that_lists_the_valid_ones() -> None:
    policy = GateSection.model_construct(must_improve=("acc_nrom",), must_not_drop={"recall_calls": 0.0})  # type: ignore[arg-type, dict-item]
    with pytest.raises(
        RecipeError, match=r"\['acc_nrom', 'recall_calls'\]; choose from right, right_strict, .* acc, acc_norm"
    ):
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
    assert "nothing in this evaluation set measures it" in verdict.sentence


def test_a_verdict_survives_json() -> None:
    verdict = decide(ACCURACY, items(60), items(30), items(50), **QUICK)
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict
    assert isinstance(verdict.differences["champion"]["acc_norm"], Comparison)


def step(index: int, gold: str, *, right: bool, called: bool = False, per_conversation: int = 4) -> Item:
    conversation = f"c{index // per_conversation}"
    verdict = {"ok": right, "valid_call": True if called else None, "right_tool": None, "right_arguments": None}
    return {"id": f"{conversation}/{index}", "conversation": conversation, "behaviour": gold, "verdict": verdict,
            "grammar": None}  # fmt: skip


def steps(right: int, n: int = 200, gold: str = "direct", **named: Any) -> list[Item]:
    """The right ones are spread evenly over the conversations."""
    return [step(index, gold, right=index * right % n < right, **named) for index in range(n)]


def test_written_steps_are_judged_with_their_conversations() -> None:
    verdict = decide_written(RIGHT, steps(150), steps(50))
    assert verdict.verdict == "GO"
    assert verdict.reasons == (
        "right improves on the base model by +0.500 [{low:+.3f}, {high:+.3f}], n=200 of 50 conversations: the whole "
        "interval is above 0".format(**verdict.differences["baseline"]["right"].model_dump()),
    )


def test_steps_that_stand_and_fall_with_their_conversation_prove_less() -> None:
    """100 steps, +.2 by 20 that were won: one in each of 20 conversations, or all of two among ten."""
    one_each = [step(index, "direct", right=index % 5 == 0, per_conversation=5) for index in range(100)]
    all_in_one = [step(index, "direct", right=index < 20, per_conversation=10) for index in range(100)]
    lows = []
    for lines in (one_each, all_in_one):
        base = [line | {"verdict": line["verdict"] | {"ok": False}} for line in lines]  # type: ignore[operator]
        lows.append(decide_written(RIGHT, lines, base).differences["baseline"]["right"].low)
    assert lows[0] > 0 >= lows[1]


@pytest.mark.parametrize("n", [1, 6, 24])
def test_a_handful_of_steps_without_any_loss_does_not_pass_a_margin(n: int) -> None:
    """What a bootstrap alone would call [0, 0]."""
    policy = GateSection(must_improve=("right",), must_not_drop={"overcall": 0.05})
    verdict = decide_written(policy, steps(n, n=n), steps(0, n=n))
    (overcall,) = (condition for condition in verdict.conditions if condition.metric == "overcall")
    assert verdict.verdict == overcall.outcome == "INCONCLUSIVE"
    assert re.match(rf"not proven: {n} steps? (are|is) too few, about [\d,]+ needed", overcall.reason)
    assert overcall.needed is not None
    assert overcall.needed > 70  # .95 ** 72 = .025: with fewer, a true rise of .05 may show no call at all


def test_more_overcalls_are_a_loss() -> None:
    policy = GateSection(must_improve=("right",), must_not_drop={"overcall": 0.05})
    calling = [step(index, "direct", right=True, called=index % 4 == 0) for index in range(200)]
    verdict = decide_written(policy, calling, steps(20))
    assert verdict.verdict == "NO-GO"
    assert verdict.sentence.startswith("NO-GO: overcall is worse than the base model by -0.250")


def test_a_behaviour_that_no_turn_shows_is_left_out_and_said() -> None:
    verdict = decide_written(GateSection(), steps(180), steps(20))
    assert verdict.verdict == "GO"
    assert any(reason.startswith("right_decline is not judged: no turn") for reason in verdict.reasons)
    assert {condition.metric for condition in verdict.conditions} == {"right", "overcall", "right_talk"}


def test_an_evaluation_without_written_steps_says_what_is_missing() -> None:
    verdict = decide(GateSection(), items(60), items(30), **QUICK)
    assert verdict.sentence.startswith("INCONCLUSIVE: right must improve on the base model, but nothing")


def test_models_that_wrote_other_steps_are_not_compared() -> None:
    with pytest.raises(ScoringError, match="baseline were not scored on the same steps: 1 only in the candidate's"):
        decide_written(RIGHT, steps(5, n=9), steps(5, n=8))


def test_too_few_is_the_first_line_with_the_n_that_would_do() -> None:
    """24 steps, 3 more right: the interval is about ±.15, so the n is (1.96 + .84)² × 24 × (.077 / .125)² = 71."""
    ours, theirs = ([step(i, "direct", right=i < right, per_conversation=1) for i in range(24)] for right in (11, 8))
    verdict = decide_written(RIGHT, ours, theirs, bootstrap_samples=2000)
    found = re.match(
        r"INCONCLUSIVE: not proven: 24 steps are too few, about (\d+) needed \((\d+) conversations instead of 24\): right",
        verdict.sentence,
    )
    assert found
    (condition,) = verdict.conditions
    assert (condition.needed, condition.conversations_needed) == (int(found[1]), int(found[2]))
    assert 50 < int(found[1]) < 120


def test_what_more_steps_will_not_settle_is_said_first() -> None:
    """4,000 steps, a little worse: an improvement of .05 would have been seen."""
    candidate, baseline = two_models(4_000, -0.01, np.random.default_rng(1))
    policy = GateSection(must_improve=("right",), must_not_drop={"right_decline": 0.05})
    assert decide_written(policy, candidate, baseline).sentence.startswith(
        "INCONCLUSIVE: not proven, and with the difference as measured more steps will not settle it: right must improve"
    )


def test_holm_by_hand() -> None:
    """Sorted .01, .03, .04: 3 × .01 = .03, 2 × .03 = .06, 1 × .04 = .04 but never below the one before."""
    assert holm([0.04, 0.01, 0.03]) == pytest.approx([0.06, 0.03, 0.06])
    assert holm([]) == []


def test_p_and_interval_agree() -> None:
    assert p_above(0.1, 0.0, 0.0, 0.95) == pytest.approx(0.025)
    assert p_above(0.1, 0.01, 0.0, 0.95) < 0.025 < p_above(0.1, -0.01, 0.0, 0.95)
    assert p_above(0.0, 0.0, 0.0, 0.95) == 1.0


def test_items_needed_by_hand() -> None:
    """A standard error of .1 at n = 100 is 1 / sqrt(n): (1.960 + .8416)² / .2² = 196."""
    assert items_needed(100, 0.2, 0.1, level=0.025, power=0.8) == pytest.approx(196.2, abs=0.1)
    assert items_needed(100, 0.0, 0.1, level=0.025, power=0.8) == float("inf")


def test_an_interval_is_never_narrower_than_the_items_that_differ_allow() -> None:
    """Nothing seen on 6 items: Wilson's upper bound is 3.84 / 9.84 = .39 each way. Of 5 conversations a half is stretched by
    t(4) / z × sqrt(5 / 4) = 2.776 / 1.960 × 1.118 = 1.58, of 1,000 not at all, of 3 nothing is known."""
    nothing = widened(Difference(0.0, 6, 0.0, 0.0, 1.0, 0.0, 0, 0), 6, 0.95)
    assert (nothing.low, nothing.high) == pytest.approx((-0.39, 0.39), abs=0.001)
    wide = Difference(0.1, 1000, -0.3, 0.4, 0.2, 0.2, 300, 200)
    for clusters, low, high in ((1000, -0.3, 0.4), (5, 0.1 - 0.4 * 1.58, 0.1 + 0.3 * 1.58), (3, -1.0, 1.0)):
        found = widened(wide, clusters, 0.95)
        assert (found.low, found.high) == pytest.approx((low, high), abs=0.01)


def test_two_conditions_that_pass_alone_do_not_pass_together_by_chance() -> None:
    """Each interval only just above its limit: p = .02 twice, by Holm .04, above .025."""
    metric = {"value": 0.1, "low": 0.0046, "high": 0.2, "n": 100}
    differences = {"baseline": {"acc": Comparison(**metric), "acc_norm": Comparison(**metric)}}
    asks = [gate.Ask(name, "baseline", None) for name in ("acc", "acc_norm")]
    found = gate.judge(asks, differences, confidence=0.95, conversations=0)
    assert [condition.outcome for condition in found] == ["INCONCLUSIVE"] * 2
    assert "is above 0 only by itself: p 0.020, among all that must improve by Holm 0.040 > 0.025" in found[0].reason
    alone = gate.judge(asks[:1], differences, confidence=0.95, conversations=0)
    assert alone[0].outcome == "GO"
    margins = [gate.Ask(name, "baseline", 0.0) for name in ("acc", "acc_norm")]
    both = gate.judge(margins, differences, confidence=0.95, conversations=0)
    assert [condition.outcome for condition in both] == ["GO"] * 2  # all must hold: nothing to correct


def test_one_harm_among_many_conditions_is_corrected() -> None:
    """p of the harm is .02: a NO-GO alone, and among two .04."""
    harm = Comparison(value=-0.1, low=-0.2, high=-0.0046, n=100)
    differences = {"baseline": {"acc": harm, "acc_norm": Comparison(value=0.1, low=0.05, high=0.2, n=100)}}
    asks = [gate.Ask("acc", "baseline", 0.0), gate.Ask("acc_norm", "baseline", None)]
    for some, outcome in ((asks[:1], "NO-GO"), (asks, "INCONCLUSIVE")):
        assert gate.judge(some, differences, confidence=0.95, conversations=0)[0].outcome == outcome


def simulated(policy: GateSection, n: int, better_by: float, seed: int) -> Verdict:
    candidate, baseline = two_models(n, better_by, np.random.default_rng(seed))
    return decide_written(policy, candidate, baseline, bootstrap_samples=300)


def test_two_copies_of_one_model_seldom_get_a_go() -> None:
    """100 gates at a true rate of at most .04: more than 11 has a chance of .0006. bench/gate.py does it 1,000 times."""
    verdicts = [simulated(RIGHT, 120, 0.0, seed).verdict for seed in range(100)]
    assert verdicts.count("GO") <= 11
    assert verdicts.count("NO-GO") <= 11


def test_the_n_that_the_gate_asks_for_finds_the_difference_with_the_power_it_predicts() -> None:
    """Pilots that measured just the planted .2; at the n they ask for, 40 gates pass .8 of the time: 23 to 39 with
    a chance of .999 (exact binomial)."""
    asked: list[int] = []
    seed = 0
    while len(asked) < 4:
        verdict = simulated(RIGHT, 40, 0.2, seed)
        needed = verdict.conditions[0].needed
        if verdict.differences["baseline"]["right"].value == pytest.approx(0.2) and needed is not None:
            asked.append(needed)
        seed += 1
    passed = [simulated(RIGHT, asked[number % 4], 0.2, 1_000 + number).verdict for number in range(40)].count("GO")
    assert 23 <= passed <= 39


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
    verdict = decide(ACCURACY, same, same, same, **QUICK)
    assert verdict.verdict == "INCONCLUSIVE"
    assert all(gap.low < gap.value == 0 < gap.high for gap in verdict.differences["baseline"].values())


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

    recipe = load_recipe(None, ['gate.must_improve=["acc_norm"]', "gate.must_not_drop={}"])
    base, better = scores("base", items(30)), scores("better", items(60))
    ref = decide_verdict.run(recipe, store=store, candidate=better, baseline=base, champion=None)
    verdict = read_verdict(store, ref)
    assert verdict.verdict == "GO"
    assert store.manifest(ref)["result"]["verdict"] == "GO"
    again = decide_verdict.run(recipe, store=store, candidate=better, baseline=base, champion=None)
    assert again == ref
