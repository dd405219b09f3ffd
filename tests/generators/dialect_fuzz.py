"""Mutated outputs of every dialect through parse, the judge and the writer of written.jsonl, as a scoring job does it.

python tests/generators/dialect_fuzz.py 1000000 --seed 1     # about 1 ms each; ends with 1 if anything is found

What is checked knows nothing of the readers. A text is built from calls that are known, so that it is known what must not
happen: a call that stands whole in the text may be read, or make an error, or stay unread with all the others; it may
never be missing among calls that pass. Prose that is known to hold no call must not add one. A broken call
beside a whole one may not pass unseen while its name and each of its arguments still stand as they were written. And what
is written is read back as it was judged.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "training_image"), str(ROOT / "tests" / "support" / "examples")]

from mutated_calls import TOOLS, Case, cases, long_texts  # noqa: E402
from written_calls import Call  # noqa: E402

from rightcall.evaluation.score import write_lines  # noqa: E402
from rightcall.measurement import written  # noqa: E402
from rightcall.rows.vocabulary import BEHAVIOURS  # noqa: E402
from rightcall.toolcalls.conduct import Conduct  # noqa: E402
from rightcall.toolcalls.judging import judge_step  # noqa: E402
from rightcall.toolcalls.verifier import compare, parse  # noqa: E402
from tasks.results.files import read_json_lines  # noqa: E402

SECONDS_PER_KB = 0.010
LINES_A_FILE = 2_000
CONDUCT = Conduct(frozenset({"find_trains"}), frozenset({"book_room"}), frozenset({"town_weather"}))
SAID = "Trains from Graz to Sankt Pölten on 2026-05-01 for order W6067464, please; 7 of them."


def as_json(calls: list[Call]) -> list[str]:
    return sorted(json.dumps(call, sort_keys=True) for call in calls)


def step_of(case: Case, chance: random.Random) -> dict[str, Any]:
    """A step whose gold turn is the whole calls, with alternatives in one of three; or one where no call is gold."""
    behaviour = "tool_call" if case.whole and chance.random() < 0.8 else chance.choice(BEHAVIOURS)
    gold: dict[str, Any] = {"role": "assistant", "content": "Which town?"}
    if behaviour == "tool_call":
        golds = case.whole or [{"name": "book_room", "arguments": {"town": "Graz"}}]
        gold = {"role": "assistant", "tool_calls": [{"type": "function", "function": call} for call in golds]}
        if chance.random() < 0.3:
            gold["accepted"] = [{"days": [3, ""], "by": [{"a": [1, ""]}]} for _ in golds]
            gold["string_rule"] = chance.choice(("plain", "bfcl"))
    return {"messages": [{"role": "user", "content": SAID}, gold], "tools": TOOLS, "behaviour": behaviour}


def forms_of(key: str, value: Any) -> tuple[str, ...]:
    """An argument as the dialects write it, its name and its value in one piece."""
    in_json = f'"{key}": {json.dumps(value, ensure_ascii=False)}'
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return (
        in_json, json.dumps(in_json, ensure_ascii=False)[1:-1], f"'{key}': {value!r}", f"{key}={value!r}", f"{key}>\n{text}\n<",
        f"{key}</arg_key>\n<arg_value>{text}<", f'"{key}">{text}<', f'"{key}" string="{json.dumps(isinstance(value, str))}">{text}<',
        f"{key}:<escape>{text}<escape>", f'{key}:<|"|>{text}<|"|>', f"{key}:{text},", f"{key}:{text}}}",
    )  # fmt: skip


def is_all_there(call: Call, text: str) -> bool:
    """The call's name, as a word, and behind it each of its arguments, letter by letter; what ends a thought was no call."""
    if "</think>" in text:
        return False
    text = text.encode(errors="backslashreplace").decode()
    name = re.search(rf"(?<![\w-]){call['name']}(?![\w-])", text)
    if name is None:
        return False
    behind = text[name.end() :]
    return all(
        any(re.search(rf"(?<!\w){re.escape(form)}", behind) for form in forms_of(*argument))
        for argument in call["arguments"].items()
    )


def fault_of(case: Case) -> str | None:
    """What is wrong with how this text is read and compared."""
    parsed = parse(case.text, None, TOOLS)
    names = [call["name"] for call in parsed.calls]
    if case.meant is not None and (parsed.error or as_json(parsed.calls) != as_json(case.meant)):
        return "misread"
    if parsed.calls and any(call["name"] not in names for call in case.whole):
        return "hidden call"
    for call in case.whole:
        if len(case.whole) > 1 and compare(parsed, call, TOOLS).ok:
            return "hidden call passed"
    if case.broken and is_all_there(*case.broken) and compare(parsed, case.whole, TOOLS).ok:
        return "broken call passed over"
    return None


def seconds_too_many(text: str, step: dict[str, Any]) -> float:
    """Over the limit, the best of five: another process may take the core, and the processor's caches."""
    limit = SECONDS_PER_KB * max(1.0, len(text.encode(errors="replace")) / 1024)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        judge_step(step, text, CONDUCT)
        best = min(best, time.process_time() - started)
        if best <= limit:
            return 0.0
    return best - limit


class Writer:
    """The lines of written.jsonl, a file of some thousands at a time, read back."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "written.jsonl"
        self.lines: list[dict[str, Any]] = []
        self.not_kept: list[str] = []

    def add(self, number: int, step: dict[str, Any], judged: dict[str, Any]) -> None:
        line = {"id": str(number), "conversation": number // 3, "group": "g", "behaviour": step["behaviour"]}
        self.lines.append(line | judged | {"cut": False, "grammar": judged if number % 5 == 0 else None})
        if len(self.lines) >= LINES_A_FILE:
            self.write()

    def write(self) -> None:
        write_lines(self.path, self.lines)
        kept = read_json_lines(self.path)
        if len(kept) != len(self.lines):
            self.not_kept.append(f"{len(self.lines)} lines were written, {len(kept)} read")
        self.not_kept += [repr(line["text"]) for line, other in zip(self.lines, kept, strict=False) if line != other]
        written.plain_values(kept)
        written.fault_table(kept)
        self.lines = []


def run(count: int, seed: int, *, timed: bool) -> tuple[Counter[str], list[str]]:
    """How many texts of each kind were found, and the first texts that were read wrong."""
    counts: Counter[str] = Counter()
    found: list[str] = []
    chance = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder))
        for number, case in enumerate(islice(cases(seed), count)):
            step = step_of(case, chance)
            started = time.process_time()
            try:
                fault = fault_of(case)
                judged = judge_step(step, case.text, CONDUCT)
                if timed and time.process_time() - started > SECONDS_PER_KB and seconds_too_many(case.text, step):
                    fault = fault or "too slow"
                writer.add(number, step, judged)
            except Exception as err:  # noqa: BLE001  whatever it is, it is what this looks for
                fault = f"raised {type(err).__name__}: {err}"[:200]
                writer.lines = []
            counts[fault or "fine"] += 1
            if fault and len(found) < 50:
                found.append(f"{fault}: {case.text[:1500]!r}")
        writer.write()
    if writer.not_kept:
        counts["not kept"] = len(writer.not_kept)
    return counts, found + [f"not kept: {text[:1500]}" for text in writer.not_kept[:50]]


def too_slow(count: int, seed: int) -> Iterator[str]:
    """Of the long runs of signs those that take too long."""
    step = step_of(Case("", []), random.Random(seed))
    return (text for text in islice(long_texts(seed), count) if seconds_too_many(text, step))


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser()
    parser.add_argument("count", type=int)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--long", type=int, default=500, help="long runs of signs beside them")
    given = parser.parse_args()
    counts, found = run(given.count, given.seed, timed=True)
    slow = list(too_slow(given.long, given.seed))
    for line in (*found, *(f"too slow: {text[:80]!r}… {len(text)} characters" for text in slow)):
        logging.info(line)
    logging.info(
        f"{given.count} texts, seed {given.seed}: {dict(counts)}; {given.long} long texts: {len(slow)} too slow"
    )
    return 1 if found or slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
