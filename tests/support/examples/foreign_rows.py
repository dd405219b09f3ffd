"""One conversation a record, in each schema of the field, as files of rows have them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from ingest_examples import write_lines
from tiny import CITIES, TOOLS

Row = dict[str, Any]

_FUNCTIONS = [tool["function"] for tool in TOOLS]
_CALL_AS_TEXT = (
    "You are a function calling AI model. You are provided with function signatures within <tools></tools> XML tags."
)


def talk(number: int) -> tuple[str, Row, str, str]:
    """(question, call, result, answer)."""
    city = CITIES[number % len(CITIES)]
    call = {"name": "get_weather", "arguments": {"city": city}}
    return (
        f"I am guest {number}, going to {city}: what is the weather there, for trip {number}?",
        call, json.dumps({"degrees": number}), f"It is {number} degrees in {city} for guest {number}.",
    )  # fmt: skip


def openai(number: int) -> Row:
    question, call, result, answer = talk(number)
    function = call | {"arguments": json.dumps(call["arguments"])}
    return {
        "messages": [
            {"role": "developer", "content": "Be brief."}, {"role": "user", "content": question},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "c7", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "c7", "content": result}, {"role": "assistant", "content": answer, "weight": 1},
        ],
        "tools": TOOLS, "parallel_tool_calls": False,
    }  # fmt: skip


def openai_parts(number: int) -> Row:
    """Contents as parts, which a table's column of texts could not hold."""
    record = openai(number)
    for message in record["messages"]:
        if message["content"] is not None:
            message["content"] = [{"type": "text", "text": message["content"]}]
    return record


def openai_functions(number: int) -> Row:
    question, call, result, answer = talk(number)
    function = call | {"arguments": json.dumps(call["arguments"])}
    return {
        "messages": [
            {"role": "user", "content": question}, {"role": "assistant", "content": None, "function_call": function},
            {"role": "function", "name": call["name"], "content": result}, {"role": "assistant", "content": answer},
        ],
        "functions": _FUNCTIONS,
    }  # fmt: skip


def sharegpt(number: int) -> Row:
    question, call, result, answer = talk(number)
    turns = (("human", question), ("function_call", json.dumps(call)), ("observation", result), ("gpt", answer))
    return {
        "conversations": [{"from": speaker, "value": said} for speaker, said in turns],
        "system": "Be brief.", "tools": json.dumps(_FUNCTIONS),
    }  # fmt: skip


def xlam(number: int) -> Row:
    question, call, _, _ = talk(number)
    types = {"string": "str", "integer": "int", "number": "float, optional"}
    tools = [
        {"name": each["name"], "description": each["description"], "parameters": {
            name: {"description": f"The {name}.", "type": types[schema["type"]]}
            for name, schema in each["parameters"]["properties"].items()
        }}
        for each in _FUNCTIONS
    ]  # fmt: skip
    return {"id": number, "query": question, "tools": json.dumps(tools), "answers": json.dumps([call])}


def hermes(number: int) -> Row:
    question, call, result, answer = talk(number)
    system = (
        f"{_CALL_AS_TEXT} <tools>\n{json.dumps(TOOLS)}\n</tools> For each function call return a json object within "
        "<tool_call></tool_call> XML tags as follows:\n<tool_call>\n{tool_call}\n</tool_call>"
    )
    turns = (
        ("system", system), ("human", question), ("gpt", f"<tool_call>\n{json.dumps(call)}\n</tool_call>"),
        ("tool", f"<tool_response>\n{result}\n</tool_response>"), ("gpt", answer),
    )  # fmt: skip
    return {"conversations": [{"from": speaker, "value": said} for speaker, said in turns]}


def glaive(number: int) -> Row:
    question, call, result, answer = talk(number)
    functions = "\n\n".join(json.dumps(each, indent=4) for each in _FUNCTIONS)
    written = f'{{"name": "{call["name"]}", "arguments": \'{json.dumps(call["arguments"])}\'}}'
    return {
        "system": f"SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n{functions}\n",
        "chat": f"USER: {question}\n\n\nASSISTANT: <functioncall> {written} <|endoftext|>\n\n\nFUNCTION RESPONSE: {result}"
        f"\n\n\nASSISTANT: {answer} <|endoftext|>\n\n\n",
    }  # fmt: skip


def toolace(number: int) -> Row:
    question, call, result, answer = talk(number)
    system = (
        "You are an expert in composing functions. Here is a list of functions in JSON format that you can invoke:\n"
        f"{json.dumps(_FUNCTIONS)}. \nShould you decide to return the function call(s). \nPut it in the format of "
        "[func1(params_name=params_value), func2(params)]\n\nNO other text MUST be included. "
    )
    turns = (
        ("user", question), ("assistant", f'[get_weather(city="{call["arguments"]["city"]}")]'),
        ("tool", json.dumps([{"name": call["name"], "results": result}])), ("assistant", answer),
    )  # fmt: skip
    return {"system": system, "conversations": [{"from": speaker, "value": said} for speaker, said in turns]}


def prompt_and_completion(number: int) -> Row:
    record = openai(number)
    return {"prompt": record["messages"][:2], "completion": [record["messages"][2]], "tools": json.dumps(TOOLS)}


def openai_pair(number: int) -> Row:
    question, call, _, answer = talk(number)
    function = call | {"arguments": json.dumps(call["arguments"])}
    right = {"role": "assistant", "tool_calls": [{"id": "c7", "type": "function", "function": function}]}
    return {
        "input": {"messages": [{"role": "user", "content": f"{question} Please."}], "tools": TOOLS, "parallel_tool_calls": True},
        "preferred_output": [right], "non_preferred_output": [{"role": "assistant", "content": answer}],
    }  # fmt: skip


def jsonl(path: Path, rows: list[Row]) -> Path:
    return write_lines(path.with_suffix(".jsonl"), rows)


def array(path: Path, rows: list[Row]) -> Path:
    path.with_suffix(".json").write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path.with_suffix(".json")


def parquet(path: Path, rows: list[Row]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path.with_suffix(".parquet"))
    return path.with_suffix(".parquet")


def arrow(path: Path, rows: list[Row]) -> Path:
    table = pa.Table.from_pylist(rows)
    with pa.OSFile(str(path.with_suffix(".arrow")), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return path.with_suffix(".arrow")


# schema and file format → (record, file)
CONVERSATIONS: dict[str, tuple[Callable[[int], Row], Callable[[Path, list[Row]], Path]]] = {
    "openai-jsonl": (openai_parts, jsonl),
    "openai-parquet": (openai, parquet),
    "openai-functions-json": (openai_functions, array),
    "sharegpt-json": (sharegpt, array),
    "sharegpt-parquet": (sharegpt, parquet),
    "xlam-jsonl": (xlam, jsonl),
    "hermes-jsonl": (hermes, jsonl),
    "glaive-jsonl": (glaive, jsonl),
    "toolace-arrow": (toolace, arrow),
    "trl-arrow": (prompt_and_completion, arrow),
}


def conversations(name: str, folder: Path, count: int = 24, start: int = 0) -> Path:
    record, write = CONVERSATIONS[name]
    return write(folder / name, [record(number) for number in range(start, start + count)])
