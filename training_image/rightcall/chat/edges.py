"""Where an answer begins and ends, found out by letting a template write one text and one call.

    Qwen3-Thinking   …assistant\\n<think>\\n | \\n</think>\\n\\n | answer <|im_end|>    the prompt opens a thought, the answer closes it
    Gemma 4          …model\\n<|channel>thought\\n<channel|> | answer <turn|>       the prompt holds a thought that is not written again
    GLM-4            …<|assistant|>\\n<think></think> | answer                     nothing ends it but the next role's token

A row without thoughts is trained, and a prompt without thoughts is answered, as the template writes an answer without.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import takewhile
from typing import Any, NamedTuple, Protocol

_USER, _TEXT = {"role": "user", "content": "?"}, "probe_answer"
_ANSWER = {"role": "assistant", "content": _TEXT}
_RESULT = {"role": "tool", "tool_call_id": "call00000", "name": "probe_called_tool", "content": "probe_result"}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "probe_called_tool", "arguments": {}}}],
}
_MARK = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
_WHOLE_MARKS = re.compile(r".*[\n>\]]", re.DOTALL)


class Render(Protocol):
    def __call__(self, messages: Sequence[dict[str, Any]], *, generate: bool = False) -> str: ...


class End(NamedTuple):
    token: str  # at which the model stops
    written: bool  # False = it belongs to the next role, and the last answer of a conversation has none


class Edges(NamedTuple):
    opening: str  # stands between the generation prompt and every answer
    unanswered: str  # stands at the end of the generation prompt, but not before an answer
    text_end: End
    call_end: End


UNKNOWN = Edges("", "", End("", written=True), End("", written=True))


class EdgeError(Exception):
    """No model can learn where this template's answers begin or end."""


def find_edges(render: Render, tokens: Collection[str], stops: Collection[str]) -> Edges:
    """``tokens``: the special tokens of the tokenizer; ``stops``: those at which the model's own files say that it stops.

    Raises:
        EdgeError: an answer ends with no special token, or its prompt opens a thought that it does not close.
    """
    text, call = render([_USER, _ANSWER]), render([_USER, _CALL])
    opening, unanswered = _openings(render([_USER], generate=True), text, call)
    text_end = _text_end(render, text, tokens, stops)
    return Edges(opening, unanswered, text_end, _call_end(render, call, text_end, stops))


def _openings(prompt: str, text: str, call: str) -> tuple[str, str]:
    if text.startswith(prompt) and call.startswith(prompt):
        return _whole_marks(_common(text[len(prompt) :], call[len(prompt) :])), ""
    unanswered = prompt[len(_whole_marks(_common(prompt, text, call))) :]
    marks = _MARK.findall(unanswered)
    if len(marks) == 1 and "/" not in marks[0]:
        raise EdgeError(
            f"opens a thought with {unanswered!r} in its prompt that no answer closes: a model would think without an end"
        )
    return "", unanswered if marks else ""


def _common(*texts: str) -> str:
    """What all begin with."""
    return "".join(each[0] for each in takewhile(lambda each: len(set(each)) == 1, zip(*texts, strict=False)))


def _whole_marks(text: str) -> str:
    found = _WHOLE_MARKS.match(text)
    return found.group() if found else ""


def _text_end(render: Render, text: str, tokens: Collection[str], stops: Collection[str]) -> End:
    tail = text[text.rfind(_TEXT) + len(_TEXT) :] if _TEXT in text else ""
    if token := _first(tail, tokens):
        # Command A closes an answer first, and its turn then
        rest = tail.lstrip().removeprefix(token)
        behind = None if token in stops or rest[:1].isspace() else _first(rest, stops)
        return End(behind or token, written=True)
    longer = render([_USER, _ANSWER, _USER])
    if token := _first(longer[longer.rfind(_TEXT) + len(_TEXT) :], stops):
        return End(token, written=False)
    raise EdgeError(
        f"does not end an assistant turn with a special token of the tokenizer, but with {tail!r}: "
        "the model could never stop"
    )


def _call_end(render: Render, call: str, text_end: End, stops: Collection[str]) -> End:
    if text_end.written and call.rstrip().endswith(text_end.token):
        return text_end
    if token := max((stop for stop in stops if call.rstrip().endswith(stop)), key=len, default=None):
        return End(token, written=True)
    answered = render([_USER, _CALL, _RESULT])
    if answered.startswith(call) and (token := _first(answered[len(call) :], stops)):
        return End(token, written=False)
    if text_end.written and text_end.token in call[call.rfind("probe_called_tool") :]:
        return text_end
    raise EdgeError(
        f"does not end a call with a token at which the model stops ({sorted(stops)!r}), but with {call[-40:]!r}: "
        "the model could never stop"
    )


def _first(text: str, tokens: Collection[str]) -> str | None:
    text = text.lstrip()
    return max((token for token in tokens if text.startswith(token)), key=len, default=None)
