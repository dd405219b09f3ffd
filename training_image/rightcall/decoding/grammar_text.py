"""What free text may not hold, as regular expressions of the engine: what the verifier would read as a call.

The verifier reads six ways of writing calls (toolcalls/syntax.py), the model's template writes one. A call in another
way would be a call outside of the grammar. The expressions forbid a little more than the verifier reads, where that is
simpler: no text of an assistant begins with `{"name":` or `lookup(id=`.

They cannot look ahead, and non-ASCII characters count as white space and as letters.
"""

from __future__ import annotations

from rightcall.decoding.grammar_dialect import TAGS, Dialect

_ANY = r"(?s:.*)"
_SPACE = r"[\t-\r\x1c- \u{80}-\u{10ffff}]*"
_NAME = r"[A-Za-z_][\x2d-\x2fA-Z_a-z0-9\u{80}-\u{10ffff}]*\("
_TAG = "(" + "|".join(tag.replace("|", r"\|") for tag in TAGS) + ")"
_JSON_CALL = rf'\{{({_SPACE}"(id|name|function|type)"{_SPACE}:|{_ANY}(arguments|parameters)["\x27]?{_SPACE}:)'
_PYTHON_CALL = rf"\[{_SPACE}{_NAME}|{_NAME}{_SPACE}(\)|[A-Za-z_][A-Z_a-z0-9\u{{80}}-\u{{10ffff}}]*{_SPACE}=)"
# an answer begins at its first character, in a fence, and behind thoughts
_BEGINNING = rf"({_ANY}(```[a-z_]*[ \t]*\n|<\x2fthink>))?{_SPACE}"
_LINE = rf"({_ANY}\n)?{_SPACE}(([-*>]|[0-9]{{1,3}}[.)])[ \t]+)?`*"


def text_terminal(dialect: Dialect) -> str:
    """A whole answer without a call."""
    forms = [f"{_ANY}{_TAG}", rf"{_BEGINNING}((\[{_SPACE})?{_JSON_CALL}|{_PYTHON_CALL})"]
    if dialect.marker is None:
        forms.append(rf"{_SPACE}(\[{_SPACE})?\{{")
    return f"/{_ANY}/ & ~/({'|'.join(forms)}){_ANY}/"


def before_terminal() -> str:
    """Text in front of a marked call: in a text that calls, the verifier reads every call.

    A quotation mark behind a brace may open a string that goes on in the call: then all of it is one object.
    """
    json = rf'\{{({_ANY}"|{_ANY}(arguments|parameters)\x27?{_SPACE}:)'
    return rf"/{_ANY}/ & ~/({_ANY}({_TAG}|{json})|{_LINE}({_PYTHON_CALL})){_ANY}/"
