"""A model is loaded only when the calls that its template writes can be read back; TRL's templates are the corpus."""

from __future__ import annotations

import dataclasses
import re
import shutil
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from ingest_examples import ingest_recipe
from mlflow.pyfunc import PythonModelContext
from snapshot_writer import write_rows
from tiny import build_tiny_tokenizer, tiny_choice_rows, write_tiny_sources
from tokenizers import Tokenizer
from training_jobs import make_job

from rightcall.chat.model_folder import template_names
from rightcall.errors import DataError, RecipeError
from rightcall.evaluation import score
from rightcall.recipe.schema import Recipe
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.verifier import parse
from rightcall.training import dpo, sft
from tasks.serving.served_model import ServedModel
from tasks.stages.ingest import ingest_snapshot
from tasks.store.folder_store import Store

CORPUS = {path.stem: path for path in Path(str(find_spec("trl").origin)).parent.glob("chat_templates/*.jinja")}
# Those of TRL 1.16.0 that can be read: a later parser may add to them, never take away.
READABLE = {
    "llama3_1", "llama3_2", "qwen2_5", "qwen2_5_training", "qwen3", "qwen3_training", "qwen3_instruct_2507",
    "qwen3_instruct_2507_training", "qwen3_vl", "qwen3_vl_training",
}  # fmt: skip
ONE_CALL_ONLY = {"llama3_1", "llama3_2"}
CONTROL_TOKEN = re.compile(r"<[|｜][^<>\s]+>|<\w+\|>|<end_of_\w+>")
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


def answer(calls: list[dict[str, Any]]) -> dict[str, Any]:
    numbered = [{"id": f"call{number:05}", "type": "function", "function": each} for number, each in enumerate(calls)]
    return {"role": "assistant", "content": "", "tool_calls": numbered}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny tokenizer with the control tokens of every template: none is refused for want of its own."""
    folder = build_tiny_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    written = (CONTROL_TOKEN.findall(path.read_text(encoding="utf-8")) for path in CORPUS.values())
    whole.add_special_tokens(
        sorted({"<|begin_of_text|>", "<|eot_id|>", *(token for found in written for token in found)})
    )
    whole.save(str(folder / "tokenizer.json"))
    return folder


def folder_with(tokenizer: Path, target: Path, source: str) -> Path:
    folder = shutil.copytree(tokenizer, target / "model")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return folder


def refusal_of(folder: Path) -> str:
    """Empty when the template loads."""
    try:
        load_template(folder)
    except RecipeError as err:
        return str(err)
    return ""


def test_the_corpus_has_the_templates_that_are_known_to_be_readable() -> None:
    assert len(CORPUS) >= 72
    assert set(CORPUS) >= READABLE


@pytest.mark.parametrize("name", sorted(CORPUS))
def test_a_template_is_read_back_or_refused_with_the_remedy(tokenizer: Path, tmp_path: Path, name: str) -> None:
    folder = folder_with(tokenizer, tmp_path, CORPUS[name].read_text(encoding="utf-8"))
    if refusal := refusal_of(folder):
        assert name not in READABLE, refusal
        assert "set model.chat_template to one of ['chatml-signatures', 'chatml-tools'" in refusal
        return
    template = load_template(folder)
    for case, calls in CALLS.items():
        if case == "parallel" and name in ONE_CALL_ONLY:
            with pytest.raises(DataError, match="single tool-calls"):
                template.answer_text(answer(calls))
        else:
            assert parse(template.answer_text(answer(calls))).calls == calls


@pytest.mark.parametrize("name", template_names())
@pytest.mark.parametrize("case", CALLS)
def test_every_template_of_ours_is_read_back(tokenizer: Path, name: str, case: str) -> None:
    assert parse(load_template(tokenizer, name).answer_text(answer(CALLS[case]))).calls == CALLS[case]


def test_a_refusal_says_what_was_written_what_was_read_and_what_to_do(tokenizer: Path, tmp_path: Path) -> None:
    folder = folder_with(tokenizer, tmp_path, CORPUS["lfm2_v2"].read_text(encoding="utf-8"))
    with pytest.raises(RecipeError) as caught:
        load_template(folder)
    message = str(caught.value)
    assert f"the chat template of {folder}" in message
    assert "<|tool_call_start|>[" in message
    assert "read back: []" in message
    assert "set model.chat_template to one of ['chatml-signatures', 'chatml-tools']" in message
    assert "a later version may read this dialect" in message
    assert load_template(folder, "chatml-tools").name == "rightcall/chat/templates/chatml-tools.jinja"


def test_a_call_that_no_prompt_leads_to_is_shown_too(tokenizer: Path, tmp_path: Path) -> None:
    """gpt-oss ends a call with another token than an answer."""
    refusal = refusal_of(folder_with(tokenizer, tmp_path, CORPUS["gptoss"].read_text(encoding="utf-8")))
    assert re.search(r"written: .*<\|call\|>'; read back: nothing; set model.chat_template to one of", refusal)


@pytest.mark.parametrize(("calls", "read"), [
    (EVERY_CALL.replace("| tojson }}", "}}"), "invalid_json"),  # Python's own way to write a dict
    (EVERY_CALL.replace("| tojson }}", "| tojson | escape }}"), "invalid_json"),
    (EVERY_CALL.replace("m.tool_calls or []", "(m.tool_calls or [])[:1]"), "get_weather"),  # the second is dropped
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
    past = {path.name for path in files if "ChatTemplate.load(" in path.read_text(encoding="utf-8")}
    assert past == {"template_check.py"}
