"""Copied to a folder of PYTHONPATH as sitecustomize.py: a process of a run waits at the file that the test names.

    wanted.json    {"part": "/.work/sft/", "name": "checkpoint-2/progress.json", "count": 1}: waits as long as this is there
    reached        written by the process that waits: its pid

The process is about to open that file to write it, so what the test does next happens at this very moment of its work.
"""

import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
WANTED, REACHED = os.path.join(HERE, "wanted.json"), os.path.join(HERE, "reached")
NAMES = (
    "summary.json", "checks.json", "progress.json", "mined.partial.jsonl", "items.partial.jsonl", "verdict.json", "MLmodel",
    "report.html",
)  # fmt: skip
seen = 0


def wait_where_wanted(event: str, arguments: tuple[object, ...]) -> None:
    global seen
    if event != "open" or not isinstance(arguments[0], str) or not arguments[0].endswith(NAMES):
        return
    path, _, flags = arguments
    if not int(str(flags)) & (os.O_WRONLY | os.O_RDWR) or not os.path.exists(WANTED):
        return
    with open(WANTED) as stream:
        wanted = json.load(stream)
    if wanted["part"] not in str(path) or not str(path).endswith(wanted["name"]):
        return
    seen += 1
    if seen != wanted["count"]:
        return
    with open(REACHED, "w") as stream:
        stream.write(str(os.getpid()))
    while os.path.exists(WANTED):
        time.sleep(0.02)


if __name__ == "sitecustomize":
    sys.addaudithook(wait_where_wanted)
