"""Where an answer begins and ends, and what its calls look like, under templates with rules of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from template_corpus import OURS, TRL, corpus_tokenizer, folder_with
from tiny import TOOLS, call_message, text_message, tiny_choice_rows

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError
from rightcall.evaluation.questions import read_questions
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.verifier import parse

Load = Callable[[str], ChatTemplate]
CALL = call_message("get_weather", {"city": "Graz"})
RESULT = {"role": "tool", "tool_call_id": "call_0", "content": "4 °C"}
QUESTION = {"role": "user", "content": "How warm is it in Graz?"}


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Load:
    root = tmp_path_factory.mktemp("templates")
    tokenizer = corpus_tokenizer(root / "tokenizer")
    loaded: dict[str, ChatTemplate] = {}

    def build(name: str) -> ChatTemplate:
        if name not in loaded:
            source = (TRL | OURS)[name].read_text(encoding="utf-8")
            loaded[name] = load_template(folder_with(tokenizer, root / name, source))
        return loaded[name]

    return build


def trained(template: ChatTemplate, messages: list[dict[str, Any]]) -> list[str]:
    """The text of each trained turn."""
    ids, turns = template.encode_turns([(messages, TOOLS)])[0]
    return [template.decode(ids[start:end]) for start, end in turns.values()]


@pytest.mark.parametrize(("name", "closed"), [
    ("qwen3_thinking_2507", "<think>\n\n</think>\n\n"),  # the template opens a thought, the answer would have to close it
    ("qwen3", "<think>\n\n</think>\n\n"),
    ("gemma4_large", "<|channel>thought\n<channel|>"),  # written in prompts only
    ("deepseek_v3_1", "</think>"),
    ("nemotron_3_nano", "<think></think>"),
])  # fmt: skip
def test_a_thought_that_is_not_the_rows_belongs_to_the_prompt(load: Load, name: str, closed: str) -> None:
    template = load(name)
    assert template.prompt_text([QUESTION], TOOLS).endswith(closed)
    for answer in (text_message("Cold."), CALL):
        prompt, ids = template.encode_pair([QUESTION], TOOLS, answer)
        assert prompt == template.encode_prompt([QUESTION], TOOLS)
        assert closed.strip() not in template.decode(ids)
        assert trained(template, [QUESTION, answer]) == [template.decode(ids)]


def test_the_thought_of_a_row_is_trained_where_the_prompt_opens_it(load: Load) -> None:
    message = text_message("Cold.") | {"reasoning_content": "They mean Graz."}
    assert trained(load("qwen3_thinking_2507"), [QUESTION, message]) == ["They mean Graz.\n</think>\n\nCold.<|im_end|>"]


def test_a_thought_that_no_answer_closes_is_refused(load: Load) -> None:
    with pytest.raises(RecipeError, match=r"opens a thought with '<think>\\n' in its prompt that no answer closes"):
        load("deepseek_r1")


@pytest.mark.parametrize(("name", "text_end", "call_end"), [
    ("glm4moe", "<|user|>", "<|observation|>"),
    ("gptoss", "<|return|>", "<|call|>"),
    ("functiongemma", "<end_of_turn>", "<start_function_response>"),
    ("command_a", "<|END_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ("mistral_v3", "</s>", "</s>"),
])  # fmt: skip
def test_an_answer_ends_with_the_token_at_which_its_model_stops(
    load: Load, name: str, text_end: str, call_end: str
) -> None:
    template = load(name)
    assert trained(template, [QUESTION, text_message("Cold.")])[-1].endswith(text_end)
    assert trained(template, [QUESTION, CALL])[-1].endswith(call_end)
    assert {template.tokenize(token)[0] for token in (text_end, call_end)} <= set(template.eos_ids)
    assert "Cold." in trained(template, [QUESTION, CALL, RESULT, text_message("Cold.")])[-1]


@pytest.mark.parametrize("given", ["call_Ab3dE6gH", None, "Ab3dE6gH9", "call_0"])
@pytest.mark.parametrize("name", ["mistral_v3", "mistral_v7", "mistral_v11"])
def test_ids_that_a_template_demands_are_given_whatever_the_row_has(load: Load, name: str, given: str | None) -> None:
    call, result = call_message("get_weather", {"city": "Graz"}), dict(RESULT)
    call["tool_calls"][0]["id"], result["tool_call_id"] = given, given or "call_7"
    text = load(name).render([QUESTION, call, result, text_message("Cold.")], TOOLS)
    assert text.count("call00000") == 2


def test_a_result_keeps_the_id_of_its_call_whatever_their_order(load: Load) -> None:
    calls = [call_message("get_weather", {"city": city})["tool_calls"][0] | {"id": city} for city in ("Graz", "Linz")]
    results = [{"role": "tool", "tool_call_id": city, "content": f"of {city}"} for city in ("Linz", "Graz")]
    both = {"role": "assistant", "content": "", "tool_calls": calls}
    text = load("mistral_v11").render([QUESTION, both, *results, text_message("Cold.")], TOOLS)
    assert "call00001[TOOL_CONTENT]of Linz" in text
    assert "call00000[TOOL_CONTENT]of Graz" in text


def test_ids_count_on_through_a_conversation(load: Load) -> None:
    messages = [QUESTION, CALL, RESULT, text_message("Cold."), QUESTION, CALL]
    text = load("kimi_k2").render(messages, TOOLS)
    assert text.count("functions.get_weather:0") == 2
    assert text.count("functions.get_weather:1") == 1


def test_choices_are_read_under_a_template_that_demands_ids(load: Load) -> None:
    assert len(read_questions(load("mistral_v3"), tiny_choice_rows(4), "chat")) == 4


@pytest.mark.parametrize("name", ["deepseek_v3", "deepseek_v3_1", "internlm2", "phi4_mini_unlisted"])
def test_a_template_that_wants_arguments_as_text_gets_json(load: Load, name: str) -> None:
    template = load(name)
    assert template.form.arguments == "text"
    assert parse(template.answer_text(CALL), template.dialect, TOOLS).calls == [CALL["tool_calls"][0]["function"]]


def test_a_template_that_writes_a_text_or_calls_refuses_an_answer_with_both(load: Load) -> None:
    template = load("deepseek_v3_text_or_calls")
    assert "Graz" in template.answer_text(CALL)
    with pytest.raises(DataError, match="writes either a text or calls, and this answer has both"):
        template.answer_text(CALL | {"content": "Let me look."})


@pytest.mark.parametrize(("name", "said"), [
    ("no_end_of_turn", "does not end an assistant turn with a special token"),
    ("drops_results", "leaves out {'role': 'tool'"),
    ("strict_roles", "cannot go on after a tool's result.*roles must alternate user/assistant"),
])  # fmt: skip
def test_what_no_conversation_survives_is_refused_with_the_reason(load: Load, name: str, said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        load(name)


@pytest.mark.parametrize("name", ["qwen3_thinking_2507", "mistral_v3", "gemma4_large", "phi4_mini_unlisted"])
def test_a_turn_is_trained_only_behind_the_prompt_that_leads_to_it(load: Load, name: str) -> None:
    """These templates write earlier turns otherwise once others follow; what is trained is what would be generated."""
    template = load(name)
    messages = [QUESTION, CALL, RESULT, text_message("Cold."), QUESTION, CALL]
    ids, turns = template.encode_turns([(messages, TOOLS)])[0]
    assert 5 in turns
    for turn, (start, end) in turns.items():
        assert (ids[:start], ids[start:end]) == template.encode_pair(messages[:turn], TOOLS, messages[turn])
