"""checks.json in words, for a terminal: what became of the conversations, what was refused and why, where to look."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rightcall.rows.vocabulary import BEHAVIOURS

Json = dict[str, Any]
REASONS = 12  # shown; all stand in checks.json
SIDES = {"train": "trained on", "evaluation": "held out for evaluation"}


def describe(checks: Json, place: str) -> str:
    """place: the snapshot's folder or address."""
    parts = [
        [_behaviours(checks)],
        list(described_conversations(checks)),
        list(_reasons(checks)),
        list(_sampled_out(checks)),
        [f"Warning: {text}" for text in checks["warnings"]],
        list(described_columns(checks)),
        [
            f"Snapshot: {place}",
            f"Every row that was not kept, with its reasons: {place}/quarantine.jsonl",
            f"Every check as a page: {place}/data_docs/index.html",
        ],
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if any(lines))


def described_conversations(checks: Json) -> Iterator[str]:
    """Sides, lengths, what was left out or redacted, a line each; none without conversations."""
    found = checks.get("conversations")
    if found is None:
        return
    by = f"by {found['group_by']}" if found["group_by"] else "a group each"
    sides = [
        f"{side['conversations']:,} conversations of {side['groups']:,} groups with {side['steps']:,} steps are {SIDES[name]}"
        for name, side in found["sides"].items()
    ]
    yield f"Conversations, split {by}: {'; '.join(sides)}."
    for source, lengths in found["lengths"].items():
        limit = found["limits"]["train"]
        yield (
            f"Tokens a conversation of {source}: half have at most {lengths['p50']:,}, 90% {lengths['p90']:,}, 99% "
            f"{lengths['p99']:,}, the longest {lengths['longest']:,}; rows to train on have at most {limit['tokens']:,} "
            f"({limit['name']})."
        )
    for side, cut in found["cut"].items():
        what = "rows to train on" if side == "train" else "steps"
        turns = f", {cut['turns']:,} turns in them are not trained" if cut["turns"] else ""
        yield (
            f"Cut at the front: {cut['conversations']:,} {what} lost {cut['messages']:,} messages to fit{turns}; the longest "
            f"had {cut['longest']:,} tokens."
        )
    if found["endings_left_out"]:
        yield (
            f"{found['endings_left_out']:,} conversations go on after the assistant's last turn, or the last to be "
            "trained; what follows it is left out."
        )
    if found["greetings"]:
        yield f"{found['greetings']:,} conversations begin with the assistant; the greeting is kept, not trained or judged."
    if found["redacted"]:
        kinds = ", ".join(f"{count:,} × {kind}" for kind, count in found["redacted"].items())
        yield (
            f"Secrets redacted before anything was stored: {kinds}. Replace those that are still valid: they were in a log."
        )


def described_columns(checks: Json) -> Iterator[str]:
    """Columns and fields of messages that no row is made of, a line a source."""
    for kind, found in checks["not_used"].items():
        for source, columns in found.items():
            names = ", ".join(f"{name!r} ({count:,})" for name, count in columns.items())
            yield f"Not used of {source}, with the number of {kind} rows that have it: {names}."


def _behaviours(checks: Json) -> str:
    """Turns that are trained or judged, by behaviour, a line a kind of rows."""
    counts = {kind: found for kind, found in checks["classes"].items() if found and kind != "conversation"}
    names = [name for name in BEHAVIOURS if any(name in found for found in counts.values())]
    if not names:
        return ""
    lines = [
        ["turns", *names],
        *([kind, *(f"{found.get(name, 0):,}" for name in names)] for kind, found in counts.items()),
    ]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def _reasons(checks: Json) -> Iterator[str]:
    if not checks["reasons"]:
        return
    yield "What was found wrong:"
    for reason, found in list(checks["reasons"].items())[:REASONS]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in found["kinds"].items())
        yield f"  {reason} ({found['severity']}): {kinds}; e.g. {' '.join(found['example'].split())}"
    if len(checks["reasons"]) > REASONS:
        yield f"  … and {len(checks['reasons']) - REASONS} more reasons, in checks.json"


def _sampled_out(checks: Json) -> Iterator[str]:
    left = {kind: counts["sampled_out"] for kind, counts in checks["rows"].items() if counts["sampled_out"]}
    if left:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in left.items())
        yield f"Sound, and left out because the recipe asks for fewer or shorter rows: {kinds}."
