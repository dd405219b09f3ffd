"""The log of docs/your-agent.md: a small shop's agent, 60 conversations of 20 customers, its tools and its policy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Row = dict[str, Any]

ITEMS = ("blue kettle", "wall clock", "desk lamp", "garden hose", "tea set", "travel bag", "wool scarf")
REASONS = ("ordered by mistake", "no longer needed")
POLICY = """\
You are the agent of a small shop. You can look up orders and cancel those that are pending.
Ask for the order number when it is missing. Look the order up before you cancel it, and cancel it only after the customer has said yes.
You cannot change prices, and you say so. Be brief.
"""


def tool(name: str, description: str, **properties: Row) -> Row:
    parameters = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": parameters}}


ORDER = {"type": "string", "description": "The order's number, as in A1001."}
TOOLS = [
    tool("get_order", "Status and items of an order.", order_id=ORDER),
    tool("cancel_order", "Cancel a pending order.", order_id=ORDER, reason={"type": "string", "enum": list(REASONS)}),
    tool(
        "find_orders",
        "Numbers of a customer's orders.",
        email={"type": "string", "description": "The customer's address."},
    ),
]


def conversations(count: int = 60) -> list[Row]:
    return [_conversation(number) for number in range(count)]


def write_agent_example(folder: Path) -> None:
    """conversations.jsonl, tools.json and policy.md."""
    lines = "".join(json.dumps(record) + "\n" for record in conversations())
    (folder / "conversations.jsonl").write_text(lines, encoding="utf-8")
    (folder / "tools.json").write_text(json.dumps(TOOLS, indent=1) + "\n", encoding="utf-8")
    (folder / "policy.md").write_text(POLICY, encoding="utf-8")


def _conversation(number: int) -> Row:
    item, order, reason = ITEMS[number % len(ITEMS)], f"A{1001 + number}", REASONS[number % 2]
    pending = number % 3 != 2
    messages = [
        _user(f"Please cancel the {item}, it was {reason}."), _says(f"Which order is the {item} in?"), _user(f"It is {order}."),
        *_call(1, "get_order", {"order_id": order}, {"status": "pending" if pending else "delivered", "items": [item]}),
    ] if number % 4 != 3 else [
        _user(f"Can you make the {item} of order {order} cheaper?"),
        _says(f"Sorry, I cannot change the price of the {item}: no tool of mine does that. Order {order} stays as it is."),
        _user(f"Then what is the status of order {order}?"),
        *_call(1, "get_order", {"order_id": order}, {"status": "pending" if pending else "delivered", "items": [item]}),
        _says(f"Order {order} with the {item} is {'pending' if pending else 'delivered'}."),
    ]  # fmt: skip
    if number % 4 != 3:
        messages += _cancelled(order, item, reason) if pending else [
            _says(f"Unfortunately order {order} was delivered already, so I cannot cancel the {item}.")
        ]  # fmt: skip
    return {"id": f"chat-{number}", "user_id": f"customer-{number % 20}", "messages": messages}


def _cancelled(order: str, item: str, reason: str) -> list[Row]:
    return [
        _says(f"Shall I cancel order {order} with the {item}?"), _user("Yes."),
        *_call(2, "cancel_order", {"order_id": order, "reason": reason}, {"status": "cancelled"}),
        _says(f"Order {order} with the {item} is cancelled."),
    ]  # fmt: skip


def _user(text: str) -> Row:
    return {"role": "user", "content": text}


def _says(text: str) -> Row:
    return {"role": "assistant", "content": text}


def _call(number: int, name: str, arguments: Row, result: Row) -> list[Row]:
    identifier = f"call_{number}"
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": identifier, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": identifier, "content": json.dumps(result)},
    ]
