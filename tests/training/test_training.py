"""SFT and DPO: the same numbers as TRL's own trainers, for less; and everything that a recipe can ask of them."""

from __future__ import annotations

import json
import math
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from tiny import tiny_preference_rows, tiny_sft_rows
from training_jobs import make_job, make_recipe, metrics, run_job, summary
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from trl.data_utils import pack_dataset
from trl.trainer.utils import add_fused_lm_head

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError, TrainingError
from rightcall.likelihood import answer_head
from rightcall.likelihood.answer_head import IGNORED, install
from rightcall.recipe.loading import load_recipe
from rightcall.training import dpo, encoding, sft
from rightcall.training.health import WINDOW, Health, length_drift

FIELDS = ("log_probs", "entropy", "log_sum_sq_probs", "mean_logits")
RECIPES = sorted(Path(__file__).parents[2].glob("recipes/**/*.yaml"))
STOCK: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "activation_checkpointing": False, "max_steps": 6, "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine", "warmup_steps": 0.1, "per_device_train_batch_size": 2, "logging_steps": 1,
    "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "seed": 42, "max_length": 1024,
    "gradient_accumulation_steps": 2,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


def conversations(template: ChatTemplate, count: int = 24) -> list[dict[str, Any]]:
    rows = encoding.needed_rows(tiny_sft_rows(24), 6, 4, seed=42)
    return encoding.encode_conversations(rows, template, 1024, {}).rows[:count]


def pairs(template: ChatTemplate, count: int = 24) -> list[dict[str, Any]]:
    rows = encoding.needed_rows(tiny_preference_rows(24), 6, 4, seed=42)
    return encoding.encode_pairs(rows, template, 1024).rows[:count]


def both_heads(folder: Path, batch: dict[str, torch.Tensor], *, trained: bool = True) -> tuple[tuple[Any, Any], ...]:
    """(output, gradients) of TRL's computation and of ours."""
    found = []
    for uses_trees in (False, True):
        model = load(folder).train()
        model.get_output_embeddings().weight.requires_grad_(trained)
        add_fused_lm_head(model, outputs=("log_probs", "entropy", "log_sum_sq_probs", "mean_logits", "is_top1"))
        install(model, uses_trees=uses_trees)
        out = model(**batch, fused_lm_head=True, use_cache=False)
        (out.log_probs**2).sum().backward()
        found.append((out, {name: value.grad for name, value in model.named_parameters()}))
    return tuple(found)


@pytest.mark.parametrize("trained", [True, False], ids=["head trained", "head frozen"])
@pytest.mark.parametrize("kind", ["conversations", "pairs"])
def test_the_shared_prefix_gives_the_same_numbers_and_gradients(
    tiny_model: Path, template: ChatTemplate, monkeypatch: pytest.MonkeyPatch, kind: str, trained: bool
) -> None:
    monkeypatch.setattr(answer_head, "CACHED_ROWS", 7)
    monkeypatch.setattr(answer_head, "HEAD_ROWS", 9)
    if kind == "conversations":
        batch = encoding.ConversationCollator(template.pad_id)(conversations(template, 5))
    else:
        batch = encoding.PairCollator(template.pad_id)(pairs(template, 3))
        batch["labels"] = batch["input_ids"].masked_fill(batch.pop("completion_mask") == 0, IGNORED)
    (stock, stock_gradients), (ours, our_gradients) = both_heads(tiny_model, batch, trained=trained)
    for name in FIELDS:
        torch.testing.assert_close(getattr(ours, name), getattr(stock, name), atol=1e-4, rtol=1e-5)
    assert torch.equal(ours.is_top1, stock.is_top1)
    assert any(gradient is None for gradient in stock_gradients.values()) is not trained
    for name, gradient in stock_gradients.items():
        if gradient is None:
            assert our_gradients[name] is None
            continue
        torch.testing.assert_close(our_gradients[name], gradient, atol=2e-3, rtol=1e-3)


def losses(trainer: Any) -> list[float]:
    trainer.train()
    return [line["loss"] for line in trainer.state.log_history if "loss" in line]


def test_sft_learns_step_by_step_as_trl_does(tiny_model: Path, template: ChatTemplate, tmp_path: Path) -> None:
    rows = [{key: row[key] for key in ("input_ids", "labels")} for row in conversations(template)]
    stock = SFTTrainer(
        model=load(tiny_model),
        args=SFTConfig(output_dir=str(tmp_path / "stock"), dataset_kwargs={"skip_prepare_dataset": True}, **STOCK),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    job = make_job(tmp_path / "ours", tiny_model, "sft", sft={"gradient_accumulation_steps": 2})
    run_job(job)
    assert [line["loss"] for line in metrics(job)] == pytest.approx(losses(stock), abs=1e-4)


@pytest.mark.parametrize(
    "loss",
    [
        {"loss_type": ["sigmoid"]},
        {"loss_type": ["sigmoid", "bco_pair", "sft"], "loss_weights": [0.8, 0.2, 1.0]},  # MPO
        {"loss_type": ["sigmoid_norm"], "beta": 2.0},
    ],
    ids=["dpo", "mpo", "sigmoid_norm"],
)
def test_dpo_learns_step_by_step_as_trl_does(
    tiny_model: Path, template: ChatTemplate, tmp_path: Path, loss: dict[str, Any]
) -> None:
    class Stock(DPOTrainer):
        def _prepare_dataset(self, dataset: Dataset, *args: Any) -> Dataset:
            return dataset

    columns = ("prompt_ids", "chosen_ids", "rejected_ids")
    stock = Stock(
        model=load(tiny_model),
        ref_model=load(tiny_model),
        args=DPOConfig(output_dir=str(tmp_path / "stock"), **STOCK, **loss),
        train_dataset=Dataset.from_list([{key: row[key] for key in columns} for row in pairs(template)]),
        processing_class=AutoTokenizer.from_pretrained(tiny_model),
    )
    job = make_job(tmp_path / "ours", tiny_model, "dpo", dpo={"gradient_accumulation_steps": 2, **loss})
    run_job(job)
    assert [line["loss"] for line in metrics(job)] == pytest.approx(losses(stock), abs=1e-4)


def test_a_behaviours_weight_scales_the_loss_of_its_rows(tiny_model: Path, template: ChatTemplate) -> None:
    """Two rows of 2 and 3 answer tokens with losses 4 and 9: (w · 4 + 9) / 5, the divisor is that of w = 1."""
    rows = tiny_sft_rows(2)
    assert [row["behaviour"] for row in rows] == ["tool_call", "request_for_info"]
    found = {}
    for weight in (0.0, 1.0, 3.0):
        encoded = encoding.encode_conversations(rows, template, 1024, {"tool_call": weight}).rows
        batch = encoding.ConversationCollator(template.pad_id)(encoded)
        model = load(tiny_model)
        add_fused_lm_head(model)
        install(model, uses_trees=True)
        found[weight] = model(**batch, fused_lm_head=True).log_probs.sum().item()
    assert found[3.0] - found[0.0] == pytest.approx(3 * (found[1.0] - found[0.0]), rel=1e-5)
    assert found[1.0] - found[0.0] < -1


def test_bins_are_as_full_as_those_of_trl_and_keep_each_row_with_its_labels_and_factor() -> None:
    rng = random.Random(7)
    lengths = [rng.randint(3, 90) for _ in range(400)]
    rows = [
        {"input_ids": [number] * length, "labels": [IGNORED] * 2 + [number] * (length - 2), "row_factors": number / 7}
        for number, length in enumerate(lengths)
    ]
    bins = encoding.pack(rows, 100)
    stock = pack_dataset(Dataset.from_dict({"input_ids": [row["input_ids"] for row in rows]}), 100)[:]
    assert sorted(sum(len(row["input_ids"]) for row in members) for members in bins) == sorted(
        map(len, stock["input_ids"])
    )
    batch = encoding.ConversationCollator(pad_id=0)([{"rows": members} for members in bins])
    order = [row["input_ids"][0] for members in bins for row in members]
    assert sorted(order) == list(range(400))
    assert batch["row_factors"].tolist() == pytest.approx([number / 7 for number in order])
    for place, number in enumerate(order):
        row = rows[number]
        length = len(row["input_ids"])
        assert batch["attention_mask"][place].sum() == length
        assert batch["input_ids"][place, :length].tolist() == row["input_ids"]
        assert batch["labels"][place].tolist() == row["labels"] + [IGNORED] * (batch["labels"].shape[1] - length)


def test_packed_rows_do_not_see_each_other(tiny_model: Path, template: ChatTemplate, tmp_path: Path) -> None:
    rows = conversations(template, 8)
    bins = encoding.pack(rows, 700)
    assert sum(map(len, bins)) == 8
    assert max(map(len, bins)) > 1
    assert all(sum(len(row["input_ids"]) for row in members) <= 700 for members in bins)
    job = make_job(tmp_path, tiny_model, "sft", sft={"packing": True, "max_length": 1000, "max_steps": 2})
    run_job(job)
    packed = metrics(job)[0]
    collate = encoding.ConversationCollator(template.pad_id)
    assert packed["tokens"] > 1000  # two sequences of several rows each
    together = collate([{"rows": members} for members in bins])
    (alone, _), (ours, _) = both_heads(tiny_model, together)
    torch.testing.assert_close(ours.log_probs, alone.log_probs, atol=1e-4, rtol=1e-5)


def test_length_normalised_margins_are_per_character(tiny_model: Path, template: ChatTemplate, tmp_path: Path) -> None:
    """-log sigmoid(beta · (Δ chosen / its characters - Δ rejected / its characters)), Δ = policy - reference."""
    job = make_job(tmp_path, tiny_model, "dpo", dpo={"length_normalised": True, "beta": 5.0, "max_steps": 6})
    run_job(job)
    first = encoding.encode_pairs(encoding.needed_rows(tiny_preference_rows(24), 6, 2, seed=42), template, 1024).rows
    characters = [len(template.answer_text(row["chosen"])) for row in tiny_preference_rows(24)]
    assert {row["chosen_characters"] for row in first} <= set(characters)
    lines = metrics(job)
    assert lines[0]["loss"] == pytest.approx(math.log(2), abs=1e-4)
    assert -6.0 < lines[0]["chosen_logprob"] < -0.5  # nats per character, not per answer
    for line in lines[1:]:
        assert line["margin"] == pytest.approx(line["chosen_reward"] - line["rejected_reward"], abs=1e-6)


def test_the_sft_term_stays_per_token_beside_normalised_margins(tiny_model: Path, tmp_path: Path) -> None:
    terms = {"loss_type": ["sigmoid", "sft"], "loss_weights": [1.0, 0.5], "max_steps": 1}
    found = []
    for normalised in (False, True):
        job = make_job(tmp_path / str(normalised), tiny_model, "dpo", dpo={**terms, "length_normalised": normalised})
        run_job(job)
        found.append(metrics(job)[0]["loss"])
    assert found[0] == pytest.approx(found[1], abs=1e-4)  # before the first step the margin is 0 in both
    assert found[0] > math.log(2) + 1


def test_normalising_nothing_is_a_recipe_error(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "dpo", dpo={"length_normalised": True, "loss_type": ["sft"]})
    with pytest.raises(RecipeError, match="length_normalised has nothing to normalise"):
        run_job(job)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
@pytest.mark.parametrize("method", ["full", "spectrum", "lora"])
def test_every_method_writes_a_plain_model_that_has_learnt(
    tiny_model: Path, tmp_path: Path, stage: str, method: str
) -> None:
    section = {"method": method, "activation_checkpointing": method != "full", "bf16": method == "spectrum"}
    job = make_job(tmp_path, tiny_model, stage, **{stage: section})
    run_job(job)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(job.model / "model.safetensors")
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    projections = {name for name in before if "_proj" in name}
    if method == "spectrum":
        assert len(changed) == len(projections) / 2
        assert changed <= projections
    else:
        assert changed == (projections if method == "lora" else set(before))
    assert {value.dtype for value in after.values()} == {torch.float32}
    assert load(job.model).config.use_cache
    assert (job.model / "chat_template.jinja").read_text() == ChatTemplate.load(tiny_model, "chatml-tools").source
    assert ChatTemplate.load(job.model).encode_prompt([{"role": "user", "content": "Hi"}], None)
    facts = summary(job)
    assert facts["steps"] == 6
    assert facts["trained_parameters"] <= facts["total_parameters"]


@pytest.mark.parametrize("method", ["full", "spectrum", "lora"])
def test_frozen_layers_and_the_embeddings_keep_their_weights(tiny_model: Path, tmp_path: Path, method: str) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={"method": method, "frozen_layers": 1})
    run_job(job)
    before, after = load_file(tiny_model / "model.safetensors"), load_file(job.model / "model.safetensors")
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any("layers.1." in name for name in changed)
    assert not any("layers.0." in name or "embed" in name or "lm_head" in name for name in changed)


def test_freezing_every_layer_is_a_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={"frozen_layers": 2})
    with pytest.raises(TrainingError, match="frozen_layers is 2, but the model has 2 layers"):
        run_job(job)


def test_without_a_reference_the_margin_is_the_log_probability_itself(tiny_model: Path, tmp_path: Path) -> None:
    section = {"reference_free": True, "length_normalised": True, "beta": 10.0, "max_steps": 9}
    job = make_job(tmp_path, tiny_model, "dpo", dpo=section)
    run_job(job)
    for line in metrics(job):
        assert line["margin"] == pytest.approx(10 * (line["chosen_logprob"] - line["rejected_logprob"]), abs=1e-4)
    assert summary(job)["reference_computed"] == 0


def test_without_a_reference_health_compares_with_the_first_step() -> None:
    health = Health(beta=1.0, tokens_per_logprob=1.0, reference_free=True)
    for _ in range(WINDOW):
        health.see(healthy() | {"chosen_reward": -3.0})
    assert health.warnings() == []
    for _ in range(WINDOW):
        health.see(healthy() | {"chosen_reward": -4.0})
    assert "chosen answers become less likely" in health.warnings()[0]


def test_qlora_without_a_gpu_is_a_clear_error(tiny_model: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    job = make_job(tmp_path, tiny_model, "sft", sft={"method": "qlora"})
    with pytest.raises(TrainingError, match=r"method 'qlora' needs .*; use method: lora"):
        run_job(job)


def test_a_loss_that_is_no_number_ends_the_run(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "sft", sft={"learning_rate": 1e38, "lr_scheduler_type": "constant"})
    with pytest.raises(TrainingError, match=r"(loss|grad_norm) became (nan|inf) in step \d; lower learning_rate"):
        run_job(job)
    assert not list(job.model.iterdir())


def test_rows_longer_than_the_window_are_counted_not_cut(tiny_model: Path, tmp_path: Path) -> None:
    template = ChatTemplate.load(tiny_model, "chatml-tools")
    lengths = sorted(len(template.encode(row["messages"], row["tools"]).input_ids) for row in tiny_sft_rows(24))
    job = make_job(tmp_path, tiny_model, "sft", sft={"max_steps": -1, "max_length": lengths[12]})
    run_job(job)
    left_out = sum(length > lengths[12] for length in lengths)
    assert summary(job)["rows_too_long"] == left_out
    assert summary(job)["rows"] == 24 - left_out
    none = make_job(tmp_path / "none", tiny_model, "sft", sft={"max_length": 10})
    with pytest.raises(DataError, match="none of the 12 conversations fits into max_length=10 tokens"):
        run_job(none)


def test_reference_values_are_reused_by_another_recipe(tiny_model: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first = make_job(tmp_path / "a", tiny_model, "dpo", cache=cache, dpo={"beta": 0.1})
    run_job(first)
    second = make_job(tmp_path / "b", tiny_model, "dpo", cache=cache, dpo={"beta": 0.5, "method": "lora"})
    run_job(second)
    assert [summary(job)["reference_computed"] for job in (first, second)] == [12, 0]
    (file,) = (cache / "reference").iterdir()
    file.write_bytes(file.read_bytes()[:-20])  # torn by a kill
    third = make_job(tmp_path / "c", tiny_model, "dpo", cache=cache)
    run_job(third)
    assert summary(third)["reference_computed"] == 1
    assert [line["loss"] for line in metrics(third)] == [line["loss"] for line in metrics(first)]


def test_metrics_and_summary_tell_what_the_contract_names(tiny_model: Path, tmp_path: Path) -> None:
    job = make_job(tmp_path, tiny_model, "dpo", dpo={"max_steps": 5, "logging_steps": 2})
    run_job(job)
    lines = metrics(job)
    assert [line["step"] for line in lines] == [2, 4, 5]
    names = {"total_steps", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_second", "memory_bytes"}
    names |= {"seconds", "eta_seconds", "rewards_accuracy", "margin", "chosen_logprob", "rejected_logprob"}
    assert names <= set(lines[-1])
    assert lines[-1]["eta_seconds"] == 0
    facts = summary(job)
    assert facts["tokens"] == lines[-1]["tokens"]
    assert facts["warnings"] == []


def healthy() -> dict[str, float]:
    return {"chosen_reward": 0.2, "margin": 0.5, "rewards_accuracy": 0.8, "length_drift": 0.0}


@pytest.mark.parametrize(
    ("sick", "word"),
    [
        ({"chosen_reward": -1.0}, "chosen answers become less likely: -0.50 nats per token"),
        ({"margin": 6.0, "rewards_accuracy": 1.0}, "margins are saturated"),
        ({"length_drift": 0.4}, "length drift: preferred answers are +40% longer"),
    ],
)
def test_health_warns_only_of_what_lasts(sick: dict[str, float], word: str) -> None:
    """Reward -1 at beta 0.1 is a fall of 10 nats; over 20 tokens half a nat each."""
    health = Health(beta=0.1, tokens_per_logprob=20)
    for _ in range(WINDOW - 1):
        health.see(healthy() | sick)
    assert health.warnings() == []
    health.see(healthy() | sick)
    (warning,) = health.warnings()
    assert word in warning
    resumed = Health(beta=0.1, tokens_per_logprob=20)
    resumed.restore(json.loads(json.dumps(health.state())))
    assert resumed.warnings() == [warning]


def test_length_drift_compares_expected_lengths() -> None:
    """Reference 1:1 expects (10 + 30) / 2 = 20; a policy of 3:1 for the first expects 15: -25%."""
    assert length_drift([(math.log(3), 0.0)], [(0.0, 0.0)], [(10, 30)]) == pytest.approx(-0.25)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_recipe_fits_the_installed_trl(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    supervised, preference = sft.sft_config(recipe, tmp_path), dpo.dpo_config(recipe, tmp_path)
    assert supervised.learning_rate == recipe.sft.learning_rate
    assert supervised.activation_checkpointing is recipe.sft.activation_checkpointing
    assert tuple(preference.loss_type) == recipe.dpo.loss_type
    assert preference.beta == recipe.dpo.beta


def test_a_value_that_trl_refuses_is_a_recipe_error(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="TRL's SFTConfig refuses 'tiny'"):
        sft.sft_config(make_recipe(sft={"trl": {"optim": "adamw_of_tomorrow"}}), tmp_path)


def test_training_leaves_its_inputs_alone(tiny_model: Path, tmp_path: Path) -> None:
    source = shutil.copytree(tiny_model, tmp_path / "source")
    before = {path.name: path.read_bytes() for path in source.iterdir()}
    run_job(make_job(tmp_path / "job", source, "sft", sft={"max_steps": 1}))
    assert {path.name: path.read_bytes() for path in source.iterdir()} == before
