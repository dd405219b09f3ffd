"""Can what a model's chat template writes be read back? Asked whenever a model is loaded.

A template may write calls in a dialect that nothing here reads, take calls in a form of its own, drop a tool's result,
or write an answer that does not follow its prompt. Training on it would work, and every right answer would then be
scored, and served, as no call at all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

from rightcall.chat.messages import FORMS
from rightcall.chat.model_folder import template_names
from rightcall.chat.template import ChatTemplate, Message, named_source
from rightcall.dialects.reading import dialect_of
from rightcall.errors import DataError, RecipeError
from rightcall.toolcalls.verifier import parse

Calls = list[dict[str, Any]]

_TRIP = {"stops": [{"city": "Zürich", "zip": 8001, "near": None}, {"city": "東京 😀"}], "direct": True, "weight": 2.5}
_PARALLEL = [
    {"name": "get_weather", "arguments": {"city": "Oslo", "place": {"zip": 150, "near": ["Ås"]}}},
    {"name": "get_time", "arguments": {"city": "Rome"}},
]
# Two calls come first: of one alone the dialect may be in doubt.
PROBES: tuple[Calls, ...] = (
    _PARALLEL,
    [{"name": "plan_trip", "arguments": {"trip": _TRIP, "note": "A short note."}}],
    [{"name": "send_message", "arguments": {"from": "Ada", "class": "first"}}],
    [{"name": "get-current-weather", "arguments": {"city": "Oslo"}}],
    [{"name": "open_gate", "arguments": {"code": "0042", "tries": 3, "share": 0.5, "now": False, "tags": ["a", "7"]}}],
    [{"name": "list_orders", "arguments": {}}],
)
# What a template may spoil in a text without a rule for it; rows with such texts are quarantined one by one.
HARD_TEXTS = ("It's", 'say "yes"', "two\nlines", "5 < 6 & 7", "C:\\new")
_QUESTION = {"role": "user", "content": "?"}
_TYPES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}


def load_template(model_folder: Path, name: str | None = None) -> ChatTemplate:
    """The model's own template, or the one in rightcall/chat/templates that is named, with the form of calls it takes.

    Raises:
        RecipeError: a file is missing, the template has no place for tools, or what it writes cannot be read back.
    """
    folder, source, said = named_source(Path(model_folder), name)
    unwritten: RecipeError | None = None
    unread: RecipeError | None = None
    for form in FORMS:
        try:
            template = ChatTemplate(folder, source, said, form)
        except RecipeError as err:
            if unwritten is None or (_raises(unwritten) and not _raises(err)):
                unwritten = err
            continue
        try:
            check(template)
        except RecipeError as err:
            unread = unread or err
            continue
        return template
    raise unread or unwritten or RecipeError(f"the chat template of {said} takes calls in no known form; {_advice()}")


def _raises(refusal: RecipeError) -> bool:
    """Whether the template raised: what it does of itself in another form says more."""
    return isinstance(refusal.__cause__, DataError)


def check(template: ChatTemplate) -> None:
    """Finds the dialect in which the template writes its calls, too.

    Raises:
        RecipeError: calls, a tool's result or a second turn do not come back from what the template writes.
    """
    for calls in PROBES:
        if written := _written(template, calls):
            template.dialect = template.dialect or dialect_of(written, [_offered(call) for call in calls])
            _read_back(template, written, calls)
    _go_on(template)
    template.spoilt = tuple(text for text in HARD_TEXTS if not _keeps(template, text))


def _keeps(template: ChatTemplate, text: str) -> bool:
    call = {"name": "send_note", "arguments": {"note": text, "lines": 1}}
    try:
        return reads_back(template, _answer([call]), [_offered(call)])
    except DataError:
        return False


def reads_back(template: ChatTemplate, answer: Message, tools: Sequence[dict[str, Any]]) -> bool:
    """Whether the calls of an answer come back from what the template writes for it.

    A value may hold marks of the template's own, or be a text that its dialect cannot tell from a number.

    Raises:
        DataError: the template refuses the answer.
    """
    calls = [call["function"] for call in answer.get("tool_calls") or ()]
    if not calls:
        return True
    return _as_json(parse(template.answer_text(answer), template.dialect, tools).calls) == _as_json(calls)


def _as_json(calls: Calls) -> str:
    """Because True == 1 == 1.0 in Python."""
    return json.dumps([{"name": call["name"], "arguments": call["arguments"]} for call in calls], sort_keys=True)


def _written(template: ChatTemplate, calls: Calls) -> str | None:
    """What generation would hand over; None = the template takes one call a message, and says so row by row."""
    answer, tools = _answer(calls), [_offered(call) for call in calls]
    try:
        text = template.render([_QUESTION, answer], tools)
    except DataError as err:
        if len(calls) > 1:
            return None
        raise RecipeError(f"the chat template of {template.name} refuses {calls!r}; {_advice()}: {err}") from err
    try:
        _, ids = template.encode_pair([_QUESTION], tools, answer)
    except DataError as err:
        raise RecipeError(
            f"calls as the chat template of {template.name} writes them are no answer to its prompt: "
            f"written: …{text[-120:]!r}; read back: nothing; {_advice()}: {err}"
        ) from err
    return _until_the_end(template, ids)


def _until_the_end(template: ChatTemplate, ids: list[int]) -> str:
    return template.decode(takewhile(lambda token: token not in template.eos_ids, ids))


def _read_back(template: ChatTemplate, written: str, calls: Calls) -> None:
    parsed = parse(written, template.dialect, [_offered(call) for call in calls])
    if template.dialect is None or _as_json(parsed.calls) != _as_json(calls) or not parsed.strict:
        read = parsed.calls if parsed.error is None else str(parsed.error)
        forgiven = f", with {', '.join(parsed.forgiven)}" if parsed.forgiven else ""
        raise RecipeError(
            f"what the chat template of {template.name} writes for a call cannot be read back: "
            f"written: {written[:120]!r}; read back: {read!r}{forgiven}; meant: {calls!r}; "
            f"{_advice()}; a later version may read this dialect"
        )


def _go_on(template: ChatTemplate) -> None:
    """A tool's result, the answer to it, and a second question with its call."""
    first, second = ([{"name": "get_weather", "arguments": {"city": city}}] for city in ("Oslo", "Rome"))
    tools = [_offered(first[0])]
    result = {"role": "tool", "tool_call_id": "call00000", "name": "get_weather", "content": "probe_result"}
    answer, question = {"role": "assistant", "content": "probe_answer"}, {"role": "user", "content": "probe_question"}
    messages = [_QUESTION, _answer(first), result, answer, question, _answer(second)]
    for index, what in ((3, "probe_result"), (5, "probe_question")):
        head = messages[:index]
        try:
            prompt = template.prompt_text(head, tools)
            _, ids = template.encode_pair(head, tools, messages[index])
        except DataError as err:
            raise RecipeError(
                f"the chat template of {template.name} cannot go on after a tool's result; {_advice()}: {err}"
            ) from err
        if what not in prompt:
            raise RecipeError(
                f"the chat template of {template.name} leaves out {head[-1]!r}: …{prompt[-120:]!r}; {_advice()}"
            )
        if index == 5:
            _read_back(template, _until_the_end(template, ids), second)
        elif "probe_answer" not in template.decode(ids):
            raise RecipeError(
                f"the chat template of {template.name} leaves out the answer to a tool's result: "
                f"…{template.render(messages[:4], tools)[-120:]!r}; {_advice()}"
            )


def _answer(calls: Calls) -> Message:
    numbered = [{"id": f"call{number:05}", "type": "function", "function": call} for number, call in enumerate(calls)]
    return {"role": "assistant", "content": "", "tool_calls": numbered}


def _offered(call: dict[str, Any]) -> dict[str, Any]:
    properties = {name: {"type": _TYPES[type(value)], "description": ""} for name, value in call["arguments"].items()}
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": call["name"], "description": "", "parameters": parameters}}


def _advice() -> str:
    return f"set model.chat_template to one of {template_names()!r}"
