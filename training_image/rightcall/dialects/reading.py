"""Every call in what a model wrote, the dialect it is in, and what had to be forgiven.

A dialect is named by how its calls look: `<tool_call>{name,arguments}</tool_call>` is Hermes' and Qwen's, `[f()]` is
Llama 3.2's, `[TOOL_CALLS]f[ARGS]{}` is Mistral's. A text calls when a mark of calls stands in it, or an object with name
and arguments, or when it, or a fence in it, begins with a call of Python. In a text that calls, every call counts,
whatever its form and wherever it stands, and one that cannot be read is an error: none passes unseen. A call of Python
inside a sentence only tells of a call that was read, or is an error; a text without calls may tell of any.
"""

from __future__ import annotations

import builtins
import re
from bisect import bisect_right
from typing import Any, NamedTuple

from rightcall.dialects import elements, finding
from rightcall.dialects.elements import Tools
from rightcall.dialects.finding import BEHIND, BETWEEN, HERE, LATER, SIGNED, without_thoughts
from rightcall.dialects.gemma import OPENING as GEMMA
from rightcall.dialects.gemma import gemma
from rightcall.dialects.literals import AFTER_A_VALUE, NAME, Literals, after_space
from rightcall.dialects.marked import AROUND, MARKS, MISTRAL, marked, mistral
from rightcall.dialects.objects import calls_of, decode_tolerantly, is_bare_name, is_call
from rightcall.dialects.prose import check_mention, check_prose
from rightcall.dialects.values import Call, CallError, decode

MAX_CHARACTERS = 100_000
MAX_PYTHON_CHARACTERS = 20_000
MAX_CALLS = 64
# What a strict reader of the dialect would refuse.
FORGIVEN = (
    "other_dialect", "prose_around", "fence", "unclosed", "trailing_comma", "python_dict", "raw_newline", "assignment",
    "other_keys", "no_arguments", "positional",
)  # fmt: skip

_MAX_MENTION = 2000  # characters of a call inside a sentence
_MAX_DOUBTS = 20
_MAX_READINGS = 3  # of a character that stands in what turns out to be no call
_NEAR = 500  # characters from the beginning of an object to its arguments
_NO_KEY = "an object begins without a key"
_LOOKS_LIKE_JSON = re.compile(r"\{|\[\s*+(?:[{\]\"]|\Z)")
_LOOKS_LIKE_PYTHON = re.compile(rf"\[?\s*+{NAME}\(")
_ASSIGNED = re.compile(r"[^\W\d]\w*+[ \t]*+=[ \t]*+")
_OF_PYTHON = {"raw_newline", "positional"}  # of its notes; the others are how Python is written
_CUT_NAME = re.compile(r"[\w<=./:\[\]\" -]*+\Z")
_FENCE_OF_CALLS = re.compile(r"\A\s*+```(?!\w)|```[\w+-]*+\s*+\Z")
_HARMONY_HEADER = re.compile(rf"to={NAME}<\|message\|>")
_NEED_CLOSING = re.compile(r"<(?!\|)|<\|(?:tool_call_start|START_ACTION|action_start)|Action:")


class Reading(NamedTuple):
    calls: list[Call]
    dialects: frozenset[str]
    forgiven: frozenset[str]
    around: str = ""  # what is said beside the calls


Found = tuple[list[Call], int, str]  # calls, where they end, how they look


def read_calls(text: str, tools: Tools | None = None) -> Reading:
    """The calls in the text in their order, none when it attempts none; thoughts must be cut off.

    Raises:
        CallError: it attempts one that cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise CallError("too_long", f"{len(text)} characters, at most {MAX_CHARACTERS} are read")
    return _Reader(text.strip(), tools).read()


def dialect_of(written: str, tools: Tools | None = None) -> str | None:
    """The dialect that reads this text with nothing forgiven, None for none; a template's known calls are to be given."""
    try:
        found = read_calls(without_thoughts(written), tools)
    except CallError:
        return None
    return next(iter(found.dialects)) if len(found.dialects) == 1 and not found.forgiven else None


class _Reader:
    def __init__(self, text: str, tools: Tools | None) -> None:
        self.text = text
        self.tools = tools or ()
        self.offered = None if tools is None else {_name_of(tool) for tool in tools}
        self.fences = [(fence.end(), fence[1].lower()) for fence in finding.FENCE.finditer(text)]
        self.calls: list[Call] = []
        self.looks: set[str] = set()
        self.forgiven: set[str] = set()
        self.calling = False
        self.covered = 0  # up to here the text is calls, or what stands around them was looked at
        self.gaps: list[str] = []
        self.said: list[str] = []
        self.mentions: list[Call] = []
        self.doubt: CallError | None = None  # of what may be prose: an error only in a text that calls
        self.doubts = 0
        self.in_vain = 0  # characters of what was read and is no call

    def read(self) -> Reading:
        position = 0
        while opening := HERE.match(self.text, position) or LATER.search(self.text, position):
            position = self._next(opening)
            if len(self.calls) > MAX_CALLS:
                raise CallError("too_many_calls", f"{len(self.calls)}, at most {MAX_CALLS} are read")
        if not self.calling:
            return Reading([], frozenset(), frozenset())
        self._look_around(len(self.text), signed=False)
        for mention in self.mentions:
            check_mention(mention, self.calls, self.offered)
        for gap in self.gaps:
            check_prose(gap, self.calls, self.offered, self.tools)
        if self.doubt:
            raise self.doubt
        return Reading(self.calls, frozenset(self.looks), frozenset(self.forgiven), "\n".join(filter(None, self.said)))

    def _next(self, opening: re.Match[str]) -> int:
        """Read what begins here; where to look for the next."""
        form = str(opening.lastgroup)
        start = opening.start(form)
        begins = start == 0 or self._fence_at(start) == (start, True)
        if self.doubt and form not in SIGNED and (form != "json" or self.doubts > _MAX_DOUBTS):
            return opening.end()
        before = set(self.forgiven)
        try:
            if form == "mention":
                return self._mention(start, opening.end())
            if form == "json":
                found = self._json(start)
            elif form in ("list", "call"):
                found = self._python(start, form)
            else:
                found = self._signed(start, form, opening)
        except CallError as err:
            self.forgiven = before
            self.in_vain += err.read
            meant = form != "json" or self._is_callish(start, err) or self.doubts > _MAX_DOUBTS
            if form in SIGNED or (
                begins and meant and (form == "list" or (form == "json" and err.reason != "not_a_call"))
            ):
                raise
            self.doubts += err.detail != _NO_KEY
            if meant:
                self.doubt = self.doubt or err
            return opening.end()
        calls, end, look = found
        if not calls:
            self.forgiven = before
            return max(end, opening.end())
        if look:
            self._look_around(start, signed=form in SIGNED)
            self.covered = end
            self.looks.add(look)
            self.calling = self.calling or form in SIGNED or begins or self._calls_alone(form, start, end, calls)
        self.calls += calls
        behind = BEHIND.match(self.text, end)
        return behind.end() if behind else end

    def _fence_at(self, position: int) -> tuple[int, bool]:
        """Where the fence around this place begins and whether it may hold calls; (-1, False) outside of any."""
        number = bisect_right(self.fences, (position, "\U0010ffff")) - 1
        if number < 0 or number % 2:
            return -1, False
        start, language = self.fences[number]
        return start, language in finding.LANGUAGES

    def _in_tool_code(self, position: int) -> bool:
        start, _ = self._fence_at(position)
        return start >= 0 and (start, "tool_code") in self.fences

    def _is_callish(self, start: int, err: CallError) -> bool:
        """Is the object that cannot be read one that meant to call? {"name": ...} in a sentence is none."""
        if finding.ARGUMENTS.match(self.text, start, start + _NEAR):
            return True
        brace = self.text.find("{", start) + 1
        first = finding.FIRST_KEY.match(self.text, after_space(self.text, brace))
        return first is not None and err.reason not in ("invalid_json", "not_a_call")

    def _object(self, start: int) -> tuple[Any, int]:
        """As `decode_tolerantly`, and where that was done in vain too often, strictly."""
        try:
            self._check_readings()
        except CallError as err:
            try:
                return decode(self.text, start)
            except CallError:
                raise err from None
        return decode_tolerantly(self.text, start, self.forgiven)

    def _check_readings(self) -> None:
        """Were every beginning of a text read to its end, it would cost its length squared."""
        if self.in_vain > _MAX_READINGS * len(self.text):
            raise CallError("too_long", f"{self.in_vain} characters were read of what is no call")

    def _json(self, start: int) -> Found:
        if not finding.KEY.match(self.text, start):
            raise CallError(
                "invalid_json", _NO_KEY
            )  # at once, because the decoder's error looks through the whole text
        first = finding.FIRST_KEY.match(self.text, after_space(self.text, self.text.index("{", start) + 1))
        if first or finding.ARGUMENTS.match(self.text, start, start + _NEAR):
            value, end = self._object(start)
        else:
            value, end = decode(self.text, start)
        items = value if isinstance(value, list) else [value]
        if any(map(is_call, items)) or (self.offered and any(is_bare_name(item) in self.offered for item in items)):
            calls, look = calls_of(value, self.forgiven)
            return calls, end, look
        # {"name": "Ada", "age": 36} is data, and an answer; a call may still stand inside
        return list(_calls_inside(value)), end, ""

    def _python(self, start: int, form: str) -> Found:
        literals = self._literals(start)
        if form == "call" and (assigned := _ASSIGNED.match(self.text, start)):
            self.forgiven.add("assignment")
            literals.position = assigned.end()
        try:
            calls = literals.calls()
        except CallError:
            end = self.text.find(")](", start, start + 200)
            if form == "list" and end > 0:
                self.in_vain += literals.position - start
                self._check_readings()
                return [], end, ""  # a link of markdown: [file(s)](https://…)
            raise
        end = literals.position
        self.forgiven |= literals.notes & _OF_PYTHON
        if form == "list" and self.text.startswith("(", end):
            return [], end, ""
        if form == "call" and not finding.WHOLE_LINE.match(self.text, end):
            self.mentions += calls
            return [], end, ""
        look = "f()" if form == "call" else "[f()]"
        if "printed" in literals.notes:
            look = "print(f())"
        if self._in_tool_code(start):
            look = f"```tool_code {look}```"
        return calls, end, look

    def _literals(self, start: int) -> Literals:
        if len(self.text) - start > MAX_PYTHON_CHARACTERS:
            return Literals(self.text[: start + MAX_PYTHON_CHARACTERS], start)
        return Literals(self.text, start)

    def _mention(self, start: int, end: int) -> int:
        self._check_readings()
        literals = Literals(self.text[start : start + _MAX_MENTION], 0)
        try:
            self.mentions += literals.call()
        except CallError as err:
            broken = err.reason == "invalid_json" or err.detail.endswith(AFTER_A_VALUE)
            meant = broken and self.text[start:end].partition("(")[0] in (self.offered or ())
            if meant or err.reason in ("unterminated_json", "too_deep"):
                raise
            self.in_vain += literals.position
            return end
        return start + literals.position

    def _signed(self, start: int, form: str, opening: re.Match[str]) -> Found:
        if form == "tag":
            return self._tagged(opening[form], opening.end())
        if form in MARKS:
            call, end, look = marked(self.text, opening.end(), form, self.forgiven)
        elif form == "gemma":
            call, end, look = gemma(self.text, _matched(GEMMA, self.text, start))
        else:
            call, end, look = self._element(start)
        return [call], end, look

    def _element(self, start: int) -> tuple[Call, int, str]:
        if opening := elements.FUNCTION.match(self.text, start):
            return elements.function(self.text, opening, self.tools, self.forgiven)
        return elements.invoke(self.text, _matched(elements.INVOKE, self.text, start), self.tools)

    def _tagged(self, tag: str, start: int) -> Found:
        """Read from the opening tag on, not up to the closing one, because an argument may hold that too."""
        calls: list[Call] = []
        looks: set[str] = set()
        look = ""
        end = after_space(self.text, start)
        fenced = finding.FENCE.match(self.text, end)
        if fenced:
            self.forgiven.add("fence")
            end = fenced.end()
        position = end
        closes = _NEED_CLOSING.match(tag) is not None
        while not looks or (len(calls) <= MAX_CALLS and self._goes_on(end, position, look, closes)):
            found, end, look = self._payload(position)
            calls += found
            looks.add(look)
            position = _matched(BETWEEN, self.text, end).end()
        if fenced and self.text.startswith("```", after_space(self.text, end)):
            end = after_space(self.text, end) + 3
        shown = " ".join(tag.split()) + "|".join(sorted(looks))
        if closing := finding.CLOSING.match(self.text, end):
            return calls, closing.end(), shown + closing[0].strip()
        if not closes:
            return calls, end, shown
        if end < len(self.text) and not finding.NEXT_TAG.match(self.text, end) and self.text[end:].strip():
            raise CallError("invalid_json", f"{self.text[end : end + 40]!r} follows the call")
        self.forgiven.add("unclosed")
        return calls, end, f"{shown}</{tag[1:]}"

    def _goes_on(self, end: int, position: int, look: str, closes: bool) -> bool:
        """Does a further call follow in the tag? Where no closing tag ends it, a new line does."""
        if not closes and position > end and not self.text[end:position].strip():
            return False
        if look in ("f()", "[f()]"):
            return _LOOKS_LIKE_PYTHON.match(self.text, position) is not None
        patterns = (_LOOKS_LIKE_JSON, elements.FUNCTION, elements.INVOKE, MISTRAL)
        return any(pattern.match(self.text, position) for pattern in patterns)

    def _payload(self, position: int) -> Found:
        """What stands inside a tag must be calls."""
        text = self.text
        if _LOOKS_LIKE_JSON.match(text, position):
            value, end = decode_tolerantly(text, position, self.forgiven)
            calls, look = calls_of(value, self.forgiven)
            return calls, end, look
        if elements.FUNCTION.match(text, position) or elements.INVOKE.match(text, position):
            call, end, look = self._element(position)
        elif head := MISTRAL.match(text, position):
            call, end, look = mistral(text, head, self.forgiven)
        elif head := elements.ARGUMENTS_OF.match(text, position):
            call, end, look = elements.arguments_of(text, head, self.tools)
        elif _LOOKS_LIKE_PYTHON.match(text, position):
            literals = self._literals(position)
            calls = literals.calls()
            self.forgiven |= literals.notes & _OF_PYTHON
            return calls, literals.position, "[f()]" if text[position] == "[" else "f()"
        elif position == len(text) or finding.CLOSING.match(text, position):
            raise CallError("unterminated_json", "nothing follows the tag")
        else:
            cut = _CUT_NAME.match(text, position)
            reason: Any = "unterminated_json" if cut else "invalid_json"
            raise CallError(reason, f"{text[position : position + 40]!r} is neither JSON nor a call")
        return [call], end, look

    def _calls_alone(self, form: str, start: int, end: int, calls: list[Call]) -> bool:
        """Behind prose an object is a call; Python is one in a list on lines of its own, or where the tool is offered."""
        if form == "json":
            return True
        own_lines = (
            not self.text[:start].rpartition("\n")[2].strip()
            and self.text[end:].partition("\n")[0].strip(" \t;,`") == ""
        )
        if not own_lines:
            return False
        if self.offered is not None:
            return all(call["name"] in self.offered for call in calls)
        return form == "list" and not any(hasattr(builtins, call["name"]) for call in calls)

    def _look_around(self, end: int, *, signed: bool) -> None:
        """What stands between the calls; in front of a mark a template writes the message's text."""
        self.gaps.append(self.text[self.covered : end])
        between = _HARMONY_HEADER.sub("", AROUND.sub("", self.text[self.covered : end]))
        if "```" in between:
            between = re.sub(r"```[\w+-]*+", "", between)
            if not any(look.startswith("```") for look in self.looks) and not self._in_tool_code(end):
                self.forgiven.add("fence")
        self.said.append(_FENCE_OF_CALLS.sub("", AROUND.sub("", self.gaps[-1])).strip(" \t\r\n,;"))
        if between.strip(" \t\r\n,;") and not (signed and self.covered == 0):
            self.forgiven.add("prose_around")


def _calls_inside(value: Any) -> Any:
    """The calls anywhere in data that is none itself."""
    if isinstance(value, dict) and is_call(value):
        try:
            yield from calls_of(value, set())[0]
        except CallError:
            return
    elif isinstance(value, (dict, list)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _calls_inside(item)


def _name_of(tool: Any) -> Any:
    function = tool.get("function")
    return (function if isinstance(function, dict) else tool).get("name")


def _matched(pattern: re.Pattern[str], text: str, position: int) -> re.Match[str]:
    found = pattern.match(text, position)
    if found is None:
        raise CallError("invalid_json", f"{text[position : position + 40]!r} is no call")
    return found
