"""A line of OTLP JSON, as the collector's file exporter writes it, as spans and events.

{"resourceSpans": [{"resource": {…}, "scopeSpans": [{"spans": [{"traceId": "4bf9…", "spanId": "00f0…", "name": "chat gpt-4",
  "startTimeUnixNano": "15…", "attributes": [{"key": "gen_ai.input.messages", "value": {"stringValue": "[…]"}}], "events": […]}]}]}]}
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rightcall.errors import DataError

Json = dict[str, Any]


class Event(NamedTuple):
    time: int
    name: str
    attributes: Json


@dataclass
class Span:
    trace: str
    id: str
    name: str
    start: int  # ns since 1970
    attributes: Json  # the resource's too
    events: list[Event] = field(default_factory=list)
    logged: bool = False  # only events of it, from a file of logs


def spans_of(record: Json) -> Iterator[Span]:
    """The spans of one line, or the spans that its log records belong to; metrics give none.

    Raises:
        DataError: ``unknown_schema``, the line is no OTLP.
    """
    if not record.keys() & {"resourceSpans", "resourceLogs", "resourceMetrics"}:
        raise DataError(
            f"a line with the fields {sorted(record)[:8]!r} is no OTLP; give what the collector's file exporter writes "
            "(JSON with resourceSpans or resourceLogs)",
            reason="unknown_schema",
        )
    try:
        yield from _spans(record)
        yield from _logs(record)
    except (AttributeError, KeyError, TypeError, ValueError) as err:
        raise DataError(
            f"the line is no OTLP JSON ({type(err).__name__}); export it again", reason="unknown_schema"
        ) from err


def value_of(text: Any) -> Any:
    """What a text spells where that is a list or an object, as attributes hold what they have no type for.

    Raises:
        DataError: ``cut_off``, its end is missing.
    """
    if not isinstance(text, str) or not text.lstrip().startswith(("[", "{")):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as err:
        raise DataError(
            f"an attribute of {len(text):,} characters is no JSON, its end was probably cut off; raise the limit of the "
            "exporter (OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT) for what comes",
            reason="cut_off",
        ) from err


def nested(attributes: Json, prefix: str) -> list[Any]:
    """{"p.0.role": "user", "p.0.calls.0.name": "f"}, "p" → [{"role": "user", "calls": [{"name": "f"}]}]."""
    tree: Json = {}
    for name, value in attributes.items():
        if not name.startswith(f"{prefix}."):
            continue
        keys, place = name.removeprefix(f"{prefix}.").split("."), tree
        for key in keys[:-1]:
            inner = place.setdefault(key, {})
            place = inner if isinstance(inner, dict) else {}
        place[keys[-1]] = value
    found = _lists(tree)
    return found if isinstance(found, list) else []


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if value and all(key.isdecimal() for key in value):
        return [_lists(value[key]) for key in sorted(value, key=int)]
    return {key: _lists(each) for key, each in value.items()}


def _spans(record: Json) -> Iterator[Span]:
    for whole in record.get("resourceSpans") or ():
        resource = _attributes((whole.get("resource") or {}).get("attributes"))
        for scope in whole.get("scopeSpans") or whole.get("instrumentationLibrarySpans") or ():
            for span in scope.get("spans") or ():
                yield Span(
                    str(span.get("traceId") or ""), str(span.get("spanId") or ""), str(span.get("name") or ""),
                    int(span.get("startTimeUnixNano") or 0), {**resource, **_attributes(span.get("attributes"))},
                    [_event(each) for each in span.get("events") or ()],
                )  # fmt: skip


def _logs(record: Json) -> Iterator[Span]:
    for whole in record.get("resourceLogs") or ():
        resource = _attributes((whole.get("resource") or {}).get("attributes"))
        for scope in whole.get("scopeLogs") or ():
            for entry in scope.get("logRecords") or ():
                event = _logged(entry)
                if event.name.startswith("gen_ai."):
                    trace, span = str(entry.get("traceId") or ""), str(entry.get("spanId") or "")
                    yield Span(trace, span, "", event.time, resource, [event], logged=True)


def _event(event: Json) -> Event:
    return Event(
        int(event.get("timeUnixNano") or 0), str(event.get("name") or ""), _attributes(event.get("attributes"))
    )


def _logged(entry: Json) -> Event:
    attributes = _attributes(entry.get("attributes"))
    name = entry.get("eventName") or attributes.get("event.name") or ""
    body = _value(entry["body"]) if entry.get("body") else {}
    time = int(entry.get("timeUnixNano") or entry.get("observedTimeUnixNano") or 0)
    return Event(time, str(name), {**attributes, **(body if isinstance(body, dict) else {"content": body})})


def _attributes(raw: Any) -> Json:
    return {str(each["key"]): _value(each.get("value") or {}) for each in raw or ()}


def _value(raw: Json) -> Any:
    kind: str = next(iter(raw), "")
    value: Any = raw.get(kind)
    if kind == "arrayValue":
        return [_value(each) for each in value.get("values") or ()]
    if kind == "kvlistValue":
        return _attributes(value.get("values"))
    return int(value) if kind == "intValue" else value
