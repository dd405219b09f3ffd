"""Scoring: trees give the numbers of plain scoring, the prompts are NVIDIA's, and a killed job goes on."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tiny import tiny_choice_rows
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, MistralConfig, Qwen3Config

from rightcall import scoring, tree_attention
from rightcall.chat import ChatTemplate
from rightcall.errors import DataError, ScoringError
from rightcall.likelihood import Scorer
from rightcall.metrics import CLASSES
from rightcall.multiple_choice import Plan, is_near_tie
from rightcall.paths import load_job
from rightcall.prefix_tree import PrefixTree, group
from rightcall.questions import answer_message, encode_pair, read_questions
from rightcall.recipe import EvaluationSection
from rightcall.recipe_loading import load_recipe
from rightcall.rows import write_rows
from rightcall.scoring import score_choices
from rightcall.when2call_prompts import prompt_and_answers

SETTINGS: dict[str, Any] = {
    "prompt": "chat",
    "dtype": "float32",
    "max_tree_tokens": 2_000,
    "generation_items": 4,
    "max_new_tokens": 4,
    "bootstrap_samples": 200,
}
# Deep enough to branch everywhere, small enough to repeat itself
SEQUENCES = st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=1, max_size=9)


def settings(**changes: Any) -> EvaluationSection:
    return EvaluationSection(**(SETTINGS | changes))


@pytest.fixture(scope="module")
def template(tiny_model: Path) -> ChatTemplate:
    return ChatTemplate.load(tiny_model, "chatml-tools")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    """The tiny model with weights ten times as large: with the usual ones it finds all tokens about equally likely."""
    loaded = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    with torch.no_grad():
        for parameter in loaded.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    return loaded


def plain(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> float:
    """One sequence, one forward pass, nothing shared."""
    with torch.no_grad():
        logprobs = model(torch.tensor([[*prompt, *answer]])).logits[0].float().log_softmax(-1)
    return float(sum(logprobs[len(prompt) + step - 1, token] for step, token in enumerate(answer)))


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
    items = score_choices(model, template, tiny_choice_rows(6), settings(prompt=style, max_tree_tokens=max_tree_tokens))
    assert_plain(model, template, items, style)


def test_several_blocks_of_attention_give_the_numbers_of_plain_scoring(
    model: Any, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(tree_attention.BLOCK, "cpu", 7)
    assert_plain(model, template, score_choices(model, template, tiny_choice_rows(4), settings()))


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
    assert_plain(model, template, score_choices(model, template, tiny_choice_rows(4), settings()))
    assert model.config._attn_implementation == "sdpa"


def test_items_beyond_a_sliding_window_are_scored_plainly(template: ChatTemplate) -> None:
    torch.manual_seed(0)
    config = tiny_config(MistralConfig, template.tokenizer.get_vocab_size(), num_key_value_heads=2, sliding_window=64)
    model = AutoModelForCausalLM.from_config(config)
    assert Scorer(model).window == 64
    assert_plain(model, template, score_choices(model, template, tiny_choice_rows(4), settings()))


def test_a_model_without_tree_attention_falls_back_and_says_so(
    template: ChatTemplate, caplog: pytest.LogCaptureFixture
) -> None:
    """Bloom biases attention by position in the sequence (ALiBi), which a flattened tree does not have."""
    torch.manual_seed(0)
    config = BloomConfig(vocab_size=template.tokenizer.get_vocab_size(), hidden_size=32, n_layer=2, n_head=2)
    model = AutoModelForCausalLM.from_config(config)
    with caplog.at_level(logging.WARNING):
        items = score_choices(model, template, tiny_choice_rows(3), settings())
    assert "question by question" in caplog.text
    assert_plain(model, template, items)


def test_near_ties_get_the_predictions_of_float32(model: Any, template: ChatTemplate) -> None:
    rows = tiny_choice_rows(24)
    exact = score_choices(model, template, rows, settings())
    mixed = score_choices(model, template, rows, settings(dtype="bfloat16"))
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
    rows, heard = tiny_choice_rows(9), []
    items = score_choices(model, template, rows, settings(max_tree_tokens=400), lambda done, n: heard.append((done, n)))
    assert [item["id"] for item in items] == [row["id"] for row in rows]
    assert heard[-1] == (9, 9)
    assert len(heard) > 1
    for item, row in zip(items, rows, strict=True):
        normed = [value / n for value, n in zip(item["loglikelihood"], item["characters"], strict=True)]
        assert item["prediction"] == CLASSES[item["loglikelihood"].index(max(item["loglikelihood"]))]
        assert item["prediction_norm"] == CLASSES[normed.index(max(normed))]
        assert (item["gold"], item["has_tools"]) == (row["correct_answer"], bool(row["tools"]))


def test_equal_tool_sets_are_computed_once(model: Any, template: ChatTemplate) -> None:
    plan = Plan(Scorer(model), read_questions(template, tiny_choice_rows(16), "chat"), settings(max_tree_tokens=10**6))
    assert len(plan.chunks) == 1
    assert plan.score(plan.chunks[0]).tokens < plan.tokens_naive / 8


# Token ids


def test_chat_questions_are_what_training_and_generation_see(template: ChatTemplate) -> None:
    row = tiny_choice_rows(1)[0]
    question = read_questions(template, [row], "chat")[0]
    messages = [{"role": "user", "content": row["question"]}]
    assert question.prompt == template.encode_prompt(messages, row["tools"])
    for name, answer, characters in zip(CLASSES, question.answers, question.characters, strict=True):
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
LOCATE = {
    "name": "locate_ip",
    "description": "Where an IP is.\n",
    "parameters": {
        "type": "dict",
        "required": ["ip"],
        "properties": {"ip": {"type": "string"}, "brief": {"type": "boolean"}},
    },
}
CALL = {"name": "locate_ip", "arguments": {"ip": "8.8.8.8", "brief": True, "limits": [1, "two"]}}
IP_ROW: dict[str, Any] = {
    "id": "ip",
    "question": "Where is 8.8.8.8? ",
    "tools": [],
    "raw_tools": [json.dumps(LOCATE), '{"name": "pîng", "parameters": {}}'],
    "answers": {
        "direct": "In California.",
        "tool_call": json.dumps(CALL),
        "request_for_info": "Which address?",
        "cannot_answer": "Sorry, I cannot.",
    },
    "correct_answer": "tool_call",
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


def test_no_items_and_repeated_ids_are_errors(template: ChatTemplate) -> None:
    with pytest.raises(ScoringError, match="0 rows"):
        read_questions(template, [], "chat")
    with pytest.raises(ScoringError, match=r"1 ids occur more than once, e.g. \['ip'\]"):
        read_questions(template, [IP_ROW, IP_ROW], "when2call")


# The stage


def make_job(root: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Any:
    recipe = load_recipe(None).model_dump(mode="json", by_alias=True)
    recipe["evaluation"] |= SETTINGS | changes
    recipe["model"]["chat_template"] = "chatml-tools"
    channels = root / "input/data"
    for name in ("job", "dataset"):
        (channels / name).mkdir(parents=True)
    (channels / "job/job.json").write_text(json.dumps({"stage": "score", "recipe": recipe}))
    (channels / "model").symlink_to(tiny_model)
    write_rows(channels / "dataset", "choice", tiny_choice_rows(12))
    monkeypatch.setenv("SM_ML_ROOT", str(root))
    return load_job()


RESULTS = ("items.jsonl", "generations.jsonl", "scores.json")


def results(job: Any) -> dict[str, str]:
    return {name: (job.output / name).read_text() for name in RESULTS}


def test_the_stage_writes_items_generations_and_scores(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path, tiny_model, monkeypatch)
    scoring.run(job)
    items = [json.loads(line) for line in (job.output / "items.jsonl").read_text().splitlines()]
    scores = json.loads((job.output / "scores.json").read_text())
    assert [item["id"] for item in items] == [row["id"] for row in tiny_choice_rows(12)]
    assert scores["n"] == 12
    assert {"acc", "acc_norm", "macro_f1", "recall_direct", "gen_right_behaviour"} <= set(scores["metrics"])
    assert set(scores["metrics"]["acc_norm"]) == {"value", "n", "low", "high"}
    assert sum(sum(row.values()) for row in scores["confusion"].values()) == 12
    assert scores["baseline_rule"]["metrics"]["acc_norm"]["n"] == 12
    assert 0 < scores["tokens_forward"] < scores["tokens_naive"]
    assert len((job.output / "generations.jsonl").read_text().splitlines()) == 4
    progress = [json.loads(line) for line in (job.output / "metrics.jsonl").read_text().splitlines()]
    assert progress[-1]["step"] == progress[-1]["total_steps"] == 12
    assert progress[-1]["eta_seconds"] == 0
    assert json.loads((job.output / "summary.json").read_text())["seconds"] > 0
    assert not (job.output / "items.partial.jsonl").exists()


def test_a_stopped_stage_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"max_tree_tokens": 400, "dtype": "bfloat16"}
    undisturbed = make_job(tmp_path / "a", tiny_model, monkeypatch, **small)
    scoring.run(undisturbed)
    job = make_job(tmp_path / "b", tiny_model, monkeypatch, **small)
    scored: list[Sequence[int]] = []
    original = Plan.score

    def score_then_ask_to_stop(plan: Plan, chunk: Sequence[int]) -> Any:
        scored.append(chunk)
        if len(scored) == 2:
            job.stop_flag.write_text("")
        return original(plan, chunk)

    monkeypatch.setattr(Plan, "score", score_then_ask_to_stop)
    with pytest.raises(SystemExit, match="143"):
        scoring.run(job)
    assert not (job.output / "items.jsonl").exists()
    job.stop_flag.unlink()
    with (job.output / "items.partial.jsonl").open("a") as partial:
        partial.write('{"plan": "cut off by a ki')
    scoring.run(job)
    progress = [json.loads(line) for line in (undisturbed.output / "metrics.jsonl").read_text().splitlines()]
    assert len(scored) == len(progress) > 3
    assert results(job) == results(undisturbed)


def test_trees_of_another_evaluation_set_are_not_taken_over(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path / "a", tiny_model, monkeypatch)
    line = {"plan": "of other rows", "tree": 0, "tokens": 1, "items": []}
    (job.output / "items.partial.jsonl").write_text(json.dumps(line) + "\n")
    scoring.run(job)
    assert len((job.output / "items.jsonl").read_text().splitlines()) == 12


def test_a_suite_file_is_scored_like_the_same_rows_in_a_snapshot(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = make_job(tmp_path / "a", tiny_model, monkeypatch)
    suite = make_job(tmp_path / "b", tiny_model, monkeypatch)
    (suite.channel("dataset") / "choice.parquet").unlink()
    lines = "".join(json.dumps(row) + "\n" for row in tiny_choice_rows(12))
    with gzip.open(suite.channel("dataset") / "suite.jsonl.gz", "wt") as file:
        file.write(lines)
    scoring.run(snapshot)
    scoring.run(suite)
    assert results(snapshot) == results(suite)


def test_a_suite_keeps_the_text_of_its_tools_for_nvidias_prompts(tmp_path: Path) -> None:
    record = {name: value for name, value in IP_ROW.items() if name not in ("id", "raw_tools", "tools")}
    (tmp_path / "suite.jsonl").write_text(json.dumps(record | {"uuid": "u", "tools": IP_ROW["raw_tools"][:1]}) + "\n")
    row = scoring.read_items(tmp_path)[0]
    assert row["raw_tools"] == IP_ROW["raw_tools"][:1]
    assert row["tools"][0]["function"]["parameters"]["type"] == "object"


def test_bad_suites_and_models_are_clear_errors(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(ScoringError, match=r"neither choice.parquet nor a .jsonl"):
        scoring.read_items(tmp_path)
    (tmp_path / "suite.jsonl").write_bytes(b'{"question": "caf\xe9"}\n')
    with pytest.raises(DataError, match=r"not_utf8.*line 1 of 'suite.jsonl'"):
        scoring.read_items(tmp_path)
    with pytest.raises(ScoringError, match="holds no model"):
        scoring.model_folder(tmp_path)
    broken = tmp_path / "broken"
    shutil.copytree(tiny_model, broken)
    (broken / "model.safetensors").unlink()
    with pytest.raises(ScoringError, match=r"cannot be loaded.*model.safetensors"):
        scoring.load_model(scoring.model_folder(broken))


def test_a_stages_folder_in_the_store_is_a_model_channel_too(tmp_path: Path, tiny_model: Path) -> None:
    (tmp_path / "model").symlink_to(tiny_model)
    assert scoring.model_folder(tmp_path) == tmp_path / "model"
