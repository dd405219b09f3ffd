"""Settings of a small evaluation, and one item as NVIDIA writes them."""

from __future__ import annotations

import json
from typing import Any

from tiny import CITIES, TOOLS, call_message, text_message

SETTINGS: dict[str, Any] = {
    "prompt": "chat",
    "dtype": "float32",
    "max_tree_tokens": 2_000,
    "generation_items": 4,
    "max_new_tokens": 4,
    "bootstrap_samples": 200,
}
LOCATE = {
    "name": "locate_ip",
    "description": "Where an IP is.\n",
    "parameters": {
        "type": "dict",
        "required": ["ip"],
        "properties": {"ip": {"type": "string"}, "brief": {"type": "boolean"}},
    },
}
CALL = {"name": "locate_ip", "arguments": {"ip": "8.8.8.8", "brief": True, "limits": [1, "two"]}}
IP_ROW: dict[str, Any] = {
    "id": "ip",
    "question": "Where is 8.8.8.8? ",
    "tools": [],
    "raw_tools": [json.dumps(LOCATE), '{"name": "pîng", "parameters": {}}'],
    "answers": {
        "direct": "In California.",
        "tool_call": json.dumps(CALL),
        "request_for_info": "Which address?",
        "cannot_answer": "Sorry, I cannot.",
    },
    "correct_answer": "tool_call",
}


def conversation_steps(conversations: int = 3) -> list[dict[str, Any]]:
    """Step rows of short conversations: a question for the city, a call, the answer, a refusal; each names its turn's behaviour."""
    rows = []
    for number in range(conversations):
        city, name = CITIES[number % len(CITIES)], f"talk-{number}"
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "Tell the weather. Never sing."},
            {"role": "user", "content": f"What is the weather? (talk {number})"},
            text_message("In which city?"),
            {"role": "user", "content": f"In {city}."},
            call_message("get_weather", {"city": city}),
            {"role": "tool", "tool_call_id": "call_0", "name": "get_weather", "content": '{"degrees": 21}'},
            text_message(f"It is 21 degrees in {city}."),
            {"role": "user", "content": "Sing a song about it."},
            text_message("Sorry, I cannot sing."),
        ]
        turns = {2: "request_for_info", 4: "tool_call", 6: "direct", 8: "cannot_answer"}
        rows += [
            {
                "id": f"{name}/{index}", "source": "tiny", "behaviour": behaviour, "conversation": name, "group": name,
                "messages": messages[: index + 1], "tools": TOOLS,
            }
            for index, behaviour in turns.items()
        ]  # fmt: skip
    return rows
