"""Texts made of known calls in every dialect, whole or mutated, so that it is known what may not be read in them."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from written_calls import EVERY_WAY, Call

TOOLS: list[dict[str, Any]] = [
    {"name": name, "parameters": {"type": "object", "properties": {
        "town": {"type": "string"}, "days": {"type": "integer"}, "flags": {"type": "array"}, "by": {"type": "object"},
    }}}
    for name in ("find_trains", "town_weather", "book_room")
]  # fmt: skip
TEXTS = (
    "Graz",
    "Sankt Pölten",
    "it's 5 < 6",
    'say "hi"',
    "a, b; c",
    "東京 😀",
    "{x}",
    "[1]",
    "(y)",
    "back\\slash",
    "7",
    "true",
    "a=1",
)
PROSE = (
    "Let me look that up.", "It is 21 degrees.", "Here it is:", "It's done (roughly) [1].", 'See {"city": "Rome"}.', "x = 5; y = f(x)",
    "- first\n- second", "I wrapped it in <tool_call> tags.", "**Note:** {x} and [a](http://x/f(x))", "<b>5</b> & more", "",
)  # fmt: skip
PIECES = (
    "{", "}", "[", "]", "(", ")", '"', "'", "`", "```", "```json\n", "\\", ",", ":", ";", "=", "<", ">", "|", "/", "\n", " ", "#",
    "<tool_call>", "</tool_call>", "<TOOLCALL>", "<|python_tag|>", "[TOOL_CALLS]", "[ARGS]", "<|tool_call|>", "functools[", "<think>",
    "</think>", "<function=f>", "</function>", "<parameter=town>", "</parameter>", "<arg_key>", "</arg_value>", "<escape>", '<|"|>',
    "<|tool_call>", "<tool_call|>", "call:f{", "<｜tool▁call▁begin｜>", "<｜tool▁sep｜>", "<|message|>", "<|channel|>", "to=functions.f",
    "Action: f\nAction Input: ", '{"name": "f"', '"arguments": {', '"name":', "f(", "f(a=", "print(", "null", "None", "NaN", "1e999",
    "-", "9" * 400, "\ud800", r"\ud800", "\x00", "\u2028", "é", "f(a='", '"""', "'''", '{"', "{'", '[{"', "<｜DSML｜invoke name=\"f\">",
)  # fmt: skip


HOSTILE = (  # where a value should stand: what JSON or UTF-8 cannot hold, and what looks like it
    "9" * 4_000, "-" + "9" * 4_301, "1" * 310, "1e999", "-1e999", "NaN", "Infinity", "-Infinity", "[NaN]", "0x" + "F" * 3_000,
    "[" * 50 + "]" * 50, "[" * 2_000, '{"a":' * 40 + "1" + "}" * 40, "(" * 40 + ")" * 40, r'"\ud800"', '"\ud800"',
    r'"\udfff\ud800"', r"'\ud83d'", '"\x00"', '"' + "a" * 3_000 + '"', '"' + "1." * 1_000 + 'x"', "tru", "01", "1_000", "--1",
    "'''a'''", "{}", "", "None", '{"a": 1, "a": 2}', "b'x'", "1+2j", "...", "f()", "__import__('os')",
)  # fmt: skip


class Case(NamedTuple):
    text: str
    whole: list[Call]  # calls that stand untouched in it
    meant: list[Call] | None = None  # exactly these are to be read; None = not known
    broken: tuple[Call, str] | None = None  # a call beside the one of `whole`, and what is left of its text


def random_value(chance: random.Random, depth: int = 0) -> Any:
    kinds = ["text", "text", "number", "truth", "nothing"] + (["list", "object"] if depth < 2 else [])
    match chance.choice(kinds):
        case "text":
            return chance.choice(TEXTS)
        case "number":
            return chance.choice((0, 3, -7, 2.5, 10**12))
        case "truth":
            return chance.random() < 0.5
        case "list":
            return [random_value(chance, depth + 1) for _ in range(chance.randrange(3))]
        case "object":
            return {key: random_value(chance, depth + 1) for key in chance.sample(("a", "b", "c"), chance.randrange(3))}
    return None


def random_call(chance: random.Random, name: str) -> Call:
    arguments: dict[str, Any] = {"town": chance.choice(TEXTS)}
    if chance.random() < 0.6:
        arguments["days"] = chance.choice((0, 3, -7))
    if chance.random() < 0.3:
        arguments["flags"] = [random_value(chance, 1) for _ in range(chance.randrange(3))]
    if chance.random() < 0.3:
        arguments["by"] = {key: random_value(chance, 1) for key in chance.sample(("a", "b", "c"), chance.randrange(3))}
    return {"name": name, "arguments": arguments}


def mutated(chance: random.Random, text: str) -> str:
    for _ in range(chance.randrange(1, 4)):
        at = chance.randrange(len(text) + 1)
        to = min(len(text), at + chance.randrange(1, 8))
        match chance.randrange(6):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:at] + chance.choice(PIECES) + text[at:]
            case 2:
                text = text[:at] + text[at:to] * 2 + text[to:]
            case 3:
                text = text[:at]
            case 4:
                text = text[:at] + chance.choice(PIECES) + text[to:]
            case 5:
                text = text[:at] + chance.choice(PIECES) * chance.choice((2, 10, 100)) + text[at:]
    return text


def with_hostile_value(chance: random.Random, way: str) -> str:
    call = random_call(chance, "find_trains")
    call["arguments"]["town"] = "@@"
    text, hostile = EVERY_WAY[way]([call]), chance.choice(HOSTILE)
    for mark in ('\\"@@\\"', '"@@"', "'@@'", "@@"):
        if mark in text:
            return text.replace(mark, hostile)
    raise ValueError(f"{way!r} does not write its values as they are: {text!r}")


def cases(seed: int) -> Iterator[Case]:
    chance = random.Random(seed)
    ways = list(EVERY_WAY)
    while True:
        first = random_call(chance, "find_trains")
        second = random_call(chance, chance.choice(("town_weather", "book_room")))
        one, other = EVERY_WAY[chance.choice(ways)], EVERY_WAY[chance.choice(ways)]
        before, between, behind = (chance.choice(PROSE) for _ in range(3))
        match chance.randrange(7):
            case 0:  # one call, untouched
                yield Case(one([first]), [first], [first])
            case 1:  # several of one dialect
                yield Case(one([first, second]), [first, second], [first, second])
            case 2:  # two dialects and prose
                parts = (before, one([first]), between, other([second]), behind)
                yield Case("\n".join(part for part in parts if part), [first, second])
            case 3:  # the first is broken, the second stands
                rest = mutated(chance, one([first]))
                yield Case(f"{rest}\n{other([second])}", [second], broken=(first, rest))
            case 4:  # the second is broken
                rest = mutated(chance, other([second]))
                whole = [] if "</think>" in rest else [first]  # what stands before that was a thought
                yield Case(f"{one([first])}\n{rest}", whole, broken=(second, rest))
            case 5:  # all of it is broken
                yield Case(mutated(chance, "\n".join((before, one([first]), between, other([second]), behind))), [])
            case 6:  # a value that nothing can hold
                yield Case(f"{with_hostile_value(chance, chance.choice(ways))}\n{other([second])}", [second])


def long_texts(seed: int) -> Iterator[str]:
    """Up to 100,000 characters of one or two pieces, alone, behind and before a call."""
    chance = random.Random(seed)
    while True:
        pieces = "".join(chance.choice(PIECES) for _ in range(chance.choice((1, 1, 2, 3))))
        run = pieces * (chance.choice((2_000, 20_000, 90_000)) // len(pieces))
        call = EVERY_WAY[chance.choice(list(EVERY_WAY))]([random_call(chance, "find_trains")])
        yield chance.choice(
            (run, f"{call}\n{run}", f"{run}\n{call}", f"{call[: len(call) // 2]}{run}{call[len(call) // 2 :]}")
        )
