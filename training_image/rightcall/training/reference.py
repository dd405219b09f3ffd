"""Log-probabilities of the reference model, computed once per pair and kept for every later recipe.

They depend on the model's weights, the pair's token ids and the precision only, not on beta, the loss or the steps.
Each pair is computed by itself, so a value depends neither on its neighbours nor on where a killed run was continued.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rightcall.job.folders import STOPPED
from rightcall.likelihood.scorer import Scorer
from rightcall.parallel import processes

logger = logging.getLogger(__name__)

VERSION = 1  # of how a value is computed
LOG_SECONDS = 20


def add_reference(
    pairs: list[dict[str, Any]],
    scorer: Scorer,
    *,
    identity: str,
    low_precision: bool,
    folder: Path,
    stopped: Callable[[], bool],
) -> int:
    """Adds ref_chosen_logps and ref_rejected_logps (sums in nats) to every pair; returns how many had to be computed.

    `identity` names the weights as they are loaded; `folder` holds one file of values per identity and precision.
    `stopped` is asked between pairs; True ends with SystemExit(143), on every rank when it is true on one. Ranks take
    turns over the missing pairs, and rank 0 keeps the file.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{VERSION} {identity} {'bf16' if low_precision else 'fp32'} {scorer.device.type}"
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.jsonl"
    this = processes.world()
    known = processes.from_first(_read(path) if this.first else None)  # the same work is missing on every rank
    missing = {digest: pair for pair in pairs if (digest := _digest(pair)) not in known}
    started = told = time.monotonic()
    with path.open("a", encoding="utf-8") if this.first else contextlib.nullcontext() as file:
        for done in range(0, len(missing), this.size):
            group = list(itertools.islice(missing.items(), done, done + this.size))
            stop = stopped()
            mine = group[this.rank : this.rank + 1] if not stop else []
            values = _of_one(mine[0][1], scorer, low_precision) if mine else (0.0, 0.0)
            found = processes.gathered([float(stop), *values])
            if any(stop for stop, *_ in found):
                raise SystemExit(STOPPED)
            for (digest, _), (_, chosen, rejected) in zip(group, found, strict=False):
                known[digest] = (chosen, rejected)
                if file:
                    file.write(json.dumps([digest, chosen, rejected]) + "\n")
            if file:
                file.flush()
            if time.monotonic() - told > LOG_SECONDS:
                told = time.monotonic()
                logger.info("reference log-probabilities: %d of %d pairs", done + len(group), len(missing))
        if file:
            os.fsync(file.fileno())
    for pair in pairs:
        pair["ref_chosen_logps"], pair["ref_rejected_logps"] = known[_digest(pair)]
    logger.info(
        "reference log-probabilities of %d pairs: %d computed in %.1f s, the others cached",
        len(pairs), len(missing), time.monotonic() - started,
    )  # fmt: skip
    return len(missing)


def _of_one(pair: dict[str, Any], scorer: Scorer, low_precision: bool) -> tuple[float, float]:
    prompt, sides = pair["prompt_ids"], (pair["chosen_ids"], pair["rejected_ids"])
    chosen, rejected = scorer.logliks([prompt + side for side in sides], [len(prompt)] * 2, low_precision=low_precision)
    return chosen, rejected


def _digest(pair: dict[str, Any]) -> str:
    ids = [pair["prompt_ids"], pair["chosen_ids"], pair["rejected_ids"]]
    return hashlib.sha256(json.dumps(ids).encode()).hexdigest()


def _read(path: Path) -> dict[str, tuple[float, float]]:
    """What is known; a line torn by a kill is left out, and computed again."""
    known: dict[str, tuple[float, float]] = {}
    if path.is_file():
        lines = path.read_bytes().split(b"\n")
        for line in lines[:-1]:
            try:
                digest, chosen, rejected = json.loads(line)
            except ValueError:
                continue
            known[digest] = (float(chosen), float(rejected))
        if lines[-1]:
            with path.open("ab") as file:
                file.write(b"\n")
    return known
