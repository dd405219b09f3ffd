"""Logged conversations: read, freed of secrets, made canonical, each on the side that its group belongs to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from data_checks.row_content import conversation_key
from rightcall.errors import DataError, SourceError
from rightcall.recipe.sections import ConversationSource, DataSection
from rightcall.records.conversation_records import Named, to_conversation
from rightcall.retail.derive import derive
from rightcall.rows.conversations import share_of
from rightcall.rows.lines import parse_line
from rightcall.rows.secrets import redact_record, redact_text
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import Row
from rightcall.toolcalls.words import guess_behaviour
from tasks.data import sources
from tasks.data.checked_rows import CheckedRows
from tasks.data.tally import Place
from tasks.files.lines import TEXT_CHARACTERS, Line, files_of, read_lines
from tasks.sources.listing import names_tools, tools_text
from tasks.sources.traces import names_traces, recorded

TRAIN, EVALUATION = "train", "evaluation"


@dataclass
class Heard:
    """What was noticed while the conversations were read, for checks.json."""

    redacted: Counter[str] = field(default_factory=Counter)
    endings: int = 0
    greetings: int = 0


def read_conversations(data: DataSection, rows: CheckedRows, cache: Path) -> Heard:
    """All sources, one after another.

    Raises:
        DataError: data.group_by names a field that no record of a source has.
        SourceError: a source, or the file with its tools or policy, is not there or cannot be read.
    """
    heard = Heard()
    for source in data.conversations:
        named = named_once(source, data.group_by, cache, heard.redacted)
        reader = _Reader(source, data, named, rows, heard.redacted)
        for name, line in _records(source, data.seed, cache, heard.redacted, named.unused):
            rows.tally.belongs(name, sources.short_name(source.uri, source.file))
            reader.read(line, name)
        rows.tally.unused_of(sources.short_name(source.uri, source.file)).update(named.unused)
        heard.endings += named.endings
        heard.greetings += named.greetings
        if data.group_by is not None and named.fields and data.group_by not in named.fields:
            raise DataError(
                f"data.group_by is {data.group_by!r}, which no record of {source.uri!r} has; its records have the fields "
                f"{list(named.fields)[:20]!r}; name one of them, or leave group_by out: then every conversation is a "
                "group of its own"
            )
    return heard


def named_once(source: ConversationSource, group_by: str | None, cache: Path, redacted: Counter[str]) -> Named:
    """Tools and policy that the recipe names for all conversations of a source.

    Raises:
        SourceError: the file is not there, or does not hold what it should.
    """
    tools = system = None
    if source.tools is not None:
        tools = _tools_of(_text_of(source.tools, "tools", cache), source.tools)
    if source.system is not None:
        system = redact_text(_text_of(source.system, "system", cache).strip(), redacted)
        if not system:
            raise SourceError(
                f"the policy {source.system!r} is empty; write the system message into it, or leave it out"
            )
    return Named(tools, system, group_by)


def _text_of(uri: str, what: str, cache: Path) -> str:
    if what == "tools" and names_tools(uri):
        return tools_text(uri)
    path = sources.fetch(uri, sha256=None, cache=cache, hub_type="dataset")
    if not path.is_file():
        raise SourceError(f"{what} {uri!r} of a conversation source is a folder; name one file")
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as err:
        raise SourceError(f"{what} {uri!r} is not UTF-8 (byte {err.start}); save it as UTF-8") from err


def _tools_of(text: str, uri: str) -> list[Row]:
    try:
        raw = json.loads(text)
    except ValueError as err:
        raise SourceError(f"tools {uri!r} are not JSON ({err}); write a JSON list of tools") from err
    if isinstance(raw, dict) and isinstance(raw.get("tools"), list):
        raw = raw["tools"]
    try:
        tools = normalise_tools(raw)
    except DataError as err:
        raise SourceError(f"tools {uri!r}: {err.detail}", reason=err.reason) from err
    if not tools:
        raise SourceError(f"tools {uri!r} hold no tool; write a JSON list of tools, or leave the field out")
    return tools


def _records(
    source: ConversationSource, seed: int, cache: Path, redacted: Counter[str], unused: Counter[str]
) -> Iterator[tuple[str, Line]]:
    """(name of the file, line), at most the source's limit."""
    name = sources.short_name(source.uri, source.file)
    lines: Iterator[tuple[str, Line]]
    if names_traces(source.uri):
        found = recorded(source.uri, source.filter)
        redacted.update(found.redacted)
        unused.update(found.left_out)
        lines = ((name, line) for line in found.lines)
    else:
        path = sources.fetch(source.uri, sha256=source.sha256, cache=cache, file=source.file, hub_type="dataset")
        lines = _derived(path, seed, name) if source.adapter == "tau2-retail" else _lines(path, name)
    for number, (file, line) in enumerate(lines):
        if source.limit is not None and number >= source.limit:
            return
        yield file, line


def _lines(path: Path, name: str) -> Iterator[tuple[str, Line]]:
    for file in files_of(path):
        shown = name if path.is_file() else f"{name}/{file.relative_to(path)}"
        yield from ((shown, line) for line in read_lines(file))


def _derived(path: Path, seed: int, name: str) -> Iterator[tuple[str, Line]]:
    for number, record in enumerate(derive(path, seed), 1):
        content = orjson.dumps(record)
        yield name, Line(number, content, len(content))


@dataclass(frozen=True)
class _Reader:
    """Of one source."""

    source: ConversationSource
    data: DataSection
    named: Named
    rows: CheckedRows
    redacted: Counter[str]

    def read(self, line: Line, name: str) -> None:
        place = Place(name, line.number, line.size_bytes)
        try:
            if line.problem:
                raise line.problem
            record = redact_record(parse_line(line.content), self.redacted)
        except DataError as err:
            problem, text = _unreadable(line, err, self.redacted)
            self.rows.refuse(problem, text, place)
            return
        try:
            row = to_conversation(record, name, line.number, self.named, guess_behaviour)
        except DataError as err:
            self.rows.refuse(err, json.dumps(record, ensure_ascii=False)[:TEXT_CHARACTERS], place)
            return
        row["side"] = side_of(row["group"], self.source, self.data)
        key = conversation_key(row)
        if not self.rows.is_repeated(key, row["id"], place):
            self.rows.add(row, record, [key], place)


def _unreadable(line: Line, problem: DataError, redacted: Counter[str]) -> tuple[DataError, str]:
    """The problem and the line's text without secrets: a message shows what it is about."""
    clean = redact_text(line.content.decode("utf-8", errors="replace"), redacted)
    if line.problem is None:
        try:
            parse_line(clean.encode())
            problem = DataError("the line cannot be read", reason=problem.reason)
        except DataError as err:
            problem = err if err.reason == problem.reason else DataError(redact_text(str(problem), Counter()))
    return problem, clean[:TEXT_CHARACTERS]


def side_of(group: str, source: ConversationSource, data: DataSection) -> str:
    """By a seeded hash of the group's value: it stays where it is when others are added."""
    if source.use != "split":
        return source.use
    return EVALUATION if share_of(group, data.seed) < data.evaluation_share else TRAIN
