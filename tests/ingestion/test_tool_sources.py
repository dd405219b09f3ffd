"""Tools of a real MCP server and of OpenAPI documents, up to the rows that are trained on; nothing of ours leaks to either."""

from __future__ import annotations

import json
import logging
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from conversation_examples import conversation_recipe, user, write_log
from ingest_examples import quarantined, snapshot_of
from tiny import call_message, text_message

from rightcall.errors import RecipeError, SourceError
from rightcall.recipe.loading import load_recipe
from rightcall.rows.snapshots import read_snapshot
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.toolcalls.schema import validate_call
from tasks.data import sources
from tasks.drafts.looking import read_tools
from tasks.runs.model_names import suite_overrides
from tasks.sources import listing, mcp

SERVER = Path(__file__).parents[1] / "support" / "services" / "mcp_server.py"
COMMAND = f"mcp:{shlex.join([sys.executable, str(SERVER)])}"


def booking(number: int, **changes: Any) -> dict[str, Any]:
    room = f"Birch {number}"
    messages = [
        user(f"Please book a desk in {room}, guest {number}."),
        text_message("In which row shall I book it?"),
        user(f"Row {number} in {room}, as always."),
        call_message("book_desk", {"room": room, "seat": {"row": number}}),
    ]
    return {"id": f"c{number}", "user_id": f"u{number // 2}", "messages": messages} | changes


def test_an_mcp_servers_tools_are_those_of_the_rows(tmp_path: Path) -> None:
    broken = booking(90, messages=[user("Book a desk."), call_message("book_desk", {"room": "Birch"})])
    log = write_log(tmp_path, [*(booking(number) for number in range(40)), broken])
    folder, _ = snapshot_of(conversation_recipe({"uri": str(log), "tools": COMMAND}, tolerance=0.1), tmp_path)
    rows = read_snapshot(folder, "sft")
    assert rows
    assert all([tool["function"]["name"] for tool in row["tools"]] == ["book_desk", "cancel_desk"] for row in rows)
    call = {"name": "book_desk", "arguments": {"room": "Birch", "seat": {"row": 1, "window": None}}}
    assert validate_call(call, rows[0]["tools"]) == []
    assert [reasons for each in quarantined(folder) for reasons in each["reasons"]] == ["required_argument_missing"]


def test_a_changed_server_has_another_digest_and_an_unchanged_one_the_same(tmp_path: Path) -> None:
    copy = tmp_path / "server.py"
    copy.write_text(SERVER.read_text())
    uri = f"mcp:{shlex.join([sys.executable, str(copy)])}"
    before = sources.digest(uri)
    assert sources.digest(uri) == before == sources.digest(COMMAND)
    copy.write_text(SERVER.read_text().replace("Cancels a desk.", "Frees a desk."))
    assert "Cancels" in listing.tools_text(uri)  # what the digest was of
    assert sources.digest(uri) != before
    assert "Frees" in listing.tools_text(uri)


def test_a_server_sees_no_variable_that_is_not_named_and_its_output_is_not_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not for it")
    monkeypatch.setenv("DESK_TOKEN", "for it")
    seen = tmp_path / "environment.txt"
    listing.tools_text(f"{COMMAND} {seen}")
    assert {"AWS_SECRET_ACCESS_KEY", "DESK_TOKEN"}.isdisjoint(seen.read_text().split())
    listing.tools_text(f"mcp:$DESK_TOKEN {COMMAND.removeprefix('mcp:')} {seen}")
    assert "AWS_SECRET_ACCESS_KEY" not in seen.read_text().split()
    assert "DESK_TOKEN" in seen.read_text().split()
    chatty = f"mcp:{shlex.join([sys.executable, '-c', 'print(chr(115) + chr(107) + chr(45) + str(1) * 9)'])}"
    with pytest.raises(SourceError) as caught:
        listing.tools_text(chatty)
    written = capfd.readouterr()
    for text in (str(caught.value), caplog.text, written.out, written.err):
        assert "sk-111" not in text
        assert "not-for-any-log" not in text


@pytest.mark.parametrize(("rest", "says"), [
    ("false", "cannot be asked for its tools"),
    ("/no/such/program", r"cannot be asked for its tools \(FileNotFoundError\)"),
    ("sleep 100", "did not answer within 1 s"),
    ("http://127.0.0.1:9/mcp", r"cannot be asked for its tools \(ConnectError\)"),
    ("$NOT_SET_ANYWHERE python", "names the variable 'NOT_SET_ANYWHERE', which is not set"),
    ("python 'server.py", "is no command: No closing quotation"),
])  # fmt: skip
def test_a_server_that_gives_no_tools_is_a_clear_error(rest: str, says: str) -> None:
    with pytest.raises(SourceError, match=says):
        mcp.list_tools(f"mcp:{rest}", rest, timeout_seconds=1.0)


def test_a_server_may_be_an_address() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen([sys.executable, str(SERVER), "--http", str(port)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(300):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        assert listing.tools_text(f"mcp:http://127.0.0.1:{port}/mcp") == listing.tools_text(COMMAND)
    finally:
        server.terminate()
        server.wait(30)


OPENAPI = """
openapi: 3.0.3
info: {title: Pets, version: "1"}
paths:
  /pets/{id}:
    parameters:
      - {$ref: "#/components/parameters/Id"}
    get:
      operationId: getPet
      summary: One pet.
    put:
      operationId: putPet
      summary: Changes a pet.
      parameters:
        - {name: dry_run, in: query, schema: {type: boolean, nullable: true}}
        - {name: session, in: cookie, required: true, schema: {type: string}}
      requestBody:
        required: true
        content:
          application/json: {schema: {$ref: "#/components/schemas/Pet"}}
  /pets:
    post:
      summary: Many pets.
      requestBody:
        content: {application/json: {schema: {type: array, items: {$ref: "#/components/schemas/Pet"}}}}
components:
  parameters:
    Id: {name: id, in: path, required: true, description: Which one., schema: {type: integer}}
  schemas:
    Named: {type: object, required: [name], properties: {name: {type: string}}}
    Unused: {type: object, properties: {x: {$ref: "#/components/schemas/Unused"}}}
    Pet:
      allOf:
        - {$ref: "#/components/schemas/Named"}
        - {type: object, properties: {tag: {type: string, nullable: true, enum: [dog, cat]}, mother: {$ref: "#/components/schemas/Pet"}}}
"""


def tools_of(text: str, folder: Path, name: str = "api.yaml") -> list[dict[str, Any]]:
    (folder / name).write_text(text)
    return normalise_tools(listing.tools_text(f"openapi:{folder / name}"))


def test_each_operation_is_a_tool_with_its_parameters_and_its_body(tmp_path: Path) -> None:
    tools = tools_of(OPENAPI, tmp_path)
    assert [tool["function"]["name"] for tool in tools] == ["getPet", "post_pets", "putPet"]
    put = tools[2]["function"]
    assert put["description"] == "Changes a pet."
    assert set(put["parameters"]["properties"]) == {"id", "dry_run", "name", "tag", "mother"}
    assert set(put["parameters"]["required"]) == {"id", "name"}
    assert "Unused" not in json.dumps(tools)
    right = {"id": 3, "name": "Rex", "tag": None, "dry_run": None, "mother": {"name": "Ada", "tag": "dog"}}
    assert validate_call({"name": "putPet", "arguments": right}, tools) == []
    assert [each.code for each in validate_call({"name": "putPet", "arguments": {"id": 3}}, tools)] == [
        "missing_argument"
    ]
    assert validate_call({"name": "post_pets", "arguments": {"body": [{"name": "Rex"}]}}, tools) == []


def test_version_2_and_json_are_read_too(tmp_path: Path) -> None:
    document = {"swagger": "2.0", "paths": {"/find": {"post": {"operationId": "find", "parameters": [
        {"name": "q", "in": "query", "required": True, "type": "string", "description": "What."},
        {"name": "body", "in": "body", "schema": {"$ref": "#/definitions/Page"}},
    ]}}}, "definitions": {"Page": {"type": "object", "properties": {"page": {"type": "integer"}}}}}  # fmt: skip
    (tool,) = tools_of(json.dumps(document), tmp_path, "api.json")
    assert tool["function"]["parameters"] == {
        "type": "object",
        "properties": {"q": {"type": "string", "description": "What."}, "page": {"type": "integer"}},
        "required": ["q"],
    }


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(("text", "says"), [
    ("paths: {}", "has no operation"), ("[1]", "holds a list"), ("x: 1", "has no 'paths'"), ("a: [", "neither JSON nor YAML"),
    ("!!python/object/apply:os.system ['true']", "neither JSON nor YAML"), (BOMB, "more than 2,000,000 values"),
    ('paths: {/a: {get: {parameters: [{$ref: "other.yaml#/x"}]}}}', "nothing is fetched"),
    ('paths: {/a: {get: {parameters: [{$ref: "#/gone"}]}}}', "which is not there"),
    ("paths: {/a: {get: {operationId: x}, put: {operationId: x}}}", "several operations called 'x'"),
])  # fmt: skip
def test_a_document_that_cannot_be_used_is_a_clear_error(text: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=says):
        tools_of(text, tmp_path)


def test_wherever_a_recipe_or_a_command_takes_tools_these_are_taken(tmp_path: Path) -> None:
    (tmp_path / "api.yaml").write_text(OPENAPI)
    log = write_log(tmp_path, [booking(number) for number in range(3)])
    assert [tool["function"]["name"] for tool in read_tools(COMMAND)] == ["book_desk", "cancel_desk"]
    assert len(read_tools(f"openapi:{tmp_path / 'api.yaml'}")) == 3
    assert any(json.dumps(COMMAND) in each for each in suite_overrides(log, "base", COMMAND))
    named = {"uri": str(log), "tools": "openapi:api.yaml"}
    with pytest.raises(RecipeError, match=r"'mcp:' names nothing; write mcp:python server.py"):
        load_recipe(None, [f"data.conversations={json.dumps([named | {'tools': 'mcp:'}])}"])
