"""docs/your-agent.md: its record, recipe, reasons, times and fields are those of the program."""

from __future__ import annotations

import json

import agent_recipe
import agent_times
import field_list
import reasons_table
from agent_example import conversations
from field_list import on_page

from data_checks.rules import RULES
from rightcall.recipe.schema import Recipe

WRITE = "run `python tests/generators/{}.py --write` and read the diff"


def test_every_field_of_the_schema_is_listed() -> None:
    assert on_page("field_list") == field_list.field_list(), WRITE.format("field_list")
    for name, info in Recipe.model_fields.items():
        assert f"`{info.alias or name}`" in on_page("field_list") or name in ("sft", "dpo")


def test_every_reason_of_a_quarantine_is_listed() -> None:
    assert on_page("reasons_table") == reasons_table.reasons_table(), WRITE.format("reasons_table")
    assert all(f"`{rule.reason}`" in on_page("reasons_table") for rule in RULES)
    assert {"bad_role", "not_json", "unknown_schema", "too_deep"} <= reasons_table.refusals().keys()


def test_the_times_are_those_of_the_estimates() -> None:
    assert on_page("agent_times") == agent_times.agent_times(), WRITE.format("agent_times")


def test_the_record_is_the_first_of_the_example_log() -> None:
    assert agent_recipe.on_page("record") == agent_recipe.record(), WRITE.format("agent_recipe")
    assert json.loads(agent_recipe.on_page("record")) == conversations(1)[0]


def test_the_recipe_is_what_flows_init_writes() -> None:
    assert agent_recipe.on_page("recipe") == agent_recipe.recipe(), WRITE.format("agent_recipe")
