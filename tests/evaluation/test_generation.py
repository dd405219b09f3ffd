"""Generation: batches write what one prompt at a time would, stop at the end of the turn, and are judged."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import torch
from tiny import tiny_choice_rows
from transformers import AutoModelForCausalLM

from rightcall.chat.template import ChatTemplate
from rightcall.evaluation.generation import answer_rows, complete, judge, sample
from rightcall.evaluation.questions import answer_message
from rightcall.recipe.sections import EvaluationSection

SETTINGS = EvaluationSection(dtype="float32", max_new_tokens=6, max_tree_tokens=1_000, generation_items=8)


def test_a_sample_is_balanced_repeatable_and_in_the_order_of_the_rows() -> None:
    rows = tiny_choice_rows(40)
    picked = sample(rows, 8, seed=1)
    assert Counter(row["correct_answer"] for row in picked) == dict.fromkeys(
        ("direct", "tool_call", "request_for_info", "cannot_answer"), 2
    )
    assert picked == sample(rows, 8, seed=1) != sample(rows, 8, seed=2)
    assert [row["id"] for row in picked] == [row["id"] for row in rows if row in picked]


def test_a_rare_behaviour_leaves_its_places_to_the_others() -> None:
    rows = [row for row in tiny_choice_rows(40) if row["correct_answer"] != "direct"][:20]
    assert len(sample(rows, 17, seed=0)) == 17
    assert len(sample(rows, 99, seed=0)) == 20
    assert sample(rows, 0, seed=0) == []


def test_batches_write_what_one_prompt_at_a_time_would(model: Any, template: ChatTemplate) -> None:
    """The prompts differ in length, so all but one of a batch are padded."""
    rows = tiny_choice_rows(12)
    prompts = [template.encode_prompt([{"role": "user", "content": row["question"]}], row["tools"]) for row in rows]
    texts = complete(model, template, prompts, SETTINGS)
    for prompt, text in list(zip(prompts, texts, strict=True))[::3]:
        ids = list(prompt)
        for _ in range(SETTINGS.max_new_tokens):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            if ids[-1] in template.eos_ids:
                ids.pop()
                break
        assert text == template.decode(ids[len(prompt) :])
    assert len(set(texts)) > 1


def test_text_ends_before_the_end_of_turn(template: ChatTemplate, tiny_model: Path) -> None:
    """A model that has only ever one thing to say: the end of the turn."""
    silent = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    end = template.tokenizer.token_to_id(template.end_of_turn)
    with torch.no_grad():
        silent.model.embed_tokens.weight.zero_()
        silent.model.embed_tokens.weight[:, 0] = 1.0
        silent.model.embed_tokens.weight[end, 0] = 5.0
    assert complete(silent, template, [[5, 6, 7], [8]], SETTINGS) == ["", ""]


def test_a_gold_call_written_by_the_template_is_judged_right(template: ChatTemplate) -> None:
    row = next(row for row in tiny_choice_rows(8) if row["correct_answer"] == "tool_call")
    line = judge(row, template.answer_text(answer_message(row, "tool_call")))
    assert line["verdict"]["ok"]
    assert line["error_kind"] is None
    assert line["parsed"]["behaviour"] == "tool_call"


def test_a_call_where_nothing_fits_is_named(template: ChatTemplate) -> None:
    row = next(row for row in tiny_choice_rows(8) if row["correct_answer"] == "cannot_answer")
    line = judge(row, template.answer_text(answer_message(row, "tool_call")))
    assert not line["verdict"]["ok"]
    assert line["error_kind"] == "called_when_nothing_fits"
    assert line["gold"] == "cannot_answer"


def test_an_error_is_kept_as_its_code_and_detail() -> None:
    row = next(row for row in tiny_choice_rows(8) if row["correct_answer"] == "tool_call")
    line = judge(row, '<tool_call>{"name": "get_weather"')
    assert line["parsed"] == {
        "behaviour": "tool_call",
        "calls": [],
        "error": "unterminated_json: Expecting ',' delimiter at character 33",
    }


def test_every_row_gets_a_line_in_its_place(model: Any, template: ChatTemplate) -> None:
    rows = sample(tiny_choice_rows(40), 20, seed=0)
    lines = answer_rows(model, template, rows, SETTINGS)
    assert [line["id"] for line in lines] == [row["id"] for row in rows]
    assert all({"text", "parsed", "verdict", "error_kind", "gold"} <= set(line) for line in lines)
