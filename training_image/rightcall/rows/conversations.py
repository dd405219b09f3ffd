"""Conversations and their steps: every assistant turn, with all that was said before it.

sft row of a conversation   {"messages": [user, assistant, user, assistant, …], "trained": [[1, "request_for_info"], [3, "tool_call"]], …}
sft row of one step         the same with one entry of "trained": that turn is the last message
step row                    {"messages": [user, assistant, user, assistant], "behaviour": "tool_call", "conversation": "c1", "group": "u7"}
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence

from rightcall.rows.vocabulary import BEHAVIOURS, Row


def trained_turns(row: Row) -> list[tuple[int, str]]:
    """(index of the message, behaviour) of every turn of an sft row that the loss looks at.

    "trained" may be null: then every assistant turn counts, each with the row's behaviour.
    """
    if row.get("trained") is not None:
        return [(int(index), str(behaviour)) for index, behaviour in row["trained"]]
    return [(i, row["behaviour"]) for i, message in enumerate(row["messages"]) if message["role"] == "assistant"]


def later_starts(row: Row) -> list[int]:
    """Messages that a shorter conversation may begin with after the system message: users' but the first and the last."""
    asked = [index for index, message in enumerate(row["messages"]) if message["role"] == "user"]
    return asked[1:-1]


def without_front(row: Row, start: int) -> Row:
    """The conversation from a user's message on, its system message and tools kept.

    Turns before it are not trained, nor are those that answer it: "Yes, go on." means nothing without what was asked.
    """
    messages = row["messages"]
    head = messages[:1] if messages[0]["role"] == "system" else []
    asked = next((at for at in range(start + 1, len(messages)) if messages[at]["role"] == "user"), len(messages))
    moved = [[index - start + len(head), behaviour] for index, behaviour in trained_turns(row) if index > asked]
    return {**row, "messages": [*head, *messages[start:]], "trained": moved}


def steps_of(row: Row) -> Iterator[Row]:
    """The step rows of an sft row, one per trained turn, ids "<row id>/<index>"."""
    for index, behaviour in trained_turns(row):
        yield {
            "id": f"{row['id']}/{index}",
            "source": row["source"],
            "behaviour": behaviour,
            "conversation": row["id"],
            "group": row.get("group") or row["id"],
            "situation": row.get("situation") or "",
            "messages": row["messages"][: index + 1],
            "tools": row["tools"],
        }


def judged_steps_of(row: Row) -> list[Row]:
    """Those of them that say what is right: of a row that was no conversation only the last turn's behaviour is known."""
    return list(steps_of(row if row.get("trained") is not None else {**row, "trained": trained_turns(row)[-1:]}))


def share_of(group: str, seed: int) -> float:
    """A number in [0, 1) that looks drawn: it decides on which side of the split a group is, whatever other groups there are."""
    digest = hashlib.blake2b(f"{seed}\0{group}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def as_many_of_each(behaviours: Sequence[str], n: int, seed: int) -> list[int]:
    """Up to n places, drawn so that every behaviour has as many as there are, in their order."""
    generator = random.Random(seed)  # noqa: S311 - a sample, not a secret
    waiting = []
    for name in BEHAVIOURS:
        places = [place for place, behaviour in enumerate(behaviours) if behaviour == name]
        generator.shuffle(places)
        waiting.append(places)
    taken: list[int] = []
    while len(taken) < n and any(waiting):
        for places in waiting:
            if places and len(taken) < n:
                taken.append(places.pop())
    return sorted(taken)
