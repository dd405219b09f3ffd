"""An agent that MLflow traced, and one whose spans a collector wrote, through the flow `ingest`: rows, and no secret anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml
from prefect_fixture import prefect_server  # noqa: F401
from tiny import TOOLS, tiny_recipe
from trace_examples import SYSTEM, calls_of, conversation, trace_lines, write_traces

from rightcall.errors import RecipeError, RegistryError, SourceError
from rightcall.rows.snapshots import read_snapshot
from tasks.data import sources
from tasks.sources.traces import recorded

Row = dict[str, Any]
SECRETS = {
    "bearer_token": "Bearer q9Zk3vTn8rLw2xYbHd71",
    "authorization": "Basic b3Blbi1zZXNhbWU6bm90LWZvci15b3U=",
    "api_key": "sk-proj-Jd83kQpZx0TrWm72LsVbYh",
    "aws_key": "AKIAQWERTYUIOPASDFGH",
    "github": "ghp_R7tYu2IoP9aSdF4gHjK1lZxC6vBnM3qWeRtY",
    "jwt": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ0cmFjZWQifQ.c2lnbmF0dXJlLW9mLWl0",
    "private_key": "MIIEpAIBAAKCAQEAtracedKeyMaterial0123",
    "url_password": "tr4ced-pa55",
    "password": "blue horse tr4ced",
    "token": "tok-tr4ced-99",
    "secret": "s3same-tr4ced",
}
LEAK = "\n".join([
    f"Authorization: {SECRETS['bearer_token']}", f"authorization={SECRETS['authorization']}", SECRETS["api_key"],
    SECRETS["aws_key"], SECRETS["github"], SECRETS["jwt"],
    f"-----BEGIN PRIVATE KEY-----\n{SECRETS['private_key']}\n-----END PRIVATE KEY-----",
    f"postgres://agent:{SECRETS['url_password']}@db.example.com/orders",
    json.dumps({"password": SECRETS["password"], "token": SECRETS["token"], "client_secret": SECRETS["secret"]}),
])  # fmt: skip


def leaking(record: Row) -> Row:
    """In what a user says, in a call's arguments, and in a tool's result."""
    first, asked, city, call, found, said = record["messages"]
    arguments = {**call["tool_calls"][0]["function"]["arguments"], "api_key": SECRETS["secret"]}
    called = {**call["tool_calls"][0], "function": {"name": "get_weather", "arguments": arguments}}
    return record | {"messages": [
        {**first, "content": f"{first['content']}\n{LEAK}"}, asked, city, {**call, "tool_calls": [called]},
        {**found, "content": json.dumps({"note": LEAK, "token": SECRETS["token"], "secret": SECRETS["secret"]})}, said,
    ]}  # fmt: skip


def as_openai(message: Row) -> Row:
    calls = [
        {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
        for call in message.get("tool_calls", ())
    ]
    return {**message, "tool_calls": calls} if calls else message


def log_run(record: Row, **tags: str) -> None:
    """As MLflow's autologging of OpenAI does below an agent's own span."""
    import mlflow

    with mlflow.start_span("agent", span_type="AGENT") as agent:
        about = {"mlflow.trace.user": record["user_id"], "mlflow.trace.session": record["id"]}
        mlflow.update_current_trace(metadata=about, tags=tags)
        agent.set_inputs({"question": record["messages"][0]["content"]})
        for given, answer in calls_of(record):
            with mlflow.start_span("Completions", span_type="CHAT_MODEL") as span:
                messages = [{"role": "system", "content": SYSTEM}, *map(as_openai, given)]
                span.set_inputs({"model": "gpt-4.1", "messages": messages, "tools": TOOLS})
                message = {**as_openai(answer), "refusal": None, "annotations": []}
                ended = "tool_calls" if answer.get("tool_calls") else "stop"
                span.set_outputs({"choices": [{"index": 0, "finish_reason": ended, "message": message}]})
        with mlflow.start_span("get_weather", span_type="TOOL") as tool:
            tool.set_outputs("4")
        agent.set_outputs(record["messages"][-1]["content"])


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, prefect_server: None) -> Iterator[Path]:  # noqa: F811
    """An MLflow with the traces of 43 runs of an agent, one of which is a test and one leaks; a recipe over them."""
    folder = tmp_path_factory.mktemp("traced")
    tiny_recipe(folder, tiny_model)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        import mlflow

        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        mlflow.set_experiment("desk/agent")
        for number in range(41):
            log_run(conversation(number), env="live")
        log_run(leaking(conversation(41)), env="live")
        log_run(conversation(42), env="test")
        with mlflow.start_span("GET /health"):
            mlflow.update_current_trace(tags={"env": "live"})
        mlflow.flush_trace_async_logging()
        yield folder


def write_recipe(folder: Path, uri: str, **changes: Any) -> Path:
    recipe = yaml.safe_load((folder / "tiny.yaml").read_text())
    recipe["data"] = {"conversations": [{"uri": uri, **changes.pop("source", {})}], "group_by": "user_id", **changes}
    recipe["dpo"]["max_steps"] = 0
    path = folder / "traced.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path


def everything_in(folder: Path) -> str:
    """Every file, those of rows by what their cells hold."""
    texts = []
    for path in folder.rglob("*"):
        if path.suffix == ".parquet":
            texts.append(json.dumps(pq.read_table(path).to_pylist(), default=str))
        elif path.is_file():
            texts.append(path.read_bytes().decode("utf-8", errors="replace"))
    return "\n".join(texts)


def ingested(recipe: Path, store: Path) -> tuple[str, Path]:
    from flows.ingest import ingest_rows

    text = ingest_rows(recipe=str(recipe), store=str(store))
    (manifest,) = store.glob("ingest/*/manifest.json")
    return text, manifest.parent


@pytest.mark.parametrize("source", ["mlflow", "file"])
def test_traces_become_rows_and_no_secret_of_theirs_is_written_or_logged(
    source: str, workshop: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.INFO)
    if source == "mlflow":
        named = {"filter": "tags.env = 'live'"}
        recipe = write_recipe(workshop, "traces:mlflow:desk/agent", traces_consent=True, source=named)
    else:
        runs = [*(conversation(number) for number in range(41)), leaking(conversation(41))]
        lines: list[Row | bytes] = [line for n, run in enumerate(runs) for line in trace_lines(n, run, "as_text")]
        broken = json.dumps({"resourceSpans": [], "note": LEAK}).encode()[:-3]
        spans = write_traces(workshop / "spans.jsonl", [*lines, broken])
        recipe = write_recipe(workshop, f"traces:{spans}", traces_consent=True)
    text, folder = ingested(recipe, tmp_path / "store")
    sft, steps = read_snapshot(folder, "sft"), read_snapshot(folder, "step")
    kept = {row["id"] for row in sft} | {step["conversation"] for step in steps}
    checks = json.loads((folder / "checks.json").read_text())
    assert checks["rows"]["conversation"]["in"] == (42 if source == "mlflow" else 43)
    assert len(kept) == 41  # the leaking call has an argument that its tool does not know
    assert all([message["role"] for message in row["messages"]][:2] == ["system", "user"] for row in sft)
    assert {step["behaviour"] for step in steps} == {"request_for_info", "tool_call", "direct"}
    assert {"arguments_break_schema"} <= checks["reasons"].keys()
    assert ("traces without a call of a model" in json.dumps(checks["not_used"])) == (source == "mlflow")
    said = capfd.readouterr()
    for where in (everything_in(tmp_path / "store"), caplog.text, said.out, said.err, text):
        assert [kind for kind, secret in SECRETS.items() if secret.split()[-1] in where] == []
    assert set(checks["conversations"]["redacted"]) >= SECRETS.keys() - {"github"}
    assert "Secrets redacted before anything was stored: " in text
    assert "[REDACTED:token]" in everything_in(tmp_path / "store")


def test_without_consent_nothing_is_read(workshop: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from flows.ingest import ingest_rows

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # would be another error
    recipe = write_recipe(workshop, "traces:mlflow:desk/agent")
    with pytest.raises(RecipeError, match="data.traces_consent: false, but 'traces:mlflow:desk/agent' is what people"):
        ingest_rows(recipe=str(recipe), store=str(tmp_path / "store"))
    assert not list((tmp_path / "store").glob("ingest/*"))


def test_a_new_trace_changes_the_digest_and_one_that_is_not_finished_waits(workshop: Path) -> None:
    import mlflow

    uri, only = "traces:mlflow:desk/agent", "tags.env = 'fresh'"
    log_run(conversation(70), env="fresh")
    mlflow.flush_trace_async_logging()
    before = sources.digest(uri, filter_string=only)
    assert sources.digest(uri, filter_string=only) == before
    log_run(conversation(71), env="fresh")
    running = mlflow.start_span_no_context("agent", tags={"env": "fresh"})
    mlflow.flush_trace_async_logging()
    assert sources.digest(uri, filter_string=only) != before
    found = recorded(uri, only)
    assert [json.loads(line.content)["session_id"] for line in found.lines] == ["c70", "c71"]
    running.end()


@pytest.mark.parametrize(("uri", "filter_string", "says"), [
    ("traces:mlflow:gone", None, r"has no experiment 'gone'; there are \[.*'desk/agent'"),
    ("traces:mlflow:desk/agent", "env is live", "does not take the filter 'env is live'"),
    ("traces:mlflow:desk/agent", "tags.env = 'none'", "holds no conversation, but nothing"),
])  # fmt: skip
def test_an_experiment_or_a_filter_that_gives_nothing_is_a_clear_error(
    uri: str, filter_string: str | None, says: str, workshop: Path
) -> None:
    with pytest.raises(SourceError, match=says):
        recorded(uri, filter_string)


def test_an_mlflow_that_does_not_answer_is_a_clear_error(workshop: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(RegistryError, match="cannot be reached"):
        recorded("traces:mlflow:desk/agent")
