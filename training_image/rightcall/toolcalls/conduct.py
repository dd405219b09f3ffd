"""The order of steps that a policy asks for: who is asking before what they ask, a yes before a change.

    user: cancel #W1 → find_user → get_order → "Cancel #W1: do you confirm?" → "Yes" → cancel_order        in order
    user: cancel #W1 → get_order                           lookup_before_authentication
    user: cancel #W1 → find_user → get_order → cancel_order     write_without_confirmation

Which tools authenticate and which write stands in the recipe (evaluation.policy); nothing here knows a domain.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rightcall.dialects.values import Call
from rightcall.toolcalls.words import guess_behaviour

Messages = Sequence[Mapping[str, Any]]

_YES = re.compile(
    r"\b(?:yes|yeah|yep|yup|y|sure|ok|okay|correct|right|confirm(?:ed)?|agreed?|absolutely|definitely|certainly|perfect|exactly"
    r"|of course|go ahead|please do|do (?:it|that|so)|proceed|sounds good|looks good|fine|works)\b",
    re.IGNORECASE,
)
_NO = re.compile(
    r"\b(?:no|nope|not|don['’]?t|wait|hold on|stop|cancel that|instead|rather|actually|changed my mind|never ?mind)\b",
    re.IGNORECASE,
)
_FIRST_SENTENCE = re.compile(r"\s*[^.!?\n]*")


class Conduct(NamedTuple):
    """What the recipe says about tools; a tool in `open` needs nobody to be authenticated."""

    authenticate: frozenset[str] = frozenset()
    write: frozenset[str] = frozenset()
    open: frozenset[str] = frozenset()
    confirm: bool = True


def out_of_order(call: Call, messages: Messages, conduct: Conduct) -> list[str]:
    """What of the order a call after these messages breaks; [] = nothing."""
    name, found = call["name"], []
    guarded = name not in conduct.authenticate | conduct.open
    if conduct.authenticate and guarded and not _authenticated(messages, conduct):
        found.append("lookup_before_authentication")
    if conduct.confirm and name in conduct.write and not is_confirmed(messages):
        found.append("write_without_confirmation")
    return found


def is_confirmed(messages: Messages) -> bool:
    """Whether the last user message says yes to a question of the assistant's, the message before it.

    Yes: its first sentence has a word of agreement (yes, sure, go ahead, confirm, …) and none of doubt (no, not, wait,
    instead, …). A question: the assistant's text holds a question mark, or asks by its words.
    """
    users = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if not users or users[-1] == 0 or messages[users[-1] - 1]["role"] != "assistant":
        return False
    question, answer = _text(messages[users[-1] - 1]), _text(messages[users[-1]])
    first = next((found[0] for found in _FIRST_SENTENCE.finditer(answer) if found[0].strip()), "")
    asked = "?" in question or guess_behaviour(question) == "request_for_info"
    return asked and _YES.search(first) is not None and _NO.search(first) is None


def _authenticated(messages: Messages, conduct: Conduct) -> bool:
    """Whether a call of an authenticating tool has a result that is no error."""
    names: dict[str, str] = {}  # an id may be used again later in a conversation
    for message in messages:
        names |= {str(call.get("id")): call["function"]["name"] for call in message.get("tool_calls") or ()}
        if message["role"] == "tool":
            name = names.get(str(message.get("tool_call_id"))) or message.get("name")
            if name in conduct.authenticate and not is_error(_text(message)):
                return True
    return False


def is_error(result: str) -> bool:
    """ "Error: user not found", {"error": "…"}; an empty result is none that says who somebody is."""
    text = result.strip()
    if not text or re.match(r"\W*(?:error|exception|traceback|null|none|not found)\b", text, re.IGNORECASE):
        return True
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return value in ([], {}) or (isinstance(value, dict) and bool(value.get("error")))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False) if content else ""
