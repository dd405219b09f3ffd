"""Numbers about what a model writes: written.jsonl, a line per step, and the metrics it gives.

    {"id": "c1/3", "conversation": "c1", "group": "u7", "behaviour": "tool_call", "text": "<tool_call>…",
     "verdict": {"ok": true, "valid_call": true, "right_tool": true, "right_arguments": true, "right_behaviour": true},
     "error_kind": null, "faults": [], "grammar": {"text": …, "verdict": …, "error_kind": …, "faults": […]} | null}

A metric is a share of the steps that it asks about; a step that it does not ask about has the flag None. The metrics named
*_grammar ask the same of the answer that was decoded under the tools' schemas.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

BEHAVIOUR_OF = {
    "right_call": "tool_call",
    "right_ask": "request_for_info",
    "right_decline": "cannot_answer",
    "right_talk": "direct",
}
FREE = ("right", *BEHAVIOUR_OF, "overcall", "valid_call", "right_tool", "right_arguments")
GRAMMAR = tuple(f"{name}_grammar" for name in FREE)
WRITTEN_METRICS = (*FREE, *GRAMMAR)


def flag(line: Mapping[str, Any], metric: str) -> bool | None:
    """What one line says about one metric of WRITTEN_METRICS; None = the metric does not ask about this step."""
    name = metric.removesuffix("_grammar")
    answer = line if name == metric else line["grammar"]
    if answer is None:
        return None
    verdict, gold = answer["verdict"], line["behaviour"]
    if name == "right":
        return bool(verdict["ok"])
    if name in BEHAVIOUR_OF:
        return bool(verdict["ok"]) if gold == BEHAVIOUR_OF[name] else None
    if name == "overcall":
        return verdict["valid_call"] is not None if gold != "tool_call" else None
    found = verdict[name]
    return None if found is None else bool(found)
