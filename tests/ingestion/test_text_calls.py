"""Calls that stand as text in rows: whatever the verifier reads as a call is one, in training too; nothing around it is lost."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation_recipe, write_log
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import TOOLS, tiny_sft_rows, write_tiny_sources

from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.verifier import parse

Row = dict[str, Any]
CALL = {"name": "get_weather", "arguments": {"city": "Oslo"}}
JSON = json.dumps(CALL)
WRITTEN = {  # as a model may write it: what is said beside the call
    JSON: "",
    f"Let me look. {JSON}": "Let me look.",
    f"```json\n{JSON}\n```\nOne moment.": "One moment.",
    f"<tool_call>\n{JSON}\n</tool_call>\nOne moment.": "One moment.",
    f"<think>\nOslo, then.\n</think>\n\n<tool_call>\n{JSON}\n</tool_call>": "<think>\nOslo, then.\n</think>",
    'get_weather(city="Oslo")': "",
    'I call it now.\n[get_weather(city="Oslo")]': "I call it now.",
    f"functools[{JSON}]": "",
    f"Sure. [TOOL_CALLS] [{JSON}]": "Sure.",
    '[TOOL_CALLS]get_weather[ARGS]{"city": "Oslo"}': "",
    'Action: get_weather\nAction Input: {"city": "Oslo"}': "",
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>": "",
    f"<TOOLCALL>[{JSON}]</TOOLCALL>": "",
    '<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{"city": "Oslo"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>': "",
}  # fmt: skip


def said(number: int, text: str) -> Row:
    asked = {"role": "user", "content": f"How warm is it in Oslo, at place {number}, and what do you do to find out?"}
    return {"id": f"own-{number}", "messages": [asked, {"role": "assistant", "content": text}], "tools": TOOLS}


def ingested(rows: list[Row], tmp_path: Path) -> tuple[dict[str, Row], dict[int, Row]]:
    """Kept rows by id, and what is in the quarantine by its line."""
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], [*rows, *tiny_sft_rows(24)])
    folder, _ = snapshot_of(ingest_recipe(paths, tolerance=0.9), tmp_path)
    return {row["id"]: row for row in read_snapshot(folder, "sft")}, {
        each["line"]: each for each in quarantined(folder)
    }


def test_what_the_verifier_reads_as_a_call_is_trained_as_one(tmp_path: Path) -> None:
    kept, refused = ingested([said(number, text) for number, text in enumerate(WRITTEN)], tmp_path)
    assert refused == {}
    for number, (text, beside) in enumerate(WRITTEN.items()):
        assert parse(text, tools=TOOLS).calls == [CALL], text
        answer = kept[f"own-{number}"]["messages"][-1]
        assert [call["function"] for call in answer["tool_calls"]] == [CALL], text
        assert answer["content"] == beside, text


@pytest.mark.parametrize(
    ("text", "beside"),
    [
        ('[Market Trends API(country="no")]', ""),
        ("I don't know yet, so I look.\n[Market Trends API(country='no')]", "I don't know yet, so I look."),
    ],
)
def test_a_tools_name_may_be_none_that_python_reads(text: str, beside: str, tmp_path: Path) -> None:
    parameters = {"type": "object", "properties": {"country": {"type": "string"}}}
    row = said(0, text) | {
        "tools": [*TOOLS, {"name": "Market Trends API", "description": "Trends.", "parameters": parameters}]
    }
    kept, refused = ingested([row], tmp_path)
    assert refused == {}
    answer = kept["own-0"]["messages"][-1]
    assert answer["content"] == beside
    assert answer["tool_calls"][0]["function"] == {"name": "Market Trends API", "arguments": {"country": "no"}}


@pytest.mark.parametrize("text", [
    "Put it in <tool_call> tags.", '{"city": "Oslo", "degrees": 4}', "[1, 2]", '{"name": "Oslo"}', "print(x=1)",
    "Call get_weather(city=\"Oslo\") to find out.", "See [the list](https://example.com/list) of (warm) places.",
])  # fmt: skip
def test_what_only_mentions_a_call_is_trained_as_the_text_that_it_is(text: str, tmp_path: Path) -> None:
    kept, _ = ingested([said(0, text)], tmp_path)
    assert kept["own-0"]["messages"][-1] == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (JSON.replace("get_weather", "no_such_tool"), "tool_not_offered"),
        (f"<TOOLCALL>[{JSON.replace('get_weather', 'no_such_tool')}]</TOOLCALL>", "tool_not_offered"),
        (f"[TOOL_CALLS] [{JSON.replace('get_weather', 'no_such_tool')}]", "tool_not_offered"),
        (JSON.replace('"city"', '"town"'), "arguments_break_schema"),
        ('Well. [TOOL_CALLS] [{"name": "get_weather", "arg', "bad_toolcall"),
        ('functools[{"name": "get_weather", "arg', "bad_toolcall"),
        (f'<tool_call>{JSON}</tool_call> and get_weather(city="Rome")', "bad_toolcall"),
    ],
)
def test_a_call_that_is_wrong_is_quarantined_in_whatever_form_it_is(text: str, reason: str, tmp_path: Path) -> None:
    kept, refused = ingested([said(0, text)], tmp_path)
    assert "own-0" not in kept
    assert reason in refused[1]["reasons"]


def test_text_calls_of_conversations_are_read_with_the_tools_that_the_recipe_names(tmp_path: Path) -> None:
    records = []
    for number, text in enumerate(WRITTEN):
        row = said(number, text)
        result = {"role": "tool", "content": "4"}
        end = {"role": "assistant", "content": f"It is {number} degrees in Oslo."}
        records.append({"id": row["id"], "user_id": row["id"], "messages": [*row["messages"], result, end]})
    tools = tmp_path / "tools.json"
    tools.write_text(json.dumps(TOOLS))
    log = write_log(tmp_path / "logs", records)
    folder, _ = snapshot_of(conversation_recipe({"uri": str(log), "tools": str(tools)}, tolerance=0.5), tmp_path)
    assert quarantined(folder) == []
    rows = [*read_snapshot(folder, "sft"), *read_snapshot(folder, "step")]
    calls = {str(row["id"]).split("/")[0]: row["messages"][1].get("tool_calls") for row in rows}
    assert len(calls) == len(WRITTEN)
    assert all(call and call[0]["function"] == CALL for call in calls.values())
