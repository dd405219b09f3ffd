"""What the grammar lets a model write is what the verifier accepts, and what a template writes is what the grammar lets."""

from __future__ import annotations

import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from grammar_examples import (
    CALLS,
    LISTED,
    ONE_CALL_ONLY,
    TAGS_AS,
    TEMPLATES,
    TEXTS,
    TOOLS,
    call,
    folder_of,
    message,
    tool,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, normalizers
from tokenizers.models import BPE, WordLevel
from written_calls import EVERY_WAY, HIDDEN

from rightcall.chat.template import ChatTemplate
from rightcall.decoding.grammar import Grammar
from rightcall.decoding.grammar_dialect import TAGS
from rightcall.decoding.grammar_tokens import token_bytes
from rightcall.dialects.finding import TAG
from rightcall.errors import DataError, RecipeError, ScoringError
from rightcall.evaluation.score import known_grammar
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.verifier import parse, validate_call


@pytest.fixture(
    scope="module", params=[(name, "pieces") for name in TEMPLATES] + [("qwen3", way) for way in TAGS_AS[1:]]
)
def written_by(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, ChatTemplate, Grammar]:
    name, tags = request.param
    folder = folder_of(tmp_path_factory.mktemp("grammar") / "model", name, tags)
    template = load_template(folder, name if name == "chatml-tools" else None)
    return name, template, Grammar(template)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatTemplate, Grammar]:
    template = load_template(folder_of(tmp_path_factory.mktemp("ours") / "model", "chatml-tools"), "chatml-tools")
    return template, Grammar(template)


def test_what_a_template_writes_is_what_the_grammar_lets(written_by: tuple[str, ChatTemplate, Grammar]) -> None:
    name, template, grammar = written_by
    for case, calls in CALLS.items():
        control = "</tool_call>" in template.tokenizer.get_vocab() and case == "a tag inside"
        if control or (case == "parallel" and name in ONE_CALL_ONLY):
            continue
        assert [problem for each in calls for problem in validate_call(each, TOOLS)] == []
        text = template.answer_text(message(calls))
        assert grammar.first_violation(template.tokenize(text), TOOLS) is None, (case, text)
        assert grammar.first_violation([*template.tokenize(text), template.eos_ids[0]], TOOLS, "required") is None
    for text in TEXTS:
        assert grammar.first_violation(template.tokenize(text), TOOLS) is None, text
    if name not in ONE_CALL_ONLY:
        text = template.answer_text(message(CALLS["unicode"], "Let me <b>{look}</b>: one (1) moment."))
        assert text.startswith("Let me")
        assert grammar.first_violation(template.tokenize(text), TOOLS) is None, text


def walk(template: ChatTemplate, grammar: Grammar, seed: int, choice: str, start: str) -> str:
    """What random logits write under the masks; half of the time they close what is open, if they may."""
    random = np.random.default_rng(seed)
    constraint = grammar.constraint(TOOLS, choice)
    ids = template.tokenize(start)
    for token in ids:
        assert constraint.mask()[token]
        constraint.accept(token)
    quote, brace, bracket, letter = (template.tokenizer.token_to_id(character) for character in '"}]~')
    while len(ids) < 800:
        mask = constraint.mask()
        assert mask.any()
        may_end, closing = mask[template.eos_ids].any(), [quote] if mask[letter] else [brace, bracket]
        mask[template.eos_ids] = False
        if may_end and (random.random() < 0.5 or not mask.any()):
            return template.decode(ids)
        closing = [token for token in closing if mask[token] and random.random() < 0.5]
        ids.append(closing[0] if closing else int(np.where(mask, random.random(len(mask)), -1).argmax()))
        constraint.accept(ids[-1])
    raise AssertionError(f"the walk {seed} never ended: {template.decode(ids)!r}")


def test_a_random_walk_that_begins_a_call_ends_in_valid_calls(written_by: tuple[str, ChatTemplate, Grammar]) -> None:
    name, template, grammar = written_by
    begun = template.answer_text(message(CALLS["nothing"])).split("get")[0]
    called = set()
    for seed in range(200):
        start = "" if seed % 2 else begun if seed % 4 or name in ONE_CALL_ONLY else f"Well, (see) {{x}}:\n{begun}"
        text = walk(template, grammar, seed, "required" if seed % 2 else "auto", start)
        parsed = parse(text)
        assert parsed.error is None, (text, parsed.error)
        assert parsed.calls, text
        assert [problem for each in parsed.calls for problem in validate_call(each, TOOLS)] == [], text
        called |= {each["name"] for each in parsed.calls}
    assert called == {each["function"]["name"] for each in TOOLS}


@pytest.mark.parametrize("repeating", [
    call("get_weather", city="Rome " * 200),
    call("book_table", note="Rome " * 200, guests=1, when={"at": 8}),  # cut before what the schema asks for
])  # fmt: skip
def test_a_call_that_would_grow_too_long_is_closed(
    written_by: tuple[str, ChatTemplate, Grammar], repeating: dict[str, Any]
) -> None:
    """A value that repeats itself: a valid call of `limit` tokens at most; what needs no end stays as it is."""
    _, template, grammar = written_by
    ids = template.tokenize(template.answer_text(message([repeating])))
    limit = len(ids) // 2
    found = grammar.close(ids[:limit], TOOLS, limit)
    assert len(found) <= limit
    assert found[: limit // 2] == ids[: limit // 2]
    (closed,) = parse(template.decode(found)).calls
    assert "Rome Rome " in next(iter(closed["arguments"].values()))
    assert validate_call(closed, TOOLS) == []
    whole = template.tokenize(template.answer_text(message(CALLS["unicode"])))
    assert grammar.close(whole, TOOLS, len(whole)) == whole
    text = template.tokenize("Which city do you mean?")
    assert grammar.close(text[:3], TOOLS, 3) == text[:3]


def test_a_further_call_without_room_is_left_out(written_by: tuple[str, ChatTemplate, Grammar]) -> None:
    name, template, grammar = written_by
    if name in ONE_CALL_ONLY:
        return
    one, two = (
        template.tokenize(template.answer_text(message([call("get_weather", city="Rome")] * n))) for n in (1, 2)
    )
    limit = len(one) + (len(two) - len(one)) // 2
    found = parse(template.decode(grammar.close(two[:limit], TOOLS, limit)))
    assert found.calls == [{"name": "get_weather", "arguments": {"city": "Rome"}}]


@pytest.mark.parametrize(("wrong", "right"), [  # a call, and as much of its text as is right
    (call("get_weather", city="x", unit="kelvin"), '"unit": "'),
    (call("got_weather", city="x"), '"name": "g'),
    (call("get_weather", city=5), '"city": '),
    (call("get_weather"), '"arguments": {'),
    (call("get_weather", city="x", day="y"), '"x", "'),
    (call("book_table", guests=21, when={}), '"guests": 2'),
    (call("book_table", guests=2.5, when={}), '"guests": 2'),
    (call("book_table", guests=2, when={"day": 6}), '"day": '),
    (call("book_table", guests=2, when={"where": 1}), '"when": {"'),
    (call("book_table", guests=2, when={}, guest=3), '{}, "'),
    (call("find_place", place={}), '"place": {'),
    (call("set", größe="x", b="1"), '"b": '),
])  # fmt: skip
def test_a_wrong_call_breaks_the_grammar_at_its_first_wrong_token(
    ours: tuple[ChatTemplate, Grammar], wrong: dict[str, Any], right: str
) -> None:
    template, grammar = ours
    text = template.answer_text(message([wrong]))
    first, ids = text.index(right) + len(right), template.tokenize(text)
    place = grammar.first_violation(ids, TOOLS)
    assert place is not None
    assert len(template.decode(ids[:place])) <= first < len(template.decode(ids[: place + 1]))
    constraint = grammar.constraint(TOOLS)
    for token in ids[:place]:
        assert constraint.mask()[token]
        constraint.accept(token)
    assert not constraint.mask()[ids[place]]
    with pytest.raises(ScoringError, match="does not allow the token"):
        constraint.accept(ids[place])


def test_an_answer_may_end_exactly_where_its_calls_are_complete(ours: tuple[ChatTemplate, Grammar]) -> None:
    template, grammar = ours
    ids = template.tokenize(template.answer_text(message(CALLS["parallel"])))
    constraint, ends = grammar.constraint(TOOLS, "required"), []
    for place, token in enumerate(ids):
        cut = grammar.first_violation(ids[:place], TOOLS, "required")
        assert cut == (None if constraint.mask()[template.eos_ids].all() else place)
        ends += [template.decode(ids[:place])] if cut is None else []
        constraint.accept(token)
    assert ends == [template.answer_text(message(CALLS["parallel"][:n])) for n in (1, 2)]
    assert constraint.mask()[template.eos_ids].all()
    for end in template.eos_ids:
        constraint.accept(end)


def test_only_end_of_turn_and_no_other_special_token_may_come(ours: tuple[ChatTemplate, Grammar]) -> None:
    template, grammar = ours
    special = {id_ for id_, token in template.tokenizer.get_added_tokens_decoder().items() if token.special}
    assert special - set(template.eos_ids)
    for start in ("", "Hello", template.answer_text(message(CALLS["unicode"]))[:60]):
        constraint = grammar.constraint(TOOLS)
        for token in template.tokenize(start):
            constraint.accept(token)
        assert not constraint.mask()[sorted(special - set(template.eos_ids))].any()


def test_without_tools_no_call_can_begin(written_by: tuple[str, ChatTemplate, Grammar]) -> None:
    _, template, grammar = written_by
    ids = template.tokenize(template.answer_text(message(CALLS["nothing"])))
    for tools, choice in (([], "auto"), (None, "auto"), (TOOLS, "none")):
        place = grammar.first_violation(ids, tools, choice)
        assert place is not None
        assert "get" not in template.decode(ids[: place + 1])
        assert grammar.first_violation(template.tokenize("I have no tools."), tools, choice) is None


def test_a_required_call_comes_first_and_a_named_tool_is_the_only_one(
    written_by: tuple[str, ChatTemplate, Grammar],
) -> None:
    _, template, grammar = written_by
    text = template.tokenize("Which city?")
    get, weather = (template.tokenize(template.answer_text(message(CALLS[case]))) for case in ("nothing", "unicode"))
    assert grammar.first_violation(text, TOOLS, "required") == 0
    assert grammar.first_violation([], TOOLS, "required") == 0
    assert grammar.first_violation(get, TOOLS, "required") is None
    assert grammar.first_violation(weather, TOOLS, "get_weather") is None
    assert grammar.first_violation(get, TOOLS, "get_weather") is not None
    assert grammar.first_violation(text, TOOLS, "get_weather") == 0
    with pytest.raises(DataError, match="'send', which is not offered; choose one of .*'get_weather'"):
        grammar.constraint(TOOLS, "send")
    with pytest.raises(DataError, match="a call is required, and no tool is offered"):
        grammar.constraint([], "required")


FRAGMENTS = (
    "{", "}", "[", "]", '"name"', '"arguments"', "parameters", '"type"', '"id"', "function", ":", " ", "\n", "\t", ";", ",", "=",
    "```", "```json\n", "`", "foo(", "a=1", ")", "()", "- ", "1. ", *TAGS, "</tool_call>", "<think>", "</think>", '"', "x", "é",
    "\u2003", "\x1c", "\\", "'", '{"name": "get", "arguments": {}}', "get()", "naïve(", "[get()]",
    "get", "get_weather", "city", "'Rome'", "<arg_key>", "<parameter=city>", "<tool_response>", "<get", "name=", "5",
)  # fmt: skip


@settings(max_examples=1500, deadline=None)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=9).map("".join))
def test_free_text_holds_nothing_that_the_verifier_reads_as_a_call(
    ours: tuple[ChatTemplate, Grammar], text: str
) -> None:
    template, grammar = ours
    if grammar.first_violation(template.tokenize(text), TOOLS, "none") is None:
        parsed = parse(text)
        assert (parsed.error, parsed.calls) == (None, []), text
    told = f"{text}{template.answer_text(message(CALLS['unicode']))}"
    if "<think>" not in text and grammar.first_violation(template.tokenize(told), TOOLS) is None:
        assert parse(told).calls == CALLS["unicode"], told


@pytest.mark.parametrize("way", [way for way in EVERY_WAY if "Hermes" not in way])
def test_no_other_way_of_writing_a_call_passes_as_text(ours: tuple[ChatTemplate, Grammar], way: str) -> None:
    template, grammar = ours
    weather, get = {"name": "get_weather", "arguments": {"city": "Rome"}}, {"name": "get", "arguments": {}}
    own = template.answer_text(message(CALLS["unicode"]))
    for calls in ([weather], [get], [weather, get]):
        written = EVERY_WAY[way](calls)
        for text in (written, f"Let me look.\n{written}\nDone."):
            if parse(text, None, TOOLS) != parse("", None, TOOLS):
                assert grammar.first_violation(template.tokenize(text), TOOLS, "none") is not None, text
        assert grammar.first_violation(template.tokenize(f"I see.\n{written}\n{own}"), TOOLS) is not None, written


@pytest.mark.parametrize("hidden", HIDDEN)
def test_no_call_hides_in_the_text_before_a_call(ours: tuple[ChatTemplate, Grammar], hidden: str) -> None:
    template, grammar = ours
    told = hidden.replace("now", "get").replace("town-weather", "get_weather").replace("mcp.rail.find", "get_weather")
    text = f"{told}\n{template.answer_text(message(CALLS['unicode']))}"
    assert parse(text, None, TOOLS).calls != CALLS["unicode"]
    assert grammar.first_violation(template.tokenize(text), TOOLS) is not None, text


def test_the_tags_are_those_of_the_verifier() -> None:
    assert [tag for tag in TAGS if not re.fullmatch(TAG, tag)] == []
    assert re.sub(TAG, "", "".join(TAGS)) == ""


def test_masks_fit_a_head_that_is_larger_than_the_tokenizer(ours: tuple[ChatTemplate, Grammar]) -> None:
    template, grammar = ours
    size = len(token_bytes(template.tokenizer))
    assert grammar.constraint(TOOLS).mask().shape == (size,)
    wide = Grammar(template, vocabulary=size + 75).constraint(TOOLS).mask()
    assert (wide.shape, wide.dtype, wide[size:].any()) == ((size + 75,), np.dtype(bool), np.False_)
    assert (wide[:size] == grammar.constraint(TOOLS).mask()).all()


def test_a_schema_that_the_engine_cannot_hold_is_said_once(
    ours: tuple[ChatTemplate, Grammar], caplog: pytest.LogCaptureFixture
) -> None:
    template, _ = ours
    grammar = Grammar(template)
    unique = tool("unique", {"ids": {"type": "array", "items": {"type": "integer"}, "uniqueItems": True}})
    never = tool("never", {"a": {"type": "string", "minLength": 5, "maxLength": 2}})
    with caplog.at_level(logging.WARNING):
        for tools in ([unique, never, *TOOLS], [never, unique], [unique, never]):
            grammar.constraint(tools)
    said = [record.getMessage() for record in caplog.records]
    assert len(said) == 2
    assert re.search(r"parameters of 'unique' .* is left out .*uniqueItems.*correct or simplify", said[0])
    assert re.search(r"parameters of 'never' .* may be any JSON object", said[1])
    tools = [unique, never, *TOOLS]

    def passes(name: str, **arguments: Any) -> bool:
        ids = template.tokenize(template.answer_text(message([call(name, **arguments)])))
        return grammar.first_violation(ids, tools) is None

    assert passes("unique", ids=[1, 1])
    assert not passes("unique", ids=["a"])
    assert passes("never", b=[{"c": None}])
    assert not passes("get_weather", city=1)


def test_a_dialect_that_the_grammar_does_not_know_is_said_with_the_remedy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = LISTED.replace(
        "{'name': call.function.name, 'arguments': call.function.arguments} | tojson",
        "call.function.name ~ call.function.arguments | tojson",
    )
    source = source.replace("{{ call.function.name ~", "{{ call.function.name ~ ' of ' ~")
    folder = folder_of(tmp_path / "model", "listed")
    (folder / "chat_template.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(
        RecipeError, match=r"does not know how the chat template of .* writes calls: .*; set evaluation.grammar: false"
    ):
        Grammar(ChatTemplate.load(folder))
    assert known_grammar(ChatTemplate.load(folder)) is None  # scoring goes on with free answers
    assert "free answers only" in caplog.text


def test_tokens_are_the_bytes_of_what_they_were_made_from(ours: tuple[ChatTemplate, Grammar]) -> None:
    pieces = [f"<0x{byte:02X}>" for byte in range(256)] + ["▁", "a", "é", "b"]
    fallback = Tokenizer(BPE({piece: place for place, piece in enumerate(pieces)}, [], byte_fallback=True))
    fallback.normalizer = normalizers.Replace(" ", "▁")
    fallback.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    for tokenizer in (ours[0].tokenizer, fallback):
        known = token_bytes(tokenizer)
        for text in ("a é b", "東京 😀\n\x00", json.dumps(CALLS)):
            assert b"".join(known[id_] for id_ in tokenizer.encode(text).ids) == text.encode()
    with pytest.raises(RecipeError, match="cannot tell which bytes"):
        token_bytes(Tokenizer(WordLevel({"a": 0}, unk_token="a")))


def test_a_folder_is_not_changed_by_reading_it(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "model", "qwen3", "special token")
    copy = shutil.copytree(folder, tmp_path / "copy")
    Grammar(load_template(folder)).constraint(TOOLS)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
        path.name: path.read_bytes() for path in copy.iterdir()
    }


def test_a_token_that_only_the_models_head_has_is_a_violation(ours: tuple[ChatTemplate, Grammar]) -> None:
    template, grammar = ours
    beyond = 10 * template.tokenizer.get_vocab_size()
    ids = template.tokenize("Sunny.")
    assert grammar.first_violation([*ids, beyond, *ids], TOOLS) == len(ids)
