"""The table of stages is complete: whoever adds a stage is told here what it still lacks."""

from __future__ import annotations

import importlib
from dataclasses import fields
from pathlib import Path

import pytest

from rightcall.job.stage_table import STAGES, StageFacts, training_section
from rightcall.recipe.loading import load_recipe
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import TrainingSection
from rightcall.rows.snapshots import COLUMNS
from tasks.reporting.page_data import display_names
from tasks.runtime.stage import Stage

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=STAGES.values(), ids=lambda facts: facts.name)
def facts(request: pytest.FixtureRequest) -> StageFacts:
    return request.param


def tasks_of_stages() -> dict[str, Stage]:
    """Every @stage of tasks/stages, by name."""
    names = sorted(path.stem for path in (ROOT / "tasks" / "stages").glob("*.py") if path.stem != "__init__")
    modules = [importlib.import_module(f"tasks.stages.{name}") for name in names]
    return {value.name: value for module in modules for value in vars(module).values() if isinstance(value, Stage)}


def test_the_module_has_a_run(facts: StageFacts) -> None:
    assert callable(importlib.import_module(facts.module).run)


def test_the_section_and_the_rows_exist(facts: StageFacts) -> None:
    assert facts.section is None or facts.section in Recipe.model_fields
    assert facts.rows is None or facts.rows in COLUMNS


def test_a_stage_that_reads_rows_has_a_utilisation_and_so_an_estimate(facts: StageFacts) -> None:
    assert (0 < facts.utilisation < 1) == (facts.rows is not None)


def test_a_stage_that_shares_its_work_trains_by_its_section(facts: StageFacts) -> None:
    if not facts.shares_work:
        with pytest.raises(KeyError, match="does not train"):
            training_section(facts.name, load_recipe())
        return
    assert isinstance(training_section(facts.name, load_recipe()), TrainingSection)
    assert facts.curves, "people see no curve of it"


def test_a_task_runs_it_by_its_own_code(facts: StageFacts) -> None:
    assert tasks_of_stages()[facts.name].modules == (facts.module,)


def test_every_module_of_a_task_exists() -> None:
    stages = tasks_of_stages()
    assert set(stages) > set(STAGES)
    for stage in stages.values():
        for module in stage.modules:
            assert importlib.util.find_spec(module), (stage.name, module)


def test_what_makes_a_model_has_a_name_in_the_report() -> None:
    labels = [facts.name for facts in STAGES.values() if facts.makes_model]
    assert list(display_names(load_recipe(), labels)) == labels


def test_no_field_of_the_table_is_without_use() -> None:
    used = "".join(path.read_text() for name in ("tasks", "training_image") for path in (ROOT / name).rglob("*.py"))
    unused = [field.name for field in fields(StageFacts) if f".{field.name}" not in used]
    assert not unused
