"""Great Expectations judges the flags: plain JSON, true severities, and pages that people can read."""

from __future__ import annotations

import json
import re
from pathlib import Path

import polars as pl
import pytest

from data_checks.suites import judge


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    folder = tmp_path_factory.mktemp("docs")
    few, many = [True] * 97 + [False] * 3, [True] * 80 + [False] * 20
    flags = pl.DataFrame({"acceptable": few, "parseable": few, "call_offered": many, "not_duplicate": many})
    classes = {"sft": {"tool_call": 60, "cannot_answer": 30, "direct": 7}, "preference": {"tool_call": 9}}
    return judge({"sft": flags, "choice": pl.DataFrame()}, classes, 0.05, folder / "docs", folder / "gx"), folder


def found(judged: tuple[dict, Path], name: str) -> tuple[bool, str, int]:
    each = next(each for each in judged[0]["expectations"] if each["name"] == name)
    return each["success"], each["severity"], each["unexpected"]


def test_the_tolerance_decides_how_many_rows_may_break_a_rule(judged: tuple[dict, Path]) -> None:
    assert found(judged, "sft.acceptable") == (True, "critical", 3)
    assert found(judged, "sft.call_offered") == (False, "critical", 20)
    assert found(judged, "sft.not_duplicate") == (False, "warning", 20)
    assert judged[0]["success"] is False


def test_a_class_below_half_of_its_even_share_is_a_warning_and_a_single_class_is_critical(
    judged: tuple[dict, Path],
) -> None:
    assert found(judged, "sft_classes.share") == (False, "warning", 1)
    assert found(judged, "preference_classes.expect_table_row_count_to_be_between") == (False, "critical", 1)


def test_the_result_is_plain_json_without_times(judged: tuple[dict, Path]) -> None:
    text = json.dumps(judged[0], sort_keys=True)
    assert json.loads(text) == judged[0]
    assert "batch_id" not in text
    assert "2026" not in text


def test_data_docs_are_local_pages(judged: tuple[dict, Path]) -> None:
    docs = judged[1] / "docs"
    assert "sft" in (docs / "index.html").read_text(encoding="utf-8")
    assert list(docs.glob("validations/sft/**/*.html"))
    for page in docs.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        assert not re.search(r"<script|@import|(src|<link[^>]*href)=[\"']https?:|url\([\"']?https?:", text)
    places = re.findall(r'<li><a href="([^"]+)">', (docs / "index.html").read_text(encoding="utf-8"))
    assert len(places) >= 2
    assert all((docs / place).is_file() for place in places if not place.startswith("#"))
