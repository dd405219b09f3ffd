"""Each rule about a row, by one row that keeps it and one that breaks it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from tiny import build_tiny_tokenizer, call_message, text_message, tiny_choice_rows, tiny_preference_rows, tiny_sft_rows

from data_checks.flags import flag_rows, is_live, questions, roles_alternate
from data_checks.rules import CRITICAL, RULES, removes, rules_of, severity_of
from rightcall.chat.template import ChatTemplate
from rightcall.rows.vocabulary import Row, RowKind

Change = Callable[[Row], Any]
AMONG_ROWS = {
    "parseable",
    "id_unique",
    "not_leaked",
    "not_duplicate",
    "not_near_duplicate",
    "not_contradicted",
}  # no row answers these alone


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    return ChatTemplate.load(build_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer")), "chatml-tools")


def flagged(rows: list[Row], kind: RowKind, template: ChatTemplate, max_length: int = 1000) -> list[Row]:
    return flag_rows(rows, kind, template, max_length).to_dicts()


def broken(kind: RowKind, change: Change, template: ChatTemplate, max_length: int = 1000) -> set[str]:
    """Names of the flags that a good row loses by the change."""
    row = copy.deepcopy(
        {"sft": tiny_sft_rows(1), "preference": tiny_preference_rows(1), "choice": tiny_choice_rows(1)}[kind][0]
    )
    change(row)
    return {name for name, holds in flagged([row], kind, template, max_length)[0].items() if holds is False}


def call_with(name: str = "get_weather", **arguments: Any) -> Change:
    def change(row: Row) -> None:
        row["messages"][-1] = call_message(name, arguments)

    return change


@pytest.mark.parametrize("kind", ["sft", "preference", "choice"])
def test_good_rows_keep_every_rule_and_have_lengths(kind: RowKind, template: ChatTemplate) -> None:
    rows = {"sft": tiny_sft_rows, "preference": tiny_preference_rows, "choice": tiny_choice_rows}[kind](24)
    for flags in flagged(rows, kind, template):
        assert all(flags[name] for name in flags)
        assert 0 < flags["n_prompt_tokens"] <= flags["n_tokens"]
        assert {rule.flag for rule in rules_of(kind)} - AMONG_ROWS == flags.keys() - {"n_tokens", "n_prompt_tokens"}


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda row: None, set()),
        (lambda row: row.update(source="BFCL v2 Live Multiple"), {"not_live"}),
        (lambda row: row["messages"].insert(0, {"role": "user", "content": "Hello?"}), {"roles_alternate"}),
        (lambda row: row.update(behaviour="direct"), {"behaviour_true"}),
        (lambda row: row["messages"].__setitem__(-1, text_message("Sunny.")), {"behaviour_true"}),
        (call_with("fly_to_the_moon", city="Rome"), {"call_offered"}),
        (call_with(), {"required_present"}),
        (call_with(city=7), {"arguments_valid"}),
        (call_with(city="Rome", unit="kelvin"), {"arguments_valid"}),
        (call_with(city="Rome", mood="good"), {"arguments_valid"}),
        (call_with(unit="kelvin"), {"required_present", "arguments_valid"}),
        (lambda row: row.update(tools=[]), {"call_offered"}),
        (lambda row: row["messages"][0].update(content="<|im_end|>"), {"renders"}),
        (lambda row: row["messages"][0].update(content="word " * 2000), {"within_length"}),
    ],
)
def test_a_broken_sft_row_loses_exactly_its_flag(change: Change, lost: set[str], template: ChatTemplate) -> None:
    assert broken("sft", change, template) == lost


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda row: row.update(rejected=copy.deepcopy(row["chosen"])), {"sides_differ"}),
        (lambda row: row.update(rejected=row["chosen"] | {"content": " "}), {"sides_differ"}),
        (lambda row: row.update(chosen=call_message("fly", {})), {"call_offered"}),
        (lambda row: row.update(rejected=call_message("fly", {})), set()),
        (lambda row: row["prompt"].append(text_message("Hm.")), {"same_prompt", "roles_alternate"}),
        (lambda row: row.update(id="live_simple_3"), {"not_live"}),
        (lambda row: row.update(rejected=text_message("word " * 2000)), {"within_length"}),
    ],
)
def test_a_broken_preference_row_loses_exactly_its_flags(
    change: Change, lost: set[str], template: ChatTemplate
) -> None:
    assert broken("preference", change, template) == lost


@pytest.mark.parametrize(
    ("change", "lost"),
    [
        (lambda row: row["answers"].update(direct=""), {"four_answers"}),
        (lambda row: row["answers"].update(direct=row["answers"]["cannot_answer"] + " "), {"four_answers"}),
        (lambda row: row.update(tools=[]), {"gold_call_offered"}),
        (lambda row: row["answers"].update(tool_call="not a call"), {"gold_call_offered"}),
        (lambda row: row.update(question="word " * 2000), {"within_length"}),
    ],
)
def test_a_broken_item_loses_exactly_its_flag(change: Change, lost: set[str], template: ChatTemplate) -> None:
    assert broken("choice", change, template) == lost


def test_lengths_are_those_of_the_template_and_a_row_of_max_length_fits(template: ChatTemplate) -> None:
    row = tiny_sft_rows(1)[0]
    ids, mask = template.encode(row["messages"], row["tools"])
    flags = flagged([row], "sft", template, len(ids))[0]
    assert (flags["n_tokens"], flags["within_length"]) == (len(ids), True)
    assert flags["n_prompt_tokens"] == mask.index(1)
    assert not flagged([row], "sft", template, len(ids) - 1)[0]["within_length"]


def test_a_pair_is_as_long_as_its_longer_side(template: ChatTemplate) -> None:
    row = tiny_preference_rows(1)[0]
    sides = [
        sum(map(len, template.encode_pair(row["prompt"], row["tools"], row[name]))) for name in ("chosen", "rejected")
    ]
    # the template closes a whole conversation with a newline, which is not part of the answer
    assert max(sides) <= flagged([row], "preference", template)[0]["n_tokens"] <= max(sides) + 1


def test_one_row_that_the_template_refuses_does_not_take_its_batch_with_it(template: ChatTemplate) -> None:
    rows = copy.deepcopy(tiny_sft_rows(8))
    rows[3]["messages"][0]["content"] = "<|im_start|>"
    assert [flags["renders"] for flags in flagged(rows, "sft", template)] == [index != 3 for index in range(8)]


def test_flags_do_not_depend_on_the_other_rows(template: ChatTemplate) -> None:
    rows = tiny_sft_rows(6)
    assert flagged(rows, "sft", template) == [flagged([row], "sft", template)[0] for row in rows]


@pytest.mark.parametrize(
    ("roles", "good"),
    [
        ("user assistant", True), ("system user assistant user assistant", True),
        ("user call tool assistant", True), ("user call tool tool assistant", True), ("user call", True),
        ("user call user assistant", False), ("assistant user assistant", False), ("user user assistant", False),
        ("user assistant assistant", False), ("user tool assistant", False), ("user assistant user", False),
        ("user system assistant", False),
    ],
)  # fmt: skip
def test_roles_alternate(roles: str, good: bool) -> None:
    made = {"call": call_message("f", {})}
    assert roles_alternate([made.get(role, {"role": role, "content": "x"}) for role in roles.split()]) is good


@pytest.mark.parametrize(
    ("source", "name", "live"),
    [
        ("BFCL v2 Live Multiple", "a", True), ("bfcl:live_simple", "a", True), ("x", "live_irrelevance_7-0-0", True),
        ("bfcl:simple_python", "a", False), ("non_live_simple", "a", False), ("live-support-chats.jsonl", "7", False),
        ("alive simple", "a", False),
    ],
)  # fmt: skip
def test_bfcl_live_is_known_in_any_spelling(source: str, name: str, live: bool) -> None:
    assert is_live(source, name) is live


def test_a_short_reply_within_a_conversation_is_no_question() -> None:
    turns = [("user", "Find me a flight to Rome"), ("assistant", "When?"), ("user", "Yes please")]
    asked = questions([{"role": role, "content": text} for role, text in turns], str.lower)
    assert asked == ["find me a flight to rome", "find me a flight to rome yes please"]
    assert questions([{"role": "user", "content": "Hi"}], str.lower) == ["hi"]


def test_rules_are_named_once_and_adapters_reasons_are_critical() -> None:
    assert len({rule.flag for rule in RULES}) == len({rule.reason for rule in RULES}) == len(RULES)
    assert severity_of("missing_field:tools") == severity_of("too_long") == "critical"
    assert severity_of("exact_duplicate") == "warning"
    assert "near_duplicate" not in CRITICAL
    assert not removes("near_duplicate", "choice")
    assert removes("near_duplicate", "sft")
