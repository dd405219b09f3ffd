"""Steps as prompts and gold, and answers under the grammar: the free one where it keeps to the schemas, else decoded on."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from scoring_examples import conversation_steps
from tiny import call_message, tiny_choice_rows

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.grammar import Grammar
from rightcall.errors import ScoringError
from rightcall.evaluation.progress import Part, Progress
from rightcall.evaluation.steps import read_prompts, sample, step_of_item, steps_to_write, tokens_read
from rightcall.evaluation.writing import Turns, Writing, written_lines
from rightcall.job.folders import Job, folders
from rightcall.measurement.written import plain_values
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.sections import EvaluationSection

SETTINGS = EvaluationSection(dtype="float32", max_new_tokens=160)
SWITCH = {
    "type": "function",
    "function": {
        "name": "switch_light", "description": "Switch a light.",
        "parameters": {
            "type": "object", "required": ["room", "on"],
            "properties": {"room": {"type": "string", "enum": ["hall", "attic"]}, "on": {"type": "boolean"}},
        },
    },
}  # fmt: skip


def progress(folder: Path) -> Progress:
    where = folders({"SM_ML_ROOT": str(folder)})
    where.output.mkdir(parents=True)
    job = Job("score", load_recipe(None), where, ("algo-1",), "algo-1")
    return Progress(job, Part("free", 2, 1.0), Part("grammar", 2, 1.0))


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


def test_an_item_is_a_conversation_of_its_own() -> None:
    row = next(row for row in tiny_choice_rows(8) if row["correct_answer"] == "tool_call")
    step = step_of_item(row)
    assert step["conversation"] == step["group"] == step["id"] == row["id"]
    assert [message["role"] for message in step["messages"]] == ["user", "assistant"]
    assert step["messages"][-1]["tool_calls"][0]["function"]["name"] == "get_weather"
    with pytest.raises(ScoringError, match=r"item 'choice-0' cannot be scored"):
        step_of_item(row | {"answers": row["answers"] | {"tool_call": "get_weather(Rome)"}})


def test_a_step_and_an_item_of_one_name_are_refused() -> None:
    steps, items = conversation_steps(1), tiny_choice_rows(4)
    assert len(steps_to_write(steps, items, 2, 0)) == 6
    with pytest.raises(ScoringError, match=r"1 ids of steps occur more than once, e.g. \['choice-1'\]"):
        steps_to_write([*steps, steps[0] | {"id": "choice-1"}], items, 4, 0)


def test_a_prompt_is_all_before_the_turn(template: ChatTemplate) -> None:
    steps = conversation_steps(1)
    prompts = read_prompts(template, steps)
    whole = template.encode(steps[-1]["messages"], steps[-1]["tools"]).input_ids
    for step, prompt in zip(steps, prompts, strict=True):
        assert whole[: len(prompt)] == prompt, step["id"]
    assert tokens_read(prompts) == len(prompts[-1])
    assert tokens_read([]) == 0
    assert tokens_read([[1, 2, 3], [1, 2, 4, 5], [1, 2]]) == 5


def test_a_gold_call_that_cannot_be_read_is_named_before_scoring(template: ChatTemplate) -> None:
    step = conversation_steps(1)[1]
    call = call_message("get_weather", {})
    call["tool_calls"][0]["function"]["arguments"] = '{"city": '
    with pytest.raises(ScoringError, match=r"step 'talk-0/4' cannot be scored: the gold call of 'get_weather'"):
        read_prompts(template, [step | {"messages": [*step["messages"][:-1], call]}])


def test_gold_written_by_the_template_is_right(template: ChatTemplate) -> None:
    steps = conversation_steps(2)
    turns = Turns(template, steps, read_prompts(template, steps), SETTINGS)
    gold = [template.tokenize(template.answer_text(step["messages"][-1])) for step in steps]
    lines = written_lines(turns, gold, None)
    assert [(line["verdict"]["ok"], line["error_kind"], line["grammar"]) for line in lines] == [(True, None, None)] * 8
    assert [line["behaviour"] for line in lines] == [step["behaviour"] for step in steps]


def test_an_answer_that_breaks_a_schema_is_written_on_from_there(
    tmp_path: Path, model: Any, template: ChatTemplate
) -> None:
    """Two free answers: one that the grammar allows, one whose call names no room of the enum."""
    user = {"role": "user", "content": "Light in the attic, please."}
    gold = call_message("switch_light", {"room": "attic", "on": True})
    step = {"source": "tiny", "behaviour": "tool_call", "conversation": "c", "group": "c", "tools": [SWITCH]}
    steps = [step | {"id": f"c/{number}", "messages": [user, gold]} for number in range(2)]
    turns = Turns(template, steps, read_prompts(template, steps), SETTINGS)
    right = template.answer_text(gold)
    free = [template.tokenize(right), template.tokenize(right.replace("attic", "garage"))]
    writing = Writing(model, turns, progress(tmp_path), tmp_path)
    grammar = Grammar(template)
    answers = writing.under_grammar(free, grammar)
    assert answers[0] == free[0]
    place = grammar.first_violation(free[1], [SWITCH])
    assert place is not None
    assert answers[1][:place] == free[1][:place]
    assert len(answers[1]) <= SETTINGS.max_new_tokens
    first, second = written_lines(turns, free, answers)
    assert first["grammar"]["text"] == first["text"]
    assert (second["verdict"]["valid_call"], second["error_kind"]) == (False, "wrong_value")
    assert second["grammar"]["verdict"]["valid_call"] or second["grammar"]["cut"], second["grammar"]
    assert "garage" not in second["grammar"]["text"]
    # what is kept is used: the same again, without a pass of the model
    with torch.no_grad():
        for weight in model.parameters():
            weight.zero_()
    (tmp_path / "again").mkdir()
    again = Writing(model, turns, progress(tmp_path / "again"), tmp_path)
    assert again.under_grammar(free, grammar) == answers


def test_a_call_that_the_end_of_the_window_cuts_stays_as_it_is(
    tmp_path: Path, model: Any, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    gold = call_message("switch_light", {"room": "attic", "on": True})
    step = {"id": "c/1", "source": "tiny", "behaviour": "tool_call", "conversation": "c", "group": "c",
            "tools": [SWITCH], "messages": [{"role": "user", "content": "Light, please."}, gold]}  # fmt: skip
    turns = Turns(template, [step], read_prompts(template, [step]), SETTINGS)
    free = [template.tokenize(template.answer_text(gold))[:-4]]
    writing = Writing(model, turns, progress(tmp_path), tmp_path)
    monkeypatch.setattr(writing.decoder, "_window", len(turns.prompts[0]) + len(free[0]))
    assert writing.under_grammar(free, Grammar(template)) == free


def test_an_answer_as_long_as_may_be_says_that_it_is_cut(template: ChatTemplate) -> None:
    steps = conversation_steps(1)
    turns = Turns(template, steps, read_prompts(template, steps), EvaluationSection(max_new_tokens=3))
    lines = written_lines(turns, [[5], [5, 6], [5, 6, 7], []], None)
    assert [line["cut"] for line in lines] == [False, False, True, False]


def test_a_right_call_in_another_dialect_is_right_and_not_strictly_so(template: ChatTemplate) -> None:
    """What the template writes, the same in a fence and as Python, and a wrong call in the template's dialect."""
    (row,) = [row for row in tiny_choice_rows(4) if row["correct_answer"] == "tool_call"]
    step = step_of_item(row)
    function = step["messages"][-1]["tool_calls"][0]["function"]
    call = {"name": function["name"], "arguments": function["arguments"]}
    own = template.answer_text(step["messages"][-1])
    texts = [own, f"```json\n{json.dumps(call)}\n```", repr(call), own.replace(call["name"], "no_such_tool")]
    steps = [step | {"id": str(number), "conversation": number} for number in range(4)]
    turns = Turns(template, steps, read_prompts(template, steps), SETTINGS)
    lines = written_lines(
        turns, [template.tokenizer.encode(text, add_special_tokens=False).ids for text in texts], None
    )
    assert [(line["verdict"]["ok"], line["verdict"]["strict"]) for line in lines] == [
        (True, True), (True, False), (True, False), (False, True),
    ]  # fmt: skip
    values = plain_values(lines)
    assert (values["right"]["value"], values["right_strict"]["value"]) == (0.75, 0.25)
