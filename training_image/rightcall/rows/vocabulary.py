"""The words that rows are described with."""

from __future__ import annotations

from typing import Any, Literal

Row = dict[str, Any]
RowKind = Literal["sft", "preference", "choice"]
BEHAVIOURS = ("direct", "tool_call", "request_for_info", "cannot_answer")
REJECTED_KINDS = (
    *BEHAVIOURS,
    *("wrong_tool", "hallucinated_tool", "missing_argument", "wrong_value", "wrong_type", "invented_argument"),
)
Behaviour = Literal["direct", "tool_call", "request_for_info", "cannot_answer"]
