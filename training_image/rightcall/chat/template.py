"""The one way from messages and tools to token ids and loss mask, in training, scoring and generation.

    prompt   <|im_start|>system … <|im_start|>user\\nWeather in Rome?<|im_end|>\\n<|im_start|>assistant\\n     mask 0
    answer   <tool_call>\\n{"name": "get_weather", "arguments": {"city": "Rome"}}\\n</tool_call><|im_end|>    mask 1
    rest     \\n                                                                                            mask 0

It needs the tokenizer and the template only, neither torch nor transformers, so that data checks count tokens cheaply.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from tokenizers import Tokenizer

from rightcall.chat import rendering
from rightcall.chat.edges import UNKNOWN, EdgeError, Edges, End, find_answer, find_edges
from rightcall.chat.messages import FORMS, CallForm, Message, formed, reasons
from rightcall.chat.model_folder import ModelFolder, named_template, template_names
from rightcall.errors import DataError, RecipeError

Tools = Sequence[dict[str, Any]] | None
Row = tuple[Sequence[Message], Tools]

# No thinking blocks: Qwen3 then opens every answer with an empty one, in training as in generation.
TEMPLATE_ARGUMENTS = {"documents": None, "enable_thinking": False}
CACHED_CHARACTERS = 16_000_000  # of tokenised pieces, about 50 MB with their ids

_PARAMETERS = {"type": "object", "properties": {"probe_argument": {"type": "string", "description": "Probe."}}}
_OFFERED = {
    "type": "function",
    "function": {"name": "probe_offered_tool", "description": "Probe.", "parameters": {**_PARAMETERS, "required": []}},
}


class Encoded(NamedTuple):
    input_ids: list[int]
    loss_mask: list[int]  # 1 = the assistant wrote this token


class EncodedTurns(NamedTuple):
    input_ids: list[int]
    turns: dict[int, tuple[int, int]]  # message index: [start, end) of the ids that the assistant wrote there


class _Span(NamedTuple):
    """One assistant turn in the rendered text: [start, end) is what the model writes, end-of-turn token included."""

    start: int
    stop: int  # of the answer, before its end-of-turn token
    end: int


class ChatTemplate:
    def __init__(self, folder: ModelFolder, source: str, name: str, form: CallForm = FORMS[0]) -> None:
        self.source = source
        self.name = name
        self.form = form
        self._without_tools: list[Any] | None = None
        # in which its calls are written (rightcall/dialects), set by toolcalls/template_check.py
        self.dialect: str | None = None
        # kinds of texts that do not come back from its calls, set there too
        self.spoilt: tuple[str, ...] = ()
        self.max_length: int = folder.max_length
        self.tokenizer: Tokenizer = folder.tokenizer
        self._variables = folder.special_tokens
        try:
            self._template = rendering.compile_template(source)
        except jinja2.TemplateSyntaxError as err:
            where = rendering.failing_line(err, source)
            raise RecipeError(f"the chat template of {name} is not valid jinja: {err.message!r} at {where}") from err
        self._ids: dict[str, int] = folder.special_ids
        self._splitter = folder.splitter()
        self._pieces: dict[str, array[int]] = {}
        self._cached_characters = 0
        self._control: re.Pattern[str] | None = None
        self.edges: Edges = UNKNOWN
        self._probe_tools()
        self.edges = self._probe_edges(folder)
        self.end_of_turn: str = self.edges.text_end.token
        ends = {self._ids[end.token] for end in (self.edges.text_end, self.edges.call_end)}
        self.eos_ids: list[int] = sorted(ends | folder.eos_ids)
        self.pad_id: int = folder.pad_id if folder.pad_id is not None else self._ids[self.end_of_turn]
        self._control = self._probe_control_tokens(folder)

    @classmethod
    def load(cls, model_folder: Path, template: str | None = None) -> ChatTemplate:
        """`template` is a name in rightcall/chat/templates; None = the model's own.

        Raises:
            RecipeError: a file is missing, or the template has no place for tools.
        """
        return cls(*named_source(Path(model_folder), template))

    def render(self, messages: Sequence[Message], tools: Tools, *, add_generation_prompt: bool = False) -> str:
        """The conversation as one text, with the opening of an answer at its end when `add_generation_prompt` is set.

        Raises:
            DataError: the template refuses these messages, or one of them holds a control token.
        """
        text = self._render(messages, tools, add_generation_prompt, TEMPLATE_ARGUMENTS)
        if add_generation_prompt:
            return text + self.edges.opening
        return self._completed(text, messages, tools) if messages[-1].get("role") == "assistant" else text

    def prompt_text(self, messages: Sequence[Message], tools: Tools) -> str:
        return self.render(messages, tools, add_generation_prompt=True)

    def answer_text(self, message: Message) -> str:
        """What the model must write for this assistant message, without the end-of-turn token."""
        messages = [{"role": "user", "content": "?"}, message]
        text = self.render(messages, [_OFFERED])
        span = self._span(text, messages, [_OFFERED], 1)
        if span is None:
            raise DataError(f"the chat template of {self.name} hides where this answer starts: {message!r}")
        return text[span.start : span.stop]

    def end_of(self, message: Message) -> str:
        """The token at which the model stops after this message: some have one for texts and one for calls."""
        return self._end_of(message).token

    def encode_prompt(self, messages: Sequence[Message], tools: Tools) -> list[int]:
        return self.tokenize(self.prompt_text(messages, tools))

    def encode(self, messages: Sequence[Message], tools: Tools, turns: Collection[int] | None = None) -> Encoded:
        """Masks these assistant turns only, by message index; None = all without ``"weight": 0``."""
        return self.encode_batch([(messages, tools)], [turns])[0]

    def encode_batch(self, rows: Sequence[Row], turns: Sequence[Collection[int] | None] | None = None) -> list[Encoded]:
        """Ids and loss mask of whole conversations; thousands at once share the tokenisation of equal pieces.

        Raises:
            DataError: as in `encode_turns`.
        """
        encoded = []
        for ids, found in self.encode_turns(rows, turns):
            mask = [0] * len(ids)
            for start, end in found.values():
                mask[start:end] = [1] * (end - start)
            encoded.append(Encoded(ids, mask))
        return encoded

    def encode_turns(
        self, rows: Sequence[Row], turns: Sequence[Collection[int] | None] | None = None
    ) -> list[EncodedTurns]:
        """Ids of whole conversations, and where the wanted turns of each stand in them (None = every assistant turn).

        A turn that a model would write after another prefix than the one that stands before it here is left out.

        Raises:
            DataError: no wanted turn can be trained on, one is no assistant's, or an answer and its prompt share a token.
        """
        texts = [self.render(messages, tools) for messages, tools in rows]
        wanted = turns if turns is not None else [None] * len(rows)
        spans = [self._spans(text, *row, some) for text, row, some in zip(texts, rows, wanted, strict=True)]
        prefixes = [text[: span.start] for text, found in zip(texts, spans, strict=True) for span in found.values()]
        prefixes += [text[: span.end] for text, found in zip(texts, spans, strict=True) for span in found.values()]
        ids = self._tokenize_batch([*texts, *prefixes])
        encoded, position, total = [], len(texts), sum(map(len, spans))
        for row_ids, found in zip(ids[: len(texts)], spans, strict=True):
            places = range(position, position + len(found))
            encoded.append(EncodedTurns(row_ids, {
                turn: (self._boundary(row_ids, ids[place]), self._boundary(row_ids, ids[place + total]))
                for turn, place in zip(found, places, strict=True)
            }))  # fmt: skip
            position += len(found)
        return encoded

    def encode_pair(self, prompt: Sequence[Message], tools: Tools, answer: Message) -> tuple[list[int], list[int]]:
        """(prompt ids, answer ids with the end-of-turn token); together a prefix of what `encode` gives.

        Raises:
            DataError: as in `encode_batch`.
        """
        messages = [*prompt, answer]
        text = self.render(messages, tools)
        span = self._span(text, messages, tools, len(prompt))
        if span is None:
            raise DataError(f"the chat template of {self.name} hides where the answer starts: {answer!r}")
        prompt_ids, whole = self._tokenize_batch([text[: span.start], text[: span.end]])
        return prompt_ids, whole[self._boundary(whole, prompt_ids) :]

    def without_control_tokens(self, text: str) -> str:
        """A text that may stand in a conversation, whatever a model wrote."""
        return str(json.loads(self._control.sub("", json.dumps(text, ensure_ascii=False)))) if self._control else text

    def count_tokens(self, rows: Sequence[Row]) -> list[int]:
        return list(map(len, self._tokenize_batch([self.render(messages, tools) for messages, tools in rows])))

    def tokenize(self, text: str) -> list[int]:
        """Ids without anything added: the templates write their own beginning-of-text token."""
        return self._tokenize_batch([text])[0]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of these ids, control tokens included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _render(self, messages: Sequence[Message], tools: Tools, generate: bool, arguments: dict[str, Any]) -> str:
        if not messages:
            raise DataError("a conversation needs at least one message, got []; quarantine the row")
        try:
            plain = formed(messages, self.form)
            self._refuse_control_tokens(plain, tools)
            return self._template.render(
                # `tools: []` and `tools: null` mean the same to a model, but not to every template
                messages=plain, tools=list(tools) if tools else self._without_tools, add_generation_prompt=generate,
                **(self._variables | arguments),
            )  # fmt: skip
        except rendering.TEMPLATE_FAILURES as err:
            where = rendering.failing_line(err, self.source)
            roles = [message.get("role") for message in messages]
            raise DataError(
                f"the chat template of {self.name} refuses messages with roles {roles!r}: {type(err).__name__}: {err} "
                f"({where or 'before the template'}); correct or quarantine the row"
            ) from err

    def _refuse_control_tokens(self, messages: Sequence[Message], tools: Tools) -> None:
        """Text that holds `<|im_end|>` would end its turn and speak for another role."""
        if self._control is None:
            return
        text = json.dumps([messages, tools], ensure_ascii=False)
        if found := self._control.search(text):
            around = text[max(0, found.start() - 20) : found.end() + 20]
            raise DataError(
                f"text holds the control token {found.group()!r} of {self.name}: {around!r}; "
                "remove it or quarantine the row"
            )

    def _spans(
        self, text: str, messages: Sequence[Message], tools: Tools, wanted: Collection[int] | None
    ) -> dict[int, _Span]:
        turns = [index for index, message in enumerate(messages) if message.get("role") == "assistant"]
        if wanted is None:
            turns = [index for index in turns if messages[index].get("weight") != 0]
        else:
            if strangers := sorted(set(wanted) - set(turns)):
                raise DataError(
                    f"message {strangers[0]!r} is to be trained, but the assistant's are {turns!r}; correct the row"
                )
            turns = sorted(set(wanted))
        spans = {index: span for index in turns if (span := self._span(text, messages, tools, index))}
        if turns and not spans:
            raise DataError(
                f"no assistant turn of the conversation can be found again in what the chat template of {self.name} "
                f"writes: {text[-200:]!r}; quarantine the row or name another template in model.chat_template"
            )
        return spans

    def _span(self, text: str, messages: Sequence[Message], tools: Tools, index: int) -> _Span | None:
        """Where turn `index` stands in `text`; None = a model would write it after another prefix: do not train on it.

        That is the case for earlier turns under templates that rewrite history (Qwen3: only the last turn keeps its
        thinking block).
        """
        head = messages[:index]
        asked = self._render(head, tools, True, TEMPLATE_ARGUMENTS) if head else ""
        prompt = asked + self.edges.opening if head else ""
        if head and reasons(messages[index]) and not text.startswith(prompt):
            prompt = self._render(head, tools, True, TEMPLATE_ARGUMENTS | {"enable_thinking": True})
        whole = text
        if index + 1 < len(messages):
            told = self._render(messages[: index + 1], tools, False, TEMPLATE_ARGUMENTS)
            whole = self._completed(told, messages[: index + 1], tools, asked)
        token = self.end_of(messages[index])
        stop = whole.rfind(token, len(prompt))
        end = stop + len(token)
        if not head or stop < 0 or not text.startswith(prompt) or not text.startswith(whole[:end]):
            return None
        return _Span(len(prompt), stop, end)

    def _completed(self, text: str, messages: Sequence[Message], tools: Tools, asked: str | None = None) -> str:
        """With what a model sees before the last answer when it writes it, and the token at which it stops.

        `asked`: the template's prompt for it, where it is known.
        """
        last = messages[-1]
        if len(messages) > 1 and not reasons(last):

            def render(messages: Sequence[Message], *, generate: bool = False) -> str:
                return self._render(messages, tools, generate, TEMPLATE_ARGUMENTS)

            if found := find_answer(render, text, messages, asked):
                prompt, missing, answer = found
                # Gemma's answer to a result opens no turn of its own when it is written
                text = prompt + missing + (self.edges.opening if missing else "") + answer.removeprefix(self.edges.turn)
        end = self._end_of(last)
        return text if end.written else text + end.token

    def _end_of(self, message: Message) -> End:
        return self.edges.call_end if message.get("tool_calls") else self.edges.text_end

    def _boundary(self, whole: list[int], prefix: list[int]) -> int:
        if whole[: len(prefix)] != prefix:
            raise DataError(
                f"the start of an answer shares a token with the end of its prompt {self.decode(prefix[-8:])!r}: "
                "strip the white space around the assistant's text or quarantine the row"
            )
        return len(prefix)

    def _tokenize_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokenises each different piece between control tokens once: rows with equal tools share most of theirs."""
        if self._cached_characters > CACHED_CHARACTERS:
            # replaced, not cleared: another thread may be reading it
            self._pieces, self._cached_characters = {}, 0
        known = self._pieces
        split = [self._splitter.split(text) if self._splitter else [text] for text in texts]
        different = dict.fromkeys(piece for pieces in split for piece in pieces)
        missing = [piece for piece in different if piece not in known and piece not in self._ids]
        encodings = self.tokenizer.encode_batch_fast(missing, add_special_tokens=False)
        for piece, encoding in zip(missing, encodings, strict=True):
            known[piece] = array("I", encoding.ids)
            self._cached_characters += len(piece)
        result = []
        for pieces in split:
            ids: list[int] = []
            for piece in pieces:
                if piece in self._ids:
                    ids.append(self._ids[piece])
                else:
                    ids.extend(known[piece])
            result.append(ids)
        return result

    def _probe_tools(self) -> None:
        user = {"role": "user", "content": "?"}
        call = {"type": "function", "id": "call00000", "function": {"name": "probe_called_tool", "arguments": {}}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        offered = self._probe([user], [_OFFERED])
        if "probe_offered_tool" not in offered or "probe_argument" not in offered:
            raise RecipeError(f"the chat template of {self.name} ignores tools; {self._advice()}")
        called = self._probe([user, answer], [_OFFERED])
        if "probe_called_tool" not in called:
            raise RecipeError(f"the chat template of {self.name} ignores an assistant's tool_calls; {self._advice()}")
        try:
            self._render([user], None, False, TEMPLATE_ARGUMENTS)
        except DataError:  # Hermes' goes through them, whether there are any or not
            self._without_tools = []

    def _probe(self, messages: Sequence[Message], tools: Tools, *, generate: bool = False) -> str:
        try:
            return self._render(messages, tools, generate, TEMPLATE_ARGUMENTS)
        except DataError as err:
            raise RecipeError(
                f"the chat template of {self.name} fails on a short chat; {self._advice()}: {err}"
            ) from err

    @staticmethod
    def _advice() -> str:
        return f"set model.chat_template to one of {template_names()!r}"

    def _probe_edges(self, folder: ModelFolder) -> Edges:
        def render(messages: Sequence[Message], *, generate: bool = False) -> str:
            return self._probe(messages, [_OFFERED], generate=generate)

        stops = {token for token, id_ in self._ids.items() if id_ in folder.eos_ids}
        try:
            return find_edges(render, self._ids, stops)
        except EdgeError as err:
            raise RecipeError(f"the chat template of {self.name} {err}; {self._advice()}") from err

    def _probe_control_tokens(self, folder: ModelFolder) -> re.Pattern[str]:
        messages = [{"role": role, "content": "?"} for role in ("user", "assistant", "user")]
        text = self.render(messages, None, add_generation_prompt=True)
        tokens = {
            token for token in self._ids if token in text or token in self.source or self._ids[token] in folder.eos_ids
        }
        written = [json.dumps(token, ensure_ascii=False)[1:-1] for token in tokens]
        return re.compile("|".join(map(re.escape, sorted(written, key=len, reverse=True))))


def named_source(model_folder: Path, template: str | None) -> tuple[ModelFolder, str, str]:
    """The folder, the template's text, and what messages call it; None = the model's own.

    Raises:
        RecipeError: a file is missing or cannot be read.
    """
    folder = ModelFolder(model_folder)
    if template is not None:
        return folder, named_template(template), f"rightcall/chat/templates/{template}.jinja"
    return folder, folder.own_template(), str(model_folder)
