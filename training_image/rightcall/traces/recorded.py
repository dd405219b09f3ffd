"""What is recorded of one call of a model, whatever the convention."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from rightcall.rows.vocabulary import Row

OTHER_CHOICES = "answers beside the first of a span"


@dataclass
class Recorded:
    given: list[Row]
    answered: list[Row]
    system: str = ""
    tools: Any = None
    left_out: Counter[str] = field(default_factory=Counter)
