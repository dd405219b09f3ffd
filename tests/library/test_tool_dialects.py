"""A tool in whatever dialect it is declared: the same parameters, and both the verifier and the grammar take them."""

from __future__ import annotations

import json
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from grammar_examples import folder_of, message
from pydantic import BaseModel, Field, TypeAdapter

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.grammar import Grammar
from rightcall.errors import DataError
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.toolcalls.schema import validate_call
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.verifier import parse

Json = dict[str, Any]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
DESK = {
    "type": "object",
    "properties": {"room": {"type": "string"}, "seat": {"$ref": "#/$defs/Seat"}},
    "required": ["room"],
}
SEAT = {"type": "object", "properties": {"row": {"type": "integer"}}}


def tools_of(parameters: Any) -> list[Json]:
    return normalise_tools([{"name": "book", "description": "Books.", "parameters": parameters}])


def parameters_of(parameters: Any) -> Json:
    found: Json = tools_of(parameters)[0]["function"]["parameters"]
    return found


def codes(arguments: Any, tools: list[Json]) -> list[str]:
    return [problem.code for problem in validate_call({"name": "book", "arguments": arguments}, tools)]


class Kind(StrEnum):
    window = "window"
    aisle = "aisle"


class Person(BaseModel):
    name: str
    manager: Person | None = None


class Train(BaseModel):
    via: Literal["train"]
    seat: Kind
    passenger: Person


class Flight(BaseModel):
    via: Literal["flight"]
    bags: int = 0


Trip = TypeAdapter(Annotated[Train | Flight, Field(discriminator="via")]).json_schema()
Base = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
# name → (parameters, calls that the tool takes, calls it does not with the first problem's code)
SCHEMAS: dict[str, tuple[Any, list[Json], list[tuple[Json, str]]]] = {
    "root $ref": (
        {"$ref": "#/$defs/Desk", "$defs": {"Desk": DESK, "Seat": SEAT}},
        [{"room": "Birch", "seat": {"row": 2}}, {"room": "Birch"}],
        [({"seat": {"row": 2}}, "missing_argument"), ({"room": "x", "desk": 1}, "invented_argument")],
    ),
    "root $ref as zod writes it": (
        {"$ref": "#/definitions/book", "definitions": {"book": CITY}, "$schema": "http://json-schema.org/draft-07/schema#"},
        [{"city": "Graz"}],
        [({}, "missing_argument"), ({"city": 3}, "wrong_type")],
    ),
    "root anyOf": (
        {"type": "object", "anyOf": [
            {"properties": {"id": {"type": "integer"}}, "required": ["id"]},
            {"properties": {"mail": {"type": "string"}}, "required": ["mail"]},
        ]},
        [{"id": 7}, {"mail": "x"}],
        [({"name": "x"}, "missing_argument"), ({"id": 7, "name": "x"}, "invented_argument"), ({"id": "7"}, "wrong_type")],
    ),
    "anyOf of what is required": (
        {"type": "object", "properties": {"id": {"type": "integer"}, "mail": {"type": "string"}},
         "anyOf": [{"required": ["id"]}, {"required": ["mail"]}]},
        [{"id": 7}, {"mail": "x"}, {"id": 7, "mail": "x"}],
        [({}, "missing_argument"), ({"id": 7, "name": "x"}, "invented_argument")],
    ),
    "properties beside branches": (
        {"type": "object", "properties": {"note": {"type": "string"}, "kind": {"type": "string"}}, "required": ["kind"], "oneOf": [
            {"properties": {"kind": {"const": "a"}, "x": {"type": "integer"}}, "required": ["x"]},
            {"properties": {"kind": {"const": "b"}, "y": {"type": "string"}}, "required": ["y"]},
        ]},
        [{"kind": "a", "x": 1}, {"kind": "b", "y": "z", "note": "n"}],
        [({"kind": "a", "y": "z"}, "missing_argument"), ({"x": 1}, "missing_argument"),
         ({"kind": "a", "x": 1, "y": "z"}, "invented_argument")],
    ),
    "root allOf": (
        {"allOf": [{"type": "object", "properties": {"room": {"type": "string"}}, "required": ["room"]},
                   {"type": "object", "properties": {"hours": {"type": "integer"}}}]},
        [{"room": "Birch", "hours": 2}],
        [({"hours": 2}, "missing_argument"), ({"room": "x", "day": 1}, "invented_argument")],
    ),
    "OpenAPI's inheritance": (
        {"allOf": [{"$ref": "#/$defs/Base"}, {"type": "object", "properties": {"pet": {"allOf": [{"$ref": "#/$defs/Base"}, CITY]}}}],
         "$defs": {"Base": Base}},
        [{"id": 1}, {"id": 1, "pet": {"id": 2, "city": "Graz"}}],
        [({"pet": {"id": 2, "city": "Graz"}}, "missing_argument"), ({"id": 1, "pet": {"id": 2}}, "missing_argument")],
    ),
    "a discriminated union of pydantic's": (
        Trip,
        [{"via": "flight", "bags": 2}, {"via": "train", "seat": "aisle", "passenger": {"name": "A", "manager": {"name": "B"}}},
         {"via": "train", "seat": "aisle", "passenger": {"name": "A", "manager": None}}],
        [({"via": "train", "seat": "aisle"}, "missing_argument"), ({"via": "flight", "seat": "aisle"}, "invented_argument"),
         ({"via": "train", "seat": "roof", "passenger": {"name": "A"}}, "wrong_value")],
    ),
    "a tree": (
        Person.model_json_schema(),
        [{"name": "A", "manager": {"name": "B", "manager": {"name": "C"}}}],
        [({"name": "A", "manager": {}}, "wrong_value"), ({"name": "A", "boss": 1}, "invented_argument")],
    ),
    "arguments, or none": (
        {"anyOf": [CITY, {"type": "null"}]}, [{"city": "Graz"}], [({}, "missing_argument")],
    ),
    "if, then": (
        {"type": "object", "properties": {"pay": {"enum": ["card", "cash"]}}, "required": ["pay"],
         "if": {"properties": {"pay": {"const": "card"}}}, "then": {"properties": {"number": {"type": "string"}}, "required": ["number"]}},
        [{"pay": "cash"}, {"pay": "card", "number": "1"}],
        [({"pay": "card"}, "missing_argument"), ({"pay": "cash", "tip": 1}, "invented_argument")],
    ),
    "OpenAPI 3.0": (
        {"type": "object", "required": ["n", "tag"], "properties": {
            "n": {"type": "integer", "minimum": 0, "exclusiveMinimum": True, "format": "int32"},
            "tag": {"type": "string", "nullable": True, "enum": ["a", "b"]},
            "seat": {"allOf": [{"$ref": "#/$defs/Seat"}], "nullable": True, "description": "Where."},
        }, "$defs": {"Seat": SEAT}},
        [{"n": 1, "tag": None}, {"n": 1, "tag": "b", "seat": None}, {"n": 1, "tag": "a", "seat": {"row": 1}}],
        [({"n": 0, "tag": "a"}, "wrong_value"), ({"n": 1, "tag": "c"}, "wrong_value"), ({"n": 1}, "missing_argument")],
    ),
    "Gemini": (
        {"type": "OBJECT", "properties": {"days": {"type": "ARRAY", "items": {"type": "STRING", "nullable": True}, "minItems": "1"}},
         "required": ["days"], "propertyOrdering": ["days"]},
        [{"days": ["Mon"]}, {"days": [None]}],
        [({"days": []}, "wrong_value"), ({"days": [3]}, "wrong_type")],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_verifier_takes_what_the_tool_takes(name: str) -> None:
    parameters, right, wrong = SCHEMAS[name]
    tools = tools_of(parameters)
    assert [codes(arguments, tools) for arguments in right] == [[]] * len(right)
    assert [(arguments, codes(arguments, tools)[:1]) for arguments, _ in wrong] == [(a, [code]) for a, code in wrong]
    shown = tools[0]["function"]["parameters"]
    assert shown["type"] == "object"
    assert {key for arguments in right for key in arguments} <= shown["properties"].keys()
    assert json.dumps(normalise_tools(tools)) == json.dumps(tools)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatTemplate, Grammar]:
    template = load_template(folder_of(tmp_path_factory.mktemp("ours") / "model", "chatml-tools"), "chatml-tools")
    return template, Grammar(template)


@pytest.mark.parametrize("name", [name for name in SCHEMAS if name != "if, then"])  # which the engine does not know
def test_the_grammar_writes_and_reads_what_the_verifier_takes(
    name: str, ours: tuple[ChatTemplate, Grammar], caplog: pytest.LogCaptureFixture
) -> None:
    template, grammar = ours
    parameters, right, wrong = SCHEMAS[name]
    tools = tools_of(parameters)
    for arguments in right:
        text = template.answer_text(message([{"name": "book", "arguments": arguments}]))
        assert grammar.first_violation(template.tokenize(text), tools, "required") is None, text
    for arguments, _ in wrong:
        text = template.answer_text(message([{"name": "book", "arguments": arguments}]))
        assert grammar.first_violation(template.tokenize(text), tools, "required") is not None, text
    for seed in range(20):
        text = walked(template, grammar, tools, seed)
        assert [codes(each["arguments"], tools) for each in parse(text).calls] == [[]], text
    assert not caplog.records


def walked(template: ChatTemplate, grammar: Grammar, tools: list[Json], seed: int) -> str:
    """A call of random tokens under the grammar, closed wherever it may be."""
    random = np.random.default_rng(seed)
    constraint, ids = grammar.constraint(tools, "required"), []
    closing = [template.tokenizer.token_to_id(character) for character in '"}]']
    while len(ids) < 800 and not (mask := constraint.mask())[template.eos_ids].any():
        first = [token for token in closing if mask[token] and random.random() < 0.6]
        ids.append(first[0] if first else int(np.where(mask, random.random(len(mask)), -1).argmax()))
        constraint.accept(ids[-1])
    return template.decode(ids)


@pytest.mark.parametrize("tool", [
    {"type": "function", "function": {"name": "book", "parameters": CITY}},
    {"type": "function", "name": "book", "parameters": CITY, "strict": True},
    {"name": "book", "parameters": json.dumps(CITY)},
    {"name": "book", "title": "Book", "inputSchema": CITY, "outputSchema": SEAT, "annotations": {"readOnlyHint": True}},
    {"name": "book", "parameters": None, "input_schema": CITY},
    {"toolSpec": {"name": "book", "inputSchema": {"json": CITY}}},
    {"functionDeclarations": [{"name": "book", "parameters": {
        "type": "OBJECT", "properties": {"city": {"type": "STRING"}}, "required": ["city"]}}]},
    {"function_declarations": [{"name": "book", "parametersJsonSchema": CITY}]},
    {"name": "book", "parameter_definitions": {"city": {"type": "str", "required": True}}},
    {"name": "book", "parameters": {"city": {"type": "string", "required": True}}},
    {"name": "book", "parameters": {"city": {"type": "string"}, "required": ["city"]}},
    {"name": "book", "parameters": [{"name": "city", "type": "string", "required": True}]},
    {"name": "book", "parameters": {"properties": {"city": "string, required"}}},
])  # fmt: skip
def test_every_dialect_is_the_same_tool(tool: Json) -> None:
    function = {"name": "book", "description": "", "parameters": CITY}
    assert normalise_tools([tool]) == [{"type": "function", "function": function}]


@pytest.mark.parametrize("names", [
    ("type",), ("type", "page"), ("properties",), ("properties", "type"), ("properties", "page"), ("items", "required"),
    ("type", "properties", "required", "items", "enum", "description", "$ref", "anyOf", "additionalProperties"),
    ("name", "format"), ("definitions", "x"), ("definitions",), ("$defs", "properties"),
])  # fmt: skip
@pytest.mark.parametrize("way", ["bare", "bare without words", "schema"])
def test_a_parameter_may_be_called_like_a_keyword(names: tuple[str, ...], way: str) -> None:
    spec: Json = (
        {"type": "str"} if way == "bare without words" else {"description": "Which.", "type": "str", "default": "any"}
    )
    given: Json = {name: dict(spec) for name in names}
    found = parameters_of(given if way != "schema" else {"type": "dict", "properties": given})
    assert list(found["properties"]) == list(names)
    assert found["properties"][names[0]] == spec | {"type": "string"}
    assert set(found) == {"type", "properties"}


def test_a_parameter_called_type_may_have_its_type_as_a_word_alone() -> None:
    found = parameters_of({"type": "str", "page": "int, optional"})
    assert found["properties"] == {"type": {"type": "string"}, "page": {"type": "integer"}}
    for schema in ({"type": "string", "description": "string"}, {"type": "object", "format": "date"}):
        assert parameters_of(schema)["properties"] == {}
    shared = {"T": {"type": "string"}}
    assert parameters_of({"definitions": shared, "properties": {}}) == {"type": "object", "properties": {}}


def test_a_schema_whose_parameters_are_keywords_is_no_bare_map() -> None:
    inner = {"type": {"type": "string"}, "properties": {"type": "object"}, "required": {"type": "boolean"}}
    assert list(parameters_of({"type": "object", "properties": inner})["properties"]) == list(inner)
    assert list(parameters_of({"properties": inner})["properties"]) == list(inner)
    assert parameters_of({"properties": {}}) == {"type": "object", "properties": {}}
    assert parameters_of({"type": "object"}) == {"type": "object", "properties": {}}


@pytest.mark.parametrize("prop", [
    {"type": "string", "nullable": True}, {"type": ["string", "null"]}, {"anyOf": [{"type": "string"}, {"type": "null"}]},
    {"type": "Optional[str]"}, {"type": "str | None"}, {"type": "string", "nullable": True, "enum": ["a", "b"]},
    {"type": "Optional[str]", "enum": ["a", "b"]}, {"enum": ["a"], "nullable": True}, {"const": "a", "nullable": True},
    {"oneOf": [{"type": "string"}, {"type": "integer"}], "nullable": True}, {"type": "string", "x-nullable": True},
    {"anyOf": [{"type": "string"}], "nullable": True}, {"$ref": "#/$defs/T", "nullable": True}, {"$ref": "#/$defs/N"},
    {"allOf": [{"$ref": "#/$defs/T"}, {"minLength": 1}], "nullable": True},
])  # fmt: skip
def test_whatever_says_nullable_takes_null(prop: Json, ours: tuple[ChatTemplate, Grammar]) -> None:
    definitions = {"T": {"type": "string"}, "N": {"type": "string", "nullable": True}}
    tools = tools_of({"type": "object", "properties": {"tag": prop}, "required": ["tag"], "$defs": definitions})
    template, grammar = ours
    for value in (None, "a"):
        assert codes({"tag": value}, tools) in ([], ["missing_argument"])
        assert [code for code in codes({"tag": value}, tools) if code != "missing_argument"] == []
        text = template.answer_text(message([{"name": "book", "arguments": {"tag": value}}]))
        assert grammar.first_violation(template.tokenize(text), tools, "required") is None, text
    assert codes({"tag": 1.5}, tools)


def nested(levels: int) -> Json:
    schema: Json = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def doubling(key: str, levels: int) -> Json:
    """Each definition names the next one twice: 2 to the power of ``levels`` when written out."""
    named = {
        f"D{n}": {key: [{"$ref": f"#/$defs/D{n + 1}"}, {"$ref": f"#/$defs/D{n + 1}", "title": "x"}]}
        for n in range(levels)
    }
    return {"$ref": "#/$defs/D0", "$defs": {**named, f"D{levels}": CITY}}


@pytest.mark.parametrize(("parameters", "says"), [
    ({"$ref": "#/$defs/A", "$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}}, "leads back to itself"),
    ({"$ref": "#"}, "leads back to itself"),
    ({"type": "object", "properties": {"a": {"$ref": "#/properties/a"}}}, "leads back to itself"),
    ({"properties": {"a": {"$ref": "#/$defs/A"}},
      "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"type": "null"}]}}}, "leads back to itself"),
    ({"allOf": [{"$ref": "#"}, CITY]}, "leads back to itself"),
    ({"$ref": "https://example.com/schema.json"}, "nothing is fetched"),
    ({"properties": {"a": {"$ref": "other.json#/A"}}}, "nothing is fetched"),
    ({"properties": {"a": {"$ref": "file:///etc/passwd"}}}, "nothing is fetched"),
    ({"properties": {"a": {"$ref": "#/$defs/Gone"}}}, "which is not there"),
    (nested(200), "nested beyond 60 levels"),
    (doubling("allOf", 16), "have more than 20,000 schemas"),
    (doubling("anyOf", 16), "have more than 20,000 schemas"),
    ({"properties": {f"p{n}": {"type": "string"} for n in range(30_000)}}, "have more than 20,000 schemas"),
    ({"properties": {"a": {"enum": [str(n) for n in range(300_000)]}}}, "characters, the limit is"),
    ({"properties": {f"p{n}": {"type": "string"} for n in range(900)}, "anyOf": [
        {"properties": {f"q{n}": {"type": "string"}}} for n in range(900)]}, "have more than 20,000 schemas"),
])  # fmt: skip
def test_what_cannot_be_followed_is_an_error_at_once(parameters: Json, says: str) -> None:
    started = time.process_time()
    with pytest.raises(DataError, match=says) as raised:
        tools_of(parameters)
    assert raised.value.reason == "bad_tool"
    assert time.process_time() - started < 30  # it counts what it reads


def test_a_tool_that_is_too_deep_for_json_is_an_error() -> None:
    deep = '{"a":' * 100_000 + "1" + "}" * 100_000
    with pytest.raises(DataError, match="nested too deeply"):
        normalise_tools([f'{{"name": "x", "parameters": {deep}}}'])
    tool: Json = {}
    for _ in range(100_000):
        tool = {"a": tool}
    with pytest.raises(DataError, match="nested too deeply"):
        normalise_tools([{"name": "x", "parameters": tool}])


def test_definitions_are_named_once_wherever_they_lay(tmp_path: Path) -> None:
    parameters = {
        "type": "object",
        "properties": {"a": {"$ref": "#/components/schemas/Seat"}, "b": {"$ref": "#/definitions/Seat"}, "c": {"$ref": "#/properties/d"},
                       "d": {"type": "integer"}},
        "components": {"schemas": {"Seat": SEAT}}, "definitions": {"Seat": {"type": "string"}, "Unused": CITY},
    }  # fmt: skip
    found = parameters_of(parameters)
    assert found["$defs"] == {"Seat": SEAT, "Seat_2": {"type": "string"}, "d": {"type": "integer"}}
    assert codes({"a": {"row": 1}, "b": "x", "c": 3}, tools_of(parameters)) == []
