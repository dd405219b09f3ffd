"""The chats of many traces: one conversation a trace, the longest; what is left out is counted.

An agent's run calls its model many times, and each call is given all that was said before: the last one's chat is the whole
conversation, the others are its beginnings. A chat application makes a trace of every turn, and it is the same there.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from rightcall.errors import DataError
from rightcall.rows.vocabulary import Row
from rightcall.traces.chats import Chat, chat_of, kind_of
from rightcall.traces.spans import Span

NO_MODEL = "traces without a call of a model"
BESIDE = "chats beside the longest of their trace"
CONTINUED = "traces that another one goes on from"
UNREADABLE = "calls of a model beside a trace's chat that cannot be read"
ABOUT = {  # column of the record → attributes of a span that may hold it
    "user_id": ("user.id", "enduser.id", "mlflow.trace.user"),
    "session_id": ("session.id", "mlflow.trace.session"),
    "conversation_id": ("gen_ai.conversation.id",),
}


class Found(NamedTuple):
    record: Row
    problem: DataError | None


@dataclass
class Trace:
    id: str
    start: int
    about: dict[str, str] = field(default_factory=dict)
    chats: list[Chat] = field(default_factory=list)  # none begins another
    problems: list[DataError] = field(default_factory=list)
    agents: int = 0  # spans of agents, which hold no calls of tools

    def take(self, chat: Chat) -> None:
        for each in self.chats:
            if chat.begins(each):
                each.take(chat)
                return
        for each in [each for each in self.chats if each.begins(chat)]:
            chat.take(each)
            self.chats.remove(each)
        self.chats.append(chat)


class Traces:
    """Spans in any order in, conversations out."""

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._traces: dict[str, Trace] = {}
        self._silent: dict[tuple[str, str], tuple[Span, DataError]] = {}  # calls whose messages may stand in a log
        self._logged: dict[tuple[str, str], Span] = {}

    def add(self, span: Span) -> None:
        trace = self._traces.setdefault(span.trace, Trace(span.trace, span.start))
        trace.start = min(trace.start, span.start)
        for name, attributes in ABOUT.items():
            value = next((span.attributes[each] for each in attributes if span.attributes.get(each)), None)
            if value is not None:
                trace.about.setdefault(name, str(value).strip('"'))
        trace.agents += kind_of(span) == "agent"
        if span.logged:
            known = self._logged.setdefault((span.trace, span.id), span)
            known.events += span.events if known is not span else []
        else:
            self._read(span, trace)

    def refuse(self, trace: str, start: int, problem: DataError) -> None:
        """A trace that is there and whose spans are not."""
        self._traces.setdefault(trace, Trace(trace, start)).problems.append(problem)

    def conversations(self) -> Iterator[Found]:
        """In the order of their beginnings; a trace with a call of a model that gives no chat comes with its problem."""
        for key, logged in self._logged.items():
            if key in self._silent:
                silent, _ = self._silent.pop(key)
                logged.attributes = {**logged.attributes, **silent.attributes}
            self._read(logged, self._traces[logged.trace])
        for span, problem in self._silent.values():
            self._traces[span.trace].problems.append(problem)
        self._silent.clear()
        self._logged.clear()
        longest: list[tuple[Trace, Chat]] = []
        for trace in sorted(self._traces.values(), key=lambda each: (each.start, each.id)):
            if trace.chats:
                chat = max(trace.chats, key=lambda each: len(each.messages))
                longest.append((trace, chat))
                self.left_out += chat.left_out
                self.left_out += Counter({BESIDE: len(trace.chats) - 1, UNREADABLE: len(trace.problems)})
            elif trace.problems or trace.agents:
                yield Found({"id": trace.id, **trace.about}, _problem(trace))
            else:
                self.left_out[NO_MODEL] += 1
        yield from self._whole(longest)

    def _whole(self, longest: list[tuple[Trace, Chat]]) -> Iterator[Found]:
        """Those that no other trace goes on from; of another session it would be another conversation."""
        goes_on: dict[str, set[str | None]] = defaultdict(set)
        for trace, chat in longest:
            for digest in chat.digests[:-1]:
                goes_on[digest].add(trace.about.get("session_id"))
        for trace, chat in longest:
            session = trace.about.get("session_id")
            others = goes_on.get(chat.digests[-1], set()) if chat.digests else set()
            if session in others or None in others or (session is None and others):
                self.left_out[CONTINUED] += 1
            else:
                tools: dict[str, Any] = {"tools": chat.tools} if chat.tools else {}
                yield Found({"id": trace.id, **trace.about, "messages": chat.messages, **tools}, None)

    def _read(self, span: Span, trace: Trace) -> None:
        try:
            chat = chat_of(span)
        except DataError as err:
            if err.reason == "no_messages" and not span.logged:
                self._silent[(span.trace, span.id)] = (span, err)
            else:
                trace.problems.append(err)
        else:
            if chat is not None:
                trace.take(chat)


def _problem(trace: Trace) -> DataError:
    if trace.problems:
        return trace.problems[0]
    return DataError(
        f"the trace {trace.id!r} has spans of an agent and none of its calls of a model, so that what it called is not "
        "known; switch on the tracing of the model's client too",
        reason="no_messages",
    )
