"""Multiple-choice rows as token ids: one prompt and its four answers, under the recipe's prompt style."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, ScoringError
from rightcall.evaluation.when2call_prompts import prompt_and_answers
from rightcall.rows.vocabulary import BEHAVIOURS


@dataclass(frozen=True)
class Question:
    id: str
    gold: str
    has_tools: bool
    prompt: list[int]
    answers: list[list[int]]  # in the order of vocabulary.BEHAVIOURS
    characters: list[int]  # of each answer's text: the denominators of acc_norm

    @property
    def sequences(self) -> list[list[int]]:
        return [self.prompt + answer for answer in self.answers]


def read_questions(template: ChatTemplate, rows: Sequence[Mapping[str, Any]], style: str) -> list[Question]:
    """The rows as prompts and answers in tokens, in their order.

    Raises:
        ScoringError: an id twice, an item that the template cannot write or the window cannot hold.
    """
    repeated = [name for name, n in Counter(row["id"] for row in rows).items() if n > 1]
    if repeated:
        raise ScoringError(
            f"{len(repeated)} ids occur more than once, e.g. {repeated[:3]!r}; give every item its own id"
        )
    questions = []
    for row in rows:
        try:
            question = _chat(template, row) if style == "chat" else _task(template.tokenizer, row, style)
        except DataError as err:
            raise ScoringError(f"item {row['id']!r} cannot be scored with prompt {style!r}: {err}") from err
        longest = max(map(len, question.sequences))
        if longest > template.max_length:
            raise ScoringError(
                f"item {row['id']!r} needs {longest} tokens, the model's window has {template.max_length}; "
                "remove the item or set data.max_prompt_tokens"
            )
        questions.append(question)
    return questions


def answer_message(row: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The assistant message of one answer; tool_call's text is JSON, which the template writes in its own syntax."""
    text = row["answers"][name]
    if name != "tool_call":
        return {"role": "assistant", "content": text}
    try:
        call = json.loads(text)
        function = {"name": call["name"], "arguments": call["arguments"]}
    except (ValueError, KeyError, TypeError) as err:
        raise DataError(
            f"its tool_call answer is {text[:120]!r}, not a JSON object with name and arguments; correct it"
        ) from err
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
    }


def _chat(template: ChatTemplate, row: Mapping[str, Any]) -> Question:
    """As the model would write it, without the end-of-turn token (acc_norm's characters do not count it either)."""
    messages = [{"role": "user", "content": row["question"]}]
    text = template.prompt_text(messages, row["tools"])
    prompt = template.tokenize(text)
    answers, characters = [], []
    for name in BEHAVIOURS:
        answer = template.answer_text(answer_message(row, name))
        whole = template.tokenize(text + answer + template.end_of_turn)[:-1]
        if whole[: len(prompt)] != prompt or len(whole) == len(prompt):
            raise DataError(
                f"its {name} answer {answer[:60]!r} shares a token with the prompt; strip the white space around it"
            )
        answers.append(whole[len(prompt) :])
        characters.append(len(answer))
    return Question(row["id"], row["correct_answer"], bool(row["tools"]), prompt, answers, characters)


def _task(tokenizer: Tokenizer, row: Mapping[str, Any], style: str) -> Question:
    """As lm-eval 0.4.13 encodes a task's choices: characters do not count the white space moved into a choice."""
    context, choices = prompt_and_answers(row, style)
    encoded = dict(zip(row["answers"], (encode_pair(tokenizer, context, choice) for choice in choices), strict=True))
    lengths = dict(zip(row["answers"], map(len, choices), strict=True))
    prompt = encoded[BEHAVIOURS[0]][0]
    answers, characters = [encoded[name][1] for name in BEHAVIOURS], [lengths[name] for name in BEHAVIOURS]
    if not all(answers):
        raise DataError(f"an answer adds no token to the prompt {context[-60:]!r}; remove the item")
    return Question(row["id"], row["correct_answer"], bool(row["tools"]), prompt, answers, characters)


def encode_pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """lm-eval's `_encode_pair` for causal models: trailing white space moves into the continuation.

    The continuation is what the whole text has beyond as many tokens as the context alone has (lm-eval does not check
    that those are the same tokens).
    """
    kept = context.rstrip()
    whole, prompt = _encode(tokenizer, context + continuation), _encode(tokenizer, kept)
    return prompt, whole[len(prompt) :]


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    """With what the tokenizer adds by itself (Llama's beginning of text), unless the text starts with it."""
    plain: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    added: list[int] = tokenizer.encode(text, add_special_tokens=True).ids
    prefix = added[: len(added) - len(plain)]
    return plain if prefix and plain[: len(prefix)] == prefix else added
