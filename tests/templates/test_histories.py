"""Under every template that loads: what is trained in a conversation is what its prompt leads to, and nothing else."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from template_corpus import OURS, TRL, corpus_tokenizer, folder_with
from tiny import TOOLS, call_message, text_message

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.rows.canonical import canonical_messages
from rightcall.toolcalls.template_check import load_template, reads_back
from rightcall.toolcalls.verifier import parse
from tasks.serving.served_model import history

Messages = list[dict[str, Any]]
ONE_CALL = re.compile("one call an answer|single tool-calls")


def said(role: str, words: str, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": words, **more}


FIRST, SECOND = call_message("get_weather", {"city": "Graz"}), call_message("book_table", {"city": "Linz", "people": 4})
BOTH = {**FIRST, "tool_calls": [FIRST["tool_calls"][0], {**SECOND["tool_calls"][0], "id": "call_1"}]}
RESULT, OTHER = (said("tool", f"words-of-result-{number}", tool_call_id=f"call_{number}") for number in (0, 1))
SYSTEM, ASKED, THEN = said("system", "words-of-system"), said("user", "words-of-first"), said("user", "words-of-second")
TOLD, TOLD_THEN = text_message("Words of the answer."), text_message("Words of the next.")
CONVERSATIONS: dict[str, Messages] = {
    "call": [ASKED, FIRST],
    "call behind a policy": [SYSTEM, ASKED, FIRST],
    "text behind a policy": [SYSTEM, ASKED, TOLD],
    "answer to a result": [ASKED, FIRST, RESULT, TOLD],
    "call after a result": [ASKED, FIRST, RESULT, SECOND],
    "answer to two results": [ASKED, BOTH, RESULT, OTHER, TOLD],
    "two questions": [SYSTEM, ASKED, FIRST, RESULT, TOLD, THEN, SECOND],
    "chat": [ASKED, TOLD, THEN, TOLD_THEN],
}


def loading() -> Iterator[str]:
    root = Path(__file__).parents[2] / "docs" / "templates.md"
    for line in root.read_text(encoding="utf-8").splitlines():
        if found := re.match(r"\| `(\w+)`.* \| yes \| ", line):
            yield found[1]


@pytest.fixture(scope="module", params=list(loading()))
def template(request: pytest.FixtureRequest, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> ChatTemplate:
    source = (TRL | OURS)[request.param].read_text(encoding="utf-8")
    return load_template(folder_with(corpus, tmp_path_factory.mktemp("model"), source))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def calls_of(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [call["function"] for call in message.get("tool_calls", ())]


def test_the_last_turn_is_trained_behind_the_prompt_that_is_generated_from(template: ChatTemplate) -> None:
    """From its first token to the one at which the model stops, and no word of anybody else."""
    for name, messages in CONVERSATIONS.items():
        *head, answer = messages
        try:
            prompt, ids = template.encode_pair(head, TOOLS, answer)
        except DataError as err:
            assert BOTH in messages, name
            assert ONE_CALL.search(str(err)), name  # noqa: PT017
            continue
        assert prompt == template.encode_prompt(head, TOOLS), name
        written, end = template.decode(ids), template.end_of(answer)
        assert written.endswith(end), name
        written = written.removesuffix(end)
        assert not re.search(f"words-of|{re.escape(end)}", written), name
        assert head[-1]["content"] in template.decode(prompt), name
        parsed = parse(written, template.dialect, TOOLS)
        assert (parsed.calls, parsed.strict) == (calls_of(answer), True), name
        assert calls_of(answer) or parsed.said == answer["content"], name


def test_every_trained_turn_is_the_one_its_own_prompt_leads_to(template: ChatTemplate) -> None:
    for name, messages in CONVERSATIONS.items():
        try:
            ((ids, turns),) = template.encode_turns([(messages, TOOLS)])
        except DataError:
            assert BOTH in messages, name
            continue
        assert len(messages) - 1 in turns, name
        for turn, (start, end) in turns.items():
            assert (ids[:start], ids[start:end]) == template.encode_pair(messages[:turn], TOOLS, messages[turn]), name
        mask = [any(start <= place < end for start, end in turns.values()) for place in range(len(ids))]
        assert template.encode(messages, TOOLS).loss_mask == list(map(int, mask)), name


def test_a_conversation_without_tools_is_taken(template: ChatTemplate) -> None:
    for tools in (None, []):
        prompt, ids = template.encode_pair([ASKED], tools, TOLD)
        assert prompt == template.encode_prompt([ASKED], tools)
        assert parse(template.decode(ids).removesuffix(template.end_of(TOLD))).said == TOLD["content"]


def test_a_served_answer_fed_back_is_what_a_row_with_it_would_be(template: ChatTemplate) -> None:
    """Serving makes a message of what was written, gives it away, and gets it back as the history of the next question."""
    for answer in (FIRST, BOTH, TOLD, {**FIRST, "content": "Let me look."}):
        try:
            _, ids = template.encode_pair([ASKED], TOOLS, answer)
        except DataError:
            assert answer is BOTH or template.form.content is None
            continue
        if not reads_back(template, answer, TOOLS):  # then no row has it
            assert answer["content"] == "Let me look."
            continue
        parsed = parse(template.decode(ids).removesuffix(template.end_of(answer)), template.dialect, TOOLS)
        numbered = [{"id": f"call_{i}", "type": "function", "function": call} for i, call in enumerate(parsed.calls)]
        served = {
            "role": "assistant",
            "content": "" if numbered else template.without_control_tokens(parsed.said),
            "tool_calls": numbered,
        }
        results = [RESULT, OTHER][: len(numbered)]
        chat = json.loads(json.dumps([ASKED, served, *results, THEN] if results else [ASKED, served, THEN]))
        row = canonical_messages([ASKED, {**answer, "content": served["content"]}, *results, THEN])
        assert template.encode_prompt(history(chat), TOOLS) == template.encode_prompt(row, TOOLS)


def test_an_answer_that_cannot_be_read_may_be_fed_back_too(template: ChatTemplate) -> None:
    """It is given away as text, in which a mark of calls would speak for another role."""
    _, ids = template.encode_pair([ASKED], TOOLS, FIRST)
    cut = template.decode(ids[: len(ids) // 2])
    served = text_message(template.without_control_tokens(parse(cut, template.dialect, TOOLS).said).strip())
    prompt = template.encode_prompt(history([ASKED, served, THEN]), TOOLS)
    assert THEN["content"] in template.decode(prompt)
