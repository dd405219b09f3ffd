"""A row whose call does not come back from what the model's template writes for it is quarantined, whatever the template."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from template_corpus import OURS, TRL, corpus_tokenizer, folder_with
from tiny import call_message, text_message

from data_checks.flags import flag_rows
from rightcall.chat.template import ChatTemplate
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.template_check import load_template

ANY: dict[str, Any] = {"description": "Anything."}
TEXT = {"type": "string", "description": "A text."}


def row_with(value: Any, schema: dict[str, Any]) -> Row:
    parameters = {"type": "object", "properties": {"note": schema}, "required": ["note"]}
    function = {"name": "send_note", "description": "Sends.", "parameters": parameters}
    return {
        "id": "a", "source": "s", "behaviour": "tool_call", "tools": [{"type": "function", "function": function}],
        "messages": [{"role": "user", "content": "Send it."}, call_message("send_note", {"note": value})],
    }  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def loaded(tokenizer: Path, tmp_path: Path, name: str) -> ChatTemplate:
    return load_template(folder_with(tokenizer, tmp_path, (TRL | OURS)[name].read_text(encoding="utf-8")))


def reads_back(row: Row, template: ChatTemplate) -> bool:
    flags = flag_rows([row], "sft", template, 1000).to_dicts()[0]
    assert flags["renders"]
    return bool(flags["reads_back"])


HARD = [
    ("It's", TEXT), ("C:\\new", TEXT), ('say "yes"', TEXT), ("a\n\nb\n", TEXT), ("</parameter>", TEXT), ("", TEXT),
    ("42", TEXT), ("42", ANY), ("true", TEXT), ("null", ANY), ("[1]", ANY), ("{a: {b}}", TEXT), ("</think>", TEXT),
    ([], {"type": "array"}), ({}, {"type": "object"}), ([["it's", None], {"a b": True}], {"type": "array"}), (None, ANY),
    (True, {"type": "boolean"}), (1.0, {"type": "number"}), (10**17, {"type": "integer"}), ("東京 😀", TEXT),
]  # fmt: skip


@pytest.mark.parametrize(("name", "lost"), [
    ("qwen3", []),
    ("mistral_v3", []),
    ("gptoss", []),
    ("qwen3_coder", ["</parameter>", "42", "null", "[1]", "</think>"]),
    ("glm4_7", ["</parameter>", "42", "null", "[1]", "</think>"]),
    ("qwen3_coder_shown", ["</parameter>", "42", "null", "[1]", "</think>"]),
    ("lfm2_2_5", ["It's", "C:\\new"]),
    ("gemma4", ["</think>", [["it's", None], {"a b": True}]]),
])  # fmt: skip
def test_a_value_that_the_dialect_cannot_carry_takes_its_row_out(
    tokenizer: Path, tmp_path: Path, name: str, lost: list[Any]
) -> None:
    template = loaded(tokenizer, tmp_path, name)
    assert [value for value, schema in HARD if not reads_back(row_with(value, schema), template)] == lost


def test_calls_that_a_text_beside_them_drives_out_take_their_row_out(tokenizer: Path, tmp_path: Path) -> None:
    """A template that writes the text or the calls would teach the text alone where a call is right."""
    template = loaded(tokenizer, tmp_path, "text_before_calls")
    row = row_with("Hello.", TEXT)
    assert reads_back(row, template)
    row["messages"][-1]["content"] = "Let me send it."
    assert not reads_back(row, template)


def test_only_trained_turns_must_come_back(tokenizer: Path, tmp_path: Path) -> None:
    template = loaded(tokenizer, tmp_path, "lfm2_2_5")
    row = row_with("It's", TEXT)
    row["messages"] += [
        {"role": "tool", "tool_call_id": "call_0", "content": "sent"}, text_message("Sent."),
        {"role": "user", "content": "And?"}, text_message("That is all."),
    ]  # fmt: skip
    assert not reads_back(row, template)
    assert reads_back(row | {"trained": [[5, "direct"]], "behaviour": "direct"}, template)
