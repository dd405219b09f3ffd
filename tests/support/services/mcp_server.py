"""A Model Context Protocol server, as a team has one: python mcp_server.py [a file that gets its environment] [--http PORT]."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Literal

from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel

server = MCPServer("desks")


class Seat(BaseModel):
    row: int
    window: bool | None = None


@server.tool()
def book_desk(room: str, seat: Seat, day: Literal["today", "tomorrow"] = "today") -> str:
    """Books a desk."""
    return f"{room} {seat} {day}"


@server.tool()
def cancel_desk(room: str) -> str:
    """Cancels a desk."""
    return room


if __name__ == "__main__":
    if sys.argv[1:2] == ["--http"]:
        server.run("streamable-http", host="127.0.0.1", port=int(sys.argv[2]))
    else:
        if sys.argv[1:]:
            Path(sys.argv[1]).write_text("\n".join(sorted(os.environ)), encoding="utf-8")
        sys.stderr.write("token sk-not-for-any-log\n")
        server.run("stdio")
