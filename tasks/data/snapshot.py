"""The stage ``ingest``: pinned sources become a checked, frozen snapshot; what is wrong goes to the quarantine.

The evaluation is read first, because no training row may ask what it asks; then the conversations, because which of
them are held out depends on all of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import orjson

from data_checks.duplicates import EvaluationIndex
from data_checks.held_out import HeldOutConversations
from data_checks.row_content import NO_TOOLS, SEVERAL, content_key
from data_checks.sampling import balanced_sample, balanced_whole_rows, grouped_sample, whole_groups
from rightcall.bfcl import derive
from rightcall.chat.model_folder import FILES as CHAT_FILES
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import Source
from rightcall.records.reading import to_canonical
from rightcall.rows.lines import parse_line, refuse_deep
from rightcall.rows.vocabulary import Row, RowKind
from tasks.data import sources
from tasks.data.checked_rows import CheckedRows, Limit
from tasks.data.conversations import EVALUATION, TRAIN, read_conversations
from tasks.data.snapshot_checks import report_checks, sources_of, stop_if_unfit
from tasks.data.split import Split
from tasks.data.tally import Place
from tasks.files.lines import MAX_LINE_BYTES, Line, files_of, read_lines

Json = dict[str, Any]
NO_TOOLS_SHARE = 12  # one item in twelve of a sampled evaluation offers no tool, where there are such items
WINDOW = 2**31 - 1  # an item has no max_length; the model's own window limits it
_LONG_NUMBER = re.compile(rb"\d{19}")  # beyond 64 bits orjson reads floats, and two long numbers could become one
CHAT_PARTS = tuple(f"model/{name}" for name in CHAT_FILES)


def build_snapshot(recipe: Recipe, template: ChatTemplate, folder: Path, scratch: Path, cache: Path) -> Json:
    """Fills ``folder`` with a parquet file for each kind of rows, quarantine.jsonl, checks.json, data_docs/; returns the checks.

    Raises:
        DataError: the owner of the rows: too many are broken, none is left, or all are of one class.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    checked: dict[RowKind, CheckedRows] = {}
    with (folder / "quarantine.jsonl").open("wb") as quarantine:
        room = _Room(recipe, template, scratch, cache, quarantine)
        checked["choice"] = _check("choice", room, None)
        index = EvaluationIndex(checked["choice"].questions, recipe.data.near_duplicate_threshold)
        split = _split(room) if recipe.data.conversations else None
        checked["step"] = room.rows("step", None)
        if split is not None:
            checked["conversation"] = split.rows
            _take(split.step_rows(), checked["step"], repeated=True)
        checked["step"].finish()
        held_out = _held_out_steps(checked["step"], recipe) if split is not None else None
        made = split.training_rows() if split is not None else ()
        checked["sft"] = _check("sft", room, index, made, held_out)
        checked["preference"] = _check("preference", room, index, held_out=held_out)
        kept = {kind: _sample(rows, recipe, folder) for kind, rows in checked.items()}
    if split is None:
        del checked["step"]
    checks = report_checks(recipe, checked, kept, split=split, template=template, folder=folder, scratch=scratch)
    (folder / "checks.json").write_text(json.dumps(checks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stop_if_unfit(recipe, checks)
    return checks


@dataclass(frozen=True)
class _Room:
    """What every kind of rows is checked with."""

    recipe: Recipe
    template: ChatTemplate
    scratch: Path
    cache: Path
    quarantine: IO[bytes]

    def rows(self, kind: RowKind, index: EvaluationIndex | None) -> CheckedRows:
        data = self.recipe.data
        limits: dict[str, Limit | None] = {}
        if kind == "conversation":  # one that is cut, or gives a row a turn, is not measured: its rows are
            whole = data.too_long == "quarantine"
            limits[TRAIN] = limit_of("sft", self.recipe, self.template) if whole and data.train_on == "all" else None
            limits[EVALUATION] = limit_of("step", self.recipe, self.template) if whole else None
        else:
            limits[""] = limit_of(kind, self.recipe, self.template)
        return CheckedRows(
            kind, template=self.template, limits=limits, settings=data, evaluation=index, scratch=self.scratch,
            quarantine=self.quarantine,
        )  # fmt: skip


def limit_of(kind: RowKind, recipe: Recipe, template: ChatTemplate) -> Limit:
    """The tokens that a row may have: its stage's max_length, where the model's window does not cap it."""
    if kind == "step":
        room = recipe.evaluation.max_new_tokens
        name = f"the model's window of {template.max_length:,} less {room:,} for an answer, evaluation.max_new_tokens"
        return Limit(template.max_length - room, name)
    name, wanted = {
        "sft": ("sft.max_length", recipe.sft.max_length), "preference": ("dpo.max_length", recipe.dpo.max_length),
        "choice": ("", WINDOW),
    }[kind]  # fmt: skip
    if wanted <= template.max_length:
        return Limit(wanted, name)
    return Limit(template.max_length, f"the model's window; {name} is {wanted:,}" if name else "the model's window")


def _split(room: _Room) -> Split:
    rows = room.rows("conversation", None)
    heard = read_conversations(room.recipe.data, rows, room.cache)
    rows.finish()
    limits = {
        TRAIN: limit_of("sft", room.recipe, room.template), EVALUATION: limit_of("step", room.recipe, room.template)
    }  # fmt: skip
    split = Split(rows, room.recipe.data, room.template, limits, heard)
    split.settle()
    return split


def _check(
    kind: RowKind, room: _Room, index: EvaluationIndex | None, made: Iterable[tuple[Row, Place]] = (),
    held_out: HeldOutConversations | None = None,
) -> CheckedRows:  # fmt: skip
    """``made``: rows made of conversations, after those of the sources; ``held_out``: steps that these must not be."""
    rows = room.rows(kind, index)
    rows.held_out = held_out
    for source in sources_of(room.recipe)[kind]:
        path = sources.fetch(source.uri, sha256=source.sha256, cache=room.cache, file=source.file, hub_type="dataset")
        read = _read_bfcl if source.adapter in ("bfcl", "bfcl-exchanged") else _read_files
        read(path, source, rows, room.recipe.data.seed)
    _take(made, rows)
    rows.finish()
    return rows


def _held_out_steps(steps: CheckedRows, recipe: Recipe) -> HeldOutConversations | None:
    """None = there are no rows but those of the conversations, of which the group decides."""
    if not (recipe.data.sft or recipe.data.preference):
        return None
    found = HeldOutConversations(recipe.data.near_duplicate_threshold)
    for _, row in steps.stored():
        found.add([row])
    return found


def _take(made: Iterable[tuple[Row, Place]], rows: CheckedRows, *, repeated: bool = False) -> None:
    """repeated: steps may be equal, as the first of two conversations are."""
    for row, place in made:
        keys = [] if repeated else [content_key(row)]
        if repeated or not rows.is_repeated(keys[0], row["id"], place):
            rows.add(row, row, keys, place)


def _read_bfcl(path: Path, source: Source, rows: CheckedRows, seed: int) -> None:
    """Rows derived from BFCL's data, which lies in the wheel's folder or is the folder itself."""
    inside = path / "bfcl_eval" / "data"
    derived = _derived(inside if inside.is_dir() else path, seed)
    made: list[Row] = {"sft": derived.sft, "preference": derived.preference, "choice": derived.choice}[rows.kind]
    if source.adapter == "bfcl-exchanged":
        made = derived.exchanged if rows.kind == "sft" else []
    name = sources.short_name(source.uri)
    for number, row in enumerate(made[: source.limit], 1):
        place = Place(name, number, len(orjson.dumps(row)))
        key = content_key(row)
        if not rows.is_repeated(key, row["id"], place):
            rows.add(row, row, [key], place)


@lru_cache(maxsize=2)
def _derived(folder: Path, seed: int) -> derive.Derived:
    return derive.derive(folder, seed)


def _read_files(path: Path, source: Source, rows: CheckedRows, seed: int) -> None:
    left, short = source.limit, sources.short_name(source.uri, source.file)
    for file in files_of(path):
        name = short + ("" if path.is_file() else f"/{file.relative_to(path)}")
        rows.tally.belongs(name, short)
        for line in read_lines(file):
            if left is not None and (left := left - 1) < 0:
                return
            _read_line(line, name, source.adapter, rows)


def _read_line(line: Line, name: str, adapter: str, rows: CheckedRows) -> None:
    place = Place(name, line.number, line.size_bytes)
    record = None if line.problem else _quick_record(line.content)
    keys = [] if record is None else [content_key(record)]
    if record is not None and rows.is_repeated(keys[0], str(record.get("id") or record.get("uuid") or ""), place):
        return
    try:
        if line.problem:
            raise line.problem
        if record is None:
            record = parse_line(line.content)
        row = to_canonical(record, rows.kind, name, line.number, adapter, unused=rows.tally.unused_of(name))
    except DataError as err:
        rows.refuse(err, line.text, place)
        return
    if isinstance(record.get("source"), str) and record["source"].strip():
        row["source"] = record["source"]
    # The same content may be written in two dialects, so what it became counts as well.
    key = content_key(row)
    if not rows.is_repeated(key, row["id"], place):
        rows.add(row, record, [key, *keys], place)


def _quick_record(content: bytes) -> Row | None:
    """What parse_line would give, much faster; None = that one has to look, and says what is wrong.

    orjson is the stricter one: a byte order mark, NaN, half a surrogate pair and 1e400 are errors to it.
    """
    if len(content) > MAX_LINE_BYTES or _LONG_NUMBER.search(content):
        return None
    try:
        record = orjson.loads(content)
        if isinstance(record, dict):  # before its key is made, which cannot walk a thousand levels
            refuse_deep(record, content.count(b"[") + content.count(b"{"))
    except (orjson.JSONDecodeError, DataError):
        return None
    return record if isinstance(record, dict) else None


def _rejecting(rows: CheckedRows, chosen: list[int], kinds: tuple[str, ...]) -> list[int]:
    """The pairs whose rejected side is one of ``kinds``.

    Raises:
        DataError: there is none.
    """
    classes = rows.classes(chosen)
    kept = [index for index, names in zip(chosen, classes, strict=True) if names[1] in kinds]
    if not kept:
        there = sorted({names[1] for names in classes})
        raise DataError(
            f"no pair's rejected side is one of data.rejected_kinds {list(kinds)!r}; the rows have {there!r}"
        )
    return kept


def _sample(rows: CheckedRows, recipe: Recipe, folder: Path) -> list[int]:
    """Chooses the rows and writes them; a limit of None keeps all."""
    data = recipe.data
    chosen = [int(index) for index in rows.candidates]
    if rows.kind == "conversation":
        return chosen
    wanted = {
        "sft": data.sft_rows, "preference": data.preference_rows, "choice": data.evaluation_rows,
        "step": data.step_rows,
    }[rows.kind]  # fmt: skip
    if rows.kind == "preference" and data.rejected_kinds is not None and chosen:
        chosen = _rejecting(rows, chosen, data.rejected_kinds)
    if wanted is not None and wanted < len(chosen):
        classes = rows.classes(chosen)
        if rows.kind == "step":
            picked = whole_groups(rows.groups(chosen), wanted, data.seed)
        elif rows.kind == "sft" and SEVERAL in {names[0] for names in classes}:
            picked = balanced_whole_rows(rows.taught[chosen], wanted, data.seed)
        elif rows.kind == "choice":
            # a call where no tool is offered is a hallucination: without such items it could not be measured
            bare = [
                index
                for index, names in enumerate(classes)
                if names[1] == NO_TOOLS and not rows.groups([chosen[index]])[0]
            ]
            few = [bare[index] for index in balanced_sample([("",)] * len(bare), wanted // NO_TOOLS_SHARE, data.seed)]
            picked = grouped_sample([names[0] for names in classes], rows.groups(chosen), wanted, data.seed, few)
        else:
            picked = balanced_sample(classes, wanted, data.seed)
        chosen = [chosen[index] for index in picked]
    rows.write(chosen, folder / f"{rows.kind}.parquet")
    return chosen
