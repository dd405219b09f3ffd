"""The stage ``ingest``: pinned sources become a checked, frozen snapshot; what is wrong goes to the quarantine.

The evaluation is read first, because no training row may ask what it asks.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import orjson

from data_checks.duplicates import EvaluationIndex
from data_checks.row_content import NO_TOOLS, content_key
from data_checks.sampling import balanced_sample, grouped_sample
from rightcall.bfcl import derive
from rightcall.chat.model_folder import FILES as CHAT_FILES
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import Source
from rightcall.rows.canonical import to_canonical
from rightcall.rows.lines import parse_line, refuse_deep
from rightcall.rows.vocabulary import Row, RowKind
from tasks.data import sources
from tasks.data.checked_rows import CheckedRows, Place
from tasks.data.lines import MAX_LINE_BYTES, Line, files_of, read_lines
from tasks.data.snapshot_checks import report_checks, sources_of, stop_if_unfit

Json = dict[str, Any]
NO_TOOLS_SHARE = 12  # one item in twelve of a sampled evaluation offers no tool, where there are such items
WINDOW = 2**31 - 1  # an item has no max_length; the model's own window limits it
_LONG_NUMBER = re.compile(rb"\d{19}")  # beyond 64 bits orjson reads floats, and two long numbers could become one
CHAT_PARTS = tuple(f"model/{name}" for name in CHAT_FILES)


def build_snapshot(recipe: Recipe, template: ChatTemplate, folder: Path, scratch: Path, cache: Path) -> Json:
    """Fills ``folder`` with the three parquet files, quarantine.jsonl, checks.json, data_docs/; returns the checks.

    Raises:
        DataError: the owner of the rows: too many are broken, none is left, or all are of one class.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    checked: dict[RowKind, CheckedRows] = {}
    index: EvaluationIndex | None = None
    with (folder / "quarantine.jsonl").open("wb") as quarantine:
        for kind in sources_of(recipe):
            checked[kind] = _check(
                kind, recipe, template, index=index, scratch=scratch, cache=cache, quarantine=quarantine
            )
            if kind == "choice":
                index = EvaluationIndex(checked[kind].questions, recipe.data.near_duplicate_threshold)
        kept = {kind: _sample(rows, recipe, folder) for kind, rows in checked.items()}
    checks = report_checks(recipe, checked, kept, folder, scratch)
    (folder / "checks.json").write_text(json.dumps(checks, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    stop_if_unfit(recipe, checks)
    return checks


def _check(
    kind: RowKind, recipe: Recipe, template: ChatTemplate, *,
    index: EvaluationIndex | None, scratch: Path, cache: Path, quarantine: IO[bytes],
) -> CheckedRows:  # fmt: skip
    limit = {"sft": recipe.sft.max_length, "preference": recipe.dpo.max_length, "choice": WINDOW}[kind]
    rows = CheckedRows(
        kind, template=template, max_length=limit, settings=recipe.data, evaluation=index, scratch=scratch,
        quarantine=quarantine,
    )  # fmt: skip
    for source in sources_of(recipe)[kind]:
        path = sources.fetch(source.uri, sha256=source.sha256, cache=cache, file=source.file, hub_type="dataset")
        read = _read_bfcl if source.adapter == "bfcl" else _read_files
        read(path, source, rows, recipe.data.seed)
    rows.finish()
    return rows


def _read_bfcl(path: Path, source: Source, rows: CheckedRows, seed: int) -> None:
    """Rows derived from BFCL's data, which lies in the wheel's folder or is the folder itself."""
    inside = path / "bfcl_eval" / "data"
    derived = _derived(inside if inside.is_dir() else path, seed)
    made: list[Row] = {"sft": derived.sft, "preference": derived.preference, "choice": derived.choice}[rows.kind]
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
    left = source.limit
    for file in files_of(path):
        name = sources.short_name(source.uri, source.file) + ("" if path.is_file() else f"/{file.relative_to(path)}")
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
        row = to_canonical(record, rows.kind, name, line.number, adapter)
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
    wanted = {"sft": data.sft_rows, "preference": data.preference_rows, "choice": data.evaluation_rows}[rows.kind]
    candidates = rows.candidates
    chosen = [int(index) for index in candidates]
    if rows.kind == "preference" and data.rejected_kinds is not None and chosen:
        chosen = _rejecting(rows, chosen, data.rejected_kinds)
    if wanted is not None and wanted < len(chosen):
        classes = rows.classes(chosen)
        if rows.kind == "choice":
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
