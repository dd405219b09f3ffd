"""Where in a text a call may begin: one pattern for each way of writing one, and what only mentions one."""

from __future__ import annotations

import re

from rightcall.dialects.elements import PREFIX
from rightcall.dialects.literals import NAME
from rightcall.dialects.marked import MARKS

_ELEMENT = r"(?i:tool_?calls?|function_?calls?|tool_code)"
TAG = (
    rf"(?:<{PREFIX}{_ELEMENT}>"
    r"|<\|python_start\|>(?:<\|python_end\|>)?|<\|(?:python_tag|tool_call|tool_call_start|START_ACTION|tools_prefix|action_start)\|>(?:<\|plugin\|>)?"
    r"|\[TOOL_CALLS\]|\bfunctools(?=\s*+\[)|^Action:\s*+```json)"
)
CLOSING = re.compile(
    rf"\s*+(?:</{PREFIX}{_ELEMENT}>|<\|(?:/tool_call|tool_call_end|END_ACTION|python_end|tools_suffix|action_end)\|>|```)"
)
NEXT_TAG = re.compile(rf"\s*+(?={TAG})", re.MULTILINE)
# "I wrapped it in <tool_call> tags.": what follows the tag is a word of a sentence, or ends a quotation
_MENTION = r"(?: +[A-Za-z]++(?=[\s,.:!?]|\Z)(?!\s*+(?:<arg_key|[{(]))|[\"'`”’](?=[\s,.:!?)]|\Z)|[,.:!?)](?!\w))"

_KEYWORD = r"[^\W\d][\w.-]*+\s*+=(?!=)"
_NAME = rf"(?<![\w./:-]){NAME}"
_MARKS = "|".join(f"(?P<{kind}>{mark.opening.pattern})" for kind, mark in MARKS.items())
_SIGNED = (
    rf"(?P<tag>{TAG}(?!{_MENTION}))|{_MARKS}|(?P<gemma><start_function_call>|<\|tool_call>)"
    rf"|(?P<function><function=[^\n<>=\"']+>(?!{_MENTION}))|(?P<invoke><{PREFIX}invoke name=\"[^\n<>\"]+\">)"
)
_JSON = r"(?P<json>(?:\[\s*+)?\{\s*+(?=[\"'A-Za-z_]))"
_LIST = rf"(?P<list>\[\s*+{NAME}\()"
_CALL = rf"(?P<call>(?:[^\W\d]\w*+[ \t]*+=[ \t]*+)?{NAME}\(\s*+(?:\)|{_KEYWORD}|(?<=print\(){NAME}\())"
HERE = re.compile(f"{_SIGNED}|{_JSON}|{_LIST}|{_CALL}", re.MULTILINE)
# in prose Python must begin a line, or an item of a list
LATER = re.compile(
    rf"{_SIGNED}|{_JSON}|^[ \t]*+(?:(?:[-*>]|\d{{1,3}}[.)])[ \t]++)?`*+(?:{_LIST}|{_CALL})"
    rf"|(?P<mention>{_NAME}\(\s*+(?:\)|{_KEYWORD}|\{{))",
    re.MULTILINE,
)
SIGNED = {"tag", "gemma", "function", "invoke", *MARKS}
WHOLE_LINE = re.compile(rf"[ \t]*+(?:[,;]?[ \t]*+(?:\Z|[\n`<{{\[])|[,;]\s*+{NAME}\()")

FENCE = re.compile(r"```([\w+-]*+)\s*+")
LANGUAGES = {"", "json", "python", "py", "tool_call", "tool_calls", "tool_code", "xml", "text"}
BETWEEN = re.compile(r"[\s,;]*+")
BEHIND = re.compile(r"[\s,;`]*+")

# a longer key is left to the decoder
KEY = re.compile(
    r"(?:\[\s*+)?\{\s*+(?:\"(?:\\.|[^\"\\]){0,200}+(?:\"\s*+:|[^\"\\])|'(?:\\.|[^'\\]){0,200}+(?:'\s*+:|[^'\\]))",
    re.DOTALL,
)
FIRST_KEY = re.compile(r"[\"']?(?:id|name|function|type|tool_name|tool_calls?|tool_call_id|arguments|parameters)\b")
# arguments before any inner object begins; braces in texts do not count
ARGUMENTS = re.compile(
    r"(?:\[\s*+)?\{(?:[^{}\"]|\"(?:\\.|[^\"\\]){0,400}+\")*?[\"']?\b(?:arguments|parameters)[\"']?\s*+:", re.DOTALL
)

_THOUGHTS = re.compile(
    r"\A\s*+(?:<(?P<tag>(?:seed:)?think)>.*?(?:</(?P=tag)>|\Z)|\[THINK\].*?(?:\[/THINK\]|\Z)"
    r"|<\|START_THINKING\|>.*?(?:<\|END_THINKING\|>|\Z)|<\|channel>thought\b.*?(?:<channel\|>|\Z)"
    r"|<\|channel\|>analysis<\|message\|>.*?(?:<\|end\|>|\Z))",
    re.DOTALL,
)
# the prompt may have opened the block already; in a call's argument a quotation mark follows
_END_OF_THOUGHTS = re.compile(r"(?:</(?:seed:)?think>|\[/THINK\]|<\|END_THINKING\|>)(?![\"'`\\])")
_FINAL = re.compile(r"\A\s*+(?:<\|start\|>assistant)?(?:<\|channel\|>final|\s*+to=user)<\|message\|>")
_RESPONSE = re.compile(r"\A\s*+<\|START_(RESPONSE|TEXT)\|>(.*?)(?:<\|END_\1\|>)?\s*+\Z", re.DOTALL)


def without_thoughts(text: str) -> str:
    """The text after a leading `<think>…</think>` block, or after `</think>` where the prompt opens the block.

    What says that an answer follows is taken off too: gpt-oss' and Muse's header, Cohere's marks around it.
    """
    rest, cut = _THOUGHTS.subn("", text, count=1)
    if not cut and (end := _END_OF_THOUGHTS.search(text)):
        rest = text[end.end() :]
    return _RESPONSE.sub(r"\2", _FINAL.sub("", rest)).strip()
