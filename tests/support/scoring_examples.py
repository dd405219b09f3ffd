"""Settings of a small evaluation, and one item as NVIDIA writes them."""

from __future__ import annotations

import json
from typing import Any

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
