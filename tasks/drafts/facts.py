"""What conversations are like: steps, behaviours, groups, lengths; numbers of the records that were looked at."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rightcall.chat.template import ChatTemplate
from rightcall.errors import DataError, RecipeError
from rightcall.rows.vocabulary import Row
from tasks.drafts.looking import CHARACTERS_PER_TOKEN, FileSeen

# Widest first: all that one person said should lie on one side of the split.
GROUP_FIELDS = (
    "user_id", "customer_id", "account_id", "client_id", "tenant_id", "user", "customer", "session_id",
    "conversation_id", "thread_id", "dialogue_id", "chat_id",
)  # fmt: skip
IN_ALL = 0.99  # share of the records that have the field
MOST_OF_ONE_GROUP = 0.5  # share of the turns, as in tasks/data/split.py
MEASURED = 300  # conversations whose length is taken


@dataclass(frozen=True)
class Conversations:
    records: int  # of the file
    looked_at: int
    steps: int
    behaviours: dict[str, int]  # most frequent first
    groups: dict[str, int]  # field → different values, fields that could be group_by, best first
    group_by: str | None
    largest_group: float  # share of the steps
    lengths: list[int]  # tokens, shortest first
    shared: int  # tokens of policy and tools, the same in every conversation; 0 = each has its own
    exact: bool  # lengths are of the model's tokenizer, not characters / 4
    tools: int  # named in the file or found in the first record
    own_tools: bool
    own_system: int  # records that begin with a system message
    unknown_calls: dict[str, int]  # tools that are called and not offered

    def percentile(self, share: float) -> int:
        return self.lengths[min(len(self.lengths) - 1, int(share * len(self.lengths)))]

    @property
    def mean_tokens(self) -> float:
        return sum(self.lengths) / len(self.lengths)

    @property
    def steps_each(self) -> float:
        return self.steps / self.looked_at


def facts_of(
    seen: FileSeen, *, tools: list[dict[str, Any]] | None, system: str | None, group_by: str | None,
    template: ChatTemplate | None,
) -> Conversations:  # fmt: skip
    """Of a file of conversations.

    Raises:
        DataError: calls are made and no tools are named anywhere.
        RecipeError: ``group_by`` is not a field of the records.
    """
    sample = seen.sample
    own_tools = tools is None and any(record["tools"] for record in sample)
    offered = [record["tools"] for record in sample]
    behaviours = Counter(behaviour for record in sample for _, behaviour in record["trained"])
    called = [_called(record) for record in sample]
    if tools is None and not own_tools and any(called):
        names = [name for name, _ in sum(called, Counter()).most_common(8)]
        raise DataError(
            f"the conversations of {seen.path.name!r} call {names!r}, but no record has tools; name the file that lists "
            "them: --tools tools.json"
        )
    groups = group_fields(sample)
    chosen = _chosen(group_by, sample, groups, seen.path)
    lengths = sorted(_lengths(sample[:MEASURED], offered, system, template))
    shared = 0 if own_tools else _tokens([_system(system)] if system else [], tools or [], template)
    return Conversations(
        records=seen.records, looked_at=len(sample), steps=sum(behaviours.values()),
        behaviours=dict(behaviours.most_common()), groups=groups, group_by=chosen,
        largest_group=_largest(sample, chosen), lengths=lengths, shared=shared, exact=template is not None,
        tools=len(offered[0]), own_tools=own_tools,
        own_system=sum(record["messages"][0]["role"] == "system" for record in sample),
        unknown_calls=_unknown(called, offered),
    )  # fmt: skip


def group_fields(sample: Sequence[Row]) -> dict[str, int]:
    """Fields that nearly every record has, with several and repeated or known values; best first."""
    found: dict[str, int] = {}
    for name in dict.fromkeys([*GROUP_FIELDS, *(key for key in sample[0] if key.endswith("_id"))]):
        values = [record[name] for record in sample if isinstance(record.get(name), (str, int)) and record[name] != ""]
        if len(values) >= IN_ALL * len(sample) and len(set(values)) > 1:
            found[name] = len(set(values))
    return found


def _chosen(group_by: str | None, sample: Sequence[Row], groups: dict[str, int], path: Path) -> str | None:
    if group_by is None:  # ingestion refuses a group that holds most of the turns
        return next((name for name in groups if _largest(sample, name) <= MOST_OF_ONE_GROUP), next(iter(groups), None))
    have = sum(group_by in record for record in sample)
    if have < IN_ALL * len(sample):
        others = f"fields that would do: {list(groups)!r}" if groups else f"they have {sorted(sample[0])[:12]!r}"
        raise RecipeError(
            f"--group-by {group_by!r} is a field of {have} of {len(sample)} records of {path.name!r}; {others}"
        )
    return group_by


def _largest(sample: Sequence[Row], group_by: str | None) -> float:
    steps: Counter[object] = Counter()
    for number, record in enumerate(sample):
        steps[str(record.get(group_by)) if group_by else number] += len(record["trained"])
    return max(steps.values()) / sum(steps.values())


def _called(record: Row) -> Counter[str]:
    calls = [call for message in record["messages"] for call in message.get("tool_calls") or ()]
    return Counter(call["function"]["name"] for call in calls)


def _unknown(called: Sequence[Counter[str]], offered: Sequence[list[Any]]) -> dict[str, int]:
    """Tools that are called and not offered, most frequent first."""
    found: Counter[str] = Counter()
    for counts, tools in zip(called, offered, strict=True):
        known = {tool["function"]["name"] for tool in tools}
        found.update({name: count for name, count in counts.items() if name not in known})
    return dict(found.most_common())


def _lengths(
    sample: Sequence[Row], offered: Sequence[list[Any]], system: str | None, template: ChatTemplate | None
) -> list[int]:
    found = []
    for record, tools in zip(sample, offered, strict=False):
        messages = record["messages"]
        if system and messages[0]["role"] != "system":
            messages = [_system(system), *messages]
        found.append(_tokens(messages, tools, template))
    return found


def _tokens(messages: list[Row], tools: list[Any], template: ChatTemplate | None) -> int:
    """Characters / 4 without a template, and of what a template refuses."""
    if not messages and not tools:
        return 0
    if template is not None:
        try:
            return template.count_tokens([(messages or [{"role": "user", "content": "."}], tools)])[0]
        except DataError:
            pass
    return len(json.dumps([messages, tools], ensure_ascii=False)) // CHARACTERS_PER_TOKEN


def _system(text: str) -> Row:
    return {"role": "system", "content": text}
