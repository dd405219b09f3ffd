"""Tools, calls and texts that the grammar is tried on, and model folders whose templates write them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tiny import build_tiny_tokenizer
from tokenizers import AddedToken, Tokenizer

from rightcall.rows.tool_schemas import normalise_tools

CORPUS = Path(str(find_spec("trl").origin)).parent / "chat_templates"
LISTED = (  # When2Call's way: all calls in one list
    "{{ tools | tojson if tools }}{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}{% for call in m.tool_calls or [] %}"
    "{{ '<TOOLCALL>[' if loop.first else ', ' }}{{ {'name': call.function.name, 'arguments': call.function.arguments} | tojson }}"
    "{{ ']</TOOLCALL>' if loop.last }}{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEMPLATES = ("chatml-tools", "qwen2_5", "qwen3", "qwen3_instruct_2507", "llama3_1", "llama3_2", "listed")
TAGS_AS = ("pieces", "token", "special token")
ONE_CALL_ONLY = {"llama3_1", "llama3_2"}
CONTROL = (
    "<|begin_of_text|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
)


def tool(name: str, properties: dict[str, Any], required: list[str] | None = None, **more: Any) -> dict[str, Any]:
    required = list(properties) if required is None else required
    parameters = {"type": "object", "properties": properties, "required": required, **more}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


PLACE = {
    "type": "object",
    "properties": {"near": {"$ref": "#/$defs/place"}, "zip": {"type": "integer"}},
    "required": ["zip"],
}
TOOLS = normalise_tools([
    tool("get_weather", {"city": {"type": "string"}, "unit": {"type": "string", "enum": ["celsius", "°F"]}}, ["city"]),
    tool("book_table", {
        "guests": {"type": "integer", "minimum": 1, "maximum": 20},
        "when": {"type": "object", "properties": {"day": {"enum": ["today", 5, None]}, "at": {"type": "number"}}},
        "seats": {"type": "array", "items": {"type": "string", "enum": ["bar", "größe"]}, "minItems": 1, "maxItems": 3},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "smoking": {"type": ["boolean", "null"]},
    }, ["guests", "when"]),
    tool("get", {}, []),
    tool("find_place", {"place": {"$ref": "#/$defs/place"}}, **{"$defs": {"place": PLACE}}),
    tool("set", {"größe": {"type": "string"}}, [], additionalProperties={"type": "integer"}),
    tool("store", {"value": {}, "tree": {"type": "object"}}, ["value"]),
    tool("many", {f"a{n}": {"type": "boolean"} for n in range(9)}, ["a0", "a8"]),
])  # fmt: skip


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


CALLS: dict[str, list[dict[str, Any]]] = {
    "unicode": [call("get_weather", city='東京 😀 "x" \\ \n</b>', unit="°F")],
    "a tag inside": [call("get_weather", city="</tool_call>")],
    "other order": [call("get_weather", unit="celsius", city="Łódź")],
    "nested": [call("book_table", guests=20, when={"day": None, "at": -2.5}, seats=["bar", "größe"], note=None)],
    "another order": [call("book_table", smoking=True, when={}, note="", guests=1)],
    "nothing": [call("get")],
    "recursive": [call("find_place", place={"near": {"near": {"zip": 3}, "zip": 2}, "zip": 1})],
    "undeclared": [call("set", a=1, größe="", größen=-2)],
    "any value": [call("store", tree={"a": [1, {}]}, value=[{"b": [None, True, 2.5]}, "ü"])],
    "many": [call("many", a0=True, a3=False, a8=True)],
    "parallel": [call("get"), call("get_weather", city="Oslo"), call("get")],
}
TEXTS = (
    "", "Which city?", "Use {braces} and [lists] (so to say).\n\n- one: {\"a\": 1}\n1. two", "日本は晴れです 😀",
    '```json\n{"city": "Rome"}\n```', "I call get_weather(city) for you: f(x) == 2, {\"name\": \"Ada\"}", "5 < 6 and a > b",
)  # fmt: skip


def message(calls: list[dict[str, Any]], text: str = "") -> dict[str, Any]:
    numbered = [{"id": f"call{n:05}", "type": "function", "function": each} for n, each in enumerate(calls)]
    return {"role": "assistant", "content": text, "tool_calls": numbered}


def folder_of(target: Path, template: str, tags: str = "pieces") -> Path:
    """A model folder without weights whose tokenizer writes the tags of calls in this way."""
    folder = build_tiny_tokenizer(target)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.add_special_tokens([AddedToken(token, special=True) for token in CONTROL])
    if tags != "pieces":
        found = [AddedToken(token, special=tags == "special token") for token in ("<tool_call>", "</tool_call>")]
        (whole.add_special_tokens if tags == "special token" else whole.add_tokens)(found)
    whole.save(str(folder / "tokenizer.json"))
    if template != "chatml-tools":
        source = LISTED if template == "listed" else (CORPUS / f"{template}.jinja").read_text(encoding="utf-8")
        (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    return folder
