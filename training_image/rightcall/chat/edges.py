"""Where an answer begins and ends, found out by letting a template write one text and one call.

    Qwen3-Thinking   …assistant\\n<think>\\n | \\n</think>\\n\\n | answer <|im_end|>    the prompt opens a thought, the answer closes it
    MiniMax M2       …ai\\n<think>\\n | \\n</think>\\n\\n | answer [e~[             only an answer that thinks closes it
    Gemma 4          …model\\n<|channel>thought\\n<channel|> | answer <turn|>       the prompt holds a thought that is not written again
    GLM-4            …<|assistant|>\\n<think></think> | answer                     nothing ends it but the next role's token

A row without thoughts is trained, and a prompt without thoughts is answered, as the template writes an answer without.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

_USER, _TEXT = {"role": "user", "content": "?"}, "probe_answer"
_ANSWER = {"role": "assistant", "content": _TEXT}
_RESULT = {"role": "tool", "tool_call_id": "call00000", "name": "probe_called_tool", "content": "probe_result"}
_CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"id": "call00000", "type": "function", "function": {"name": "probe_called_tool", "arguments": {}}}],
}
_THOUGHT = "probe_thought"
_THINKING = {**_ANSWER, "reasoning_content": _THOUGHT, "thinking": _THOUGHT}
_MARK = re.compile(r"<[^<>\s]+>|\[[A-Z_/]+\]")
_OTHER_WORDS = "§"
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
    turn: str = ""  # with which a prompt opens the turn of an answer


UNKNOWN = Edges("", "", End("", written=True), End("", written=True))


class EdgeError(Exception):
    """No model can learn where this template's answers begin or end."""


def find_edges(render: Render, tokens: Collection[str], stops: Collection[str]) -> Edges:
    """``tokens``: the special tokens of the tokenizer; ``stops``: those at which the model's own files say that it stops.

    Raises:
        EdgeError: an answer ends with no special token, or its prompt opens a thought that it does not close.
    """
    text, call = render([_USER, _ANSWER]), render([_USER, _CALL])
    opening, unanswered = _openings(render, text, call)
    text_end = _text_end(render, text, tokens, stops)
    asked, prompt = render([_USER]), render([_USER], generate=True)
    turn = prompt.removesuffix(unanswered.removesuffix(opening))[_in_common(asked, prompt) :]
    return Edges(opening, unanswered, text_end, _call_end(render, call, text_end, stops), turn if turn.strip() else "")


def find_answer(
    render: Render, text: str, messages: Sequence[Mapping[str, Any]], asked: str | None = None
) -> tuple[str, str, str] | None:
    """(prompt that `text` repeats, the rest of that prompt, the last answer as `text` has it); None = not to be found.

    A template may write what stands before an answer otherwise once the answer follows: a system message only in front of
    the last question (Mistral), a result with another white space behind it (Hermes), no empty thought (Gemma 4). Both
    have the last marks of the prompt then, behind the question and before the answer.
    """
    *head, last = map(dict, messages)
    prompt = render(head, generate=True) if asked is None else asked
    if text.startswith(prompt):
        return prompt, "", text[len(prompt) :]
    another = [*head[:-1], {**head[-1], "content": _OTHER_WORDS}]
    question = _in_common(prompt, render(another, generate=True))
    first = _in_common(text, render([*another, last]))
    latest = _in_common(text, render([*head, _another_answer(last)]))
    marks = [mark.start() for mark in _MARK.finditer(prompt, question)]
    for start, stop in reversed(list(pairwise([question, *marks, len(prompt)]))):
        pieces = re.split(r"\s+", prompt[start:stop])
        found = re.compile(r"\s*".join(map(re.escape, pieces))).search(text, first)
        if found and found.start() < latest and not _goes_on(prompt[stop:], text[found.end() :]):
            return prompt[:stop], prompt[stop:], text[found.end() :]
    return None


def _goes_on(missing: str, answer: str) -> bool:
    """Whether it has what is missing of the prompt after all, in other words, and is no answer yet."""
    mark = _MARK.match(answer.lstrip())
    return mark is not None and missing != "" and (mark[0][1] == "/" or missing.lstrip().startswith(mark[0]))


def _another_answer(answer: Mapping[str, Any]) -> dict[str, Any]:
    """Of the same kind: two kinds may be led to otherwise."""
    return (
        {**_CALL, "content": answer.get("content")} if answer.get("tool_calls") else {**answer, "content": _OTHER_WORDS}
    )


def _openings(render: Render, text: str, call: str) -> tuple[str, str]:
    prompt = render([_USER], generate=True)
    if text.startswith(prompt) and call.startswith(prompt):
        return _whole_marks(text[len(prompt) : _in_common(text, call)]), ""
    found = [find_answer(render, text, [_USER, _ANSWER]), find_answer(render, call, [_USER, _CALL])]
    unanswered = max((each[1] for each in found if each), key=len, default="")
    marks = _MARK.findall(unanswered)
    if len(marks) != 1 or "/" in marks[0]:
        return "", unanswered
    thinking = render([_USER, _THINKING])
    closing = thinking[thinking.find(_THOUGHT) + len(_THOUGHT) : thinking.rfind(_TEXT)]
    if _THOUGHT in thinking and _MARK.findall(closing):
        return closing, unanswered + closing
    raise EdgeError(
        f"opens a thought with {unanswered!r} in its prompt that no answer closes: a model would think without an end"
    )


def _in_common(left: str, right: str) -> int:
    """Characters that both begin with."""
    lengths = range(1, min(len(left), len(right)) + 1)
    return bisect_left(lengths, True, key=lambda length: left[:length] != right[:length])


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
