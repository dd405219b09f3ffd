"""Recorded calls of a model: OTLP JSON as the collector's file exporter writes it, in the conventions of the field."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from conversation_examples import conversation
from tiny import TOOLS

Row = dict[str, Any]
Recorded = tuple[Row, list[tuple[str, Row]], list[tuple[str, Row]]]  # attributes, events of the span, log records
SYSTEM = "You are the weather service."
SPAN = {"gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "gpt-4"}


def calls_of(record: Row) -> list[tuple[list[Row], Row]]:
    """(messages given, message answered) of every call that an agent makes of its model."""
    messages = record["messages"]
    return [(messages[:at], each) for at, each in enumerate(messages) if at and each["role"] == "assistant"]


def part_message(message: Row, structured: bool = False) -> Row:
    """As OpenTelemetry's conventions have it."""
    if message["role"] == "tool":
        part = {"type": "tool_call_response", "id": message["tool_call_id"], "response": message["content"]}
        return {"role": "tool", "parts": [part]}
    parts: list[Row] = [{"type": "text", "content": message["content"]}] if message["content"] else []
    for call in message.get("tool_calls", ()):
        function = call["function"]
        arguments = function["arguments"] if structured else json.dumps(function["arguments"])
        parts.append({"type": "tool_call", "id": call["id"], "name": function["name"], "arguments": arguments})
    return {"role": message["role"], "parts": parts}


def _conventions(given: list[Row], answer: Row) -> Row:
    return {
        "gen_ai.system_instructions": [{"type": "text", "content": SYSTEM}],
        "gen_ai.input.messages": [part_message(each) for each in given],
        "gen_ai.output.messages": [part_message(answer) | {"finish_reason": "stop"}],
        "gen_ai.tool.definitions": [{"type": "function", **tool["function"]} for tool in TOOLS],
    }


def structured(given: list[Row], answer: Row) -> Recorded:
    return {**SPAN, **_conventions(given, answer)}, [], []


def as_text(given: list[Row], answer: Row) -> Recorded:
    return {**SPAN, **{name: json.dumps(each) for name, each in _conventions(given, answer).items()}}, [], []


def details_event(given: list[Row], answer: Row) -> Recorded:
    return SPAN, [("gen_ai.client.inference.operation.details", _conventions(given, answer))], []


def details_log(given: list[Row], answer: Row) -> Recorded:
    return SPAN, [], [("gen_ai.client.inference.operation.details", _conventions(given, answer))]


def _older(given: list[Row], answer: Row) -> list[tuple[str, Row]]:
    def body(message: Row) -> Row:
        calls = [
            {**call, "function": {**call["function"], "arguments": json.dumps(call["function"]["arguments"])}}
            for call in message.get("tool_calls", ())
        ]
        identifier = {"id": message["tool_call_id"]} if message["role"] == "tool" else {}
        return {"content": message["content"], **({"tool_calls": calls} if calls else {}), **identifier}

    events = [("gen_ai.system.message", {"content": SYSTEM})]
    events += [(f"gen_ai.{message['role']}.message", body(message)) for message in given]
    return [*events, ("gen_ai.choice", {"index": 0, "finish_reason": "stop", "message": body(answer)})]


def older_logs(given: list[Row], answer: Row) -> Recorded:
    return {**SPAN, "gen_ai.tool.definitions": json.dumps(TOOLS)}, [], _older(given, answer)


def older_events(given: list[Row], answer: Row) -> Recorded:
    events = [
        (name, {"gen_ai.system": "openai", "gen_ai.event.content": json.dumps(body)})
        for name, body in _older(given, answer)
    ]
    return {**SPAN, "gen_ai.tool.definitions": json.dumps(TOOLS)}, events, []


def open_inference(given: list[Row], answer: Row) -> Recorded:
    attributes: Row = {"openinference.span.kind": "LLM"}

    def put(place: str, message: Row) -> None:
        attributes[f"{place}.message.role"] = message["role"]
        if message["role"] == "user":
            attributes[f"{place}.message.contents.0.message_content.type"] = "text"
            attributes[f"{place}.message.contents.0.message_content.text"] = message["content"]
        elif message["content"]:
            attributes[f"{place}.message.content"] = message["content"]
        if "tool_call_id" in message:
            attributes[f"{place}.message.tool_call_id"] = message["tool_call_id"]
        for number, call in enumerate(message.get("tool_calls", ())):
            prefix = f"{place}.message.tool_calls.{number}.tool_call"
            attributes[f"{prefix}.id"] = call["id"]
            attributes[f"{prefix}.function.name"] = call["function"]["name"]
            attributes[f"{prefix}.function.arguments"] = json.dumps(call["function"]["arguments"])

    for number, message in enumerate([{"role": "system", "content": SYSTEM}, *given]):
        put(f"llm.input_messages.{number}", message)
    put("llm.output_messages.0", answer)
    for number, tool in enumerate(TOOLS):
        attributes[f"llm.tools.{number}.tool.json_schema"] = json.dumps(tool)
    return attributes, [], []


def traceloop(given: list[Row], answer: Row) -> Recorded:
    attributes: Row = {"llm.request.type": "chat"}

    def put(place: str, message: Row) -> None:
        attributes.update(
            {f"{place}.{name}": message[name] for name in ("role", "content", "tool_call_id") if name in message}
        )
        for number, call in enumerate(message.get("tool_calls", ())):
            attributes[f"{place}.tool_calls.{number}.id"] = call["id"]
            attributes[f"{place}.tool_calls.{number}.name"] = call["function"]["name"]
            attributes[f"{place}.tool_calls.{number}.arguments"] = json.dumps(call["function"]["arguments"])

    for number, message in enumerate([{"role": "system", "content": SYSTEM}, *given]):
        put(f"gen_ai.prompt.{number}", message)
    put("gen_ai.completion.0", answer)
    attributes["gen_ai.completion.0.finish_reason"] = "stop"
    for number, tool in enumerate(TOOLS):
        for name, value in tool["function"].items():
            attributes[f"llm.request.functions.{number}.{name}"] = (
                value if isinstance(value, str) else json.dumps(value)
            )
    return attributes, [], []


CONVENTIONS: dict[str, Callable[[list[Row], Row], Recorded]] = {
    each.__name__: each
    for each in (structured, as_text, details_event, details_log, older_logs, older_events, open_inference, traceloop)
}


def any_value(value: Any) -> Row:
    if isinstance(value, dict):
        return {"kvlistValue": {"values": attributes_of(value)}}
    if isinstance(value, list):
        return {"arrayValue": {"values": [any_value(each) for each in value]}}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    return {"doubleValue": value} if isinstance(value, float) else {"stringValue": value}


def attributes_of(values: Row) -> list[Row]:
    return [{"key": name, "value": any_value(value)} for name, value in values.items()]


def trace_id(number: int) -> str:
    return f"{number + 1:032x}"


def otlp_span(
    trace: str, number: int, attributes: Row, events: Iterable[tuple[str, Row]] = (), name: str = "chat"
) -> Row:
    start = 1_700_000_000_000_000_000 + int(trace, 16) * 1_000_000_000 + number
    return {
        "traceId": trace, "spanId": f"{int(trace, 16) * 1000 + number:016x}", "parentSpanId": "", "name": name, "kind": 3,
        "startTimeUnixNano": str(start), "endTimeUnixNano": str(start + 1), "status": {},
        "attributes": attributes_of(attributes),
        "events": [
            {"timeUnixNano": str(start), "name": event, "attributes": attributes_of(each)} for event, each in events
        ],
    }  # fmt: skip


def spans_line(spans: list[Row], resource: Row | None = None) -> Row:
    scope = {"scope": {"name": "agent"}, "spans": spans}
    return {"resourceSpans": [{"resource": {"attributes": attributes_of(resource or {})}, "scopeSpans": [scope]}]}


def logs_line(trace: str, span: str, logs: list[tuple[str, Row]]) -> Row:
    records = []
    for number, (name, body) in enumerate(logs):
        record = {"timeUnixNano": str(number + 1), "traceId": trace, "spanId": span, "eventName": name}
        held = {"attributes": attributes_of(body)} if name.endswith("details") else {"body": any_value(body)}
        records.append({**record, **held})
    return {"resourceLogs": [{"resource": {}, "scopeLogs": [{"scope": {}, "logRecords": records}]}]}


def trace_lines(number: int, record: Row, convention: str = "structured", about: Row | None = None) -> list[Row]:
    """An agent's run: its own span, one of a tool, and one for each call of the model, the last line first."""
    trace, lines = trace_id(number), []
    agent = {"gen_ai.operation.name": "invoke_agent", "user.id": record["user_id"], **(about or {})}
    spans = [otlp_span(trace, 0, agent, name="invoke_agent")]
    for at, (given, answer) in enumerate(calls_of(record), 1):
        attributes, events, logs = CONVENTIONS[convention](given, answer)
        spans.append(otlp_span(trace, at, attributes, events))
        if logs:
            lines.append(logs_line(trace, spans[-1]["spanId"], logs))
    spans.append(otlp_span(trace, 99, {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "get_weather"}))
    return [*lines, *(spans_line([span]) for span in reversed(spans))]


def write_traces(path: Path, lines: Iterable[Row | bytes]) -> Path:
    path.write_bytes(
        b"".join((each if isinstance(each, bytes) else json.dumps(each).encode()) + b"\n" for each in lines)
    )
    return path


__all__ = [
    "CONVENTIONS",
    "SYSTEM",
    "calls_of",
    "conversation",
    "otlp_span",
    "spans_line",
    "trace_id",
    "trace_lines",
    "write_traces",
]
