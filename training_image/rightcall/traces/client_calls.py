"""A client's request and response, as MLflow records them in a span's inputs and outputs.

Chat completions and Responses of OpenAI, and whoever speaks like them; Anthropic's, Gemini's and Bedrock's own.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from rightcall.errors import DataError
from rightcall.traces.messages import read_messages, text_of
from rightcall.traces.recorded import OTHER_CHOICES, Recorded
from rightcall.traces.spans import Json, Span, value_of


def read_client_call(span: Span) -> Recorded | None:
    """Inputs and outputs are a client's request and response."""
    request, response = (_recorded(span.attributes.get(f"mlflow.span{side}")) for side in ("Inputs", "Outputs"))
    if isinstance(request, list) and request and all(isinstance(each, dict) for each in request):
        request = {"messages": request}
    if not isinstance(request, dict):
        return None
    given = next((request[name] for name in ("messages", "input", "contents") if request.get(name)), None)
    if isinstance(given, str) and "model" in request:
        given = [{"role": "user", "content": given}]
    if not isinstance(given, list):
        return None
    if request.get("previous_response_id") or request.get("conversation"):
        raise DataError(
            f"the span {span.name!r} goes on from a response that the provider keeps; its history is not in the trace",
            reason="no_history",
        )
    left: Counter[str] = Counter()
    answered = _response(response, left)
    settings = _object(request.get("config"))
    systems = [request.get("system"), request.get("instructions"), settings.get("system_instruction")]
    tools = request.get("tools") or settings.get("tools")
    tools = tools or _object(request.get("toolConfig")).get("tools")  # Bedrock
    system = "\n\n".join(text for each in systems if (text := text_of(each)))
    return Recorded(read_messages(given), read_messages(answered, "assistant"), system, tools, left)


def _response(raw: Any, left: Counter[str]) -> list[Any]:
    """The messages of one turn: OpenAI's Responses give it in items."""
    if isinstance(raw, str):
        return [raw] if raw else []
    if isinstance(raw, list):
        return [each for each in raw if isinstance(each, dict)]
    whole = _object(raw)
    choices = whole.get("choices") or whole.get("candidates")  # chat completions, Gemini
    if isinstance(choices, list) and choices:
        left[OTHER_CHOICES] += len(choices) - 1
        first = _object(choices[0])
        content = _object(first.get("content")) if "choices" not in whole else first
        return [{**content, "finish_reason": first.get("finish_reason") or first.get("finishReason")}]
    output = whole.get("output")
    if isinstance(output, list):
        ended = {"status": whole["status"]} if whole.get("status") in ("incomplete", "failed") else {}
        return [{**_object(each), **ended} for each in output]
    if isinstance(output, dict):  # Bedrock
        return [{**_object(output.get("message")), "stop_reason": whole.get("stopReason")}]
    return [whole] if whole.keys() & {"content", "message", "tool_calls"} else []


def _recorded(text: Any) -> Any:
    """MLflow cuts nothing off: what is no JSON is text."""
    try:
        return value_of(text)
    except DataError:
        return text


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}
