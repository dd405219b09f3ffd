"""What a span's call of a model was given and gave, as one chat.

The conventions, tried in this order: OpenTelemetry's gen_ai.input.messages (of the span, or of its event
gen_ai.client.inference.operation.details), OpenInference's llm.input_messages.0.…, Traceloop's gen_ai.prompt.0.…, the request
and response that MLflow records, and OpenTelemetry's older events gen_ai.user.message and gen_ai.choice.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row
from rightcall.traces import conventions
from rightcall.traces.client_calls import read_client_call
from rightcall.traces.messages import ROLES, text_of
from rightcall.traces.recorded import Recorded
from rightcall.traces.spans import Span, value_of

CUT = "answers that ended early"
_OPERATIONS = {"chat", "generate_content", "text_completion"}


@dataclass
class Chat:
    messages: list[Row]  # OpenAI's, system message first
    tools: Any  # in whatever dialect they were recorded; None = none were
    left_out: Counter[str] = field(default_factory=Counter)
    digests: list[str] = field(default_factory=list)  # of the first message, the first two …; system messages aside

    def __post_init__(self) -> None:
        digest = ""
        for message in self.messages:
            if message["role"] != "system":  # the time of day may stand in it
                digest = hashlib.blake2b(f"{digest}{_said(message)}".encode(), digest_size=16).hexdigest()
                self.digests.append(digest)

    def begins(self, other: Chat) -> bool:
        """Whether the other one goes on from here, or is the same."""
        return not self.digests or self.digests[-1] in other.digests

    def take(self, earlier: Chat) -> None:
        """What is known of the beginning: tools that the last call no longer had, an answer that ended early."""
        self.tools = self.tools or earlier.tools
        self.left_out += earlier.left_out
        if earlier.messages and earlier.messages[-1].get("weight") == 0 and earlier.digests:
            own = [message for message in self.messages if message["role"] != "system"]
            own[len(earlier.digests) - 1]["weight"] = 0


def kind_of(span: Span) -> Literal["model", "agent", "other", ""]:
    """ "" = nothing says what the span is."""
    said = [
        span.attributes.get(name)
        for name in ("gen_ai.operation.name", "openinference.span.kind", "mlflow.spanType", "llm.request.type")
    ]
    kinds = [str(value).strip('"') for value in said if value not in (None, "", "UNKNOWN", '"UNKNOWN"')]
    if not kinds:
        return "other" if span.attributes.get("traceloop.span.kind") else ""
    if any(kind in _OPERATIONS or kind in ("LLM", "CHAT_MODEL", "completion") for kind in kinds):
        return "model"
    return "agent" if any(kind in ("invoke_agent", "AGENT") for kind in kinds) else "other"


def chat_of(span: Span) -> Chat | None:
    """None = the span is no call of a model.

    Raises:
        DataError: ``no_messages``, ``cut_off``, ``no_history`` or ``bad_content``.
    """
    kind = kind_of(span)
    if kind in ("agent", "other"):
        return None
    found = next((each for read in _CONVENTIONS if (each := read(span))), None)
    if found is None or not (found.given or found.answered):
        if kind == "":
            return None
        raise DataError(
            f"the span {span.name!r} is a call of a model and holds no messages; switch their recording on "
            "(OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT=true), or leave such traces out",
            reason="no_messages",
        )
    if kind == "" and not all(message["role"] in ROLES for message in [*found.given, *found.answered]):
        return None
    first = [message for message in found.given[:1] if message["role"] == "system"]
    system = "\n\n".join(dict.fromkeys(text for text in [found.system, *map(text_of, first)] if text))
    head = [{"role": "system", "content": system}] if system else []
    chat = Chat([*head, *found.given[len(first) :], *found.answered], found.tools or _tools(span), found.left_out)
    chat.left_out[CUT] += sum(message.get("weight") == 0 for message in found.answered)
    return chat


def _tools(span: Span) -> Any:
    """Offered to the span, whatever convention its messages are in."""
    named = (value_of(span.attributes.get(name)) for name in ("gen_ai.tool.definitions", "mlflow.chat.tools"))
    return next((tools for tools in named if tools), None)


def _said(message: Row) -> str:
    """What makes two recordings of one message the same: neither ids nor the order of an object's fields."""
    calls = []
    for call in message.get("tool_calls", ()):
        arguments = call["function"]["arguments"]
        if isinstance(arguments, str):
            with suppress(ValueError, RecursionError):
                arguments = json.loads(arguments)
        calls.append([call["function"]["name"], arguments])
    return json.dumps([message["role"], message["content"], calls], sort_keys=True)


_CONVENTIONS: tuple[Callable[[Span], Recorded | None], ...] = (
    conventions.semantic_conventions, conventions.open_inference, conventions.traceloop, read_client_call,
    conventions.older_events,
)  # fmt: skip
