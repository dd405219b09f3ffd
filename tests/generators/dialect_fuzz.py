"""Mutated outputs of every dialect through parse, compare and the JSON writer.

python tests/generators/dialect_fuzz.py 1000000 --seed 1     # about 0.5 ms each; ends with 1 if anything is found

What is checked knows nothing of the readers. A text is built from calls that are known, so that it is known what must not
happen: a call that stands whole in the text may be read, or make an error, or stay unread with all the others; it may
never be missing among calls that pass. Prose that is known to hold no call must not add one.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "training_image"), str(ROOT / "tests" / "support" / "examples")]

from written_calls import EVERY_WAY, Call  # noqa: E402

from rightcall.toolcalls.verifier import compare, parse  # noqa: E402

SECONDS_PER_KB = 0.010
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


class Case(NamedTuple):
    text: str
    whole: list[Call]  # calls that stand untouched in it
    meant: list[Call] | None  # exactly these are to be read; None = not known


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


def cases(seed: int) -> Iterator[Case]:
    chance = random.Random(seed)
    ways = list(EVERY_WAY)
    while True:
        first, second = (
            random_call(chance, "find_trains"),
            random_call(chance, chance.choice(("town_weather", "book_room"))),
        )
        ways_of = EVERY_WAY[chance.choice(ways)], EVERY_WAY[chance.choice(ways)]
        before, between, behind = (chance.choice(PROSE) for _ in range(3))
        match chance.randrange(6):
            case 0:  # one call, untouched
                yield Case(ways_of[0]([first]), [first], [first])
            case 1:  # several of one dialect
                yield Case(ways_of[0]([first, second]), [first, second], [first, second])
            case 2:  # two dialects and prose
                parts = (before, ways_of[0]([first]), between, ways_of[1]([second]), behind)
                yield Case("\n".join(part for part in parts if part), [first, second], None)
            case 3:  # the first is broken, the second stands
                yield Case(mutated(chance, ways_of[0]([first])) + "\n" + ways_of[1]([second]), [second], None)
            case 4:  # the second is broken
                yield Case(ways_of[0]([first]) + "\n" + mutated(chance, ways_of[1]([second])), [], None)
            case 5:  # all of it is broken
                text = mutated(chance, "\n".join((before, ways_of[0]([first]), between, ways_of[1]([second]), behind)))
                yield Case(text, [], None)


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


def as_json(calls: list[Call]) -> list[str]:
    return sorted(json.dumps(call, sort_keys=True) for call in calls)


def fault_of(case: Case) -> str | None:
    """What is wrong with how this text is read."""
    parsed = parse(case.text, None, TOOLS)
    json.dumps([parsed, compare(parsed, case.whole or None, TOOLS, "tool_call")], ensure_ascii=False).encode()
    names = [call["name"] for call in parsed.calls]
    if case.meant is not None and (parsed.error or as_json(parsed.calls) != as_json(case.meant)):
        return "misread"
    if parsed.calls and any(call["name"] not in names for call in case.whole):
        return "hidden call"
    for call in case.whole:
        if len(case.whole) > 1 and compare(parsed, call, TOOLS).ok:
            return "hidden call passed"
    return None


def seconds_too_many(text: str) -> float:
    """Over the limit, the best of three: another process may take the core."""
    limit = SECONDS_PER_KB * max(1.0, len(text.encode(errors="replace")) / 1024)
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        parse(text, None, TOOLS)
        best = min(best, time.process_time() - started)
        if best <= limit:
            return 0.0
    return best - limit


def run(count: int, seed: int, *, timed: bool) -> tuple[Counter[str], list[str]]:
    """How many texts of each kind were found, and the first texts that were read wrong."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    for _, case in zip(range(count), cases(seed), strict=False):
        started = time.process_time()
        try:
            fault = fault_of(case)
        except Exception as err:  # noqa: BLE001  whatever it is, it is what this looks for
            fault = f"raised {type(err).__name__}"
        if timed and not fault and time.process_time() - started > SECONDS_PER_KB and seconds_too_many(case.text):
            fault = "too slow"
        counts[fault or "fine"] += 1
        if fault and len(found) < 50:
            found.append(f"{fault}: {case.text[:1500]!r}")
    return counts, found


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", type=int, default=500, help="long runs of pieces beside them")
    given = parser.parse_args()
    counts, found = run(given.count, given.seed, timed=True)
    slowest = [
        text for _, text in zip(range(given.long), long_texts(given.seed), strict=False) if seconds_too_many(text)
    ]
    for line in (*found, *(f"too slow: {text[:80]!r}… {len(text)} characters" for text in slowest)):
        logging.info(line)
    logging.info(
        f"{given.count} texts, seed {given.seed}: {dict(counts)}; {given.long} long texts: {len(slowest)} too slow"
    )
    return 1 if found or slowest else 0


if __name__ == "__main__":
    raise SystemExit(main())
