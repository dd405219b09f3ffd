"""The stage ``ingest``: pinned sources become a checked, frozen snapshot; bad rows go to the quarantine."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq

from rightcall.errors import DataError
from rightcall.recipe.schema import Recipe
from rightcall.recipe.sections import ConversationSource, Source
from rightcall.toolcalls.template_check import load_template
from tasks.data import sources
from tasks.data.described import describe, described_columns, described_conversations
from tasks.data.preview import preview_rows
from tasks.data.snapshot import CHAT_PARTS, Json, build_snapshot
from tasks.data.snapshot_checks import sources_of
from tasks.runtime.stage import StageRun, stage
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef


def _slice(recipe: Recipe) -> Json:
    """Contents and pins of the sources, not where they lie; of the training sections only what rows are measured by."""
    named = {kind: [_identity(each) for each in several] for kind, several in sources_of(recipe).items()}
    data = recipe.data
    settings = data.model_dump(
        mode="json", exclude={"conversations", "sft", "preference", "evaluation", "traces_consent"}
    )
    lengths = {
        "sft": recipe.sft.max_length if data.sft or data.conversations else 0,
        "preference": recipe.dpo.max_length if data.preference else 0,
        "answer": recipe.evaluation.max_new_tokens if data.conversations else 0,
    }
    return {"sources": named, "data": settings, "max_length": lengths, "chat_template": recipe.model.chat_template}


def _identity(source: Source) -> Json:
    named, filter_string = {}, None
    if isinstance(source, ConversationSource):
        texts = {"tools": source.tools, "system": source.system}
        filter_string = source.filter
        named = {"use": source.use, **{name: uri and sources.digest(uri) for name, uri in texts.items()}}
    return {
        **named,
        "name": sources.short_name(source.uri, source.file),
        "digest": sources.digest(source.uri, source.sha256, source.file, filter_string),
        "adapter": source.adapter,
        "limit": source.limit,
    }


@stage(
    name="ingest",
    kind="snapshot",
    slice=_slice,
    tags=("data",),
    reads={"base": CHAT_PARTS},  # rows are as long as its tokenizer makes them
    modules=(
        "data_checks.duplicates",
        "data_checks.explained",
        "data_checks.flags",
        "data_checks.row_content",
        "data_checks.rules",
        "data_checks.sampling",
        "data_checks.suites",
        "rightcall.measurement.baseline",
        "rightcall.bfcl.derive",
        "rightcall.chat.template",
        "rightcall.retail.derive",
        "rightcall.records.conversation_records",
        "rightcall.records.reading",
        "rightcall.rows.conversations",
        "rightcall.rows.secrets",
        "rightcall.toolcalls.words",
        "tasks.data.conversations",
        "tasks.data.split",
        "tasks.data.tally",
        "tasks.data.snapshot_checks",
        "tasks.data.checked_rows",
        "tasks.data.snapshot",
        "tasks.data.near_duplicates",
        "tasks.files.lines",
        "tasks.files.tables",
    ),
)
def ingest_snapshot(run: StageRun, recipe: Recipe, base: ArtifactRef) -> Json:
    """Fetches, checks, samples and freezes the rows; too many bad ones stop it before a second of training is spent."""
    template = load_template(run.store.path(base, CHAT_PARTS) / "model", recipe.model.chat_template)
    cache = run.store.cache / "sources"
    try:
        checks = build_snapshot(recipe, template, run.folder, run.scratch, cache)
    except DataError as err:
        raise type(err)(f"{err.detail}{_kept_aside(run)}", reason=err.reason) from err
    for kind, counts in checks["rows"].items():
        run.logger.info("%s: %s", kind, ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    for line in described_conversations(checks):
        run.logger.info("%s", line)
    for line in described_columns(checks):
        run.logger.warning("%s", line)
    for warning in checks["warnings"]:
        run.logger.warning("%s", warning)
    return {
        **{f"{kind}_rows": counts["kept"] for kind, counts in checks["rows"].items()},
        "quarantined": sum(counts["quarantined"] for counts in checks["rows"].values()),
        **{
            f"{kind}_tokens": _count_tokens(run.folder / f"{kind}.parquet")
            for kind in checks["rows"]
            if kind != "conversation"
        },
    }


def describe_snapshot(
    store: Store, recipe: Recipe, base: ArtifactRef, snapshot: ArtifactRef, *, preview: bool, colours: bool
) -> str:
    """What a person wants to know before anything is trained; with ``preview`` also three rows as they are trained on."""
    folder = store.path(snapshot, ("checks.json", "sft.parquet"))
    checks = json.loads((folder / "checks.json").read_text(encoding="utf-8"))
    text = describe(checks, f"{store.address}/{store.relative(snapshot)}".rstrip("/"))
    if preview:
        template = load_template(store.path(base, CHAT_PARTS) / "model", recipe.model.chat_template)
        text += "\n\n" + preview_rows(template, folder, colours=colours)
    return text


def _count_tokens(path: Path) -> int:
    """Of all rows; of a pair its longer side."""
    return sum(pq.read_table(path, columns=["n_tokens"])["n_tokens"].to_pylist())


def _kept_aside(run: StageRun) -> str:
    """Moves what a failed run found out to the store's .failed folder; gives the sentence that says where."""
    found = run.folder / "quarantine.jsonl"
    if not found.exists() or not found.stat().st_size:
        return ""
    aside = run.store.root / ".failed" / f"{run.name}-{run.key}"
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    for name in ("quarantine.jsonl", "checks.json", "data_docs"):
        if (run.folder / name).exists():
            shutil.move(run.folder / name, aside / name)
    return f"\nEvery row and its reasons: {aside / 'quarantine.jsonl'}"
