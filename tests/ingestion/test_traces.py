"""Traces of an agent as conversations: OTLP files in every convention, what is left out and why, and who must agree."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation_recipe, user
from ingest_examples import quarantined, snapshot_of
from tiny import TOOLS, text_message
from trace_examples import (
    CONVENTIONS,
    SYSTEM,
    conversation,
    otlp_span,
    spans_line,
    trace_id,
    trace_lines,
    write_traces,
)

from rightcall.errors import DataError, RecipeError, SourceError
from rightcall.recipe.loading import load_recipe
from rightcall.records.conversation_records import Named, to_conversation
from rightcall.rows.snapshots import read_snapshot
from rightcall.toolcalls.words import guess_behaviour
from rightcall.traces.conversations import Traces
from rightcall.traces.spans import Span
from tasks.data import sources
from tasks.runs.model_names import suite_overrides
from tasks.sources.traces import Recorded, recorded

Row = dict[str, Any]


def chats(lines: list[Row | bytes], folder: Path, name: str = "spans.jsonl") -> Recorded:
    return recorded(f"traces:{write_traces(folder / name, lines)}")


def records(found: Recorded) -> list[Row]:
    assert [line.problem for line in found.lines if line.problem] == []
    return [json.loads(line.content) for line in found.lines]


def canonical(record: Row) -> Row:
    return to_conversation(record, "traces", 1, Named(), guess_behaviour)


def traced(*messages: Row, number: int = 0, **attributes: Any) -> Row:
    """One call of a model: all but the last message given."""
    span, _, _ = CONVENTIONS["structured"](list(messages[:-1]), messages[-1])
    return spans_line([otlp_span(trace_id(number), 1, {**span, **attributes})])


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_each_convention_gives_the_whole_conversation_once(convention: str, tmp_path: Path) -> None:
    record = conversation(3)
    found = chats([*trace_lines(3, record, convention)], tmp_path)
    (only,) = records(found)
    assert found.left_out == Counter()
    assert only["id"] == trace_id(3)
    assert only["user_id"] == record["user_id"]
    wanted = canonical(record | {"messages": [{"role": "system", "content": SYSTEM}, *record["messages"]]})
    assert canonical(only)["messages"] == wanted["messages"]
    assert canonical(only)["tools"] == wanted["tools"]
    assert [behaviour for _, behaviour in canonical(only)["trained"]] == ["request_for_info", "tool_call", "direct"]


def test_the_spans_of_many_traces_may_come_in_any_order_and_in_several_files(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    lines = [line for number in range(6) for line in trace_lines(number, conversation(number))]
    write_traces(folder / "a.jsonl", lines[::2])
    write_traces(folder / "b.jsonl", reversed(lines[1::2]))
    found = recorded(f"traces:{folder}")
    assert [each["id"] for each in records(found)] == [trace_id(number) for number in range(6)]
    assert chats(lines, tmp_path).lines == found.lines


def test_a_trace_for_every_turn_is_one_conversation_but_not_across_sessions(tmp_path: Path) -> None:
    messages = conversation(1)["messages"]
    turns = [traced(*messages[:2], number=1), traced(*messages[:4], number=2), traced(*messages, number=3)]
    found = chats(turns, tmp_path)
    assert [each["id"] for each in records(found)] == [trace_id(3)]
    assert found.left_out == {"traces that another one goes on from": 2}
    hello = [traced(*messages[:2], number=1, **{"session.id": "a"}), traced(*messages, number=2, **{"session.id": "b"})]
    found = chats(hello, tmp_path)
    assert [each["session_id"] for each in records(found)] == ["a", "b"]
    assert not found.left_out


def test_of_a_trace_with_other_chats_the_longest_stays_and_the_others_are_counted(tmp_path: Path) -> None:
    title = [user("Give this chat a title."), text_message("Weather")]
    http = spans_line([otlp_span(trace_id(7), 1, {"http.request.method": "GET"}, name="GET /")])
    found = chats([traced(*title), *trace_lines(0, conversation(0)), http], tmp_path)
    assert len(records(found)) == 1
    assert found.left_out == {"chats beside the longest of their trace": 1, "traces without a call of a model": 1}


def test_an_answer_that_was_cut_off_is_context_and_not_trained(tmp_path: Path) -> None:
    messages = conversation(0)["messages"]
    span, _, _ = CONVENTIONS["structured"](messages[:1], messages[1])
    span["gen_ai.output.messages"][0]["finish_reason"] = "length"
    found = chats([spans_line([otlp_span(trace_id(0), 0, span)]), *trace_lines(0, conversation(0))], tmp_path)
    assert found.left_out == {"answers that ended early": 1}
    assert [at for at, _ in canonical(records(found)[0])["trained"]] == [4, 6]


def test_several_choices_are_several_answers_only_where_several_were_asked_for(tmp_path: Path) -> None:
    asked = {"gen_ai.input.messages": [{"role": "user", "parts": [{"type": "text", "content": "Hi"}]}]}
    text = {"role": "assistant", "parts": [{"type": "text", "content": "Let me look."}]}
    call = {
        "role": "assistant",
        "parts": [{"type": "tool_call", "id": "a", "name": "get_weather", "arguments": {"city": "Oslo"}}],
    }
    for count, calls in ((1, 1), (2, 0)):
        span = {
            "gen_ai.operation.name": "chat",
            "gen_ai.request.choice.count": count,
            **asked,
            "gen_ai.output.messages": [text, call],
        }
        found = chats([spans_line([otlp_span(trace_id(0), 0, span)])], tmp_path)
        (_, answer) = records(found)[0]["messages"]
        assert (answer["content"], len(answer.get("tool_calls", ()))) == ("Let me look.", calls)
        assert found.left_out == ({} if calls else {"answers beside the first of a span": 1})


RESPONSES = {
    "mlflow.spanType": "CHAT_MODEL",
    "mlflow.spanInputs": {
        "model": "gpt-4.1", "instructions": "Be brief.",
        "tools": [{"type": "function", **tool["function"]} for tool in TOOLS],
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Oslo and Rome?"}]},
            {"type": "reasoning", "id": "r1", "summary": [{"type": "summary_text", "text": "Two cities."}]},
            {"type": "function_call", "call_id": "c1", "name": "get_weather", "arguments": '{"city": "Oslo"}'},
            {"type": "function_call", "call_id": "c2", "name": "get_weather", "arguments": '{"city": "Rome"}'},
            {"type": "function_call_output", "call_id": "c2", "output": "9"},
            {"type": "function_call_output", "call_id": "c1", "output": "4"},
        ],
    },
    "mlflow.spanOutputs": {"status": "completed", "output": [
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "4 and 9."}]},
    ]},
}  # fmt: skip
ANTHROPIC = {
    "mlflow.spanType": "CHAT_MODEL",
    "mlflow.spanInputs": {
        "model": "claude", "system": [{"type": "text", "text": "Be brief."}],
        "tools": [{"name": tool["function"]["name"], "description": tool["function"]["description"],
                   "input_schema": tool["function"]["parameters"]} for tool in TOOLS],
        "messages": [
            {"role": "user", "content": "Oslo and Rome?"},
            {"role": "assistant", "content": [
                {"type": "thinking", "thinking": "Two cities.", "signature": "x"},
                {"type": "tool_use", "id": "c1", "name": "get_weather", "input": {"city": "Oslo"}},
                {"type": "tool_use", "id": "c2", "name": "get_weather", "input": {"city": "Rome"}},
            ]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": "c2", "content": [{"type": "text", "text": "9"}]},
                {"type": "tool_result", "tool_use_id": "c1", "content": "4"},
            ]},
        ],
    },
    "mlflow.spanOutputs": {"type": "message", "role": "assistant", "stop_reason": "end_turn",
                           "content": [{"type": "text", "text": "4 and 9."}]},
}  # fmt: skip


@pytest.mark.parametrize("attributes", [RESPONSES, ANTHROPIC], ids=["responses", "anthropic"])
def test_items_and_blocks_of_other_apis_become_the_same_messages(attributes: Row, tmp_path: Path) -> None:
    written = {name: json.dumps(value) for name, value in attributes.items()}  # as MLflow exports its own spans
    (record,) = records(chats([spans_line([otlp_span(trace_id(0), 0, written)])], tmp_path))
    row = canonical(record)
    assert [message["role"] for message in row["messages"]] == [
        "system",
        "user",
        "assistant",
        "tool",
        "tool",
        "assistant",
    ]
    called = row["messages"][2]
    assert called["reasoning_content"] == "Two cities."
    assert [call["function"]["arguments"] for call in called["tool_calls"]] == [{"city": "Oslo"}, {"city": "Rome"}]
    assert [message["tool_call_id"] for message in row["messages"][3:5]] == ["c2", "c1"]
    assert row["messages"][-1]["content"] == "4 and 9."
    assert [tool["function"] for tool in row["tools"]] == [
        tool["function"] for tool in canonical(conversation(0))["tools"]
    ]


def test_what_cannot_be_read_stands_in_the_quarantine_with_its_reason(tmp_path: Path) -> None:
    cut, _, _ = CONVENTIONS["as_text"](conversation(41)["messages"][:1], text_message("In which city?"))
    cut["gen_ai.input.messages"] = cut["gen_ai.input.messages"][:40]
    image = {"role": "user", "parts": [{"type": "blob", "modality": "image", "content": "aGVsbG8="}]}
    seen = {"gen_ai.operation.name": "chat", "gen_ai.input.messages": [image],
            "gen_ai.output.messages": [{"role": "assistant", "parts": [{"type": "text", "content": "A cat."}]}]}  # fmt: skip
    kept = {"mlflow.spanType": "CHAT_MODEL", "mlflow.spanOutputs": {"output": []},
            "mlflow.spanInputs": {"model": "gpt-4.1", "previous_response_id": "r1", "input": "And Rome?"}}  # fmt: skip
    lines: list[Row | bytes] = [line for number in range(40) for line in trace_lines(number, conversation(number))]
    lines += [b'{"resourceSpans": [', {"messages": []}]
    for number, attributes in enumerate([cut, {"gen_ai.operation.name": "chat"}, seen, kept], 41):
        lines.append(spans_line([otlp_span(trace_id(number), 1, attributes)]))
    lines.append(spans_line([otlp_span(trace_id(50), 1, {"gen_ai.operation.name": "invoke_agent"})]))
    uri = f"traces:{write_traces(tmp_path / 'spans.jsonl', lines)}"
    folder, checks = snapshot_of(conversation_recipe({"uri": uri}, traces_consent=True, tolerance=0.5), tmp_path)
    put_aside = quarantined(folder)
    assert {each["source"] for each in put_aside} == {"traces:spans.jsonl"}
    assert Counter(reason for each in put_aside for reason in each["reasons"]) == {
        "not_json": 1, "unknown_schema": 1, "cut_off": 1, "no_messages": 2, "bad_content": 1, "no_history": 1,
    }  # fmt: skip
    assert checks["rows"]["conversation"]["kept"] == 40
    assert trace_id(41) in json.dumps(put_aside)


def test_traces_are_split_by_who_spoke_and_what_they_hold_beside_is_said(tmp_path: Path) -> None:
    lines = [line for number in range(40) for line in trace_lines(number, conversation(number))]
    lines += [traced(*conversation(number)["messages"][:2], number=100 + number) for number in range(3)]
    uri = f"traces:{write_traces(tmp_path / 'spans.jsonl', lines)}"
    folder, checks = snapshot_of(conversation_recipe({"uri": uri}, traces_consent=True), tmp_path)
    assert quarantined(folder) == []
    sft, steps = read_snapshot(folder, "sft"), read_snapshot(folder, "step")
    assert len(sft) + len({step["conversation"] for step in steps}) == 40
    assert {row["group"] for row in sft}.isdisjoint(step["group"] for step in steps)
    assert checks["not_used"] == {"conversation": {"traces:spans.jsonl": {"traces that another one goes on from": 3}}}
    assert str(tmp_path) not in json.dumps(checks)


def test_new_conversations_change_the_digest_and_other_telemetry_does_not(tmp_path: Path) -> None:
    lines = [line for number in range(4) for line in trace_lines(number, conversation(number))]
    path = write_traces(tmp_path / "spans.jsonl", lines)
    uri = f"traces:{path}"
    before = sources.digest(uri)
    noise = spans_line([otlp_span(trace_id(9), 1, {"http.request.method": "GET"})])
    write_traces(path, [*lines, noise])
    assert sources.digest(uri) == before
    write_traces(path, [*lines, *trace_lines(4, conversation(4))])
    assert len(recorded(uri).lines) == 4  # what the digest was of
    assert sources.digest(uri) != before
    assert len(recorded(uri).lines) == 5


@pytest.mark.parametrize(("changes", "says"), [
    ({}, "data.traces_consent: false, but 'traces:mlflow:agent' is what people said"),
    ({"uri": "traces:"}, "names nothing; write traces:mlflow:EXPERIMENT"),
    ({"uri": "traces:mlflow:"}, "names nothing"),
    ({"sha256": "0" * 64}, "takes neither 'sha256' nor 'file'"),
    ({"uri": "traces:spans.jsonl", "filter": "x"}, "is a file, which has no filter"),
    ({"uri": "log.jsonl", "filter": "x"}, "has no filter; it is for traces:mlflow"),
])  # fmt: skip
def test_a_recipe_that_cannot_be_meant_is_refused_before_anything_is_read(changes: Row, says: str) -> None:
    source = {"uri": "traces:mlflow:agent", **changes}
    with pytest.raises(RecipeError, match=says):
        load_recipe(None, [f"data.conversations={json.dumps([source])}"])
    with pytest.raises(RecipeError, match="traces hold conversations; name them in data.conversations"):
        load_recipe(None, ['data.sft=[{"uri": "traces:spans.jsonl"}]'])


def test_with_consent_the_recipe_loads_and_its_paths_mean_its_folder(tmp_path: Path) -> None:
    source = {"uri": "traces:spans.jsonl"}
    told = [f"data.conversations={json.dumps([source])}", "data.traces_consent=true"]
    recipe = load_recipe(None, told)
    assert recipe.data.conversations[0].uri == f"traces:{Path.cwd() / 'spans.jsonl'}"


@pytest.mark.parametrize("lines", [[], [spans_line([otlp_span(trace_id(0), 1, {"http.request.method": "GET"})])]])
def test_traces_without_a_conversation_and_no_file_are_clear_errors(lines: list[Row | bytes], tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="holds no conversation, but (nothing|1 traces without a call of a model)"):
        chats(lines, tmp_path)
    with pytest.raises(SourceError, match="does not exist"):
        recorded(f"traces:{tmp_path / 'gone.jsonl'}")


def test_a_suite_may_be_traces_and_is_read_only_with_the_consent_of_its_recipe(tmp_path: Path) -> None:
    for named, meant in (("mlflow:agent", "mlflow:agent"), ("spans.jsonl", str(Path.cwd() / "spans.jsonl"))):
        overrides = suite_overrides(Path(f"traces:{named}"), "base", None, None)
        assert f'data.conversations=[{{"uri": "traces:{meant}"' in "\n".join(overrides)
        with pytest.raises(RecipeError, match="data.traces_consent"):
            load_recipe(None, overrides)
        recipe = load_recipe(None, [*overrides, "data.traces_consent=true", "sft.max_steps=0", "dpo.max_steps=0"])
        assert recipe.data.conversations[0].uri == f"traces:{meant}"


@pytest.mark.parametrize(
    "junk", [None, True, 5, "x", "[", [], {}, [None], {"type": []}, {"role": {}}, [{"type": {}, "parts": 5}]]
)
@pytest.mark.parametrize("name", ["gen_ai.input.messages", "gen_ai.output.messages", "gen_ai.system_instructions",
                                  "gen_ai.tool.definitions", "mlflow.spanInputs", "mlflow.spanOutputs"])  # fmt: skip
def test_whatever_an_attribute_holds_is_a_row_or_a_reason(name: str, junk: Any, tmp_path: Path) -> None:
    base = RESPONSES if name.startswith("mlflow") else CONVENTIONS["structured"]([user("Hi")], text_message("Hello"))[0]
    traces = Traces()
    traces.add(Span("t", "s", "chat", 1, {**base, name: junk}))
    for found in traces.conversations():
        assert found.problem is None or found.problem.reason
        with suppress(DataError):  # any other error would end the whole run
            canonical(found.record)


def test_calls_of_a_model_that_a_function_wraps_are_no_conversation_of_their_own(tmp_path: Path) -> None:
    """@mlflow.trace of any function: documents in, text out."""
    wrapped = {"mlflow.spanInputs": {"input": [{"page": 1}], "model": "x"}, "mlflow.spanOutputs": "[INFO] text"}
    log = {"mlflow.spanInputs": "[INFO] no JSON", "mlflow.spanOutputs": "x"}
    lines = [spans_line([otlp_span(trace_id(0), at, each)]) for at, each in enumerate((wrapped, log))]
    found = chats([*lines, *trace_lines(1, conversation(1))], tmp_path)
    assert len(records(found)) == 1
    assert found.left_out == {"traces without a call of a model": 1}
