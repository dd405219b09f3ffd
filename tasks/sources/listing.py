"""``mcp:`` and ``openapi:`` as JSON lists of tools, the same text as long as nobody changes a tool."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tasks.sources import mcp, openapi

SCHEMES = ("mcp:", "openapi:")
_last: dict[str, str] = {}  # source → as it was listed when its digest was asked for


def names_tools(uri: str) -> bool:
    return uri.startswith(SCHEMES)


def tools_text(uri: str) -> str:
    """The tools as JSON; those of the digest that was asked for last, so that a key and its rows agree.

    Raises:
        SourceError: whoever named the source: it does not answer, or offers nothing that is a tool.
    """
    return _last[uri] if uri in _last else _listed(uri)


def tools_digest(uri: str) -> str:
    """Of the tools as they are listed now: a server that has changed gives another.

    Raises:
        SourceError: as in `tools_text`.
    """
    _last[uri] = _listed(uri)
    return hashlib.sha256(_last[uri].encode()).hexdigest()


def _listed(uri: str) -> str:
    scheme, _, rest = uri.partition(":")
    tools = mcp.list_tools(uri, rest) if scheme == "mcp" else openapi.list_tools(uri, Path(rest).expanduser())
    return json.dumps(sorted(tools, key=lambda tool: str(tool["name"])), ensure_ascii=False)
