"""Near duplicates, leakage and sampling: what counts as the same, and what survives."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_checks.duplicates import (
    EvaluationIndex,
    bands,
    near_duplicates,
    normalise,
    rows_per_band,
    shingles,
    signatures,
)
from data_checks.row_content import content_key
from data_checks.sampling import balanced_sample, grouped_sample, shares

LONG = " ".join(f"word{number}" for number in range(60))


def duplicates_of(texts: list[str], threshold: float = 0.9, partitions: list[str] | None = None) -> list[int]:
    found = signatures([shingles(normalise(text)) for text in texts])
    return near_duplicates(found, bands(found, threshold, partitions), threshold).tolist()


def test_case_blanks_and_punctuation_do_not_make_another_question() -> None:
    assert normalise("Weather in  ROME?!") == normalise("weather in rome") == "weather in rome"
    assert normalise("Ｒｏｍｅ") == "rome"
    assert normalise("?!") == "?!"


def test_the_first_of_near_duplicates_is_kept() -> None:
    assert duplicates_of([LONG, "quite another text about nothing", LONG + " more"]) == [-1, -1, 0]


def test_texts_below_the_threshold_are_no_near_duplicates() -> None:
    half = " ".join(LONG.split()[:30]) + " " + " ".join(f"other{number}" for number in range(30))
    assert duplicates_of([LONG, half]) == [-1, -1]


def test_rows_of_unlike_classes_are_contrasts_and_not_near_duplicates() -> None:
    assert duplicates_of([LONG, LONG], partitions=["tool_call", "cannot_answer"]) == [-1, -1]


def test_the_same_question_with_other_tools_is_another_row() -> None:
    question = normalise("weather in rome please and quickly")
    found = signatures([shingles(question, names) for names in (["get_weather", "x"], ["book_table", "y"])])
    assert near_duplicates(found, bands(found, 0.9), 0.9).tolist() == [-1, -1]


def test_a_chain_of_small_changes_keeps_its_far_end() -> None:
    """Each text changes 2 of 60 words more: the first neighbour falls, a row that is unlike every kept one stays."""
    words = LONG.split()
    chain = [" ".join([f"new{number}" for number in range(3 * step)] + words[3 * step :]) for step in range(12)]
    first = duplicates_of(chain, 0.85)
    assert first[0] == -1
    assert any(each == -1 for each in first[1:])
    assert all(first[earlier] == -1 for earlier in first if earlier >= 0)


def test_signatures_estimate_the_jaccard_similarity() -> None:
    """Shingle sets of 58 and 58 with 29 in common: 29 / 87 = 1/3; the standard error with 128 permutations is 0.042."""
    words = LONG.split()
    other = words[:31] + [f"other{number}" for number in range(29)]
    found = signatures([shingles(" ".join(words)), shingles(" ".join(other))])
    assert abs((found[0] == found[1]).mean() - 1 / 3) < 0.15


def test_a_band_finds_a_pair_at_the_threshold_with_99_percent() -> None:
    for threshold in (0.5, 0.7, 0.8, 0.9, 0.95, 1.0):
        width = rows_per_band(threshold)
        assert 1 - (1 - threshold**width) ** (128 // width) >= 0.99


def test_texts_shorter_than_a_shingle_are_compared_as_a_whole() -> None:
    assert duplicates_of(["yes", "yes", "no", "yes please"]) == [-1, 0, -1, -1]


def test_no_rows_have_no_duplicates() -> None:
    assert duplicates_of([]) == []


def test_a_question_of_the_evaluation_leaks_whatever_its_case_or_tools() -> None:
    index = EvaluationIndex(["What is the weather in Rome today?", LONG], 0.9)
    asked = [["what is the weather in rome today"], [normalise(LONG + " more")], ["book a table for two in rome"], []]
    assert index.leaks(asked) == [True, True, False, False]
    assert EvaluationIndex([], 0.9).leaks(asked) == [False] * 4


def test_ids_are_no_content() -> None:
    row = {"id": "a", "messages": [{"content": "x"}], "tools": []}
    assert content_key(row) == content_key({"tools": [], "messages": [{"content": "x"}], "uuid": "b", "source": "z"})
    assert content_key(row) != content_key(row | {"messages": [{"content": "y"}]})


def test_what_a_small_class_lacks_is_shared_out_among_the_others() -> None:
    assert shares({"a": 10, "b": 2, "c": 10}, 12) == {"a": 5, "b": 2, "c": 5}
    assert shares({"a": 5, "b": 5, "c": 1}, 7) == {"a": 3, "b": 3, "c": 1}
    assert shares({"a": 1, "b": 2}, 12) == {"a": 1, "b": 2}
    assert shares({}, 3) == {}


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=60), st.integers(1, 40), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_balanced_sample_is_full_and_as_even_as_it_can_be(names: list[str], wanted: int, seed: int) -> None:
    chosen = balanced_sample([(name,) for name in names], wanted, seed)
    assert chosen == balanced_sample([(name,) for name in names], wanted, seed)
    assert len(set(chosen)) == len(chosen) == min(wanted, len(names))
    counts = {name: sum(names[index] == name for index in chosen) for name in set(names)}
    assert all(counts[name] in (names.count(name), max(counts.values()), max(counts.values()) - 1) for name in counts)


def test_a_sample_is_balanced_over_the_inner_class_too() -> None:
    classes = [("tool_call", kind) for kind in ["wrong_value"] * 90 + ["wrong_tool"] * 10] + [("direct", "x")] * 100
    chosen = balanced_sample(classes, 40, seed=1)
    inner = [classes[index][1] for index in chosen]
    assert (inner.count("wrong_value"), inner.count("wrong_tool"), inner.count("x")) == (10, 10, 20)


def test_a_group_is_sampled_whole_or_not_at_all() -> None:
    classes = ["call", "ask", "refuse"] * 20
    groups = [f"group{index // 3}" for index in range(60)]
    chosen = grouped_sample(classes, groups, 31, seed=3)
    assert len(chosen) == 30
    taken = {groups[index] for index in chosen}
    assert chosen == [index for index in range(60) if groups[index] in taken]


def test_a_scarce_class_gets_its_share_although_plentiful_groups_come_first() -> None:
    classes = ["call", "refuse"] * 50 + ["call", "ask", "refuse"] * 10
    groups = [f"pair{index // 2}" for index in range(100)] + [f"triple{index // 3}" for index in range(30)]
    chosen = grouped_sample(classes, groups, 30, seed=0)
    assert sorted(classes[index] for index in chosen) == ["ask"] * 10 + ["call"] * 10 + ["refuse"] * 10


def test_rows_that_come_first_are_counted() -> None:
    chosen = grouped_sample(["a", "a", "b", "b"], ["", "", "", ""], 2, seed=0, first=[1])
    assert 1 in chosen
    assert len(chosen) == 2
    assert np.isin([2, 3], chosen).sum() == 1
