"""What was mined, in numbers: mining.json.

{"steps": 200, "answers": 800, "right": 310, "all_right": 21, "all_wrong": 60, "mixed": 119, "cut": 12,
 "pairs": 402, "from_data": 0, "kinds": {"wrong_value": {"answers": 120, "pairs": 98}, …}, "left_out": {…}, "examples": […]}
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError
from rightcall.rollouts.pairs import Line, Pairs
from rightcall.rows.vocabulary import BEHAVIOURS, Row

EXAMPLES = 3
EXAMPLE_CHARACTERS = 300


def report(lines: Sequence[Line], pairs: Pairs, template: ChatTemplate, *, from_data: int) -> dict[str, Any]:
    """`from_data`: pairs of the snapshot that are trained on as well."""
    right: dict[str, list[bool]] = defaultdict(list)
    for line in lines:
        right[line["id"]].append(line["ok"])
    answers = Counter(line["error_kind"] for line in lines if not line["ok"])
    kept = Counter(row["rejected_kind"] for row in pairs.rows)
    behaviours = {name: [line["ok"] for line in lines if line["behaviour"] == name] for name in BEHAVIOURS}
    return {
        "steps": len(right),
        "answers": len(lines),
        "right": sum(line["ok"] for line in lines),
        "all_right": sum(map(all, right.values())),
        "all_wrong": sum(not any(found) for found in right.values()),
        "mixed": sum(any(found) and not all(found) for found in right.values()),
        "cut": sum(line["cut"] for line in lines),
        "pairs": len(pairs.rows),
        "from_data": from_data,
        "behaviours": {
            name: {"answers": len(found), "right": sum(found)} for name, found in behaviours.items() if found
        },
        "kinds": {kind: {"answers": count, "pairs": kept[kind]} for kind, count in answers.most_common()},
        "left_out": dict(pairs.left_out.most_common()),
        "examples": _examples(pairs.rows, [kind for kind, _ in kept.most_common(EXAMPLES)], template),
    }


def require_pairs(found: dict[str, Any]) -> None:
    """There is something to prefer.

    Raises:
        DataError: there is not, and why.
    """
    if found["pairs"] or found["from_data"]:
        return
    if found["right"] == found["answers"]:
        raise DataError(
            f"all {found['answers']} sampled answers of {found['steps']} training steps are right, so there is nothing to "
            "reject and DPO has nothing to learn from; raise mine.temperature or mine.steps, or go on without: "
            "--set mine.samples=0 --set dpo.max_steps=0",
            reason="no_wrong_answer",
        )
    raise DataError(
        f"none of the {found['answers'] - found['right']} wrong answers became a pair: {found['left_out']!r}; raise "
        "dpo.max_length or mine.max_new_tokens, or go on without: --set mine.samples=0 --set dpo.max_steps=0",
        reason="no_pairs",
    )


def _examples(rows: Sequence[Row], kinds: Sequence[str], template: ChatTemplate) -> list[dict[str, str]]:
    """The first pair of each kind, as it reads."""
    found = []
    for kind in kinds:
        row = next(row for row in rows if row["rejected_kind"] == kind)
        texts = {
            "asked": str(row["prompt"][-1]["content"]),
            "chosen": template.answer_text(row["chosen"]),
            "rejected": template.answer_text(row["rejected"]),
        }
        found.append(
            {"id": row["id"], "kind": kind} | {name: text[:EXAMPLE_CHARACTERS] for name, text in texts.items()}
        )
    return found
