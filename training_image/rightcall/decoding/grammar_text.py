"""What free text may not hold, as regular expressions of the engine: what the verifier would read as a call.

The verifier reads some forty ways of writing calls (rightcall/dialects), the model's template writes one. A call in
another way would be a call outside of the grammar. The expressions forbid a little more than the verifier reads, where
that is simpler: no text of an assistant tells of `lookup(id=1)` or of `{"arguments":`.

They cannot look ahead, and non-ASCII characters count as white space and as letters.
"""

from __future__ import annotations

from collections.abc import Sequence

from rightcall.decoding.grammar_arguments import escaped
from rightcall.decoding.grammar_dialect import Dialect

_ANY = r"(?s:.*)"
_SPACE = r"[\t-\r\x1c- \u{80}-\u{10ffff}]*"
_LETTER = r"[-A-Z_a-z0-9.\x2f:\u{80}-\u{10ffff}]"
_WORD = f"{_LETTER}+"
_OPENS = rf"{_LETTER}\("  # a call of Python
# each of these begins a call wherever it stands: the openings of dialects/finding.py, shortened to what is theirs alone
_MARKS = (
    r"<([a-z]{1,20}:|｜DSML｜)?((?i:tool_?calls?>|function_?calls?>|tool_code>)|invoke name=)",
    r"<\|(python_tag|python_start|tool_call|tool_call_start|tool_call_begin|START_ACTION|tools_prefix|action_start)\|?>",
    r"\[TOOL_CALLS\]|<start_function_call>|<function=|<｜tool▁call▁begin｜>|functools[ \n]*\[",
    r"<\|message\|>|Action:",
)
_MARK = "(" + "|".join(_MARKS) + ")"
_QUOTE = r'["\x27]?'
# keys that no data has beside a brace; a key may be escaped
_JSON_CALL = (
    rf"\{{{_ANY}((arguments|parameters){_QUOTE}{_SPACE}:|(args|input|kwargs){_QUOTE}{_SPACE}:{_SPACE}\{{|\\u"
    rf"|(tool_calls|function_call){_QUOTE}{_SPACE}:{_SPACE}[\[{{]|type{_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}function)"
)
_PYTHON_CALL = rf"\[{_SPACE}{_WORD}\(|{_OPENS}{_SPACE}(\)|\{{|{_WORD}({_SPACE}=|\())"


# behind a tool's name they stand beside an argument (dialects/prose.py)
_VALUE = r'(["\x27\x5c\[\{\x2d0-9]|(?i:true|false|null|none))'
_ARGUMENT = (
    rf"(={_SPACE}|[\x27\x22]{_SPACE}:{_SPACE}){_VALUE}|<\x2f?(arg_|([a-z]{{1,20}}:|｜DSML｜)?parameter)"
    r'|<\|tool_call_argument_begin|<｜tool▁sep|\[ARGS\]|<escape>|<\|"\|>'
)


def text_terminal(dialect: Dialect, names: Sequence[str]) -> str:
    """A whole answer without a call of the tools with these names."""
    forms = [_MARK, _JSON_CALL, _PYTHON_CALL]
    if names:
        forms.append(rf"(name|function){_QUOTE}{_SPACE}:{_SPACE}{_QUOTE}({_one_of(names)}){_QUOTE}")
    begins = "" if dialect.marker else rf"|{_SPACE}(\[{_SPACE})?\{{"
    return f"/{_ANY}/ & ~/({_ANY}({'|'.join(forms)}){begins}){_ANY}/"


def before_terminal(names: Sequence[str]) -> str:
    """Text in front of a marked call: in a text that calls, the verifier reads every call, and what tells of one.

    A quotation mark behind a brace may open a string that goes on in the call: then all of it is one object.
    """
    json = rf'\{{({_ANY}"|{_SPACE}([\x27\\\}}]|{_WORD}{_SPACE}:)|{_ANY}(arguments|parameters)\x27?{_SPACE}:)'
    told = rf'{_PYTHON_CALL}|{_OPENS}{_SPACE}(["\x27]|[0-9]|{_WORD}{_SPACE}:)| \({_SPACE}{_WORD}{_SPACE}[=:]'
    element = rf"(<|<name>|name={_QUOTE})({_one_of(names)})"
    return rf"/{_ANY}/ & ~/({_ANY}({_MARK}|{json}|{told}|{element}|{_ARGUMENT})){_ANY}/"


def _one_of(names: Sequence[str]) -> str:
    return "|".join(map(escaped, names))
