"""The registered model answers chats with tools, from any folder and process, only with the weights it was given."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModelContext
from tiny import TOOLS

from rightcall.chat.model_folder import template_names
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RegistryError
from rightcall.measurement.gate import Verdict
from rightcall.recipe.loading import load_recipe
from rightcall.records.reading import to_canonical
from rightcall.toolcalls.schema import validate_call
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind
from tasks.tracking import registry
from tasks.tracking.versions import CODE, LAYOUT

ROOT = Path(__file__).parents[2]
OVERRIDES = ["register.name=served", "register.experiment=served", "model.chat_template=chatml-tools"]
CHATS = [
    {"messages": [{"role": "user", "content": "What is the weather in Paris?"}], "tools": TOOLS},
    {"messages": [{"role": "user", "content": "What is 2 plus 2?"}]},
]
ASK = """
import json, sys, mlflow
print(json.dumps(mlflow.pyfunc.load_model("models:/served@champion").predict(json.loads(sys.argv[1]))))
"""


def commit(store: Store, stage: str, kind: Kind, files: dict[str, str | Path]) -> ArtifactRef:
    folder = store.workdir(stage, "key")
    for name, content in files.items():
        if isinstance(content, Path):
            shutil.copytree(content, folder / name)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(content)
    return store.commit(stage, "key", kind, folder, {"result": {}, "inputs": {}, "seconds": 1.0})


@pytest.fixture(scope="module")
def store(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    """A store whose model is registered as champion in a MLflow of its own; the environment names both."""
    folder = tmp_path_factory.mktemp("served")
    store = Store(folder / "store")
    item = {"id": "a", "gold": "direct", "prediction": "direct", "prediction_norm": "direct", "has_tools": True}
    verdict = Verdict(verdict="GO", reasons=("good enough for a test",), differences={}, confidence=0.95)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("RIGHTCALL_STORE", raising=False)
        patch.delenv("RIGHTCALL_HOME", raising=False)
        registry.register_model.fn(
            load_recipe(None, OVERRIDES),
            model=commit(store, "dpo", "model", {"model": tiny_model}),
            scores=commit(store, "score", "scores", {"output/items.jsonl": json.dumps(item) + "\n"}),
            snapshot=commit(store, "ingest", "snapshot", {"choice.parquet": "rows"}),
            verdict=commit(store, "gate", "verdict", {"verdict.json": verdict.model_dump_json()}),
            store=store,
        )
        yield store


def load() -> Any:
    import mlflow

    return mlflow.pyfunc.load_model("models:/served@champion")


def test_another_process_in_another_folder_gets_an_answer_per_chat(store: Store, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "training_image")}
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(CHATS)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "AnyType" not in done.stderr
    answers = json.loads(done.stdout.splitlines()[-1])
    assert len(answers) == len(CHATS)
    for answer in answers:
        assert answer["role"] == "assistant"
        assert isinstance(answer["content"], str)
        assert answer["tool_calls"] == []


def test_generation_starts_from_the_prompt_that_training_and_scoring_use(
    store: Store, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load()
    served = model.unwrap_python_model()
    real, seen = served._model.generate, []

    def generate(ids: Any, **settings: Any) -> Any:
        seen.append((ids[0].tolist(), settings["do_sample"]))
        return real(ids, **settings)

    monkeypatch.setattr(served._model, "generate", generate)
    monkeypatch.setattr(served, "_max_new_tokens", 4)
    functions = [tool["function"] for tool in TOOLS]
    mcp = [
        {"name": each["name"], "description": each["description"], "inputSchema": each["parameters"]}
        for each in functions
    ]
    model.predict([*CHATS, CHATS[0] | {"tools": mcp}])
    template = ChatTemplate.load(tiny_model, "chatml-tools")
    assert seen == [(template.encode_prompt(chat["messages"], chat.get("tools")), False) for chat in (*CHATS, CHATS[0])]
    assert "get_weather" in template.decode(seen[0][0])


def test_a_call_comes_back_as_structured_tool_calls(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights write no call: what they would write is put in their mouth; template and parser are real."""
    model = load()
    served = model.unwrap_python_model()
    call = {"role": "assistant", "content": "", "tool_calls": [
        {"id": "call_0", "type": "function", "function": {"name": "get_weather", "arguments": {"city": "Paris"}}},
    ]}  # fmt: skip
    template: ChatTemplate = served._template
    monkeypatch.setattr(served, "_write", lambda messages, tools, constraint: template.answer_text(call))
    assert model.predict(CHATS[:1]) == [call]


SWITCHES = [  # arguments that end by themselves, whatever weights write them
    {"type": "function", "function": {"name": name, "description": "", "parameters": {
        "type": "object", "properties": properties, "required": ["room", "level"],
    }}}
    for name, properties in {
        "set_light": {"room": {"type": "string", "enum": ["kitchen", "hall"]}, "level": {"type": "integer", "minimum": 0, "maximum": 9}},
        "set_heat": {"room": {"type": "string", "enum": ["bath"]}, "level": {"type": "number", "enum": [18, 20.5]}},
    }.items()
]  # fmt: skip


def test_the_calls_of_random_weights_are_those_that_the_tools_accept(store: Store) -> None:
    model = load()
    chats = [
        {"messages": [{"role": "user", "content": f"Question {number}."}], "tools": SWITCHES, "tool_choice": choice}
        for number in range(4)
        for choice in ("required", {"type": "function", "function": {"name": "set_heat"}})
    ]
    for chat, answer in zip(chats, model.predict(chats), strict=True):
        assert answer["tool_calls"], answer
        for called in answer["tool_calls"]:
            assert validate_call(called["function"], SWITCHES) == []
            assert chat["tool_choice"] == "required" or called["function"]["name"] == "set_heat"


def test_a_call_is_held_to_its_schema_from_where_it_begins(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The random model never begins a call by itself: its first tokens are put in its mouth, the rest is its own."""
    model = load()
    served = model.unwrap_python_model()
    real, begun = served._grammar.constraint, served._template.tokenize("So:\n<tool_call>")

    def begins_a_call(tools: Any, choice: str) -> Any:
        constraint, left = real(tools, choice), list(begun)
        mask = constraint.mask

        def next_token() -> Any:
            allowed = mask()
            if left:
                assert allowed[left[0]]
                allowed[:] = False
                allowed[left.pop(0)] = True
            return allowed

        constraint.mask = next_token
        return constraint

    monkeypatch.setattr(served._grammar, "constraint", begins_a_call)
    (answer,) = model.predict([{"messages": CHATS[0]["messages"], "tools": SWITCHES}])
    assert [validate_call(called["function"], SWITCHES) for called in answer["tool_calls"]] == [[]] * len(
        answer["tool_calls"]
    )
    assert answer["tool_calls"]


def test_without_the_grammar_answers_are_free_and_a_tool_choice_is_refused(store: Store) -> None:
    import mlflow

    free = mlflow.pyfunc.load_model("models:/served@champion", model_config={"grammar": False})
    assert free.predict(CHATS[:1])[0]["role"] == "assistant"
    with pytest.raises(
        DataError, match="tool_choice 'required' can only be held to by a model that is loaded with its grammar"
    ):
        free.predict([{**CHATS[0], "tool_choice": "required"}])
    with pytest.raises(DataError, match="'get_time', which is not offered"):
        load().predict([{**CHATS[0], "tool_choice": {"type": "function", "function": {"name": "get_time"}}}])


CALLED = {"name": "get_weather", "arguments": {"city": "Graz"}}
AS_TEXT = {**CALLED, "arguments": '{"city": "Graz"}'}
ASKED, RESULT = (
    {"role": "user", "content": "Weather in Graz?"},
    {"role": "tool", "content": "21", "tool_call_id": "call_0"},
)
MCP = {
    "name": "get_weather",
    "description": "Weather.",
    "inputSchema": {"type": "object", "properties": {"city": {"type": "string"}}},
}
ACCEPTED: dict[str, tuple[list[dict[str, Any]], list[Any]]] = {
    "content parts": ([{"role": "user", "content": [{"type": "text", "text": "Weather "}, {"type": "text", "text": "in Graz?"}]}], TOOLS),
    "developer": ([{"role": "developer", "content": "Be brief."}, ASKED], TOOLS),
    "an MCP tool": ([ASKED], [MCP]),
    "a tool as text": ([ASKED], [json.dumps(TOOLS[0])]),
    "a bare function with python types": (
        [ASKED], [{"name": "f", "parameters": {"type": "dict", "properties": {"a": {"type": "str"}}}}]
    ),
    "no tools": ([ASKED], []),
    "an answer without calls": ([ASKED, {"role": "assistant", "content": "Yes.", "tool_calls": []}, ASKED], TOOLS),
    "arguments as text": (
        [ASKED, {"role": "assistant", "content": None, "tool_calls": [{"id": "call_0", "type": "function", "function": AS_TEXT}]}, RESULT],
        TOOLS,
    ),
    "arguments as an object": (
        [ASKED, {"role": "assistant", "content": "", "tool_calls": [{"id": "call_0", "type": "function", "function": CALLED}]}, RESULT],
        TOOLS,
    ),
    "calls without ids": ([ASKED, {"role": "assistant", "tool_calls": [{"function": AS_TEXT}, CALLED]}, RESULT, RESULT], TOOLS),
}  # fmt: skip


@pytest.fixture(scope="module")
def served_with(store: Store) -> Callable[[str], Any]:
    """The registered model under a template of ours: (what answers, the prompts that it was given)."""
    import mlflow

    kind = type(load().unwrap_python_model())
    config = mlflow.models.get_model_info("models:/served@champion").flavors["python_function"]["config"]

    @cache
    def with_template(name: str) -> tuple[Any, list[list[int]]]:
        served = kind()
        served.load_context(PythonModelContext({}, {**config, "chat_template": name, "max_new_tokens": 4}))
        real, seen = served._model.generate, []
        served._model.generate = lambda ids, **settings: (seen.append(ids[0].tolist()), real(ids, **settings))[1]
        return served, seen

    return with_template


@pytest.mark.parametrize("template", template_names())
@pytest.mark.parametrize("shape", ACCEPTED)
def test_what_ingestion_accepts_is_served_with_the_ids_of_training_and_scoring(
    shape: str, template: str, served_with: Callable[[str], Any]
) -> None:
    served, seen = served_with(template)
    messages, tools = ACCEPTED[shape]
    answer = {"role": "assistant", "content": "Yes."}
    row = to_canonical({"messages": [*messages, answer], "tools": tools}, "sft", "x", 1)
    served.predict([{"messages": messages, "tools": tools}])
    rules = served._template
    trained, turns = rules.encode_turns([(row["messages"], row["tools"])], [[len(row["messages"]) - 1]])[0]
    assert seen[-1] == rules.encode_prompt(row["messages"][:-1], row["tools"])
    assert seen[-1] == trained[: turns[len(row["messages"]) - 1][0]]
    assert seen[-1] == rules.encode_pair(row["messages"][:-1], row["tools"], answer)[0]


REQUESTS: dict[str, dict[str, Any]] = {
    "functions": {"messages": [ASKED], "functions": [TOOLS[0]["function"]]},
    "a function's call and result": {"functions": [TOOLS[0]["function"]], "messages": [
        ASKED, {"role": "assistant", "content": None, "function_call": AS_TEXT},
        {"role": "function", "name": "get_weather", "content": "21"},
    ]},
    "a call as text": {"tools": TOOLS, "messages": [
        ASKED, {"role": "assistant", "content": f"<tool_call>\n{json.dumps(CALLED)}\n</tool_call>"}, RESULT,
    ]},
    "a call as Python": {"tools": TOOLS, "messages": [ASKED, {"role": "assistant", "content": 'get_weather(city="Graz")'}, RESULT]},
    "JSON text": {"messages": json.dumps([ASKED]), "tools": json.dumps(TOOLS)},
    "a policy of its own": {"system": "Be brief.", "messages": [ASKED], "tools": TOOLS},
}  # fmt: skip


@pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
def test_a_request_in_any_schema_is_asked_as_the_row_that_was_trained(
    request_: dict[str, Any], served_with: Callable[[str], Any]
) -> None:
    served, seen = served_with("chatml-tools")
    messages = request_["messages"]
    whole = [
        *(json.loads(messages) if isinstance(messages, str) else messages),
        {"role": "assistant", "content": "Yes."},
    ]
    row = to_canonical({**request_, "messages": whole}, "sft", "x", 1)
    served.predict([request_])
    assert row["tools"]
    assert seen[-1] == served._template.encode_prompt(row["messages"][:-1], row["tools"])


def test_an_answer_whose_call_cannot_be_read_may_be_sent_back(served_with: Callable[[str], Any]) -> None:
    served, seen = served_with("chatml-tools")
    broken = {"role": "assistant", "content": '<tool_call>\n{"name": "get_weather", "arg'}
    served.predict([{"messages": [ASKED, broken, ASKED], "tools": TOOLS}])
    assert broken["content"] in served._template.decode(seen[-1])


@pytest.mark.parametrize("template", template_names())
def test_its_own_answers_are_its_history(template: str, served_with: Callable[[str], Any]) -> None:
    served, seen = served_with(template)
    called = {"id": "call_0", "type": "function", "function": CALLED}
    chat: list[dict[str, Any]] = [ASKED]
    for own in (
        served.predict([{"messages": chat, "tools": TOOLS}])[0],
        {"role": "assistant", "content": "", "tool_calls": []},  # nothing was said
        {"role": "assistant", "content": "", "tool_calls": [called]},
    ):
        chat += [own, RESULT if own["tool_calls"] else ASKED]
        assert served.predict([{"messages": chat, "tools": TOOLS}])[0]["role"] == "assistant"
    assert "\0" not in served._template.decode(seen[-1])


@pytest.mark.parametrize(
    ("chat", "said"),
    [
        ({"messages": [{"role": "robot", "content": "Hi"}]}, "'robot'; one of assistant"),
        ({"messages": [{"role": "user", "content": ""}]}, "message is empty; drop the row or fill it"),
        ({"messages": [ASKED], "tools": [{"description": "no name"}]}, "has no name"),
        ({"messages": [ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{"}]}]}, "is not JSON"),
    ],
)
def test_what_ingestion_refuses_is_refused_in_its_words(
    chat: dict[str, Any], said: str, served_with: Callable[[str], Any]
) -> None:
    with pytest.raises(DataError, match=said):
        served_with("chatml-tools")[0].predict([chat])


def test_the_version_requires_what_its_grammar_needs(store: Store) -> None:
    import mlflow

    (path,) = store.root.parent.rglob("served_model.py")
    assert "llguidance==" in (path.parent / "requirements.txt").read_text()
    assert (
        mlflow.models.get_model_info("models:/served@champion").flavors["python_function"]["config"]["grammar"] is True
    )


def test_a_chat_without_messages_is_a_clear_error(store: Store) -> None:
    with pytest.raises(Exception, match='a chat needs "messages"'):
        load().predict([{"prompt": "hello"}])


def test_the_layout_is_raised_when_what_the_served_code_imports_moves() -> None:
    """What copies of this layout import. A name that is no longer here: raise LAYOUT, as those copies no longer load."""
    imports = [node for node in ast.walk(ast.parse(CODE.read_text())) if isinstance(node, ast.ImportFrom)]
    names = {f"{node.module}.{alias.name}" for node in imports for alias in node.names}
    assert (LAYOUT, {name for name in names if name.startswith("rightcall.")}) == (
        "2",
        {
            "rightcall.decoding.grammar.Grammar",
            "rightcall.errors.DataError",
            "rightcall.errors.RecipeError",
            "rightcall.errors.RegistryError",
            "rightcall.records.reading.to_request",
            "rightcall.rows.canonical.canonical_messages",
            "rightcall.rows.tool_schemas.normalise_tools",
            "rightcall.toolcalls.template_check.load_template",
            "rightcall.toolcalls.verifier.parse",
        },
    )


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        # what versions of before rooms hold: there, nothing but Python's own words can be said
        ("try:\n", "from rightcall.chat import ChatTemplate\n\ntry:\n", "cannot import name 'ChatTemplate'"),
        ("import parse", "import read", "cannot import name 'read' .*; run its recipe again to register it anew"),
    ],
    ids=["before rooms", "since"],
)
def test_a_copy_that_imports_what_has_moved_says_so(store: Store, before: str, after: str, said: str) -> None:
    (copy,) = store.root.parent.rglob("served_model.py")
    original = copy.read_text()
    copy.write_text(original.replace(before, after, 1))
    try:
        with pytest.raises(MlflowException, match=f"Failed to import code model from .*{said}"):
            load()
    finally:
        copy.write_text(original)


def test_a_moved_store_is_found_by_the_environment_variable(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    moved = store.root.with_name("elsewhere") / "store"
    moved.parent.mkdir()
    store.root.rename(moved)
    try:
        with pytest.raises(RegistryError, match="was moved or cleaned: set RIGHTCALL_STORE"):
            load()
        monkeypatch.setenv("RIGHTCALL_HOME", str(moved.parent))
        assert load().predict(CHATS[1:])[0]["role"] == "assistant"
        monkeypatch.delenv("RIGHTCALL_HOME")
        monkeypatch.setenv("RIGHTCALL_STORE", str(moved))
        assert load().predict(CHATS[1:])[0]["role"] == "assistant"
    finally:
        moved.rename(store.root)


def test_changed_weights_are_refused(store: Store) -> None:
    path = store.root / "dpo/key/model/model.safetensors"
    original = path.read_bytes()
    path.write_bytes(original[:-4] + b"\0\0\0\1")
    try:
        with pytest.raises(RegistryError, match="was changed after it was registered"):
            load()
    finally:
        path.write_bytes(original)


def test_missing_weights_are_named(store: Store) -> None:
    path = store.root / "dpo/key/model/model.safetensors"
    path.rename(path.with_suffix(".away"))
    try:
        with pytest.raises(RegistryError, match=r"model\.safetensors' of the registered model is gone"):
            load()
    finally:
        path.with_suffix(".away").rename(path)
