"""A row's line is parsed once on its way in, by the fast parser where that gives what the careful one gives."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ingest_examples import ingest_recipe, quarantined, snapshot_of, write_tiny_sources

from rightcall.rows.lines import parse_line
from tasks.data.snapshot import _quick_record

PIECES = ("{", "}", "[", "]", '"', "k", ":", ",", "-", "0", "1", ".", "e", "E", "+", "\\", "\\ud83d", "\\ude00", "\\u0000",
          "é", "\x1f", " ", "\n", "null", "true", "NaN", "Infinity", "400", "9" * 18, "9" * 19, '"k":1,')  # fmt: skip
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
written = values.map(lambda value: json.dumps({"k": value}))
unwritten = values.map(lambda value: json.dumps({"k": value}, ensure_ascii=False))
pieced = st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: '{"k":' + "".join(pieces) + "}")


@given(written | unwritten | pieced)
@settings(max_examples=2000, deadline=None)
@example('{"k": -0, "a": 1, "k": 2}')
@example('{"k": 1e400}')
@example('{"k": 12345678901234567890}')
@example('{"k": 0.1234567890123456789}')
@example('{"k": "\\ud800"}')
@example('\ufeff{"k": 1}')
def test_the_fast_parser_gives_what_the_careful_one_gives_or_nothing(text: str) -> None:
    """In the same types and in the same order, which the bytes of the snapshot show."""
    line = text.encode("utf-8", errors="surrogatepass")
    quick = _quick_record(line)
    if quick is not None:
        assert repr(parse_line(line)) == repr(quick)


def test_what_the_fast_parser_would_change_is_left_to_the_careful_one() -> None:
    lines = ['{"k": 12345678901234567890}', '{"k": 1e400}', '{"k": NaN}', '{"k": "\\ud800"}', '\ufeff{"k": 1}', "[1]"]
    assert [_quick_record(line.encode()) for line in lines] == [None] * len(lines)


def test_a_good_line_is_parsed_once_and_its_columns_are_not_read_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was written is looked at again: of training rows the columns that the proof against leakage needs."""
    paths = write_tiny_sources(tmp_path / "sources")
    lines = sum(len(path.read_text().splitlines()) for path in paths.values())
    found: dict[str, int] = {}

    def counted(loads: Any) -> Any:
        def count(text: Any, *args: Any, **keywords: Any) -> Any:
            caller = Path(sys._getframe(1).f_code.co_filename).stem
            found[caller] = found.get(caller, 0) + 1
            return loads(text, *args, **keywords)

        return count

    monkeypatch.setattr(json, "loads", counted(json.loads))
    monkeypatch.setattr(orjson, "loads", counted(orjson.loads))
    _, checks = snapshot_of(ingest_recipe(paths), tmp_path)
    kept = {kind: counts["kept"] for kind, counts in checks["rows"].items()}
    assert sum(kept.values()) == lines
    assert found["snapshot"] == lines
    assert "lines" not in found
    assert found["snapshots"] == kept["sft"] + kept["preference"] + 2 * kept["choice"]


@pytest.mark.parametrize(
    ("depth", "reason"), [(90, "bad_content"), (150, "too_deep"), (400, "too_deep"), (1005, "too_deep")]
)
def test_what_lies_too_deep_is_one_refused_row(depth: int, reason: str, tmp_path: Path) -> None:
    line = b'{"messages": ' + b"[" * depth + b"]" * depth + b"}"
    assert (_quick_record(line) is None) == (reason == "too_deep"), "the careful parser names the reason"
    paths = write_tiny_sources(tmp_path / "sources")
    with paths["sft"].open("ab") as file:
        file.write(line + b"\n")
    folder, _ = snapshot_of(ingest_recipe(paths), tmp_path)
    assert [entry["reasons"] for entry in quarantined(folder)] == [[reason]]
