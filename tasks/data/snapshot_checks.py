"""What checks.json says of a snapshot, and when it stops the flow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_checks.duplicates import normalise
from data_checks.flags import is_live, questions
from data_checks.held_out import said_key
from data_checks.rules import severity_of
from data_checks.suites import judge
from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.measurement.baseline import rule_items
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import Source
from rightcall.records.schemas import OPTIONAL
from rightcall.rows.snapshots import iter_snapshot
from rightcall.rows.vocabulary import BEHAVIOURS, RowKind
from tasks.data.checked_rows import CheckedRows
from tasks.data.split import Split, describe_split

Json = dict[str, Any]
WORST = 10
WHOLE_CONVERSATIONS = ", or name the file under data.conversations, which trains every turn of the assistant"
MANY = 0.05  # share of a kind's or a source's rows; above it a person should look at them
TURNS_OF: dict[RowKind, str] = {
    "choice": "right answers", "step": "turns", "conversation": "assistant turns", "sft": "trained turns",
    "preference": "chosen answers",
}  # fmt: skip
TRAINED: dict[RowKind, str] = {"sft": "messages", "preference": "prompt"}  # the column with what the user asks


def report_checks(
    recipe: Recipe, checked: dict[RowKind, CheckedRows], kept: dict[RowKind, list[int]], *, split: Split | None,
    template: ChatTemplate, folder: Path, scratch: Path,
) -> Json:  # fmt: skip
    """What checks.json says.

    Raises:
        DataError: a row was lost on the way, or one that must not be trained on was written.
    """
    behaviours = {kind: rows.behaviours(kept[kind]) for kind, rows in checked.items()}
    classes = {
        kind: dict(sorted(Counter("/".join(names) for names in rows.classes(kept[kind])).items()))
        for kind, rows in checked.items()
        if kind in ("choice", "preference")
    }
    return {
        "rows": {kind: _counts(rows, kept[kind]) for kind, rows in checked.items()},
        "reasons": _reasons(checked),
        "warnings": [*(text for rows in checked.values() for text in warnings_of(rows)), *_one_sided(behaviours)],
        "not_used": _not_used(recipe, checked, template),
        "classes": behaviours,
        "classes_in_detail": {**behaviours, **classes},
        **({"conversations": describe_split(split, kept["conversation"])} if split is not None else {}),
        "gx": judge(
            {kind: rows.flags for kind, rows in checked.items()},
            {kind: counts for kind, counts in behaviours.items() if kind != "conversation"},
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


def _not_used(recipe: Recipe, checked: dict[RowKind, CheckedRows], template: ChatTemplate) -> Json:
    """Kind → source → column or field of messages → distinct rows that have it and were made without it."""
    used = {name for name in OPTIONAL if _writes(template, name.removeprefix("messages[]."))} | {recipe.data.group_by}
    left = {
        kind: {
            source: {name: count for name, count in sorted(names.items()) if name not in used}
            for source, names in rows.tally.unused.items()
        }
        for kind, rows in checked.items()
    }
    return {
        kind: found
        for kind, each in left.items()
        if (found := {name: columns for name, columns in each.items() if columns})
    }


def _writes(template: ChatTemplate, name: str) -> bool:
    """Whether a model would see this field of a message."""
    mark = "what the field holds"
    try:
        return mark in template.render(
            [{"role": role, "content": "?", name: mark} for role in ("user", "assistant")], None
        )
    except DataError:
        return False


def warnings_of(rows: CheckedRows) -> Iterator[str]:
    """What a person should look at: a rule that takes much of a source, answers that contradict each other."""
    many = rows.near_duplicate_count > MANY * rows.tally.read
    if many:
        yield _many_near_duplicates(rows)
    if rows.contradicted:
        yield _contradictions(rows)
    for source, reasons in rows.tally.reasons_of.items():
        read = rows.tally.read_of[source]
        for reason, count in reasons.items():
            if count > max(1, MANY * read) and not (reason == "contradiction" or (many and reason == "near_duplicate")):
                yield (
                    f"{count:,} of {read:,} {rows.kind} rows of {source!r} ({count / read:.1%}): {reason}; e.g. "
                    f"{rows.tally.examples[reason]}"
                )


def _one_sided(behaviours: dict[RowKind, dict[str, int]]) -> Iterator[str]:
    for kind in TRAINED:
        if len(behaviours[kind]) == 1:
            name, turns = next(iter(behaviours[kind].items()))
            yield (
                f"all {turns:,} {TURNS_OF[kind]} of the {kind} rows are {name!r}: a model that learns from them alone does "
                "that whatever is asked; name rows beside them in which something else is right"
            )


def _contradictions(rows: CheckedRows) -> str:
    count, read = len(rows.contradicted), rows.tally.read
    return (
        f"{count:,} of {read:,} {rows.kind} rows ({count / read:.1%}) have an answer that another one contradicts: the "
        f"same policy, tools, history and last turn, but another call, or none, e.g. {rows.contradiction_pair()}. They "
        "are kept; if one of the answers is wrong, correct or drop it."
    )


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
    if "step" in checked:
        _prove_groups_apart(folder)
    return {
        "checked": sum(rows.tally.read for kind, rows in checked.items() if kind in TRAINED),
        "found": found,
        "evaluation_questions": len(asked),
        "proved_rows": proved,
        "remaining": shared,
        "live_rows_in_training": live,
    }


def _prove_groups_apart(folder: Path) -> None:
    """Looks again, at what was written: no group stands on both sides, and no row of another source is a step.

    Different users open and close their conversations with the same words: of the log's own rows the group decides.
    """
    groups, said = set(), set()
    for step in iter_snapshot(folder, "step", ("group", "messages")):
        groups.add(step["group"])
        said.add(said_key(step["messages"]))
    rows = iter_snapshot(folder, "sft", ("id", "group", "messages"))
    shared = [
        row["id"] for row in rows if (row["group"] in groups if row["group"] else said_key(row["messages"]) in said)
    ]
    pairs = iter_snapshot(folder, "preference", ("id", "prompt", "chosen"))
    shared += [row["id"] for row in pairs if said_key([*row["prompt"], row["chosen"]]) in said]
    if shared:
        raise DataError(
            f"{len(shared)} training rows, e.g. {shared[0]!r}, are of a group or a conversation of the evaluation; please report "
            "this as a bug"
        )


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

    Training rows may all be calls, as xLAM's are, where the evaluation shows what comes of it.

    Raises:
        DataError: too many rows are broken, none is left, or all are of one class.
    """
    problems = []
    data = recipe.data
    trained = data.sft or data.preference or any(each.use != "evaluation" for each in data.conversations)
    judged = _judged(recipe, checks)
    shown = any(len(checks["classes"][kind]) > 1 for kind in judged if kind in ("choice", "step"))
    for kind, named in judged.items():
        counts, behaviours = checks["rows"][kind], checks["classes"][kind]
        if counts["critical"] > recipe.data.tolerance * counts["in"]:
            share = counts["critical"] / counts["in"]
            problems.append(
                f"{counts['critical']:,} of {counts['in']:,} {kind} rows ({share:.1%}) break a critical rule, "
                f"data.tolerance is {recipe.data.tolerance:.1%}{_lengths(checks, kind)}"
            )
        elif not counts["kept"]:
            what = "no row was read" if not counts["in"] else f"none of {counts['in']:,} rows is left"
            problems.append(f"{what} for {kind} from {', '.join(repr(each.uri) for each in named)}")
        elif len(behaviours) == 1 and (kind != "choice" or trained):
            behaviour, turns = next(iter(behaviours.items()))
            if shown and behaviour == "tool_call" and kind not in ("choice", "step"):
                continue
            problems.append(
                f"all {turns:,} {TURNS_OF[kind]} of {counts['kept']:,} {kind} rows are {behaviour!r}: there is no "
                "decision to learn or measure; name rows or items beside them in which something else is right"
                f"{WHOLE_CONVERSATIONS if kind == 'sft' and data.sft else ''}"
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


def _lengths(checks: Json, kind: RowKind) -> str:
    """How long the conversations are, where that is what is wrong with some."""
    if kind != "conversation" or "too_long" not in checks["reasons"]:
        return ""
    shown = [
        f"of {source!r} half have at most {found['p50']:,} tokens, 90% {found['p90']:,}, 99% {found['p99']:,}, the longest "
        f"{found['longest']:,}"
        for source, found in checks["conversations"]["lengths"].items()
    ]
    limits = checks["conversations"]["limits"]
    return (
        f" (lengths: {'; '.join(shown)}; the limit is {limits['train']['tokens']:,} for training, {limits['train']['name']}, "
        f"and {limits['evaluation']['tokens']:,} for evaluation, {limits['evaluation']['name']}; data.too_long=cut_front "
        "leaves out first turns instead)"
    )


def _judged(recipe: Recipe, checks: Json) -> dict[RowKind, tuple[Source, ...]]:
    """The kinds of which there should be rows, and the sources that give them."""
    named: dict[RowKind, tuple[Source, ...]] = {**sources_of(recipe)}
    heard = recipe.data.conversations
    if checks["rows"].get("conversation", {}).get("kept"):  # else that is what is wrong
        named["step"] = tuple(each for each in heard if each.use != "train")
        named["sft"] = (*named["sft"], *(each for each in heard if each.use != "evaluation"))
    return {kind: several for kind, several in named.items() if several}


def sources_of(recipe: Recipe) -> dict[RowKind, tuple[Source, ...]]:
    """The evaluation first."""
    data = recipe.data
    return {
        "choice": data.evaluation, "conversation": data.conversations, "sft": data.sft, "preference": data.preference
    }  # fmt: skip
