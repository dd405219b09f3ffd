"""A model is loaded only when the calls that its template writes can be read back; TRL's templates are the corpus."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ingest_examples import ingest_recipe
from mlflow.pyfunc import PythonModelContext
from snapshot_writer import write_rows
from template_corpus import OURS, TRL, corpus_tokenizer, folder_with
from tiny import tiny_choice_rows, write_tiny_sources
from training_jobs import make_job

from rightcall.chat.model_folder import template_names
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError
from rightcall.evaluation import score
from rightcall.recipe.schema import Recipe
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.verifier import parse
from rightcall.training import dpo, sft
from tasks.serving.served_model import ServedModel
from tasks.stages.ingest import ingest_snapshot
from tasks.store.folder_store import Store

# Of TRL 1.16.0, those that write tools and calls.
READABLE = re.compile(
    r"(?:diffusion_gemma|gemma4(?:_v\d)?|glm4moe|gptoss|lfm2_v2|lfm2_2_5\w*|llama3_[12]|muse_glimmer|nemotron_3\w*|"
    r"qwen2_5|qwen3(?:_\w+)?)(?:_training)?"
)
TURNS = (
    "{{ tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "CALLS<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TAGGED = "<tool_call>{{ {'name': call.name, 'arguments': call.arguments} | tojson }}</tool_call>"
EVERY_CALL = "{% for c in m.tool_calls or [] %}{% set call = c.function %}" + TAGGED + "{% endfor %}"


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


CALLS = {
    "nested": [call("plan", trip={"to": ["Malmö", {"zip": 21119, "on": True}], "by": None}, note='"7" < 8 & 東京')],
    "keywords": [call("import-file", **{"from": "a", "class": 1.5, "None": "x"})],
    "parallel": [call("get_weather", city="Łódź"), call("get_weather", city="Oslo")],
}


TYPES = {str: "string", bool: "boolean", float: "number", dict: "object"}


def answer(calls: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [{"id": f"call{number:05}", "type": "function", "function": each} for number, each in enumerate(calls)]
    return {"role": "assistant", "content": "", "tool_calls": numbered}


def tools_of(calls: list[dict[str, Any]]) -> list[dict[str, Any]]:
    kinds = [{key: {"type": TYPES[type(value)]} for key, value in each["arguments"].items()} for each in calls]
    return [
        {"type": "function", "function": {"name": each["name"], "parameters": {"type": "object", "properties": kind}}}
        for each, kind in zip(calls, kinds, strict=True)
    ]


def read_back(template: ChatTemplate, calls: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], bool]:
    parsed = parse(template.answer_text(answer(calls)), template.dialect, tools_of(calls))
    return parsed.calls, parsed.strict


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def refusal_of(folder: Path) -> str:
    """Empty when the template loads."""
    try:
        load_template(folder)
    except RecipeError as err:
        return str(err)
    return ""


def test_the_corpus_has_the_templates_that_are_known_to_be_readable() -> None:
    assert len(TRL) >= 72
    assert len(OURS) >= 57
    assert sum(map(bool, map(READABLE.fullmatch, TRL))) >= 40


@pytest.mark.parametrize("name", [*TRL, *OURS])
def test_a_template_is_read_back_or_refused_with_the_remedy(tokenizer: Path, tmp_path: Path, name: str) -> None:
    folder = folder_with(tokenizer, tmp_path, (TRL | OURS)[name].read_text(encoding="utf-8"))
    if refusal := refusal_of(folder):
        assert name in OURS or not READABLE.fullmatch(name), refusal
        assert "set model.chat_template to one of ['chatml-signatures', 'chatml-tools'" in refusal
        return
    template = load_template(folder)
    for calls in CALLS.values():
        try:
            assert read_back(template, calls) == (calls, True)
        except DataError as err:
            assert len(calls) > 1
            assert re.search("one call an answer|single tool-calls", str(err))  # noqa: PT017


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("case", CALLS)
def test_every_template_of_ours_is_read_back(tokenizer: Path, name: str, case: str) -> None:
    assert read_back(load_template(tokenizer, name), CALLS[case]) == (CALLS[case], True)


def test_a_refusal_says_what_was_written_what_was_read_and_what_to_do(tokenizer: Path, tmp_path: Path) -> None:
    folder = folder_with(tokenizer, tmp_path, OURS["llama3_pythonic_bare"].read_text(encoding="utf-8"))
    with pytest.raises(RecipeError) as caught:
        load_template(folder)
    message = str(caught.value)
    assert f"the chat template of {folder}" in message
    assert "written: '[send_message(from=Ada" in message or 'written: "[get_weather(city=Oslo' in message
    assert "read back: 'not_a_literal" in message
    assert "set model.chat_template to one of ['chatml-signatures', 'chatml-tools']" in message
    assert "a later version may read this dialect" in message
    assert load_template(folder, "chatml-tools").name == "rightcall/chat/templates/chatml-tools.jinja"


def test_a_call_that_no_prompt_leads_to_is_shown_too(tokenizer: Path, tmp_path: Path) -> None:
    source = TURNS.replace("CALLS", EVERY_CALL).replace("assistant\n{% endif", "bot\n{% endif")
    refusal = refusal_of(folder_with(tokenizer, tmp_path, source))
    assert re.search(r"written: .*<\|im_end\|>\\n'; read back: nothing; set model.chat_template to one of", refusal)


def test_a_template_that_writes_one_of_several_calls_takes_rows_with_one(tokenizer: Path, tmp_path: Path) -> None:
    """gpt-oss writes the first and drops the others without a word."""
    source = TURNS.replace("CALLS", EVERY_CALL.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"))
    template = load_template(folder_with(tokenizer, tmp_path, source))
    assert read_back(template, CALLS["nested"]) == (CALLS["nested"], True)
    with pytest.raises(DataError, match="writes one call an answer, and this one has 2"):
        template.answer_text(answer(CALLS["parallel"]))


@pytest.mark.parametrize(("calls", "read"), [
    (EVERY_CALL.replace("| tojson }}", "}}"), "with python_dict"),  # Python's own way to write a dict
    (EVERY_CALL.replace("| tojson }}", "| tojson | escape }}"), "invalid_json"),
    (EVERY_CALL.replace("call.arguments}", "call.arguments | tojson | upper}"), "CITY"),
    # the name becomes what Python allows, as in Llama 3.2's list of Python calls
    (EVERY_CALL.replace("call.name,", "call.name | replace('-', '_'),"), "_"),
    # a model stops at its end-of-turn token, wherever the template puts it
    (EVERY_CALL.replace("</tool_call>", "").replace("<tool_call>", "calling<|im_end|><tool_call>"), "[]"),
])  # fmt: skip
def test_a_template_that_spoils_a_call_is_refused(tokenizer: Path, tmp_path: Path, calls: str, read: str) -> None:
    folder = folder_with(tokenizer, tmp_path, TURNS.replace("CALLS", calls))
    with pytest.raises(RecipeError, match=rf"read back: .*{re.escape(read)}"):
        load_template(folder)


@pytest.mark.parametrize(("name", "spoilt"), [
    ("qwen3", ()),
    ("qwen3_coder", ()),
    ("lfm2_2_5", ("It's", "C:\\new")),  # a text between single quotation marks, as it is
    ("olmo3", ("It's", "C:\\new")),
])  # fmt: skip
def test_a_template_that_spoils_some_texts_loads_and_says_which(
    tokenizer: Path, tmp_path: Path, name: str, spoilt: tuple[str, ...]
) -> None:
    """Rows with such texts are quarantined (tests/rows/test_read_back.py)."""
    folder = folder_with(tokenizer, tmp_path, (TRL | OURS)[name].read_text(encoding="utf-8"))
    assert load_template(folder).spoilt == spoilt


@pytest.mark.parametrize("demand", [
    "{% if c.id | length != 9 %}{{ raise_exception('ids have nine characters') }}{% endif %}",  # Mistral
    "{% if m.tool_calls | length > 1 %}{{ raise_exception('one call only') }}{% endif %}",  # Llama
])  # fmt: skip
def test_what_a_template_demands_of_a_call_is_no_reason_to_refuse_it(
    tokenizer: Path, tmp_path: Path, demand: str
) -> None:
    source = TURNS.replace("CALLS", EVERY_CALL.replace("{% set", demand + "{% set"))
    assert load_template(folder_with(tokenizer, tmp_path, source)).source == source


def unreadable(model: Path, target: Path) -> Path:
    """A copy of a model whose only fault is the dialect of its calls."""
    return folder_with(model, target, TURNS.replace("CALLS", EVERY_CALL.replace("tool_call>", "call>")))


def with_own_template(recipe: Recipe) -> Recipe:
    return recipe.model_copy(update={"model": recipe.model.model_copy(update={"chat_template": None})})


def test_nothing_is_ingested_for_a_template_that_cannot_be_read(tokenizer: Path, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    work = store.workdir("base", "0" * 32)
    unreadable(tokenizer, work)
    base = store.commit("base", "0" * 32, "model", work, {"result": {}})
    recipe = ingest_recipe(write_tiny_sources(tmp_path / "sources"))
    with pytest.raises(RecipeError, match="cannot be read back"):
        ingest_snapshot.run(with_own_template(recipe), store=store, base=base)


@pytest.mark.parametrize("stage", [sft, dpo, score])
def test_nothing_is_trained_or_scored_with_a_template_that_cannot_be_read(
    tiny_model: Path, tmp_path: Path, stage: ModuleType
) -> None:
    job = make_job(tmp_path / "job", unreadable(tiny_model, tmp_path), stage.__name__.rpartition(".")[2])
    write_rows(job.channel("dataset"), "choice", tiny_choice_rows(2))
    with pytest.raises(RecipeError, match="cannot be read back"):
        stage.run(dataclasses.replace(job, recipe=with_own_template(job.recipe)))


def test_nothing_is_served_with_a_template_that_cannot_be_read(tiny_model: Path, tmp_path: Path) -> None:
    unreadable(tiny_model, tmp_path)
    config = {"weights_uri": "model", "store": str(tmp_path), "files": {}, "chat_template": None, "max_new_tokens": 4}
    with pytest.raises(RecipeError, match="cannot be read back"):
        ServedModel().load_context(PythonModelContext({}, config))


def test_a_template_comes_into_a_room_only_through_the_check() -> None:
    """Whoever loads it another way trains, scores or serves what nobody can read."""
    root = Path(__file__).parents[2]
    files = [
        path for room in ("flows", "tasks", "data_checks", "training_image") for path in (root / room).rglob("*.py")
    ]
    past = {path.name for path in files if re.search(r"ChatTemplate(?:\.load)?\(", path.read_text(encoding="utf-8"))}
    assert past == {"template_check.py"}
