"""Tool definitions in any dialect (OpenAI, MCP, Anthropic, Gemini, BFCL, When2Call, xLAM) to OpenAI functions."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import SchemaError

from rightcall.errors import DataError
from rightcall.schemas.branches import with_all_properties
from rightcall.schemas.document import Document, refuse_loops
from rightcall.schemas.keywords import DEFINITIONS, KNOWN
from rightcall.schemas.normalise import Reader, without_undeclared
from rightcall.schemas.types import is_type_name, type_of

Json = dict[str, Any]

MAX_CHARACTERS = 1_000_000  # of one tool, as JSON
# Where the dialects keep the parameters: OpenAI, MCP, Anthropic, Gemini, Cohere, LangChain.
_PARAMETERS = (
    "parameters", "inputSchema", "input_schema", "parametersJsonSchema", "parameters_json_schema",
    "parameter_definitions", "args_schema", "args",
)  # fmt: skip
_DECLARATIONS = ("functionDeclarations", "function_declarations")  # Gemini: one tool holds several functions
_WRAPPERS = ("function", "toolSpec")  # OpenAI's, Bedrock's
_HOLD_A_MAP = {"properties", "$defs", "definitions", "patternProperties", "additionalProperties", "$schema", "$id"}


def normalise_tools(raw: Any) -> list[Json]:
    """The tools of a record as OpenAI functions; None, absent and [] are the same.

    The tools returned are shared: do not change them.

    Raises:
        DataError: ``bad_tools``, ``bad_tool`` or ``duplicate_tool`` (the owner of the rows fixes it).
    """
    if isinstance(raw, str):
        raw = _loads(raw) if raw.strip() else []
    if raw is None:
        return []
    if not isinstance(raw, list):
        raise DataError(f"tools is a {type(raw).__name__}, {_short(raw)}; give a list of tools", reason="bad_tools")
    tools: dict[str, Json] = {}
    for item in raw:
        for text in _texts(item):
            tool = _normalised(text)
            name = tool["function"]["name"]
            if tools.setdefault(name, tool) is not tool and tools[name] != tool:
                raise DataError(f"two different tools are called {name!r}; rename one of them", reason="duplicate_tool")
    return list(tools.values())


def _texts(item: Any) -> list[str]:
    if isinstance(item, str):
        return [item]
    for key in _DECLARATIONS:
        if isinstance(item, dict) and isinstance(item.get(key), list):
            return [_dumps(each) for each in item[key]]
    return [_dumps(item)]


@lru_cache(maxsize=8192)
def _normalised(text: str) -> Json:
    tool = _loads(text)
    for key in _WRAPPERS:
        if isinstance(tool, dict) and isinstance(tool.get(key), dict):
            tool = tool[key]
    if not isinstance(tool, dict):
        raise DataError(
            f"a tool is a {type(tool).__name__}, {_short(tool)}; give an object with name and parameters",
            reason="bad_tool",
        )
    name = tool.get("name")
    if not isinstance(name, str) or not name.strip():
        raise DataError(f"the tool {_short(tool)} has no name; give it one", reason="bad_tool")
    given = next((tool[key] for key in _PARAMETERS if tool.get(key) is not None), None)
    description = tool.get("description")
    return {
        "type": "function",
        "function": {
            "name": name,
            "description": "" if description is None else str(description),
            "parameters": _root_schema(_loads(given) if isinstance(given, str) and given.strip() else given, name),
        },
    }


def _root_schema(parameters: Any, name: str) -> Json:
    if isinstance(parameters, dict) and isinstance(parameters.get("json"), dict) and len(parameters) == 1:
        parameters = parameters["json"]  # Bedrock
    if isinstance(parameters, list) and all(isinstance(each, dict) and "name" in each for each in parameters):
        parameters = {
            "properties": {str(each["name"]): {k: v for k, v in each.items() if k != "name"} for each in parameters}
        }
    if parameters in (None, ""):
        parameters = {}
    if not isinstance(parameters, dict):
        raise DataError(
            f"the parameters of {name!r} are {_short(parameters)}; give a JSON Schema object", reason="bad_tool"
        )
    if _is_bare_map(parameters):
        required = {"required": parameters["required"]} if isinstance(parameters.get("required"), list) else {}
        parameters = {"properties": {k: v for k, v in parameters.items() if k not in required}, **required}
    schema = _whole(parameters, name, root=True)
    try:
        Draft202012Validator.check_schema(schema)
    except SchemaError as err:
        raise DataError(
            f"the parameters of {name!r} are no JSON Schema: {err.message[:200]}; correct them", reason="bad_tool"
        ) from err
    return schema


def normalise_schema(raw: Any) -> Json:
    """One schema that stands alone, as `normalise_tools` makes them.

    Raises:
        DataError: ``bad_tool``: too large, too deep, or a reference that leads elsewhere or nowhere.
    """
    return _whole(raw, "schema", root=False)


def _whole(raw: Any, name: str, *, root: bool) -> Json:
    """The schema with the definitions that it uses; a root is an object with all its properties."""
    document = Document(raw, name)
    reader = Reader(document)
    schema = reader.inline(raw, root=True) if root else reader.schema(raw)
    if root:
        schema = {"type": "object", "properties": {}, **with_all_properties({**schema, "type": "object"}, document)}
        schema = without_undeclared(schema)
    definitions: Json = {}
    while document.waiting:
        reference = document.waiting.pop()
        found = reader.schema(document.find(reference), inlined=(reference,))
        definitions[document.names[reference]] = without_undeclared(found)
    if definitions:
        schema = {**schema, "$defs": definitions}
    refuse_loops(document, schema)
    return schema


def _is_bare_map(parameters: Json) -> bool:
    """{"city": {"type": "string"}, …}: names of parameters, any names, where a schema has keywords."""
    if not all(
        isinstance(value, dict) or is_type_name(value) or (key == "required" and isinstance(value, list))
        for key, value in parameters.items()
    ):
        return False
    if not parameters or _is_typed(parameters):
        return False
    if "properties" in parameters:
        return _is_parameter(parameters["properties"])
    return any(key not in _HOLD_A_MAP or (key in DEFINITIONS and _is_parameter(parameters[key])) for key in parameters)


def _is_typed(parameters: Json) -> bool:
    """{"type": "object", …} is a schema, {"type": "str", "page": "int"} are two parameters."""
    kind = parameters.get("type")
    if not isinstance(kind, str):
        return False
    return type_of(kind)[0] == "object" or not any(is_type_name(parameters[key]) for key in parameters.keys() - KNOWN)


def _is_parameter(value: Any) -> bool:
    """{"type": "string", "description": "Which ones."} is one parameter, {"type": {"type": "string"}} are several."""
    if not isinstance(value, dict):
        return is_type_name(value)
    kind = value.get("type")
    if isinstance(kind, (str, list)):
        return not all(isinstance(each, dict) or is_type_name(each) for each in value.values()) or len(value) == 1
    return isinstance(value.get("description"), str) and not is_type_name(value["description"])


def _dumps(tool: Any) -> str:
    try:
        return json.dumps(tool, ensure_ascii=False)
    except RecursionError as err:
        raise DataError("a tool is nested too deeply to be read; flatten its parameters", reason="bad_tool") from err


def _loads(text: str) -> Any:
    if len(text) > MAX_CHARACTERS:
        raise DataError(
            f"the tool {text[:120]!r} has {len(text):,} characters, the limit is {MAX_CHARACTERS:,}; simplify it",
            reason="bad_tool",
        )
    try:
        return json.loads(text)
    except RecursionError as err:
        raise DataError(
            f"the tool {text[:120]!r} is nested too deeply to be read; flatten its parameters", reason="bad_tool"
        ) from err
    except ValueError as err:
        raise DataError(
            f"the tool {text[:120]!r} is not JSON ({err}); give it as JSON text or as an object", reason="bad_tool"
        ) from err


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "..."
