"""A word-matching rule, shown next to every model's score: what can be reached without any model.

It reads the question, the tools and the four answers, never the gold answer. Measured (chance over the three classes
that occur: 0.33): 0.84 on sgd_eval_dev (n = 300), 0.77 on when2call_dev100 (n = 100), 0.71 on the items derived from
BFCL live, balanced (n = 1,161). Part of it is an artefact of the schema: the call of a cannot_answer item in
When2Call names the tool that was taken away, and a look at the list of tools sees that.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

_WORD = re.compile(r"\w+")
_MOST_VALUES = 0.6  # share of the call's argument words that must stand in the question
_COMMON_WORDS = 2
_MIN_LENGTH = 4  # letters; shorter words are in every question and every description


def predict(row: Mapping[str, Any]) -> str:
    """The behaviour that the rule picks for a choice row; ``direct`` is never gold in When2Call and never picked.

    No tool offered, or a call of another tool: cannot_answer. Most of the call's values in the question: tool_call.
    Two long words common to question and tools: request_for_info. Else cannot_answer.
    """
    names = {tool["function"]["name"] for tool in row["tools"]}
    call = _call(row["answers"]["tool_call"])
    if call.get("name") not in names:
        return "cannot_answer"
    question = row["question"].lower()
    if _grounded(call.get("arguments"), question) >= _MOST_VALUES:
        return "tool_call"
    common = _long_words(question) & _long_words(json.dumps(row["tools"]).lower())
    return "request_for_info" if len(common) >= _COMMON_WORDS else "cannot_answer"


def rule_items(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rule's answers to choice rows, as lines of items.jsonl: the same under both decision rules."""
    items = []
    for row in rows:
        chosen = predict(row)
        item = {"id": row["id"], "gold": row["correct_answer"], "has_tools": bool(row["tools"])}
        items.append({**item, "prediction": chosen, "prediction_norm": chosen})
    return items


def _call(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
    except ValueError:
        return {}
    return call if isinstance(call, dict) else {}


def _grounded(arguments: Any, question: str) -> float:
    """Mean share of each plain value's words that stand in the question; 1 for a call without values."""
    values = (
        [str(v).lower() for v in arguments.values() if not isinstance(v, (dict, list))]
        if isinstance(arguments, dict)
        else []
    )
    words = set(_WORD.findall(question))
    shares = [len(set(found) & words) / len(set(found)) for value in values if (found := _WORD.findall(value))]
    return sum(shares) / len(shares) if shares else 1.0


def _long_words(text: str) -> set[str]:
    return {word for word in re.findall(r"[a-z]+", text) if len(word) >= _MIN_LENGTH}
