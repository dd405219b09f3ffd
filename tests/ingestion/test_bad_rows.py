"""Every bad input that concerns rows: what the user is told, and that the input is as it was before."""

from __future__ import annotations

import copy
import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_lines
from tiny import call_message, text_message, tiny_choice_rows, tiny_preference_rows, tiny_sft_rows, write_tiny_sources

from rightcall.errors import DataError, SourceError
from rightcall.recipe.schema import Recipe
from rightcall.rows.snapshots import read_snapshot
from tasks.files.lines import Line, read_lines


def survives(paths: dict[str, Path]) -> dict[Path, str]:
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths.values() if path.is_file()}


def sft_with(tmp_path: Path, *lines: dict[str, Any] | bytes, good: int = 24) -> dict[str, Path]:
    """Tiny sources whose SFT file holds ``good`` good rows and then these lines."""
    paths = write_tiny_sources(tmp_path / "sources")
    write_lines(paths["sft"], [*tiny_sft_rows(good), *lines])
    return paths


def one_bad_row(tmp_path: Path, line: dict[str, Any] | bytes) -> dict[str, Any]:
    """The quarantine's entry for a line after 24 good rows; these are kept, and the file is untouched."""
    paths = sft_with(tmp_path, line)
    before = survives(paths)
    folder, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert survives(paths) == before
    assert checks["rows"]["sft"] == {"in": 25, "kept": 24, "quarantined": 1, "sampled_out": 0, "critical": 1}
    entry = quarantined(folder)[0]
    assert (entry["source"], entry["line"], entry["kind"]) == ("sft.jsonl", 25, "sft")
    return entry


def broken_row(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(tiny_sft_rows(1)[0]) | {"id": "bad"} | changes


def answer(message: dict[str, Any]) -> dict[str, Any]:
    row = broken_row()
    row["messages"] = [row["messages"][0] | {"content": "Weather somewhere else?"}, message]
    return row


def stopped(recipe: Recipe, paths: dict[str, Path], tmp_path: Path, error: type[DataError] = DataError) -> str:
    """The message; the sources are as they were."""
    before = survives(paths)
    with pytest.raises(error) as caught:
        snapshot_of(recipe, tmp_path)
    assert survives(paths) == before
    return str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason", "detail"),
    [
        (b'{"id": "1", "messages": [', "not_json", "one JSON object a line"),
        (b'{"id": "\xff\xfe"}', "not_utf8", "save the file as UTF-8"),
        (b'["a", "list"]', "not_an_object", "one JSON object a line"),
        (b'{"a": ' * 100_000, "too_deep", "flatten the row"),
        (b'{"id": "1", "text": "no messages here"}', "unknown_schema", "no 'messages'"),
    ],
)
def test_a_line_that_cannot_be_read_is_quarantined(line: bytes, reason: str, detail: str, tmp_path: Path) -> None:
    entry = one_bad_row(tmp_path, line)
    assert entry["reasons"] == [reason]
    assert detail in entry["detail"]
    assert entry["size_bytes"] == len(line) + 1
    assert len(entry["text"]) <= 2000


def test_a_line_of_50_mb_is_quarantined_and_never_held(tmp_path: Path) -> None:
    """Memory is measured in a process of its own: 50 MB of line, less than 40 MB of growth."""
    path = tmp_path / "long.jsonl"
    with path.open("wb") as stream:
        stream.write(b'{"id": "long", "messages": "')
        for _ in range(50):
            stream.write(b"x" * 1_000_000)
        stream.write(b'"}\n{"id": "next"}\n')
    code = (
        "import resource; from pathlib import Path; from tasks.files.lines import read_lines\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        f"for line in read_lines(Path({str(path)!r})):\n"
        "    print(line.number, line.size_bytes, len(line.text), line.problem)\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    search = [entry for entry in sys.path if entry]
    output = subprocess.check_output(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {search!r}\n{code}"], text=True
    )
    long, following, growth = output.splitlines()
    assert long == "1 50000031 2000 line_too_long: 50,000,031 bytes, the limit is 10,000,000; split or drop the row"
    assert following.split()[:2] == ["2", "15"]
    assert int(growth) < 40


def test_a_truncated_gzip_keeps_what_was_readable_and_says_so(tmp_path: Path) -> None:
    paths = sft_with(tmp_path)
    rows = [
        {**row, "note": hashlib.sha256(str(index).encode()).hexdigest()} for index, row in enumerate(tiny_sft_rows(200))
    ]
    whole = gzip.compress(write_lines(tmp_path / "many.jsonl", rows).read_bytes())
    paths["sft"] = tmp_path / "sources" / "sft.jsonl.gz"
    paths["sft"].write_bytes(whole[: len(whole) * 3 // 4])
    before = survives(paths)
    folder, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    assert survives(paths) == before
    kept = checks["rows"]["sft"]["kept"]
    assert 50 < kept < 200
    assert [row["id"] for row in read_snapshot(folder, "sft")] == [f"sft-{index}" for index in range(kept)]
    entry = quarantined(folder)[0]
    assert entry["reasons"] == ["broken_gzip"]
    assert "fetch the file again" in entry["detail"]


def test_a_file_that_only_claims_to_be_gzip_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl.gz").write_bytes(b'{"id": "1"}\n')
    assert [str(line.problem) for line in read_lines(tmp_path / "rows.jsonl.gz")] == [
        "broken_gzip: 'rows.jsonl.gz' is not gzip; compress it again or drop the ending .gz"
    ]


def test_blank_lines_a_missing_last_newline_and_windows_line_ends_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\r\n\n{"a": 2}')
    assert [(line.number, line.problem) for line in read_lines(path)] == [(1, None), (4, None)]


def test_a_json_file_may_be_one_array(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text(json.dumps([{"a": 1}, {"a": 2}], indent=1))
    assert [line.content for line in read_lines(path)] == [b'{"a": 1}', b'{"a": 2}']
    path.write_text('[{"a": 1}, {"a"')
    (line,) = read_lines(path)
    assert line.problem is not None
    assert line.problem.reason == "not_json"
    assert isinstance(line, Line)


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        (answer(call_message("fly_to_the_moon", {"city": "Rome"})), ["tool_not_offered"]),
        (answer(call_message("get_weather", {})), ["required_argument_missing"]),
        (answer(call_message("get_weather", {"city": 7})), ["arguments_break_schema"]),
        (answer(text_message("It is sunny.")), ["behaviour_contradicts_answer"]),
        (answer(call_message("get_weather", {"city": "Rome " * 2000})), ["too_long"]),
        (broken_row(messages=[{"role": "user", "content": "a b c d"}]), ["bad_role"]),
        (broken_row(tools="nonsense"), ["bad_tool"]),
    ],
)
def test_a_row_that_breaks_a_rule_is_quarantined_as_it_was(
    row: dict[str, Any], reasons: list[str], tmp_path: Path
) -> None:
    entry = one_bad_row(tmp_path, row)
    assert entry["reasons"] == reasons
    assert entry.get("record", row) == row


def test_a_row_in_quarantine_has_every_reason(tmp_path: Path) -> None:
    row = answer(call_message("get_weather", {"unit": "kelvin"})) | {"behaviour": "direct"}
    assert one_bad_row(tmp_path, row)["reasons"] == [
        "behaviour_contradicts_answer", "required_argument_missing", "arguments_break_schema",
    ]  # fmt: skip


def test_no_tools_and_null_tools_mean_the_same(tmp_path: Path) -> None:
    row = broken_row(
        behaviour="direct", messages=[{"role": "user", "content": "Say hello to all."}, text_message("Hello.")]
    )
    absent = {name: value for name, value in row.items() if name != "tools"}
    paths = sft_with(tmp_path, row | {"tools": []}, row | {"tools": None}, absent)
    folder, checks = snapshot_of(ingest_recipe(paths, tolerance=0), tmp_path)
    assert [entry["reasons"] for entry in quarantined(folder)] == [["exact_duplicate"]] * 2
    assert read_snapshot(folder, "sft")[-1]["tools"] == []
    assert checks["rows"]["sft"]["kept"] == 25


def test_bad_pairs_and_bad_items_are_quarantined(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    pairs, items = tiny_preference_rows(24), tiny_choice_rows(16)
    pairs[3]["rejected"] = pairs[3]["chosen"]
    items[2]["answers"]["direct"] = items[2]["answers"]["cannot_answer"]
    items[5]["id"] = items[4]["id"]
    del items[6]["answers"]["request_for_info"]
    items[7]["correct_answer"] = "shrug"
    write_lines(paths["preference"], pairs)
    write_lines(paths["choice"], items)
    before = survives(paths)
    folder, _ = snapshot_of(ingest_recipe(paths, tolerance=0.5), tmp_path)
    assert survives(paths) == before
    assert {(entry["kind"], entry["line"], *entry["reasons"]) for entry in quarantined(folder)} == {
        ("preference", 4, "chosen_equals_rejected"),
        ("choice", 3, "answers_empty_or_equal"), ("choice", 6, "id_repeated"),
        ("choice", 7, "missing_field:answers.request_for_info"), ("choice", 8, "bad_behaviour"),
    }  # fmt: skip


def test_more_bad_rows_than_the_tolerance_stop_the_flow_with_the_worst_reasons(tmp_path: Path) -> None:
    bad = [answer(call_message("fly", {"to": str(number)})) for number in range(5)]
    for number, row in enumerate(bad):
        row["messages"][0]["content"] += f" {number}"
    paths = sft_with(tmp_path, *bad, b"broken", b"\xff")
    message = stopped(ingest_recipe(paths, tolerance=0.2), paths, tmp_path)
    assert "7 of 31 sft rows (22.6%) break a critical rule, data.tolerance is 20.0%" in message
    assert "5 × tool_not_offered (critical), e.g. sft.jsonl line 25: call of " in message
    assert "is not one of ['get_weather', 'book_table', 'convert_money']" in message
    assert "1 × not_json" in message
    assert "1 × not_utf8" in message
    assert "raise data.tolerance only if" in message


def test_at_most_ten_reasons_are_in_the_message(tmp_path: Path) -> None:
    recipe = ingest_recipe(sft_with(tmp_path), tolerance=0)
    reasons = {f"reason_{n}": {"count": 20 - n, "severity": "critical", "kinds": {}, "example": "x"} for n in range(15)}
    rows = {"sft": {"in": 300, "kept": 1, "critical": 200}, "preference": {"in": 1, "kept": 1, "critical": 0}}
    rows["choice"] = rows["preference"]
    classes = {kind: {"direct": 1, "tool_call": 1} for kind in rows}
    from tasks.data.snapshot_checks import stop_if_unfit

    with pytest.raises(DataError) as caught:
        stop_if_unfit(recipe, {"rows": rows, "classes": classes, "reasons": reasons})
    assert str(caught.value).count(" × ") == 10


def test_duplicates_do_not_count_against_the_tolerance(tmp_path: Path) -> None:
    paths = sft_with(tmp_path, *tiny_sft_rows(24))
    _, checks = snapshot_of(ingest_recipe(paths, tolerance=0), tmp_path)
    assert checks["rows"]["sft"] == {"in": 48, "kept": 24, "quarantined": 24, "sampled_out": 0, "critical": 0}


@pytest.mark.parametrize("content", [b"", b"\n\n"])
def test_zero_rows_stop_the_flow(content: bytes, tmp_path: Path) -> None:
    paths = sft_with(tmp_path)
    paths["sft"].write_bytes(content)
    message = stopped(ingest_recipe(paths), paths, tmp_path)
    assert "no row was read for sft from" in message
    assert str(paths["sft"]) in message


def test_rows_that_are_all_bad_stop_the_flow_even_at_full_tolerance(tmp_path: Path) -> None:
    paths = sft_with(tmp_path, b"broken", good=0)
    assert "none of 1 rows is left for sft" in stopped(ingest_recipe(paths, tolerance=1), paths, tmp_path)


@pytest.mark.parametrize("kinds", [("choice",), ("sft", "choice")])
def test_one_class_only_stops_the_flow(kinds: tuple[str, ...], tmp_path: Path) -> None:
    """Of training rows alone it is a warning: xLAM's are all calls, and the items show what comes of it."""
    paths = write_tiny_sources(tmp_path / "sources")
    rows = {"sft": tiny_sft_rows(24)[::4], "choice": tiny_choice_rows(16)[::4]}
    for kind in kinds:
        write_lines(paths[kind], rows[kind])
    message = stopped(ingest_recipe(paths), paths, tmp_path)
    for kind in kinds:
        turns, count = {"sft": "trained turns", "choice": "right answers"}[kind], len(rows[kind])
        assert f"all {count} {turns} of {count} {kind} rows are 'tool_call': there is no decision" in message
    assert ("name the file under data.conversations" in message) == ("sft" in kinds)


def test_a_missing_source_and_a_folder_without_rows_are_named(tmp_path: Path) -> None:
    paths = write_tiny_sources(tmp_path / "sources")
    gone = {**paths, "preference": tmp_path / "gone.jsonl"}
    assert "gone.jsonl' does not exist" in stopped(ingest_recipe(gone), paths, tmp_path, SourceError)
    (tmp_path / "empty").mkdir()
    (tmp_path / "snapshot").rename(tmp_path / "before")
    empty = {**paths, "sft": tmp_path / "empty"}
    assert "holds no rows; name one with files that end in" in stopped(
        ingest_recipe(empty), paths, tmp_path, SourceError
    )
