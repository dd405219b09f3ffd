"""Turns on which the models differ, with the end of the conversation before them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rightcall.rows.snapshots import read_snapshot
from tasks.reporting.page_data import candidate_of
from tasks.results.scores import Scores

EXAMPLES = 8
MAX_TEXT = 600  # characters of a message or an answer that are shown
LAST_TURNS = 4  # messages before the answer that are shown
Row = Mapping[str, Any]


def read_steps(snapshot: Path) -> list[dict[str, Any]]:
    """The evaluation as turns: id, the messages with the right answer last, tools. Items come as a question and its answer."""
    steps = _rows(snapshot, "step")
    for row in _rows(snapshot, "choice"):
        gold = row["correct_answer"]
        messages = [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": row["answers"][gold]},
        ]
        steps.append({**row, "messages": messages, "behaviour": gold})
    return steps


def differing_steps(
    steps: Sequence[Row], scores: Mapping[str, Scores], names: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Up to EXAMPLES turns: gains and losses of the candidate against the first model in turn, then other differences."""
    answers = {label: _answers(scored, steps) for label, scored in scores.items()}
    first, last = next(iter(answers)), candidate_of(list(answers))
    gains: list[dict[str, Any]] = []
    losses: list[dict[str, Any]] = []
    others: list[dict[str, Any]] = []
    for step in steps:
        given = {label: found.get(step["id"]) for label, found in answers.items()}
        shown = {label: answer for label, answer in given.items() if answer is not None}
        if len(shown) < len(given) or len({(answer["text"], answer["right"]) for answer in shown.values()}) < 2:
            continue
        before, after = shown[first]["right"], shown[last]["right"]
        chosen = gains if after and not before else losses if before and not after else others
        chosen.append(_example(step, {names[label]: answer for label, answer in shown.items()}))
    mixed = [example for pair in zip(_spread(gains), _spread(losses), strict=False) for example in pair]
    rest = _spread(gains)[len(losses) :] + _spread(losses)[len(gains) :] + _spread(others)
    return (mixed + rest)[:EXAMPLES]


def cut(text: str) -> str:
    text = text.strip()
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text):,} characters)"


def _rows(snapshot: Path, kind: Any) -> list[dict[str, Any]]:
    return read_snapshot(snapshot, kind) if (snapshot / f"{kind}.parquet").is_file() else []


def _spread(examples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One of each behaviour before a second of any: not eight farewells."""
    seen: dict[str, int] = {}
    ranked = []
    for example in examples:
        seen[example["gold"]] = seen.get(example["gold"], 0) + 1
        ranked.append((seen[example["gold"]], example))
    return [example for _, example in sorted(ranked, key=lambda pair: pair[0])]


def _answers(scored: Scores, steps: Iterable[Row]) -> dict[str, dict[str, Any]]:
    """What was written, by step; where nothing was, the choice among given answers and its text."""
    if scored.written:
        return {
            line["id"]: {
                "text": cut(line["text"]) or "(nothing)",
                "right": bool(line["verdict"]["ok"]),
                "kind": ", ".join(kind for kind in (line["error_kind"], *line["faults"]) if kind),
            }
            for line in scored.written
        }
    texts = {step["id"]: step["answers"] for step in steps if "answers" in step}
    return {
        item["id"]: {
            "text": cut(texts[item["id"]][item["prediction_norm"]]),
            "right": item["prediction_norm"] == item["gold"],
            "kind": item["prediction_norm"],
        }
        for item in scored.items
        if item["id"] in texts
    }


def _example(step: Row, answers: dict[str, dict[str, Any]]) -> dict[str, Any]:
    *before, gold = step["messages"]
    shown = [message for message in before if message["role"] != "system"]
    return {
        "id": step["id"],
        "gold": step["behaviour"],
        "left_out": max(0, len(shown) - LAST_TURNS),
        "turns": [(message["role"], cut(_text(message))) for message in shown[-LAST_TURNS:]],
        "tools": [tool["function"]["name"] for tool in step["tools"]],
        "gold_text": cut(_text(gold)),
        "answers": answers,
    }


def _text(message: Mapping[str, Any]) -> str:
    """What was said, and the calls as name and arguments."""
    content = message.get("content") or ""
    said = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    called = [f"{call.get('name')}({_arguments(call.get('arguments'))})" for call in calls]
    return "\n".join([said, *called]).strip()


def _arguments(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
