"""Small logged conversations of an agent, and recipes over them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ingest_examples import TEMPLATE, write_lines
from tiny import CITIES, TOOLS, call_message, text_message

from rightcall.recipe.schema import Recipe

Row = dict[str, Any]


def user(text: str) -> Row:
    return {"role": "user", "content": text}


def result(text: str, call: str = "call_0") -> Row:
    return {"role": "tool", "tool_call_id": call, "content": text}


def conversation(number: int, **changes: Any) -> Row:
    """user → asks → user → call → result → says it; three steps, of another user every second time."""
    city, name = CITIES[number % len(CITIES)], f"case {number}"
    messages = [
        user(f"I need the weather for {name}, please."),
        text_message("In which city?"),
        user(f"In {city}, as for the others of {name}."),
        call_message("get_weather", {"city": city}),
        result(f"{number} degrees in {city}"),
        text_message(f"It is {number} degrees in {city}."),
    ]
    record = {"id": f"c{number}", "user_id": f"u{number // 2}", "messages": messages, "tools": TOOLS}
    return record | changes


def logged(count: int) -> list[Row]:
    return [conversation(number) for number in range(count)]


def write_log(folder: Path, records: list[Row | bytes], name: str = "log.jsonl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return write_lines(folder / name, records)


def conversation_recipe(*logs: Path | Row, max_length: int = 1000, **data: Any) -> Recipe:
    """logs: paths, or whole sources."""
    named = [log if isinstance(log, dict) else {"uri": str(log)} for log in logs]
    trained = any(each.get("use") != "evaluation" for each in named)
    section = {"max_steps": 1 if trained else 0, "learning_rate": 1e-4, "max_length": max_length}
    values = {"name": "tiny", "model": {"source": "nowhere", "chat_template": TEMPLATE}, "sft": section}
    dpo = {**section, "max_steps": 0, "start_from": "sft"}
    settings = {"conversations": named, "group_by": "user_id", **data}
    return Recipe.model_validate_json(json.dumps({**values, "dpo": dpo, "data": settings}))


__all__ = ["conversation", "conversation_recipe", "logged", "result", "user", "write_log"]
