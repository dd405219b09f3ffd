"""Every rule about a row on one page: its flag, the reason in the quarantine when it does not hold, how bad that is.

critical: the row is taken out and counts against the recipe's tolerance. warning: it does not count; a duplicate is
taken out all the same (its first copy stays), see ``removes``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from rightcall.rows.vocabulary import RowKind

Severity = Literal["critical", "warning"]
TRAINING: tuple[RowKind, ...] = ("sft", "preference")
CALLING: tuple[RowKind, ...] = (*TRAINING, "conversation")
LABELLED: tuple[RowKind, ...] = (*TRAINING, "step")
READ: tuple[RowKind, ...] = ("sft", "preference", "choice", "conversation")
ALL: tuple[RowKind, ...] = (*READ, "step")


@dataclass(frozen=True)
class Rule:
    flag: str  # column of the flag frame; True = the rule holds
    reason: str
    severity: Severity
    kinds: tuple[RowKind, ...]
    question: str


RULES = (
    Rule("parseable", "unparseable", "critical", READ, "Can the line be read, and brought into the canonical form?"),
    Rule(
        "id_unique",
        "id_repeated",
        "critical",
        ("choice", "conversation"),
        "Is the id not that of another item or conversation? Models are compared by id.",
    ),
    Rule(
        "not_live",
        "live_source_in_training",
        "critical",
        TRAINING,
        "Is it from elsewhere than BFCL's live_*, the test material?",
    ),
    Rule(
        "roles_alternate",
        "roles_do_not_alternate",
        "critical",
        TRAINING,
        "(system) user assistant (tool assistant) user …",
    ),
    Rule(
        "behaviour_true",
        "behaviour_contradicts_answer",
        "critical",
        LABELLED,
        "Is there a call exactly where the label says so?",
    ),
    Rule("call_offered", "tool_not_offered", "critical", CALLING, "Does every call name a tool that is offered?"),
    Rule(
        "required_present",
        "required_argument_missing",
        "critical",
        CALLING,
        "Does every call give the required arguments?",
    ),
    Rule(
        "arguments_valid",
        "arguments_break_schema",
        "critical",
        CALLING,
        "Do all arguments satisfy the tool's JSON Schema?",
    ),
    Rule("sides_differ", "chosen_equals_rejected", "critical", ("preference",), "Do the two answers differ?"),
    Rule(
        "same_prompt",
        "sides_answer_no_common_prompt",
        "critical",
        ("preference",),
        "Do both answer one prompt, the user's turn?",
    ),
    Rule(
        "four_answers",
        "answers_empty_or_equal",
        "critical",
        ("choice",),
        "Are the four answers non-empty and different?",
    ),
    Rule(
        "gold_call_offered",
        "gold_call_not_offered",
        "critical",
        ("choice",),
        "Where a call is right: is its tool offered?",
    ),
    Rule("renders", "template_refuses", "critical", ALL, "Does the model's chat template take the messages?"),
    Rule(
        "reads_back",
        "call_not_read_back",
        "critical",
        LABELLED,
        "Do its calls come back from what the model's chat template writes for them?",
    ),
    Rule(
        "loss_mask", "empty_loss_mask", "critical", TRAINING, "Is there something to learn, up to the end of the turn?"
    ),
    Rule(
        "within_length",
        "too_long",
        "critical",
        ALL,
        "Does it fit max_length (an item or a step: the window), in tokens of the base model?",
    ),
    Rule(
        "not_leaked",
        "leaks_evaluation",
        "critical",
        CALLING,
        "Is its question none of the evaluation's, nor nearly one? Of a conversation: its group, or all that was said?",
    ),
    Rule(
        "not_duplicate", "exact_duplicate", "warning", READ, "Is it the first row with this content? Ids do not count."
    ),
    Rule(
        "not_near_duplicate",
        "near_duplicate",
        "warning",
        ("sft", "preference", "choice"),
        "Is it unlike every earlier row of its class with the same calls, in its turns or its answer?",
    ),
    Rule(
        "not_contradicted",
        "contradiction",
        "warning",
        ("sft", "step"),
        "Does no other row answer the same question (policy, tools, history, last turn) with another call, or with none?",
    ),
)
CRITICAL = frozenset(rule.reason for rule in RULES if rule.severity == "critical")


def rules_of(kind: RowKind) -> tuple[Rule, ...]:
    return tuple(rule for rule in RULES if kind in rule.kinds)


def severity_of(reason: str) -> Severity:
    """Reasons of the adapters (``not_json``, ``missing_field:tools`` …) are not listed above; all are critical."""
    return "warning" if any(rule.reason == reason and rule.severity == "warning" for rule in RULES) else "critical"


def removes(reason: str, kind: RowKind) -> bool:
    """A near duplicate stays in an evaluation: a published test set is measured as it was published.

    A contradiction is told and stays: which of the two is right, only people can say.
    """
    return reason != "contradiction" and not (reason == "near_duplicate" and kind == "choice")
