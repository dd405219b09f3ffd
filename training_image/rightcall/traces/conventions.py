"""The conventions by which attributes and events hold a call of a model: OpenTelemetry's, OpenInference's, Traceloop's."""

from __future__ import annotations

from collections import Counter
from typing import Any

from rightcall.rows.vocabulary import Row
from rightcall.traces.messages import read_message, read_messages, text_of
from rightcall.traces.recorded import OTHER_CHOICES, Recorded
from rightcall.traces.spans import Json, Span, nested, value_of

DETAILS = "gen_ai.client.inference.operation.details"
OLDER = {
    "gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant",
    "gen_ai.tool.message": "tool", "gen_ai.choice": "assistant",
}  # fmt: skip


def semantic_conventions(span: Span) -> Recorded | None:
    details = [event.attributes for event in span.events if event.name == DETAILS]
    known = {name: value for each in [*details, span.attributes] for name, value in each.items()}
    given, answered = (_messages(known.get(f"gen_ai.{side}.messages")) for side in ("input", "output"))
    if not (given or answered):
        return None
    left: Counter[str] = Counter()
    several = known.get("gen_ai.request.choice.count")
    if isinstance(several, int) and several > 1:  # else a turn may be recorded as several messages
        left[OTHER_CHOICES] = len(answered) - 1
        answered = answered[:1]
    system = text_of(value_of(known.get("gen_ai.system_instructions")))
    tools = value_of(known.get("gen_ai.tool.definitions"))
    return Recorded(read_messages(given), read_messages(answered, "assistant"), system, tools, left)


def open_inference(span: Span) -> Recorded | None:
    given, answered = (nested(span.attributes, f"llm.{side}_messages") for side in ("input", "output"))
    if not (given or answered):
        return None
    tools = [
        _tool(each["tool"])
        for each in nested(span.attributes, "llm.tools")
        if isinstance(each, dict) and "tool" in each
    ]
    if not tools:
        parameters = value_of(span.attributes.get("llm.invocation_parameters"))
        tools = parameters.get("tools") or [] if isinstance(parameters, dict) else []
    return Recorded(read_messages(given), read_messages(answered, "assistant"), tools=tools or None)


def _tool(raw: Json) -> Any:
    """Its schema may be the whole tool, or its parameters alone beside a name."""
    schema = value_of(raw.get("json_schema"))
    if isinstance(schema, dict) and (schema.get("name") or isinstance(schema.get("function"), dict)):
        return schema
    return {"name": raw.get("name"), "description": raw.get("description"), "parameters": schema}


def traceloop(span: Span) -> Recorded | None:
    given, answered = (nested(span.attributes, f"gen_ai.{side}") for side in ("prompt", "completion"))
    if not (given or answered):
        return None
    tools = nested(span.attributes, "llm.request.functions")
    tools = [{**each, "parameters": value_of(each.get("parameters"))} for each in tools if isinstance(each, dict)]
    left = Counter({OTHER_CHOICES: max(0, len(answered) - 1)})
    return Recorded(read_messages(given), read_messages(answered[:1], "assistant"), tools=tools or None, left_out=left)


def older_events(span: Span) -> Recorded | None:
    events = sorted((event for event in span.events if event.name in OLDER), key=lambda event: event.time)
    given: list[Row] = []
    answered: list[Row] = []
    left: Counter[str] = Counter()
    for event in events:
        content = value_of(event.attributes.get("gen_ai.event.content"))
        body = (
            content if isinstance(content, dict) else {**event.attributes, **({"content": content} if content else {})}
        )
        body = {name: value_of(each) if name in ("message", "tool_calls") else each for name, each in body.items()}
        body = {name: each for name, each in body.items() if not name.startswith(("gen_ai.", "event."))}
        if event.name != "gen_ai.choice":
            given += read_message(body, OLDER[event.name])
        elif answered:
            left[OTHER_CHOICES] += 1
        else:
            answered = read_message(body, "assistant")
    return Recorded(read_messages(given), answered, left_out=left) if given or answered else None


def _messages(raw: Any) -> list[Any]:
    found = value_of(raw)
    if isinstance(found, dict) and isinstance(found.get("messages"), list):
        found = found["messages"]
    if isinstance(found, str) and found:
        return [found]
    return found if isinstance(found, list) else []
