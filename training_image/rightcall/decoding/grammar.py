"""Answers whose calls keep to the JSON Schemas of the offered tools: what may come next, and where an answer breaks it.

A call may begin or not, and text outside of calls is free; from a call's first mark on only an offered tool's name and
arguments that its schema accepts can be written, spaced as the template spaces them (json.dumps: ", " and ": ") and in no
other way. Numbers are written without an exponent and stay below 10¹⁸.

The engine is llguidance. Measured on 2026-11-25 on one of two busy cores, vocabulary of SmolLM2 (49,152), the 15 tools
of tau-bench's retail agent, 31 kinds of schema with right and wrong values (properties in another order: none of them):

                     compile   one mask, mean (worst)   kinds of schema          wheel; licence; needs
    llguidance 1.9.1    3 ms    0.03 ms (0.6 ms)         28, 3 refused aloud      3 MB, one for all Pythons; MIT; nothing
    xgrammar 0.2.8    155 ms    0.005 ms (0.1 ms)        26, 5 wrong in silence   1 MB; Apache-2.0; torch, transformers, triton, tvm-ffi
    outlines-core    2813 ms    0.55 ms (8.9 ms)         20, 11 wrong             2 MB, none for macOS; Apache-2.0; nothing

With free text and arguments in any order, as here, the 15 tools take 50–120 ms, a mask 0.04 ms in calls and in text,
0.2 ms in text with braces (the first of a list of tools up to 7 ms), the first violation of an answer 0.1–0.4 ms.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from itertools import takewhile
from typing import Literal

import numpy as np
from llguidance import LLMatcher, LLParserLimits
from numpy.typing import NDArray

from rightcall.chat.template import ChatTemplate, Tools
from rightcall.decoding.grammar_arguments import ArgumentRules, Json, Mode, literal, only_needed
from rightcall.decoding.grammar_dialect import find_dialect
from rightcall.decoding.grammar_text import before_terminal, text_terminal
from rightcall.decoding.grammar_tokens import engine_tokenizer, token_bytes
from rightcall.errors import DataError, ScoringError
from rightcall.rows.tool_schemas import normalise_tools

logger = logging.getLogger(__name__)

Choice = Literal["auto", "required", "none"]

MAX_CALLS = 64  # as the verifier
CACHED_GRAMMARS = 128  # lists of tools; about 2 MB each
# of the engine's own bookkeeping: the default gives up on free text
_LIMITS = LLParserLimits(initial_lexer_fuel=10**8, step_lexer_fuel=10**8, max_lexer_states=10**6)


class Grammar:
    """Constraints for the answers of one model.

    Raises:
        RecipeError: the chat template writes calls in a way that the grammar does not know, or the tokenizer's bytes
            are unknown.
    """

    def __init__(self, template: ChatTemplate, vocabulary: int | None = None) -> None:
        """`vocabulary`: tokens that the model's head tells apart, often more than the tokenizer has; None = its own."""
        self._dialect = find_dialect(template)
        literals = f"{self._dialect.before} {self._dialect.between} {self._dialect.after}"
        self._engine = engine_tokenizer(template.tokenizer, template.eos_ids, literals)
        self._eos_ids = template.eos_ids
        self._size = self._engine.vocab_size if vocabulary is None else vocabulary
        self._bytes = token_bytes(template.tokenizer)
        self._quotes, self._brackets, self._letters = (
            [self._bytes.index(text) for text in texts if text in self._bytes]
            for texts in ((b'"', b"'"), (b"}", b"]", b")"), (b"~", b"x"))
        )
        self._matchers: dict[str, LLMatcher] = {}
        self._modes: dict[str, Mode] = {}  # of tools whose schema the engine cannot hold

    def constraint(self, tools: Tools, choice: Choice | str = "auto") -> ToolConstraint:
        """For one answer, from its first token on.

        `choice`: auto = text or calls; required = the answer begins with a call; none = text only; else the name of the
        only tool that can be called, which must be.

        Raises:
            DataError: `choice` asks for a call that the tools do not allow, or a tool is none.
        """
        return ToolConstraint(self._matcher(tools, choice).deep_copy(), self._eos_ids, self._size)

    def first_violation(self, ids: Sequence[int], tools: Tools, choice: Choice | str = "auto") -> int | None:
        """Place of the first token that is not allowed there, len(answer) when it ends too early, None = all is right.

        `ids` may end with an end-of-turn token or not.

        Raises:
            DataError: as in `constraint`.
        """
        answer = list(takewhile(lambda token: token not in self._eos_ids, ids))
        matcher = self._matcher(tools, choice).deep_copy()
        # a head may have more rows than the tokenizer has tokens
        good = matcher.try_consume_tokens(list(takewhile(lambda token: token < self._engine.vocab_size, answer)))
        _refuse_broken(matcher)
        return good if good < len(answer) or not matcher.is_accepting() else None

    def close(self, ids: Sequence[int], tools: Tools, limit: int, choice: Choice | str = "auto") -> list[int]:
        """An answer that reached `limit` inside a call, with that call brought to its end; any other as it is.

        So many of its last tokens are replaced as the end needs: a model that repeats itself in a value would else leave a
        call that nobody can read. A further call that has no room is left out; where the only one has none, the answer
        stays as it is.

        Raises:
            DataError: as in `constraint`.
        """
        if len(ids) < limit or self.first_violation(ids, tools, choice) is None:
            return list(ids)
        written = b"".join(self._bytes[token] for token in ids).decode("utf-8", "ignore")
        matcher = self._matcher(only_needed(list(tools or ()), written), choice).deep_copy()
        kept = list(ids[: matcher.try_consume_tokens(list(ids))])
        constraint = ToolConstraint(matcher, self._eos_ids, self._size)
        while not constraint.may_end():
            if (end := self._end(constraint.copy(), limit - len(kept))) is not None:
                return [*kept, *end]
            if not kept:
                break
            kept.pop()
            constraint.take_back()
        if 0 < len(kept) < len(ids) and self.first_violation(kept, tools, "required") is None:
            return kept  # whole calls, and the beginning of one more
        return list(ids)

    def _end(self, constraint: ToolConstraint, room: int) -> list[int] | None:
        """Tokens that end the answer, None where more than `room` would be needed.

        A quotation mark ends a text value, where a letter could go on; elsewhere a bracket ends most, and what is left is what
        the schema asks for, in long tokens.
        """
        end: list[int] = []
        while not constraint.may_end():
            if len(end) == room:
                return None
            mask = constraint.mask()
            closing = [
                token for token in (self._quotes if mask[self._letters].any() else self._brackets) if mask[token]
            ]
            end.append(
                closing[0] if closing else max(np.flatnonzero(mask).tolist(), key=lambda token: len(self._bytes[token]))
            )
            constraint.accept(end[-1])
        return end

    def _matcher(self, tools: Tools, choice: str) -> LLMatcher:
        key = json.dumps([choice, tools])
        found = self._matchers.pop(key, None)
        if found is None:
            found = self._compile(_chosen(normalise_tools(list(tools or ())), choice), choice)
        self._matchers[key] = found  # the one used last comes last
        if len(self._matchers) > CACHED_GRAMMARS:
            del self._matchers[next(iter(self._matchers))]
        return found

    def _compile(self, tools: list[Json], choice: str) -> LLMatcher:
        matcher = self._try(tools, choice)
        if matcher.is_error():
            for tool in tools:
                self._find_mode(tool)
            matcher = self._try(tools, choice)
        _refuse_broken(matcher)
        return matcher

    def _find_mode(self, tool: Json) -> None:
        """How much of this tool's schema the engine can hold."""
        name, key = tool["function"]["name"], json.dumps(tool)
        modes: tuple[tuple[Mode, str], ...] = (
            ("lenient", "what the grammar cannot hold of it is left out"),
            ("any", "its arguments may be any JSON object"),
        )
        error = self._try([tool], name).get_error()
        for mode, meaning in modes:
            if not error or key in self._modes:
                return
            candidate = self._try([tool], name, mode)
            if not candidate.is_error():
                self._modes[key] = mode
                logger.warning(
                    "the grammar cannot hold the parameters of %r as they are: %s (%s); correct or simplify them",
                    name, meaning, error.splitlines()[0][:200],
                )  # fmt: skip

    def _try(self, tools: list[Json], choice: str, mode: Mode | None = None) -> LLMatcher:
        return LLMatcher(self._engine, self._rules(tools, choice, mode), log_level=0, limits=_LIMITS)

    def _rules(self, tools: list[Json], choice: str, mode: Mode | None) -> str:
        """The grammar in the engine's language."""
        dialect, names = self._dialect, [tool["function"]["name"] for tool in tools]
        text = f"TEXT: {text_terminal(dialect, names)}"
        # the engine may otherwise insist on its own tokens where only one text can follow
        options = '%llguidance {"no_forcing": true}'
        if not tools or choice == "none":
            return "\n".join((options, "start: TEXT", text))
        arguments = ArgumentRules(dialect.separators)
        named = [
            (tool["function"]["name"], arguments.add(tool["function"]["parameters"], mode or self._mode(tool)))
            for tool in tools
        ]
        lines = [options, *arguments.lines]

        def calls(rule: str, opening: str) -> str:
            lines.append(f"{rule}: " + " | ".join(f"{literal(dialect.head(name, opening))} {a}" for name, a in named))
            return rule

        rest = literal(dialect.common) if dialect.common else ""
        if dialect.between is not None:
            again = calls("again", dialect.between[len(dialect.common) :])
            rest += f" ({again} {rest}){{0,{MAX_CALLS - 1}}}"
        if after := dialect.after[len(dialect.common) :]:
            rest += f" {literal(after)}"
        starts = []
        if choice == "auto":
            starts, lines = ["TEXT"], [*lines, text]
        if choice == "auto" and dialect.marker is not None and dialect.after_text:
            lines += [f"BEFORE: {before_terminal(names)}", f"marked[lazy]: BEFORE {literal(dialect.marker)}"]
            starts.append(f"marked {calls('first', dialect.before[len(dialect.marker) :])} {rest}")
        else:
            starts.append(f"{calls('first', dialect.before)} {rest}")
        return "\n".join([*lines, f"start: {' | '.join(starts)}"])

    def _mode(self, tool: Json) -> Mode:
        return self._modes.get(json.dumps(tool), "exact")


class ToolConstraint:
    """What one answer may hold; it moves on with the answer."""

    def __init__(self, matcher: LLMatcher, eos_ids: Sequence[int], size: int) -> None:
        self._matcher = matcher
        self._eos_ids = list(eos_ids)
        self._size = size

    def mask(self) -> NDArray[np.bool_]:
        """(vocabulary,): the tokens that may come next, the end-of-turn tokens when the answer may end here.

        Raises:
            ScoringError: the engine gave up on the tools' schemas.
        """
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        _refuse_broken(self._matcher)
        allowed = np.unpackbits(bits, count=self._size, bitorder="little").view(np.bool_)
        allowed[self._eos_ids] = self._matcher.is_accepting()
        return allowed

    def copy(self) -> ToolConstraint:
        return ToolConstraint(self._matcher.deep_copy(), self._eos_ids, self._size)

    def take_back(self) -> None:
        """The answer without its last token, which ended nothing."""
        self._matcher.rollback(1)
        _refuse_broken(self._matcher)

    def may_end(self) -> bool:
        return bool(self._matcher.is_accepting())

    def accept(self, token: int) -> None:
        """The answer goes on with this token.

        Raises:
            ScoringError: it is not allowed here; take one of `mask()`.
        """
        done = self._matcher.is_accepting() if token in self._eos_ids else self._matcher.try_consume_tokens([token])
        if not done:
            _refuse_broken(self._matcher)
            raise ScoringError(f"the grammar does not allow the token {token!r} here; take one that mask() allows")


def _chosen(tools: list[Json], choice: str) -> list[Json]:
    if choice in ("auto", "none"):
        return tools
    names = [tool["function"]["name"] for tool in tools]
    if choice == "required":
        if not tools:
            raise DataError("a call is required, and no tool is offered; offer one or leave the choice to the model")
        return tools
    if choice not in names:
        raise DataError(f"the call must be one of {choice!r}, which is not offered; choose one of {names!r}")
    return [tool for tool in tools if tool["function"]["name"] == choice]


def _refuse_broken(matcher: LLMatcher) -> None:
    if matcher.is_error():
        raise ScoringError(
            f"the grammar engine gave up: {matcher.get_error()[:300]!r}; simplify the tools' schemas or set "
            "evaluation.grammar: false"
        )
