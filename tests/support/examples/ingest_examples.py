"""A recipe over tiny sources and a base model in a store, for the tests of ingestion."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tiny import build_tiny_tokenizer, write_tiny_sources

from rightcall.chat.template import ChatTemplate
from rightcall.recipe.schema import Recipe
from tasks.data.snapshot import build_snapshot
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef

TEMPLATE = "chatml-tools"


def ingest_recipe(paths: dict[str, Path], max_length: int = 1000, **data: Any) -> Recipe:
    section = {"max_steps": 1, "learning_rate": 1e-4, "max_length": max_length}
    names = {"sft": "sft", "preference": "preference", "evaluation": "choice"}
    rows = {name: [{"uri": str(paths[kind])}] if kind in paths else [] for name, kind in names.items()}
    steps = {
        name: section | ({} if rows[kind] else {"max_steps": 0})
        for name, kind in (("sft", "sft"), ("dpo", "preference"))
    }
    start = {"start_from": "base"} if not rows["sft"] else {}
    values = {"name": "tiny", "model": {"source": "nowhere", "chat_template": TEMPLATE}, "data": {**rows, **data}}
    return Recipe.model_validate({**values, "sft": steps["sft"], "dpo": steps["dpo"] | start})


def base_in(store: Store, folder: Path) -> ArtifactRef:
    """What the stage ``base`` leaves, as far as ingestion reads it."""
    work = store.workdir("base", "0" * 32)
    build_tiny_tokenizer(work / "model")
    return store.commit("base", "0" * 32, "model", work, {"result": {}})


def snapshot_of(recipe: Recipe, tmp_path: Path, name: str = "snapshot") -> tuple[Path, dict[str, Any]]:
    """(folder, checks) without a store."""
    tokenizer = tmp_path / "tokenizer"
    if not tokenizer.exists():
        build_tiny_tokenizer(tokenizer)
    folder = tmp_path / name
    folder.mkdir()
    template = ChatTemplate.load(tokenizer, TEMPLATE)
    return folder, build_snapshot(recipe, template, folder, tmp_path / f"{name}.scratch", tmp_path / "cache")


def write_lines(path: Path, rows: Iterable[dict[str, Any] | bytes]) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def quarantined(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "quarantine.jsonl").read_text(encoding="utf-8").splitlines()]


__all__ = ["base_in", "ingest_recipe", "quarantined", "snapshot_of", "write_lines", "write_tiny_sources"]
