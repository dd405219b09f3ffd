"""Why rows are quarantined, for docs/your-agent.md: the rules of data_checks/rules.py, and what a record is refused for when read.

python tests/generators/reasons_table.py --write     # after a change of a rule or of a message
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from field_list import main

from data_checks.rules import RULES

ROOT = Path(__file__).parents[2]
NOT_OF_A_ROW = {"missing_snapshot"}
READERS = (
    "training_image/rightcall/rows",
    "training_image/rightcall/records",
    "training_image/rightcall/traces",
    "tasks/tracking",
    "tasks/data",
    "tasks/files",
)  # where a line becomes a row


def reasons_table() -> str:
    rules = ["| reason | how bad | the question that the row fails | of |", "|---|---|---|---|"]
    rules += [f"| `{rule.reason}` | {rule.severity} | {rule.question} | {', '.join(rule.kinds)} |" for rule in RULES]
    read = ["| reason | what is said |", "|---|---|"]
    read += [f"| `{reason}` | {text} |" for reason, text in sorted(refusals().items())]
    between = "A record that cannot be read has one of these, all critical:"
    return "\n".join([*rules, "", between, "", *read])


def refusals() -> dict[str, str]:
    """Reason → the first message that is raised with it; … stands for what is filled in."""
    found: dict[str, str] = {}
    for folder in READERS:
        for path in sorted((ROOT / folder).glob("*.py")):
            for reason, text in _raised(ast.parse(path.read_text(encoding="utf-8"))):
                found.setdefault(reason, text)
    known = {rule.reason for rule in RULES}
    return {reason: text for reason, text in found.items() if reason not in known | NOT_OF_A_ROW}


def _raised(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not node.args:
            continue
        reason = next((word.value for word in node.keywords if word.arg == "reason"), None)
        text = _text(node.args[0])
        if reason is not None and text and _text(reason):
            yield _text(reason), text.replace("|", "\\|").replace("<", "&lt;")


def _text(node: ast.AST) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value) if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "…" for part in node.values)
    return ""


if __name__ == "__main__":
    sys.exit(main("reasons_table", reasons_table))
