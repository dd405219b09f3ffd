"""A record of any schema as a canonical row; a request to a served model in the same way."""

from __future__ import annotations

from collections import Counter

from rightcall.errors import DataError
from rightcall.records import turns
from rightcall.records.schemas import as_openai
from rightcall.rows import when2call
from rightcall.rows.canonical import canonical_row, content_digest
from rightcall.rows.lines import naming_the_line
from rightcall.rows.snapshots import RAW_TOOLS
from rightcall.rows.vocabulary import Row, RowKind


def to_canonical(
    record: Row, kind: RowKind, source: str, number: int, adapter: str = "auto", *, unused: Counter[str] | None = None
) -> Row:
    """The record as a canonical row; ``number`` is its line, named in errors, ``unused`` counts what is left out of it.

    Tools are shared between rows: do not change them.

    Raises:
        DataError: its reason is one of canonical_row's or as_openai's, or unknown_schema or too_deep; the line is named
            at the end.
    """
    with naming_the_line(number, source):
        if adapter == "when2call" or (adapter == "auto" and when2call.is_record(record)):
            written = as_openai(when2call.reshape(record, kind), kind, unused)
        elif adapter == "bfcl" or ("function" in record and "question" in record):
            raise DataError(
                "a BFCL record is half a row; name the folder with adapter bfcl, not its files", reason="unknown_schema"
            )
        else:
            written = as_openai(record, kind, unused)
        row = canonical_row(written, kind)
    given = written.get("id")
    raw = when2call.raw_tools(record, row["tools"]) if kind == "choice" else None
    text = {RAW_TOOLS: raw} if raw is not None else {}
    return {"id": str(given) if given not in (None, "") else content_digest(row), "source": source, **row, **text}


def to_request(chat: Row) -> Row:
    """Messages and tools of what a served model is asked, read as those of the rows that it was trained on.

    Where a call in a text cannot be read the texts stay: the model's own answer may be such, and is sent back.

    Raises:
        DataError: its reason is one of as_openai's.
    """
    asked = {name: chat[name] for name in ("messages", "tools", "functions", "system") if chat.get(name) is not None}
    try:
        return as_openai(asked, "conversation")
    except DataError as err:
        if err.reason != "bad_toolcall":
            raise
        return turns.openai(asked)
