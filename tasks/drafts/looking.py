"""What kind of rows a file holds, from its first thousand records; tools, policy and tokenizer beside it.

    {"id": "c1", "user_id": "u7", "messages": [{"role": "user", …}, {"role": "assistant", "tool_calls": […]}, …]}

is a conversation. It is read as a stream: what is kept of a file of any size are the records that were looked at.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rightcall.chat.model_folder import FILES as CHAT_FILES
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError, SourceError
from rightcall.records.conversation_records import Named, to_conversation
from rightcall.records.reading import to_canonical
from rightcall.records.schemas import SCHEMAS, schema_of
from rightcall.rows import when2call
from rightcall.rows.lines import parse_line
from rightcall.rows.tool_schemas import normalise_tools
from rightcall.rows.vocabulary import Row, RowKind
from rightcall.toolcalls.template_check import load_template
from rightcall.toolcalls.words import guess_behaviour
from tasks.data import sources
from tasks.files.lines import ENDINGS, Line, files_of, read_lines
from tasks.sources.listing import names_tools, tools_text
from tasks.sources.traces import names_traces, recorded
from tasks.store.folder_store import Store

Kind = Literal["conversations", "sft", "preference", "evaluation"]  # as the fields of a recipe's data section
LOOKED_AT = 1000
LOOKED_AT_BYTES = 200_000_000  # records may be long
CHARACTERS_PER_TOKEN = 4  # where no tokenizer is at hand; JSON has fewer, prose a little more
FITTING_TEMPLATE = "chatml-tools"
_ROWS: dict[Kind, RowKind] = {"sft": "sft", "preference": "preference", "evaluation": "choice"}
_ACCEPTED = f"conversations, one a record, in a file or a folder of files that end in {', '.join(ENDINGS)}"


@dataclass(frozen=True)
class FileSeen:
    path: Path
    kind: Kind
    records: int  # lines that are not blank, all of the file's
    sample: list[Row]  # the first of them
    unreadable: int  # of those looked at
    example: str  # what is wrong with the first of these


def look_at(path: Path, tools: list[Row] | None = None) -> FileSeen:
    """Reads the file to its end, and keeps the first records as ingestion reads them; ``tools``: of those that have none.

    Raises:
        SourceError: it is not there, or CSV.
        DataError: it is empty, one JSON array, or no kind of rows that a recipe takes.
    """
    if not names_traces(str(path)) and not path.exists():
        raise SourceError(f"{str(path)!r} does not exist; give {_ACCEPTED}")
    records = unreadable = size_bytes = 0
    found: list[tuple[int, Row]] = []
    example = ""
    for line in _lines(path):
        records += 1
        size_bytes += line.size_bytes
        if len(found) + unreadable >= LOOKED_AT or size_bytes > LOOKED_AT_BYTES:
            continue
        try:
            if line.problem:
                raise line.problem
            found.append((line.number, parse_line(line.content)))
        except DataError as err:
            unreadable += 1
            example = example or f"line {line.number}: {err}"
    if not records:
        raise DataError(f"{str(path)!r} is empty; give {_ACCEPTED}")
    if not found:
        raise DataError(f"no record of {str(path)!r} can be read: {example}; give {_ACCEPTED}")
    kind = kind_of([record for _, record in found], path)
    sample, refused = _as_ingested(found, kind, path, tools)
    return FileSeen(path, kind, records, sample, unreadable + len(refused), example or next(iter(refused), ""))


def _as_ingested(
    found: list[tuple[int, Row]], kind: Kind, path: Path, tools: list[Row] | None
) -> tuple[list[Row], list[str]]:
    """The records as rows with their other columns, and what is said of those that no row can be made of.

    Raises:
        DataError: they are all of them.
    """
    rows: list[Row] = []
    refused: list[DataError] = []
    named = Named(tools)
    for number, record in found:
        try:
            if kind == "conversations":
                row = to_conversation(record, path.name, number, named, guess_behaviour)
            else:
                row = to_canonical(record, _ROWS[kind], path.name, number)
            rows.append({**record, **row})
        except DataError as err:
            refused.append(err)
    if not rows:
        raise DataError(f"no record of {str(path)!r} can be used as {kind} rows: {refused[0]}; correct them")
    return rows, [str(err) for err in refused]


def _lines(path: Path) -> Iterator[Line]:
    if names_traces(str(path)):
        yield from recorded(str(path)).lines
        return
    for file in files_of(path):
        for line in read_lines(file):
            if line.number == 1 and line.content.lstrip(b"\xef\xbb\xbf \t").startswith(b"["):
                raise DataError(
                    f"{str(file)!r} is one JSON array; write one record a line, as `jq -c '.[]' {file.name} > "
                    f"{file.name.split('.')[0]}.jsonl` does, or let its name end in .json"
                )
            yield line


def kind_of(sample: list[Row], path: Path) -> Kind:
    """What most of the records are.

    Raises:
        DataError: none of the kinds.
    """
    counted = Counter(map(_kind_of, sample))
    kind = max(counted, key=lambda each: counted[each])
    if kind is None:
        raise DataError(f"the records of {str(path)!r} have the fields {sorted(sample[0])[:8]!r}; {_known_columns()}")
    return kind


def _kind_of(record: Row) -> Kind | None:
    if "question" in record and ("correct_answer" in record or isinstance(record.get("answers"), dict)):
        return "evaluation"
    if {"chosen_response", "rejected_response"} <= record.keys() or schema_of(record, "preference"):
        return "preference"
    if schema_of(record, "conversation"):
        return "sft" if "behaviour" in record or when2call.is_record(record) else "conversations"
    return None


def _known_columns() -> str:
    """ "a conversation has messages, or conversations, or prompt and completion, …"."""
    told = {kind: ", or ".join(" and ".join(each.needs) for each in SCHEMAS[kind]) for kind in SCHEMAS}
    return f"a conversation has {told['conversation']}; a pair {told['preference']}; an item question, answers and correct_answer"


def read_tools(named: Path | str) -> list[dict[str, Any]]:
    """The tools of a file, a server or a document, as every part of the program takes them.

    Raises:
        SourceError: it is not there, or cannot be read.
        DataError: it is no list of tools.
    """
    path = Path(named)
    try:
        tools = json.loads(tools_text(str(named)) if names_tools(str(named)) else _text(path))
    except ValueError as err:
        raise DataError(f"{str(path)!r} is not JSON ({err}); give a list of OpenAI functions") from err
    if isinstance(tools, dict) and isinstance(tools.get("tools"), list):
        tools = tools["tools"]
    if not isinstance(tools, list) or not tools:
        raise DataError(
            f"{str(path)!r} holds {type(tools).__name__ if tools else json.dumps(tools)}, not a list of tools; write "
            '[{"type": "function", "function": {"name", "description", "parameters"}}, …]'
        )
    try:
        return normalise_tools(tools)
    except DataError as err:
        raise DataError(f"a tool of {str(path)!r} cannot be used: {err.detail}", reason=err.reason) from err


def read_system(path: Path) -> str:
    """The policy's text.

    Raises:
        SourceError: it is not there, or cannot be read.
        DataError: it is empty.
    """
    if not (text := _text(path).strip()):
        raise DataError(f"{str(path)!r} is empty; give the text of the policy, or leave --system out")
    return text


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as err:
        raise SourceError(f"{str(path)!r} cannot be read: {err.strerror}; give the path of a file") from err
    except UnicodeDecodeError as err:
        raise DataError(f"{str(path)!r} is not UTF-8; save it as UTF-8", reason="not_utf8") from err


def template_at_hand(model: str, sha256: str | None, store: Store) -> tuple[ChatTemplate | None, str | None]:
    """The model's template with its tokenizer, and the name under which a recipe has to ask for it.

    At hand are a folder, and whatever an earlier run has made a base model of: nothing is downloaded here.

    Raises:
        RecipeError: a folder has no tokenizer.
        SourceError: the model is a local path that does not exist, or is not pinned.
    """
    sources.require_local(model)
    folder = Path(model).expanduser()
    if not folder.is_dir():
        found = _base_in(store, sources.digest(model, sha256))
        if found is None:
            return None, None
        folder = found
    try:
        return load_template(folder), None
    except RecipeError as own:
        try:
            return load_template(folder, FITTING_TEMPLATE), FITTING_TEMPLATE
        except RecipeError:
            raise own from None


def _base_in(store: Store, digest: str) -> Path | None:
    found = [ref for ref in store.refs("base") if store.manifest(ref)["slice"].get("source") == digest]
    return store.path(found[0], tuple(f"model/{name}" for name in CHAT_FILES)) / "model" if found else None
