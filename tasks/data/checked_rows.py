"""One kind of rows on its way through the checks, some thousand at a time: kept in a scratch file, or quarantined.

What grows with the number of rows is a few numbers each: a hash, a place, a bit per reason, and for distinct rows the
bands of their MinHash signature (near_duplicates.py); the signatures and the rows themselves lie on disk.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from data_checks.contradictions import Contradictions
from data_checks.duplicates import EvaluationIndex, normalise
from data_checks.explained import OF_CALLS, wrong_call
from data_checks.flags import conversation_flags, flag_rows, questions
from data_checks.held_out import HeldOutConversations
from data_checks.row_content import class_of, last_exchange, taught_behaviours
from data_checks.rules import CRITICAL, removes, rules_of
from data_checks.suites import ACCEPTABLE
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.recipe.sections import DataSection
from rightcall.rows.snapshots import COLUMNS, RAW_TOOLS, from_columns, raw_tools_column, to_columns
from rightcall.rows.vocabulary import BEHAVIOURS, Row, RowKind
from tasks.data.near_duplicates import NearDuplicates
from tasks.data.tally import Place, Tally

CHUNK_ROWS = 4000
SHOWN_CHARACTERS = 160
NO_GROUP = ("", "none")
GROUPED = ("choice", "sft")  # kinds whose file has the group as a further column
SAMPLED_BY_LENGTH = ("sft", "preference", "choice")


class Pending(NamedTuple):
    row: Row
    record: Any  # as it was read, for the quarantine
    place: Place
    group: str


class Limit(NamedTuple):
    tokens: int
    name: str  # of what sets it


class CheckedRows:
    def __init__(
        self, kind: RowKind, *, template: ChatTemplate, limits: Mapping[str, Limit | None], settings: DataSection,
        evaluation: EvaluationIndex | None, scratch: Path, quarantine: IO[bytes],
    ) -> None:  # fmt: skip
        """limits: the row's "side" ("" where it has none) → tokens it may have; None = they are not counted here."""
        self.kind = kind
        self.tally = Tally()
        self._template, self._limits = template, limits
        self._max_prompt_tokens = settings.max_prompt_tokens
        self._evaluation, self._quarantine = evaluation, quarantine
        self.held_out: HeldOutConversations | None = None  # steps that a row of another source must not repeat
        self._path = scratch / f"{kind}.candidates.parquet"
        further = [RAW_TOOLS] * (kind == "choice") + ["group"] * (kind in GROUPED)
        names = (*COLUMNS[kind], *further)
        self._schema = pa.schema([*((name, pa.string()) for name in names), ("n_tokens", pa.int32())])
        self._writer = pq.ParquetWriter(self._path, self._schema, compression="zstd")
        comparing = any(rule.reason == "near_duplicate" for rule in rules_of(kind))
        threshold = settings.near_duplicate_threshold if comparing else None
        self._alike = NearDuplicates(kind, threshold, scratch / f"{kind}.signatures")
        self._unsure = Contradictions(kind)
        self._pending: list[Pending] = []
        self._repeated: list[tuple[int, str, Place]] = []  # of the pending chunk: key, id, place
        self._first_with: dict[int, int] = {}  # content → number of the distinct row
        self._reasons_of = array("Q")  # of each distinct row: a bit per reason
        self._reason_bits: dict[str, int] = {}
        self._ids: set[int] = set()
        self._flags: list[pl.DataFrame] = []
        self.flags = pl.DataFrame()  # after finish(): a row per row that was read
        self._flag_count = 0
        # of each candidate
        self._flag_places = array("q")
        self._classes: list[tuple[str, ...]] = []
        self._groups: list[str] = []
        self._long_prompt: list[bool] = []
        self._places: list[Place] = []
        self._taught = array("H")  # how many turns of each behaviour: four numbers a candidate
        self._lengths = array("i")
        self.sides: list[str] = []
        self._has_raw_tools = False  # an item's tools are text that the canonical form changes
        self.questions: list[str] = []  # of an evaluation: what training rows must not contain

    def is_repeated(self, key: int, identifier: str, place: Place) -> bool:
        """Whether a row with this content came before; then it is quarantined as its duplicate."""
        if key not in self._first_with:
            return False
        self.tally.note_read(place)
        self._repeated.append((key, identifier, place))
        if len(self._repeated) >= CHUNK_ROWS:
            self.flush()
        return True

    def add(self, row: Row, record: Any, keys: Iterable[int], place: Place) -> None:
        """A row whose content is new, under one or more content keys."""
        number = len(self._reasons_of)
        self._reasons_of.append(0)
        for key in keys:
            self._first_with[key] = number
        self.tally.note_read(place)
        grouped = record if self.kind == "choice" else row
        group = str(grouped.get("group") or "") if isinstance(grouped, dict) else ""
        self._pending.append(Pending(row, record, place, group))
        if len(self._pending) >= CHUNK_ROWS:
            self.flush()

    def refuse(self, problem: DataError, text: str, place: Place) -> None:
        """A line that no row can be made of."""
        self.tally.note_read(place)
        self._put_aside([problem.reason or "unparseable"], place, {"detail": str(problem)[:500], "text": text})
        self._append_flags(_all_false(1, "parseable"))

    def flush(self) -> None:
        if self._pending:
            first = len(self._reasons_of) - len(self._pending)
            rows = [each.row for each in self._pending]
            frame = pl.DataFrame(
                [to_columns(row, self.kind) for row in rows], schema=dict.fromkeys(COLUMNS[self.kind], pl.String)
            )
            flags = self._flag(rows)
            for each, count in zip(self._pending, flags["n_tokens"], strict=True):
                self.tally.note_length(each.place, count)
            counts = flags.select("n_tokens", "n_prompt_tokens")
            flags = flags.drop("n_tokens", "n_prompt_tokens").with_columns(**self._flags_among_rows())
            longest = self._max_prompt_tokens if self.kind in SAMPLED_BY_LENGTH else None
            too_long_for_sample = counts["n_prompt_tokens"] > (longest or 2**31 - 1)
            if "within_length" in flags.columns:
                # such a row is left out of the sample, which is what the recipe asked for: nothing is wrong with it
                flags = flags.with_columns(within_length=flags["within_length"] | too_long_for_sample)
            self._keep_or_quarantine(flags, frame, counts["n_tokens"], too_long_for_sample.to_list(), first)
            self._pending = []
        self._quarantine_repeated()

    def _flag(self, rows: list[Row]) -> pl.DataFrame:
        if self.kind == "conversation":
            limits = {side: limit and limit.tokens for side, limit in self._limits.items()}
            return conversation_flags(rows, self._template, limits)
        limit = self._limits[""]
        return flag_rows(rows, self.kind, self._template, limit.tokens if limit else 2**31 - 1)

    def finish(self) -> None:
        """Near duplicates and contradictions; after this no row may be added."""
        self.flush()
        self._writer.close()
        self.flags = pl.concat(self._flags) if self._flags else pl.DataFrame()
        self._near = self._alike.find()
        self._removed = (self._near >= 0) & removes("near_duplicate", self.kind)
        self._note_later("near_duplicate", "not_near_duplicate", self._near, "is nearly {}")
        self.contradicted = self._unsure.find()
        other = np.full(len(self._places), -1, dtype=np.int64)
        for number, found in self.contradicted.items():
            other[number] = found.other
        self._note_later("contradiction", "not_contradicted", other, "asked the same as {}, has another right answer")

    def _note_later(self, reason: str, flag: str, other: NDArray[np.int64], says: str) -> None:
        """What is known of rows only when all are read; ``other``: the row that it is about, -1 = none."""
        later = np.flatnonzero(other >= 0)
        for number in later:
            place = self._places[other[number]]
            self.tally.note_reason(reason, self._places[number], says.format(f"line {place.line}"))
        if len(later):
            unlike = np.ones(self.flags.height, dtype=bool)
            unlike[np.frombuffer(self._flag_places, dtype=np.int64)[later]] = False
            self.flags = self.flags.with_columns(pl.Series(flag, unlike))

    @property
    def candidates(self) -> np.ndarray:
        """Numbers of the rows that may be sampled."""
        too_long = np.array(self._long_prompt, dtype=bool)
        broken = {self._groups[index] for index in np.flatnonzero(too_long) if self._groups[index]}
        torn = np.array([group in broken for group in self._groups], dtype=bool)
        return np.flatnonzero(~self._removed & ~too_long & ~torn)

    def left_out(self, chosen: Sequence[int]) -> int:
        """How many rows are sound and yet not chosen, counted from what is known of each."""
        return len(self._classes) - self.near_duplicate_count - len(chosen)

    @property
    def near_duplicate_count(self) -> int:
        """How many rows are left out for it."""
        return int(self._removed.sum())

    def near_duplicate_pair(self) -> str:
        """The first row left out and the one that it repeats, each with its place."""
        first = int(np.flatnonzero(self._removed)[0])
        return " because of ".join(self._shown(number) for number in (first, int(self._near[first])))

    def contradiction_pair(self) -> str:
        number, found = next(iter(self.contradicted.items()))
        return " against ".join([self._shown(number, found.turn), self._shown(found.other, found.other_turn)])

    def _shown(self, number: int, turn: int | None = None) -> str:
        """A candidate, read back from the scratch file, up to one of its turns."""
        place, start = self._places[number], 0
        for batch in pq.ParquetFile(self._path).iter_batches(batch_size=CHUNK_ROWS):
            if number < start + batch.num_rows:
                break
            start += batch.num_rows
        row = from_columns(batch.slice(number - start, 1).to_pylist()[0], self.kind)
        if turn is not None:
            row["messages"] = row["messages"][: turn + 1]
        return f"{place.source} line {place.line} {last_exchange(row, self.kind)[:SHOWN_CHARACTERS]!r}"

    def behaviours(self, chosen: Sequence[int]) -> dict[str, int]:
        """Turns that the rows train or judge, by behaviour."""
        counts = self.taught[list(chosen)].sum(axis=0)
        return {name: int(count) for name, count in sorted(zip(BEHAVIOURS, counts, strict=True)) if count}

    @property
    def taught(self) -> np.ndarray:
        """(candidates, behaviours) numbers of turns."""
        return np.frombuffer(self._taught, dtype=np.uint16).reshape(-1, len(BEHAVIOURS)).astype(np.int64)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each candidate."""
        return np.frombuffer(self._lengths, dtype=np.int32)

    def place(self, number: int) -> Place:
        return self._places[number]

    def group(self, number: int) -> str:
        return self._groups[number]

    def stored(self) -> Iterator[tuple[int, Row]]:
        """Every candidate that is not put aside, read back from the scratch file, with its number."""
        start = 0
        for batch in pq.ParquetFile(self._path).iter_batches(batch_size=100):
            for index, columns in enumerate(batch.to_pylist(), start):
                if not self._removed[index]:
                    yield index, from_columns(columns, self.kind)
            start += batch.num_rows

    def put_aside(self, found: Mapping[int, str], reason: str) -> None:
        """Candidates that something outside of them rules out: number → what is said of it."""
        if not found:
            return
        for number, row in self.stored():
            if number in found:
                self._put_aside([reason], self._places[number], {"detail": found[number], "record": row})
        self._removed[list(found)] = True
        holds = np.ones(self.flags.height, dtype=bool)
        holds[np.frombuffer(self._flag_places, dtype=np.int64)[list(found)]] = False
        flag = next(rule.flag for rule in rules_of(self.kind) if rule.reason == reason)
        self.flags = self.flags.with_columns(
            pl.Series(flag, holds) & pl.col(flag), pl.Series(ACCEPTABLE, holds) & pl.col(ACCEPTABLE)
        )

    def classes(self, chosen: Sequence[int]) -> list[tuple[str, ...]]:
        return [self._classes[index] for index in chosen]

    def groups(self, chosen: Sequence[int]) -> list[str]:
        return [self._groups[index] for index in chosen]

    def write(self, chosen: Sequence[int], path: Path) -> int:
        """The chosen candidates as the snapshot's parquet file; near duplicates go to the quarantine on the way."""
        wanted = np.zeros(len(self._classes), dtype=bool)
        wanted[list(chosen)] = True
        start = 0
        schema = self._schema
        if RAW_TOOLS in schema.names and not self._has_raw_tools:
            schema = schema.remove(schema.get_field_index(RAW_TOOLS))
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for batch in pq.ParquetFile(self._path).iter_batches(batch_size=CHUNK_ROWS):
                here = slice(start, start + batch.num_rows)
                for index in np.flatnonzero(self._removed[here]):
                    self._put_aside_near_duplicate(start + int(index), batch.slice(int(index), 1).to_pylist()[0])
                kept = batch.filter(pa.array(wanted[here]))
                if kept.num_rows:
                    writer.write_batch(kept.select(schema.names))
                start += batch.num_rows
        return int(wanted.sum())

    def _flags_among_rows(self) -> dict[str, pl.Series]:
        """Flags that one row cannot answer alone."""
        flags = {}
        if any(rule.flag == "id_unique" for rule in rules_of(self.kind)):
            unique = []
            for each in self._pending:
                key = hash((each.row.get("side"), each.row["id"]))
                unique.append(key not in self._ids)
                self._ids.add(key)
            flags["id_unique"] = pl.Series(unique, dtype=pl.Boolean)
        if self._evaluation is not None and self.kind != "step":
            asked = [questions(each.row.get("messages") or each.row["prompt"], normalise) for each in self._pending]
            leaks = self._evaluation.leaks(asked)
            for index in self._steps_again():
                leaks[index] = True
            flags["not_leaked"] = pl.Series([not leak for leak in leaks], dtype=pl.Boolean)
        return flags

    def _steps_again(self) -> list[int]:
        """Of the pending rows those that say the same as a held-out step, and were not made of the conversations."""
        if self.held_out is None:
            return []
        others = [index for index, each in enumerate(self._pending) if not each.group]
        rows = [self._pending[index].row for index in others]
        said = [row | {"messages": row.get("messages") or [*row["prompt"], row["chosen"]]} for row in rows]
        return [index for index, name in zip(others, self.held_out.repeated(said), strict=True) if name is not None]

    def _keep_or_quarantine(
        self, flags: pl.DataFrame, frame: pl.DataFrame, n_tokens: pl.Series, long_prompt: list[bool], first: int
    ) -> None:
        reason_of = {rule.flag: rule.reason for rule in rules_of(self.kind)}
        kept: list[int] = []
        for index, values in enumerate(flags.iter_rows()):
            reasons = [reason_of[name] for name, holds in zip(flags.columns, values, strict=True) if not holds]
            if not reasons:
                kept.append(index)
                continue
            each = self._pending[index]
            for reason in reasons:
                self._reasons_of[first + index] |= 1 << self._reason_bits.setdefault(reason, len(self._reason_bits))
            self._put_aside(
                reasons, each.place, {**self._detail(reasons, each.row, n_tokens[index]), "record": each.record}
            )
        self._flag_places.extend(self._flag_count + index for index in kept)
        self._append_flags(flags)
        rows = [self._pending[index] for index in kept]
        extra = self._further_columns(rows)
        table = frame[kept].with_columns(*extra, n_tokens.gather(kept).alias("n_tokens"))
        if table.height:
            self._writer.write_table(table.to_arrow().cast(self._schema))
        self._lengths.extend(n_tokens.gather(kept).to_list())
        self._remember(rows, [long_prompt[index] for index in kept])

    def _detail(self, reasons: list[str], row: Row, n_tokens: int) -> dict[str, str]:
        if not OF_CALLS.isdisjoint(reasons) and (wrong := wrong_call(row)):
            return {"detail": wrong}
        limit = self._limits[row.get("side", "")]
        if "too_long" not in reasons or limit is None:
            return {}
        return {"detail": f"{n_tokens:,} tokens, the limit is {limit.tokens:,} ({limit.name})"}

    def _further_columns(self, rows: list[Pending]) -> list[pl.Series]:
        groups = pl.Series("group", [each.group for each in rows], dtype=pl.String)
        if self.kind != "choice":
            return [groups] if self.kind in GROUPED else []
        texts = pl.Series(RAW_TOOLS, [raw_tools_column(each.row) for each in rows], dtype=pl.String)
        self._has_raw_tools = self._has_raw_tools or texts.null_count() < len(texts)
        return [texts, groups]

    def _remember(self, rows: list[Pending], long_prompt: list[bool]) -> None:
        if not rows:
            return
        classes = [class_of(each.row, self.kind) for each in rows]
        self._alike.add([each.row for each in rows], classes)
        self._unsure.add([each.row for each in rows])
        self._classes += classes
        self._groups += [self._group_of(each) for each in rows]
        for each in rows:
            taught = taught_behaviours(each.row, self.kind)
            self._taught.extend(taught.count(name) for name in BEHAVIOURS)
        self.sides += [str(each.row.get("side", "")) for each in rows]
        self._long_prompt += long_prompt
        self._places += [each.place for each in rows]
        if self.kind == "choice":
            self.questions += [each.row["question"] for each in rows]

    def _group_of(self, each: Pending) -> str:
        """Rows that are sampled together; of a conversation what it is split by."""
        if self.kind == "step":
            return str(each.row["conversation"])
        return (
            each.group if self.kind == "conversation" or (self.kind == "choice" and each.group not in NO_GROUP) else ""
        )

    def _quarantine_repeated(self) -> None:
        names = {bit: reason for reason, bit in self._reason_bits.items()}
        broken = 0
        for key, identifier, place in self._repeated:
            bits = self._reasons_of[self._first_with[key]]
            reasons = ["exact_duplicate", *(names[bit] for bit in names if bits >> bit & 1)]
            broken += bits != 0
            # without its content, which stands in the first copy: a million copies must not fill the disk
            self._put_aside(reasons, place, {"id": identifier})
        self._append_flags(_all_false(len(self._repeated) - broken, "not_duplicate"))
        self._append_flags(_all_false(broken, "not_duplicate", ACCEPTABLE))
        self._repeated = []

    def _put_aside_near_duplicate(self, index: int, columns: dict[str, Any]) -> None:
        earlier = self._places[self._near[index]]
        content = {"near_duplicate_of_line": earlier.line, "record": from_columns(columns, self.kind)}
        self._put_aside(["near_duplicate"], self._places[index], content, counted=True)

    def _put_aside(self, reasons: list[str], place: Place, content: dict[str, Any], *, counted: bool = False) -> None:
        entry = {"kind": self.kind, **place._asdict(), "reasons": reasons, **content}
        self._quarantine.write(json.dumps(entry, ensure_ascii=False).encode("utf-8", errors="backslashreplace") + b"\n")
        self.tally.note_put_aside(reasons)
        if counted:
            return
        shown = "" if all(reason in self.tally.examples for reason in reasons) else _shown(content)
        for reason in reasons:
            self.tally.note_reason(reason, place, shown)

    def _append_flags(self, flags: pl.DataFrame) -> None:
        """All columns in the order of the rules; what was not asked holds."""
        if not flags.height:
            return
        rules = rules_of(self.kind)
        full = flags.with_columns([pl.lit(True).alias(rule.flag) for rule in rules if rule.flag not in flags.columns])
        if ACCEPTABLE not in flags.columns:
            critical = [rule.flag for rule in rules if rule.reason in CRITICAL]
            full = full.with_columns(pl.all_horizontal(critical).alias(ACCEPTABLE))
        self._flags.append(full.select(ACCEPTABLE, *(rule.flag for rule in rules)))
        self._flag_count += flags.height


def _shown(content: Mapping[str, Any]) -> str:
    return str(content.get("detail") or json.dumps(content.get("record", content), ensure_ascii=False))


def _all_false(count: int, *names: str) -> pl.DataFrame:
    return pl.DataFrame({name: pl.repeat(False, count, eager=True) for name in names})
