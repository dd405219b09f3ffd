"""Messages as a chat template takes them: which ids, which arguments and which content its calls need.

    Mistral        {"id": "call00000", "function": {"name": "get_weather", "arguments": {"city": "Rome"}}}
    Kimi K2        {"id": "functions.get_weather:0", …}     the name is written nowhere else
    DeepSeek V3    {…, "arguments": "{\\"city\\": \\"Rome\\"}"}, content None

What a template takes is found out when it is loaded (toolcalls/template_check.py tries FORMS).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import count, product
from typing import Any, Literal, NamedTuple

Message = dict[str, Any]


class CallForm(NamedTuple):
    """How calls are handed to a template."""

    ids: Literal["nine", "named"] = "nine"  # nine letters and digits, which Mistral's demand; or functions.NAME:NUMBER
    arguments: Literal["object", "text"] = "object"  # text = as JSON
    content: str | None = ""  # of a message that only calls
    several: bool = True  # False = of several calls the template does not write each as it writes one


_IDS: tuple[Literal["nine", "named"], ...] = ("nine", "named")
_ARGUMENTS: tuple[Literal["object", "text"], ...] = ("object", "text")
FORMS = tuple(
    CallForm(ids, arguments, content, several)
    for several, ids, arguments, content in product((True, False), _IDS, _ARGUMENTS, ("", None))
)


def formed(messages: Sequence[Mapping[str, Any]], form: CallForm) -> list[Message]:
    """The messages without None values, reasoning under its standard names, calls in the form of the template.

    Ids are nobody's words: calls are numbered through the conversation, and a result without a known id answers the
    first call that has none yet.

    Raises:
        ValueError: a call's arguments are a string that is not JSON, or the template has no place for several calls, or
            for a text beside them.
    """
    numbers = count()
    open_calls: list[tuple[Any, str, str]] = []  # id in the row, id for the template, name
    result = []
    for message in messages:
        plain = _plain(message)
        if calls := plain.get("tool_calls"):
            if len(calls) > 1 and not form.several:
                raise ValueError(f"the template writes one call an answer, and this one has {len(calls)}")
            given = [_call(call, next(numbers), form) for call in calls]
            open_calls = [
                (call.get("id"), each["id"], each["function"]["name"]) for call, each in zip(calls, given, strict=True)
            ]
            plain |= {"tool_calls": given, "content": _content(plain, form)}
        elif plain.get("role") == "tool" and open_calls:
            asked = plain.get("tool_call_id")
            place = next((index for index, (own, *_) in enumerate(open_calls) if asked is not None and own == asked), 0)
            _, id_, name = open_calls.pop(place)
            plain = {"name": name, **plain, "tool_call_id": id_}
        result.append(plain)
    return result


def reasons(message: Mapping[str, Any]) -> bool:
    """Whether the row itself says what the assistant thought."""
    content = message.get("content")
    named = any(message.get(key) for key in ("reasoning_content", "thinking", "reasoning"))
    return named or (isinstance(content, str) and "</think>" in content)


def _plain(message: Mapping[str, Any]) -> Message:
    plain = {key: value for key, value in message.items() if value is not None}
    reasoning = next((plain[key] for key in ("reasoning_content", "thinking", "reasoning") if key in plain), None)
    if reasoning is not None:
        plain = {"thinking": reasoning, **plain, "reasoning_content": reasoning}
    return plain


def _call(call: Mapping[str, Any], number: int, form: CallForm) -> Message:
    function = dict(call.get("function", call))
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        arguments = json.loads(arguments)
    if form.arguments == "text":
        arguments = json.dumps(arguments, ensure_ascii=False)
    id_ = f"call{number:05}" if form.ids == "nine" else f"functions.{function['name']}:{number}"
    return {"id": id_, "type": "function", "function": {**function, "arguments": arguments}}


def _content(message: Message, form: CallForm) -> Any:
    content = message.get("content") or form.content
    if content and form.content is None:
        raise ValueError("the template writes either a text or calls, and this answer has both")
    return content
