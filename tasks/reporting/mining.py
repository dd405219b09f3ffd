"""What was mined, for people: how often the model is right on its own training steps, which errors became pairs, three of them."""

from __future__ import annotations

import json
from typing import Any

from tasks.reporting.prefect_artifacts import show_text
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

MINING = "output/mining.json"
MINED = "output/mined.jsonl"
SHOWN_CHARACTERS = 160


def show_mining(store: Store, ref: ArtifactRef) -> str:
    """As text, and on the run's page."""
    found = json.loads((store.path(ref, MINING) / MINING).read_text(encoding="utf-8"))
    text = "\n".join(_lines(found))
    show_text(
        "mining-summary", f"## Mined pairs: `{ref.uri[:16]}`\n\n```\n{text}\n```", f"{found['pairs']} pairs mined"
    )
    return f"{text}\n\nEvery answer with its judgement: {store.path(ref, MINED) / MINED}"


def _lines(found: dict[str, Any]) -> list[str]:
    lines = [
        f"{found['answers']} answers to {found['steps']} training steps of {found['steps_there']}: {found['right']} right "
        f"({found['right'] / found['answers']:.0%})",
        f"steps: {found['all_right']} all right, {found['mixed']} mixed, {found['all_wrong']} all wrong",
        f"pairs kept: {found['pairs']}"
        + (f", beside {found['from_data']} of data.preference" if found["from_data"] else ""),
        "",
        f"{'error kind':<28}{'answers':>9}{'pairs':>8}",
        *(f"{kind:<28}{each['answers']:>9}{each['pairs']:>8}" for kind, each in found["kinds"].items()),
    ]
    if found["left_out"]:
        lines += ["", "no pair: " + ", ".join(f"{count} {reason}" for reason, count in found["left_out"].items())]
    for example in found["examples"]:
        lines += ["", f"{example['id']}  {example['kind']}"]
        lines += [
            f"  {name:<9}{' '.join(example[name].split())[:SHOWN_CHARACTERS]}"
            for name in ("asked", "chosen", "rejected")
        ]
    return lines
