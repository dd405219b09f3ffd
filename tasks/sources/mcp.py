"""The tools that a Model Context Protocol server offers.

mcp:python server.py               started as a child process, asked, ended
mcp:$CRM_TOKEN npx -y @acme/crm    the same with one more variable of this environment
mcp:https://example.com/mcp        asked over HTTP

A child sees PATH, HOME and their like, never the rest of this environment: servers are other people's programs. What it
writes is read as the protocol's messages and never logged.
"""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from rightcall.errors import SourceError

Json = dict[str, Any]

TIMEOUT_SECONDS = 60.0  # to start, to answer, to end
MAX_TOOLS = 5_000


def list_tools(uri: str, rest: str, timeout_seconds: float = TIMEOUT_SECONDS) -> list[Json]:
    """Each with name, description and inputSchema.

    Raises:
        SourceError: the server does not start, does not answer in time, or offers no tool.
    """
    try:
        import httpx2
        from mcp import MCPError
    except ImportError as err:
        raise SourceError(f"{uri!r} needs the package mcp; install it: pip install 'rightcall[flow]'") from err
    server = _server(uri, rest)
    try:
        with _silent("mcp", "httpx2"), ThreadPoolExecutor(1) as thread:  # this one may have an event loop already
            tools = thread.submit(asyncio.run, _ask(server, timeout_seconds)).result()
    except (MCPError, httpx2.HTTPError, OSError, ValueError, RuntimeError, ExceptionGroup) as err:
        what = f"did not answer within {timeout_seconds:g} s" if _names(err) & {"TimeoutError"} else "cannot be asked"
        raise SourceError(
            f"the MCP server {uri!r} {what} for its tools ({', '.join(sorted(_names(err)))}); run its command, or open its "
            "address, and see what it says; variables that it needs are named before the command: mcp:$NAME COMMAND"
        ) from None  # what it wrote may hold anything
    if len(tools) > MAX_TOOLS:
        raise SourceError(f"the MCP server {uri!r} offers more than {MAX_TOOLS:,} tools; name another")
    if not tools:
        raise SourceError(f"the MCP server {uri!r} offers no tool; name one that does")
    return tools


def _server(uri: str, rest: str) -> Any:
    from mcp import StdioServerParameters

    if rest.startswith(("https://", "http://")):
        return rest
    try:
        words = shlex.split(rest)
    except ValueError as err:
        raise SourceError(f"{uri!r} is no command: {err}; quote it as in a shell") from err
    environment = {}
    while words and words[0].startswith("$"):
        name = words.pop(0)[1:]
        if name not in os.environ:
            raise SourceError(f"{uri!r} names the variable {name!r}, which is not set; set it, or leave it out")
        environment[name] = os.environ[name]
    if not words:
        raise SourceError(f"{uri!r} names no command; write mcp:COMMAND with its arguments, or mcp:https://…")
    return StdioServerParameters(command=words[0], args=words[1:], env=environment)


async def _ask(server: Any, timeout_seconds: float) -> list[Json]:
    from mcp import Client, StdioServerParameters
    from mcp.client.stdio import stdio_client

    tools: list[Json] = []
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        transport = stdio_client(server, errlog=nowhere) if isinstance(server, StdioServerParameters) else server
        async with asyncio.timeout(timeout_seconds), Client(transport) as client:
            cursor: str | None = None
            while True:
                page = await client.list_tools(cursor=cursor)
                tools += [
                    {"name": each.name, "description": each.description or "", "inputSchema": each.input_schema}
                    for each in page.tools
                ]
                cursor = page.next_cursor
                if not cursor or not page.tools or len(tools) > MAX_TOOLS:
                    return tools


def _names(err: BaseException) -> set[str]:
    """Of the exceptions in a group, all the way down."""
    if isinstance(err, BaseExceptionGroup):
        return {name for each in err.exceptions for name in _names(each)}
    return {type(err).__name__}


@contextmanager
def _silent(*names: str) -> Iterator[None]:
    """The client logs lines that are no messages, with their text."""
    loggers = [logging.getLogger(name) for name in names]
    before = [each.propagate for each in loggers]
    nowhere = logging.NullHandler()
    for each in loggers:
        each.propagate = False
        each.addHandler(nowhere)
    try:
        yield
    finally:
        for each, propagate in zip(loggers, before, strict=True):
            each.removeHandler(nowhere)
            each.propagate = propagate
