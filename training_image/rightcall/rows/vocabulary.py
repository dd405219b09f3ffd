"""The words that rows are described with."""

from __future__ import annotations

from typing import Any, Literal, get_args

Row = dict[str, Any]
# sft: what is trained, a whole conversation or one turn; step: one assistant turn with all before it, to be judged;
# conversation: as it was logged, of which sft and step rows are made; no file of a snapshot
RowKind = Literal["sft", "preference", "choice", "step", "conversation"]
# The order of When2Call's answer keys; confusion matrices, codes and answers keep it.
Behaviour = Literal["direct", "tool_call", "request_for_info", "cannot_answer"]
BEHAVIOURS: tuple[Behaviour, ...] = get_args(Behaviour)
StringRule = Literal["plain", "bfcl"]  # how the strings of a call are compared with gold's
REJECTED_KINDS = (
    *BEHAVIOURS,
    *("wrong_tool", "hallucinated_tool", "missing_argument", "wrong_value", "wrong_type", "invented_argument"),
    # the verifier's other words for a wrong answer, which mined pairs carry
    *("unparseable_call", "extra_argument", "missing_call", "extra_call"),
    *("did_not_call", "asked_when_should_call", "refused_when_should_call"),
    *("called_when_should_ask", "answered_when_should_ask", "refused_when_should_ask"),
    *("called_when_nothing_fits", "answered_when_nothing_fits", "asked_when_nothing_fits"),
    *("called_when_should_answer", "asked_when_should_answer", "refused_when_should_answer", "said_nothing"),
)
