"""docs/templates.md says of every template of the corpus whether a model with it loads, as it does."""

from __future__ import annotations

import pytest
import template_table
from field_list import on_page
from template_corpus import OURS, TRL


@pytest.fixture(scope="module")
def table() -> str:
    return template_table.template_table()


def test_the_page_says_what_loading_does(table: str) -> None:
    assert on_page("template_table", template_table.PAGE) == table, (
        "run `PYTHONPATH=tests/support python tests/generators/template_table.py --write` and read the diff"
    )


def test_every_template_has_one_line_that_loads_or_says_why_not(table: str) -> None:
    lines = [line for line in table.splitlines() if line.startswith("| `")]
    assert len(lines) == len(TRL) + len(OURS)
    assert all(line.count(" | yes | ") + line.count(" | no | ") == 1 for line in lines)
    assert not any(line.endswith(("| yes |  |", "| no |  |")) for line in lines)
