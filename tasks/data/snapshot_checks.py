"""What checks.json says of a snapshot, and when it stops the flow."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from data_checks.duplicates import normalise
from data_checks.flags import is_live, questions
from data_checks.rules import severity_of
from data_checks.suites import judge
from rightcall.errors import DataError
from rightcall.measurement.baseline import rule_items
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import Source
from rightcall.rows.snapshots import iter_snapshot
from rightcall.rows.vocabulary import BEHAVIOURS, RowKind
from tasks.data.checked_rows import CheckedRows

Json = dict[str, Any]
WORST = 10
MANY_NEAR_DUPLICATES = 0.05  # share of a kind's rows; above it a person should look at them
TRAINED: dict[RowKind, str] = {"sft": "messages", "preference": "prompt"}  # the column with what the user asks


def report_checks(
    recipe: Recipe, checked: dict[RowKind, CheckedRows], kept: dict[RowKind, list[int]], folder: Path, scratch: Path
) -> Json:
    """What checks.json says.

    Raises:
        DataError: a row was lost on the way, or one that must not be trained on was written.
    """
    classes = {
        kind: dict(sorted(Counter("/".join(names) for names in rows.classes(kept[kind])).items()))
        for kind, rows in checked.items()
    }
    behaviours = {
        kind: dict(sorted(Counter(names[0] for names in rows.classes(kept[kind])).items()))
        for kind, rows in checked.items()
    }
    return {
        "rows": {kind: _counts(rows, kept[kind]) for kind, rows in checked.items()},
        "reasons": _reasons(checked),
        "warnings": [
            _many_near_duplicates(rows)
            for rows in checked.values()
            if rows.near_duplicate_count > MANY_NEAR_DUPLICATES * rows.tally.read
        ],
        "classes": behaviours,
        "classes_in_detail": classes,
        "gx": judge(
            {kind: rows.flags for kind, rows in checked.items()},
            behaviours,
            recipe.data.tolerance,
            folder / "data_docs",
            scratch / "gx",
        ),
        "leakage": _prove_no_leakage(folder, checked),
        "baseline_rule": _score_rule(folder),
    }


def _counts(rows: CheckedRows, kept: list[int]) -> dict[str, int]:
    tally = rows.tally
    counts = {
        "in": tally.read,
        "kept": len(kept),
        "quarantined": tally.quarantined,
        "sampled_out": tally.read - tally.quarantined - len(kept),
        "critical": tally.critical,
    }
    if counts["sampled_out"] != rows.left_out(kept) or rows.flags.height != tally.read:
        raise DataError(
            f"{rows.kind}: rows were lost between reading and writing: {counts!r}; please report this as a bug"
        )
    return counts


def _reasons(checked: dict[RowKind, CheckedRows]) -> Json:
    """Critical ones first, most frequent first; one reason of several kinds is counted together."""
    total: Counter[str] = Counter()
    examples: dict[str, str] = {}
    kinds: dict[str, dict[str, int]] = {}
    for kind, rows in checked.items():
        total.update(rows.tally.reasons)
        examples = rows.tally.examples | examples
        for reason, count in rows.tally.reasons.items():
            kinds.setdefault(reason, {})[kind] = count
    return {
        reason: {"count": count, "severity": severity_of(reason), "kinds": kinds[reason], "example": examples[reason]}
        for reason, count in sorted(
            total.items(), key=lambda item: (severity_of(item[0]) != "critical", -item[1], item[0])
        )
    }


def _many_near_duplicates(rows: CheckedRows) -> str:
    count, read = rows.near_duplicate_count, rows.tally.read
    return (
        f"{count:,} of {read:,} {rows.kind} rows ({count / read:.1%}) are left out as near duplicates, e.g. "
        f"{rows.near_duplicate_pair()}. All of them are in quarantine.jsonl; if they should be trained on, raise "
        "data.near_duplicate_threshold, or set it to null (off)."
    )


def _prove_no_leakage(folder: Path, checked: dict[RowKind, CheckedRows]) -> Json:
    """Looks again, at what was written: no row from live_*, no question of the evaluation, after normalisation."""
    asked = {normalise(question) for question in checked["choice"].questions}
    proved = live = shared = 0
    for kind, said in TRAINED.items():
        for row in iter_snapshot(folder, kind, ("id", "source", said)):
            proved += 1
            live += is_live(row["source"], row["id"])
            shared += not asked.isdisjoint(questions(row[said], normalise))
    if live or shared:
        raise DataError(
            f"{live} rows from live_* and {shared} with questions of the evaluation reached training; "
            "please report this as a bug"
        )
    found = sum(rows.tally.reasons["leaks_evaluation"] for rows in checked.values())
    return {
        "checked": sum(rows.tally.read for kind, rows in checked.items() if kind != "choice"),
        "found": found,
        "evaluation_questions": len(asked),
        "proved_rows": proved,
        "remaining": shared,
        "live_rows_in_training": live,
    }


def _score_rule(folder: Path) -> Json:
    """What the keyword rule scores on the very items that the models are measured on."""
    answers: dict[str, list[bool]] = {gold: [] for gold in BEHAVIOURS}
    read = ("id", "question", "tools", "answers", "correct_answer")
    for item in rule_items(iter_snapshot(folder, "choice", read)):
        answers[item["gold"]].append(item["prediction"] == item["gold"])
    total = sum(len(found) for found in answers.values())
    right = sum(sum(found) for found in answers.values())
    return {
        "n": total,
        "accuracy": round(right / total, 6) if total else None,
        "recall": {gold: round(sum(found) / len(found), 6) for gold, found in answers.items() if found},
    }


def stop_if_unfit(recipe: Recipe, checks: Json) -> None:
    """Ends the flow before anything is trained on rows that are not fit for it.

    Raises:
        DataError: too many rows are broken, none is left, or all are of one class.
    """
    problems = []
    for kind, named in sources_of(recipe).items():
        counts, behaviours = checks["rows"][kind], checks["classes"][kind]
        if not named:
            continue
        if counts["critical"] > recipe.data.tolerance * counts["in"]:
            share = counts["critical"] / counts["in"]
            problems.append(
                f"{counts['critical']:,} of {counts['in']:,} {kind} rows ({share:.1%}) break a critical rule, "
                f"data.tolerance is {recipe.data.tolerance:.1%}"
            )
        elif not counts["kept"]:
            what = "no row was read" if not counts["in"] else f"none of {counts['in']:,} rows is left"
            problems.append(f"{what} for {kind} from {', '.join(repr(each.uri) for each in named)}")
        elif len(behaviours) == 1 and (kind != "choice" or recipe.data.sft or recipe.data.preference):
            problems.append(
                f"all {counts['kept']:,} {kind} rows are of one class, {next(iter(behaviours))!r}: "
                "there is no decision to learn or measure"
            )
    if problems:
        worst = [
            f"  {each['count']:,} × {reason} ({each['severity']}), e.g. {each['example']}"
            for reason, each in list(checks["reasons"].items())[:WORST]
        ]
        advice = (
            "Correct the rows or the sources in the recipe; raise data.tolerance only if you can do without these rows."
        )
        raise DataError("\n".join(["; ".join(problems) + ". Worst reasons:", *(worst or ["  none"]), advice]))


def sources_of(recipe: Recipe) -> dict[RowKind, tuple[Source, ...]]:
    """The evaluation first."""
    return {"choice": recipe.data.evaluation, "sft": recipe.data.sft, "preference": recipe.data.preference}
