"""Can the calls that a model's chat template writes be read back? Asked whenever a model is loaded.

A template may write calls in a dialect that the verifier does not know (Gemma 4, LFM2, Qwen3.5 …). Training on it would
work, and every right answer would then be scored, and served, as no call at all.
"""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

from rightcall.chat.model_folder import template_names
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError
from rightcall.toolcalls.verifier import parse

Calls = list[dict[str, Any]]

_TRIP = {"stops": [{"city": "Zürich", "zip": 8001, "near": None}, {"city": "東京 😀"}], "direct": True, "weight": 2.5}
# Two calls come last: a template may take one call only.
PROBES: tuple[Calls, ...] = (
    [{"name": "plan_trip", "arguments": {"trip": _TRIP, "note": 'It\'s "5 < 6" & <b>\nnew</b>'}}],
    [{"name": "send_message", "arguments": {"from": "Ada", "class": "first"}}],
    [{"name": "get-current-weather", "arguments": {"city": "Oslo"}}],
    [{"name": "get_weather", "arguments": {"city": "Oslo"}}, {"name": "get_time", "arguments": {"city": "Rome"}}],
)
_QUESTION = {"role": "user", "content": "?"}


def load_template(model_folder: Path, name: str | None = None) -> ChatTemplate:
    """The model's own template, or the one in rightcall/chat/templates that is named.

    Raises:
        RecipeError: a file is missing, the template has no place for tools, or its calls cannot be read back.
    """
    template = ChatTemplate.load(model_folder, name)
    for calls in PROBES:
        _read_back(template, calls)
    return template


def _read_back(template: ChatTemplate, calls: Calls) -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": [_numbered(*each) for each in enumerate(calls)]}
    tools = [_offered(call) for call in calls]
    try:
        text = template.render([_QUESTION, answer], tools)
    except DataError as err:
        if len(calls) > 1:
            return  # rows with parallel calls are refused one by one, in the template's own words
        raise RecipeError(f"the chat template of {template.name} refuses {calls!r}; {_advice()}: {err}") from err
    try:
        _, ids = template.encode_pair([_QUESTION], tools, answer)
    except DataError as err:
        raise RecipeError(
            f"calls as the chat template of {template.name} writes them are no answer to its prompt: "
            f"written: …{text[-120:]!r}; read back: nothing; {_advice()}: {err}"
        ) from err
    # what generation hands over: all up to the first token at which it stops
    written = template.decode(takewhile(lambda token: token not in template.eos_ids, ids))
    parsed = parse(written)
    # as JSON, because True == 1 == 1.0 in Python
    if json.dumps(parsed.calls, sort_keys=True) != json.dumps(calls, sort_keys=True):
        raise RecipeError(
            f"what the chat template of {template.name} writes for a call cannot be read back: "
            f"written: {written[:120]!r}; read back: {parsed.calls if parsed.error is None else str(parsed.error)!r}; meant: {calls!r}; "
            f"{_advice()}; a later version may read this dialect"
        )


def _numbered(number: int, call: dict[str, Any]) -> dict[str, Any]:
    """With an id of nine letters and digits, which Mistral's templates demand."""
    return {"id": f"call{number:05}", "type": "function", "function": call}


def _offered(call: dict[str, Any]) -> dict[str, Any]:
    types = {
        name: {"type": "object" if isinstance(value, dict) else "string"} for name, value in call["arguments"].items()
    }
    function = {"name": call["name"], "description": "", "parameters": {"type": "object", "properties": types}}
    return {"type": "function", "function": function}


def _advice() -> str:
    return f"set model.chat_template to one of {template_names()!r}"
