"""Scoring: trees give the numbers of plain scoring, and the prompts are NVIDIA's."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scoring_examples import IP_ROW, SETTINGS
from tiny import tiny_choice_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, MistralConfig, Qwen3Config

from rightcall.chat.template import ChatTemplate
from rightcall.errors import ScoringError
from rightcall.evaluation.multiple_choice import Plan, is_near_tie
from rightcall.evaluation.questions import answer_message, encode_pair, read_questions
from rightcall.evaluation.when2call_prompts import prompt_and_answers
from rightcall.likelihood import tree_attention
from rightcall.likelihood.prefix_tree import PrefixTree, group
from rightcall.likelihood.scorer import Scorer
from rightcall.recipe.sections import EvaluationSection
from rightcall.rows.vocabulary import BEHAVIOURS

# Deep enough to branch everywhere, small enough to repeat itself
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=9)


def settings(**changes: Any) -> EvaluationSection:
    return EvaluationSection(**(SETTINGS | changes))


def plain(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """One sequence, one forward pass, nothing shared."""
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *answer]])).logits[0].float().log_softmax(-1)
    return float(sum(logprobs[len(prompt) + step - 1, token] for step, token in enumerate(answer)))


def plan_of(model: Any, template: ChatTemplate, rows: list[dict[str, Any]], chosen: EvaluationSection) -> Plan:
    return Plan(Scorer(model), read_questions(template, rows, chosen.prompt), chosen)


def scored_items(
    model: Any, template: ChatTemplate, rows: list[dict[str, Any]], chosen: EvaluationSection
) -> list[dict[str, Any]]:
    plan = plan_of(model, template, rows, chosen)
    return plan.in_order({number: plan.score(chunk) for number, chunk in enumerate(plan.chunks)})


def assert_plain(model: Any, template: ChatTemplate, items: list[dict[str, Any]], style: str = "chat") -> None:
    for item, question in zip(items, read_questions(template, tiny_choice_rows(len(items)), style), strict=True):
        expected = [plain(model, question.prompt, answer) for answer in question.answers]
        assert item["loglikelihood"] == pytest.approx(expected, abs=1e-4 * max(map(abs, expected)) / 10)


# Prefix trees


def test_the_documented_tree_is_what_is_built() -> None:
    a, b, c, d, x, y, z, end = range(8)
    tree = PrefixTree.build([[a, b, c, x, end], [a, b, c, y, z, end], [a, d, x, end]])
    assert tree.tokens.tolist() == [a, b, c, x, y, z, d, x]
    assert tree.depths.tolist() == [0, 1, 2, 3, 3, 4, 1, 2]
    assert tree.ends.tolist() == [8, 6, 6, 4, 6, 6, 8, 8]


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(SEQUENCES)
def test_a_trees_paths_spell_the_sequences_and_see_only_themselves(sequences: list[list[int]]) -> None:
    tree, mask = PrefixTree.build(sequences), PrefixTree.build(sequences).mask()
    for sequence, path in zip(sequences, tree.paths, strict=True):
        assert tree.tokens[path].tolist() == sequence[:-1]
        assert tree.depths[path].tolist() == list(range(len(path)))
        for depth, node in enumerate(path):
            assert mask[node].nonzero()[0].tolist() == path[: depth + 1].tolist()
    assert len(tree) == len({tuple(sequence[:stop]) for sequence in sequences for stop in range(1, len(sequence))})


@hypothesis_settings(deadline=None)  # the machine may be busy
@given(st.lists(SEQUENCES, min_size=1, max_size=6), st.integers(1, 30))
def test_groups_hold_every_item_once_and_keep_to_the_limit(groups: list[list[list[int]]], limit: int) -> None:
    chunks = group(groups, limit)
    assert sorted(index for chunk in chunks for index in chunk) == list(range(len(groups)))
    for chunk in chunks:
        tree = PrefixTree.build([sequence for index in chunk for sequence in groups[index]])
        assert len(chunk) == 1 or len(tree) <= limit


# Numbers


@pytest.mark.parametrize("style", ["chat", "when2call", "when2call-qwen2_5", "when2call-llama3_2"])
@pytest.mark.parametrize("max_tree_tokens", [1, 700, 100_000])
def test_trees_of_any_size_give_the_numbers_of_plain_scoring(
    model: Any, template: ChatTemplate, style: str, max_tree_tokens: int
) -> None:
    items = scored_items(model, template, tiny_choice_rows(6), settings(prompt=style, max_tree_tokens=max_tree_tokens))
    assert_plain(model, template, items, style)


def test_several_blocks_of_attention_give_the_numbers_of_plain_scoring(
    model: Any, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tree_attention.BLOCK, "cpu", 7)
    assert_plain(model, template, scored_items(model, template, tiny_choice_rows(4), settings()))


def tiny_config(kind: Any, vocabulary: int, **more: Any) -> Any:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return kind(vocab_size=vocabulary, max_position_embeddings=1024, **sizes, **more)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        (Qwen3Config, {"num_key_value_heads": 2, "head_dim": 16}),
        (MistralConfig, {"num_key_value_heads": 2, "sliding_window": 4096}),
    ],
)
def test_other_architectures_are_scored_in_trees_as_well(
    template: ChatTemplate, kind: Any, more: dict[str, Any]
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(tiny_config(kind, template.tokenizer.get_vocab_size(), **more))
    assert Scorer(model).uses_trees
    assert_plain(model, template, scored_items(model, template, tiny_choice_rows(4), settings()))
    assert model.config._attn_implementation == "sdpa"


def test_items_beyond_a_sliding_window_are_scored_plainly(template: ChatTemplate) -> None:
    torch.manual_seed(0)
    config = tiny_config(MistralConfig, template.tokenizer.get_vocab_size(), num_key_value_heads=2, sliding_window=64)
    model = AutoModelForCausalLM.from_config(config)
    assert Scorer(model).window == 64
    assert_plain(model, template, scored_items(model, template, tiny_choice_rows(4), settings()))


def test_a_model_without_tree_attention_falls_back_and_says_so(
    template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """Bloom biases attention by position in the sequence (ALiBi), which a flattened tree does not have."""
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=template.tokenizer.get_vocab_size(), hidden_size=32, n_layer=2, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    with caplog.at_level(logging.WARNING):
        items = scored_items(model, template, tiny_choice_rows(3), settings())
    assert "question by question" in caplog.text
    assert_plain(model, template, items)


def test_near_ties_get_the_predictions_of_float32(model: Any, template: ChatTemplate) -> None:
    rows = tiny_choice_rows(24)
    exact = scored_items(model, template, rows, settings())
    mixed = scored_items(model, template, rows, settings(dtype="bfloat16"))
    for item, other in zip(exact, mixed, strict=True):
        assert other["rescored"] == is_near_tie(other) or other["rescored"]
        assert not is_near_tie(other) or other["loglikelihood"] == pytest.approx(item["loglikelihood"], abs=1e-3)
        assert (item["prediction"], item["prediction_norm"]) == (other["prediction"], other["prediction_norm"])
    assert not any(item["rescored"] for item in exact)


def test_a_near_tie_under_either_rule_counts() -> None:
    apart = {"loglikelihood": [-50.0, -10.0, -90.0, -99.0], "characters": [100, 100, 100, 100]}
    assert not is_near_tie(apart)
    assert is_near_tie(apart | {"loglikelihood": [-10.5, -10.0, -90.0, -99.0], "characters": [10, 100, 100, 100]})
    assert is_near_tie(apart | {"loglikelihood": [-50.0, -10.0, -90.0, -99.0], "characters": [502, 100, 100, 100]})


def test_predictions_follow_the_two_rules_and_items_keep_the_order_of_the_rows(
    model: Any, template: ChatTemplate
) -> None:
    rows = tiny_choice_rows(9)
    assert len(plan_of(model, template, rows, settings(max_tree_tokens=400)).chunks) > 1
    items = scored_items(model, template, rows, settings(max_tree_tokens=400))
    assert [item["id"] for item in items] == [row["id"] for row in rows]
    for item, row in zip(items, rows, strict=True):
        normed = [value / n for value, n in zip(item["loglikelihood"], item["characters"], strict=True)]
        assert item["prediction"] == BEHAVIOURS[item["loglikelihood"].index(max(item["loglikelihood"]))]
        assert item["prediction_norm"] == BEHAVIOURS[normed.index(max(normed))]
        assert (item["gold"], item["has_tools"]) == (row["correct_answer"], bool(row["tools"]))


def test_equal_tool_sets_are_computed_once(model: Any, template: ChatTemplate) -> None:
    plan = plan_of(model, template, tiny_choice_rows(16), settings(max_tree_tokens=10**6))
    assert len(plan.chunks) == 1
    assert plan.score(plan.chunks[0]).tokens < plan.tokens_naive / 8


# Token ids


def test_chat_questions_are_what_training_and_generation_see(template: ChatTemplate) -> None:
    row = tiny_choice_rows(1)[0]
    question = read_questions(template, [row], "chat")[0]
    messages = [{"role": "user", "content": row["question"]}]
    assert question.prompt == template.encode_prompt(messages, row["tools"])
    for name, answer, characters in zip(BEHAVIOURS, question.answers, question.characters, strict=True):
        message = answer_message(row, name)
        assert (question.prompt, [*answer, template.tokenize(template.end_of_turn)[0]]) == template.encode_pair(
            messages, row["tools"], message
        )
        assert characters == len(template.answer_text(message))


OFFICIAL = {
    "when2call": "6a8dab1e24bc5fb0599a32cdde28904d841db9718cd6cd996c2f561163690b6f",
    "when2call-qwen2_5": "5b801cfde95a32550e11e167bfe6d05dec74477cdf29a87f15f89ed633180efd",
    "when2call-llama3_2": "e6f00dc05a1fec97cb06a3eee99cd3d2fc06895236feb41599750b7b823a49dd",
}


@pytest.mark.parametrize("style", OFFICIAL)
def test_prompts_are_those_of_nvidias_task_to_the_character(style: str) -> None:
    """Digests of [prompt, choices] that NVIDIA/When2Call's utils.py made of this very row (run on 2026-11-21)."""
    made = json.dumps(list(prompt_and_answers(IP_ROW, style)))
    assert hashlib.sha256(made.encode()).hexdigest() == OFFICIAL[style]


def test_the_prompts_white_space_moves_into_the_continuation_as_in_lm_eval(
    tiny_model: Path, template: ChatTemplate
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    context, continuation = "<|im_start|>user\nBook a table. \n", "In which city?"
    prompt, answer = encode_pair(template.tokenizer, context, continuation)
    assert prompt == tokenizer.encode("<|im_start|>user\nBook a table.")
    assert prompt + answer == tokenizer.encode(context + continuation)
    question = read_questions(template, [IP_ROW], "when2call")[0]
    assert question.characters == [len(text) for text in IP_ROW["answers"].values()]
    assert template.decode(question.answers[0]) == " In California."


def test_a_tokenizers_own_beginning_of_text_is_added_once(template: ChatTemplate) -> None:
    from tokenizers import Tokenizer
    from tokenizers.processors import TemplateProcessing

    start = "<|endoftext|>"
    tokenizer = Tokenizer.from_str(template.tokenizer.to_str())
    identifier = tokenizer.token_to_id(start)
    tokenizer.post_processor = TemplateProcessing(single=f"{start} $A", special_tokens=[(start, identifier)])
    plain_ids = encode_pair(template.tokenizer, "Hello there", " friend")
    assert encode_pair(tokenizer, "Hello there", " friend") == ([identifier, *plain_ids[0]], plain_ids[1])
    assert encode_pair(tokenizer, f"{start}Hello there", " friend")[0] == [identifier, *plain_ids[0]]


# Bad input


@pytest.mark.parametrize(
    ("change", "style", "message"),
    [
        ({"answers": IP_ROW["answers"] | {"tool_call": "locate_ip(8)"}}, "chat", "'ip'.*locate_ip"),
        ({"answers": IP_ROW["answers"] | {"tool_call": "[1]"}}, "when2call-llama3_2", "'ip'.*not a JSON object"),
        ({"question": "long " * 3_000}, "when2call", "the model's window has 1024"),
        ({"answers": IP_ROW["answers"] | {"direct": "a <|im_end|> b"}}, "chat", "control token"),
    ],
)
def test_an_item_that_cannot_be_scored_is_named(
    template: ChatTemplate, change: dict[str, Any], style: str, message: str
) -> None:
    with pytest.raises(ScoringError, match=message):
        read_questions(template, [IP_ROW | change], style)


def test_repeated_ids_are_an_error_and_no_items_are_none(template: ChatTemplate) -> None:
    assert read_questions(template, [], "chat") == []  # a recipe may have steps alone
    with pytest.raises(ScoringError, match=r"1 ids occur more than once, e.g. \['ip'\]"):
        read_questions(template, [IP_ROW, IP_ROW], "when2call")
