"""Flags of canonical rows: rows in, a frame with a boolean column per rule (and token counts) out.

    {"messages": [{"role": "user", …}], "tools": […], …}  →  {"roles_alternate": True, …, "n_tokens": 412}

True = the rule holds; the rules are in ``rules.py``. Every different tool's schema is compiled once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import polars as pl

from rightcall.chat.template import ChatTemplate, Encoded
from rightcall.errors import DataError
from rightcall.rows.conversations import trained_turns
from rightcall.rows.vocabulary import BEHAVIOURS, Row, RowKind
from rightcall.toolcalls.schema import validate_call
from rightcall.toolcalls.template_check import reads_back

Json = dict[str, Any]
Messages = list[Json]

ENCODED_AT_ONCE = 256
_LIVE = re.compile(r"\blive (simple|multiple|parallel|irrelevance|relevance)\b")
_FEW_WORDS = 4  # a shorter turn ("yes please") is an answer within the conversation, not a question


def flag_rows(rows: Sequence[Row], kind: RowKind, template: ChatTemplate, max_length: int) -> pl.DataFrame:
    """All flags that one row answers alone, ``n_tokens`` and ``n_prompt_tokens`` (0 where the template refuses)."""
    return {"sft": sft_flags, "preference": preference_flags, "choice": choice_flags, "step": step_flags}[kind](
        rows, template, max_length
    )


def conversation_flags(rows: Sequence[Row], template: ChatTemplate, limits: dict[str, int | None]) -> pl.DataFrame:
    """Of conversations as they were logged; ``limits``: side → tokens, None = its rows are measured one by one.

    On the training side the whole conversation counts, on the evaluation side what stands before its last turn.
    """
    messages, tools = _column(rows, "messages"), _column(rows, "tools")
    sides = _column(rows, "side")
    tokens = [
        _tokens(template, said if side == "train" else said[:-1], offered, generate=side != "train")
        for said, offered, side in zip(messages, tools, sides, strict=True)
    ]
    return _frame(
        **_call_flags(messages, tools),
        renders=(count > 0 for count in tokens),
        within_length=(
            (limit := limits[side]) is None or count <= limit for count, side in zip(tokens, sides, strict=True)
        ),
        n_tokens=tokens,
        n_prompt_tokens=tokens,
    )


def step_flags(rows: Sequence[Row], template: ChatTemplate, max_length: int) -> pl.DataFrame:
    """max_length: tokens that a prompt may have."""
    lengths = [_turn_length(template, row) for row in rows]
    tokens = [each.n_prompt_tokens if each else 0 for each in lengths]
    return _frame(
        behaviour_true=map(behaviour_is_true, _column(rows, "behaviour"), (row["messages"][-1] for row in rows)),
        reads_back=(_read_back(template, row["messages"][-1:], row["tools"]) for row in rows),
        renders=(each is not None for each in lengths),
        within_length=(count <= max_length for count in tokens),
        n_tokens=tokens,
        n_prompt_tokens=tokens,
    )


def sft_flags(rows: Sequence[Row], template: ChatTemplate, max_length: int) -> pl.DataFrame:
    messages, tools = _column(rows, "messages"), _column(rows, "tools")
    lengths = _lengths(rows, template)
    return _frame(
        not_live=_not_live(rows),
        roles_alternate=(
            roles_alternate(without_greeting(row) if row.get("trained") else row["messages"]) for row in rows
        ),
        behaviour_true=map(behaviour_is_true, _column(rows, "behaviour"), (each[-1] for each in messages)),
        reads_back=(
            _read_back(template, (row["messages"][index] for index, _ in trained_turns(row)), row["tools"])
            for row in rows
        ),
        **_call_flags(messages, tools),
        **_length_flags(lengths, min(max_length, template.max_length)),
    )


def preference_flags(rows: Sequence[Row], template: ChatTemplate, max_length: int) -> pl.DataFrame:
    prompts, tools = _column(rows, "prompt"), _column(rows, "tools")
    chosen, rejected = _column(rows, "chosen"), _column(rows, "rejected")
    whole = [[*prompt, answer] for prompt, answer in zip(prompts, chosen, strict=True)]
    other = [[*prompt, answer] for prompt, answer in zip(prompts, rejected, strict=True)]
    sides = [
        [_length(encoded, template) for encoded in _encode_all(template, list(zip(side, tools, strict=True)))]
        for side in (whole, other)
    ]
    lengths = [_longer(*pair) for pair in zip(*sides, strict=True)]
    return _frame(
        not_live=_not_live(rows),
        roles_alternate=map(roles_alternate, whole),
        behaviour_true=map(behaviour_is_true, _column(rows, "behaviour"), chosen),
        reads_back=(_read_back(template, [answer], offered) for answer, offered in zip(chosen, tools, strict=True)),
        sides_differ=map(sides_differ, chosen, rejected),
        same_prompt=map(_answers_one_prompt, prompts, chosen, rejected),
        **_call_flags(whole, tools),
        **_length_flags(lengths, min(max_length, template.max_length)),
    )


def choice_flags(rows: Sequence[Row], template: ChatTemplate, max_length: int) -> pl.DataFrame:
    answers, tools = _column(rows, "answers"), _column(rows, "tools")
    tokens = [_prompt_tokens(template, row["question"], row["tools"]) for row in rows]
    return _frame(
        four_answers=map(four_different_answers, answers),
        gold_call_offered=map(gold_call_is_offered, _column(rows, "correct_answer"), answers, tools),
        renders=(count > 0 for count in tokens),
        within_length=(count <= min(max_length, template.max_length) for count in tokens),
        n_tokens=tokens,
        n_prompt_tokens=tokens,
    )


def roles_alternate(messages: Messages) -> bool:
    """An optional system message, then user and assistant in turns; tool results follow the assistant who called."""
    previous = "start"
    allowed = {"start": {"system", "user"}, "system": {"user"}, "user": {"assistant"}, "tool": {"tool", "assistant"}}
    for message in messages:
        role = message["role"]
        after_call = previous == "assistant:call"
        if role not in ({"tool"} if after_call else {"user"} if previous == "assistant" else allowed[previous]):
            return False
        previous = "assistant:call" if role == "assistant" and message.get("tool_calls") else role
    return previous.startswith("assistant")


def without_greeting(row: Row) -> Messages:
    """A logged conversation may begin with the assistant's greeting; nobody has asked anything yet."""
    asked = next((index for index, message in enumerate(row["messages"]) if message["role"] == "user"), 0)
    return list(row["messages"][asked:])


def behaviour_is_true(behaviour: str, answer: Json) -> bool:
    return behaviour in BEHAVIOURS and (behaviour == "tool_call") == bool(answer.get("tool_calls"))


def sides_differ(chosen: Json, rejected: Json) -> bool:
    """In text or calls; the ids of calls do not count."""
    return _said(chosen) != _said(rejected)


def four_different_answers(answers: dict[str, str]) -> bool:
    texts = {" ".join(str(answers.get(name, "")).split()) for name in BEHAVIOURS}
    return len(texts) == len(BEHAVIOURS) and "" not in texts


def gold_call_is_offered(correct_answer: str, answers: dict[str, str], tools: list[Json]) -> bool:
    if correct_answer != "tool_call":
        return True
    try:
        call = json.loads(answers["tool_call"])
    except ValueError:
        return False
    return isinstance(call, dict) and call.get("name") in {tool["function"]["name"] for tool in tools}


def questions(messages: Messages, normalise: Callable[[str], str]) -> list[str]:
    """What the user asks, normalised: every turn of four words or more, and all of them together."""
    turns = [normalise(message["content"]) for message in messages if message["role"] == "user"]
    together = [" ".join(turns)] if turns else []
    return list(dict.fromkeys([*(turn for turn in turns if len(turn.split()) >= _FEW_WORDS), *together]))


def is_live(source: str, name: str) -> bool:
    """BFCL's live_* in any spelling: "BFCL v2 Live Multiple", "bfcl:live_simple", "live_multiple_821-177-4"."""
    words = re.sub(r"[_\W]+", " ", f"{source} {name}".lower()).replace("non live", "nonlive")
    return _LIVE.search(words) is not None


def _said(message: Json) -> tuple[str, str]:
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    return str(message.get("content") or "").strip(), json.dumps(calls, sort_keys=True)


def _answers_one_prompt(prompt: Messages, chosen: Json, rejected: Json) -> bool:
    return prompt[-1]["role"] in ("user", "tool") and chosen["role"] == rejected["role"] == "assistant"


def _not_live(rows: Sequence[Row]) -> Iterable[bool]:
    return (not is_live(row["source"], row["id"]) for row in rows)


def _call_flags(conversations: Sequence[Messages], tools: Sequence[list[Json]]) -> dict[str, list[bool]]:
    """A call of an unknown tool fails ``call_offered`` alone: its arguments cannot be judged."""
    flags: dict[str, list[bool]] = {"call_offered": [], "required_present": [], "arguments_valid": []}
    for messages, offered in zip(conversations, tools, strict=True):
        calls = [call["function"] for message in messages for call in message.get("tool_calls") or ()]
        codes = {code for call in calls for code in _problems(call, offered)}
        flags["call_offered"].append("hallucinated_tool" not in codes)
        flags["required_present"].append("missing_argument" not in codes)
        flags["arguments_valid"].append(not codes - {"hallucinated_tool", "missing_argument"})
    return flags


def _read_back(template: ChatTemplate, answers: Iterable[Json], tools: list[Json]) -> bool:
    """Of what the template refuses, ``renders`` tells."""
    try:
        return all(reads_back(template, answer, tools) for answer in answers)
    except DataError:
        return True


def _problems(call: Json, offered: list[Json]) -> list[str]:
    try:
        return [problem.code for problem in validate_call(call, offered)]
    except DataError:
        return ["bad_tool"]


class _Length(NamedTuple):
    """Of one conversation; None = the template refuses it."""

    n_tokens: int
    n_prompt_tokens: int
    learns: bool


def _lengths(rows: Sequence[Row], template: ChatTemplate) -> list[_Length | None]:
    """Of SFT rows; where only the last turn is trained, only that one is looked for in the rendered text."""
    several = [row for row in rows if len(row.get("trained") or ()) != 1]
    pairs = [(row["messages"], row["tools"]) for row in several]
    encoded = iter([_length(each, template) for each in _encode_all(template, pairs)])
    return [_turn_length(template, row) if len(row.get("trained") or ()) == 1 else next(encoded) for row in rows]


def _turn_length(template: ChatTemplate, row: Row) -> _Length | None:
    """Of a row whose last message alone is looked at."""
    messages, tools = row["messages"], row["tools"]
    try:
        prompt, answer = template.encode_pair(messages[:-1], tools, messages[-1])
        return _Length(template.count_tokens([(messages, tools)])[0], len(prompt), answer[-1] in template.eos_ids)
    except DataError:
        return None


def _length(encoded: Encoded | None, template: ChatTemplate) -> _Length | None:
    if encoded is None:
        return None
    mask = bytes(encoded.loss_mask)
    last = mask.rfind(1)
    prompt = mask.rfind(0, 0, max(last, 0)) + 1
    return _Length(len(mask), prompt, last >= 0 and encoded.input_ids[last] in template.eos_ids)


def _longer(left: _Length | None, right: _Length | None) -> _Length | None:
    if left is None or right is None:
        return None
    return _Length(max(left.n_tokens, right.n_tokens), left.n_prompt_tokens, left.learns and right.learns)


def _length_flags(lengths: Sequence[_Length | None], max_length: int) -> dict[str, list[Any]]:
    return {
        "renders": [each is not None for each in lengths],
        "loss_mask": [each is None or each.learns for each in lengths],
        "within_length": [each is None or each.n_tokens <= max_length for each in lengths],
        "n_tokens": [each.n_tokens if each else 0 for each in lengths],
        "n_prompt_tokens": [each.n_prompt_tokens if each else 0 for each in lengths],
    }


def _encode_all(template: ChatTemplate, rows: list[tuple[Messages, list[Json]]]) -> Iterable[Encoded | None]:
    """Batches share the tokenisation of equal pieces; a row that the template refuses fails alone."""
    for start in range(0, len(rows), ENCODED_AT_ONCE):
        batch = rows[start : start + ENCODED_AT_ONCE]
        try:
            yield from template.encode_batch(batch)
        except DataError:
            yield from (_encode_one(template, *row) for row in batch)


def _encode_one(template: ChatTemplate, messages: Messages, tools: list[Json]) -> Encoded | None:
    try:
        return template.encode(messages, tools)
    except DataError:
        return None


def _prompt_tokens(template: ChatTemplate, question: str, tools: list[Json]) -> int:
    return _tokens(template, [{"role": "user", "content": question}], tools, generate=True)


def _tokens(template: ChatTemplate, messages: Messages, tools: list[Json], *, generate: bool) -> int:
    """0 = the template refuses them."""
    try:
        return len(template.tokenize(template.render(messages, tools, add_generation_prompt=generate)))
    except DataError:
        return 0


def _column(rows: Sequence[Row], name: str) -> list[Any]:
    return [row[name] for row in rows]


def _frame(**columns: Iterable[Any]) -> pl.DataFrame:
    counts = ("n_tokens", "n_prompt_tokens")
    return pl.DataFrame(
        {
            name: pl.Series(name, list(values), dtype=pl.Int32 if name in counts else pl.Boolean)
            for name, values in columns.items()
        }
    )
