"""``@stage``: a function that fills a folder becomes a cached, locked, resumable Prefect task that returns a ref.

@stage(name="sft", kind="model", modules=("rightcall.training.sft",), slice=lambda recipe: {"sft": …}, reads={"base": "model/"})
def train_sft(run: StageRun, recipe: Recipe, base: ArtifactRef, snapshot: ArtifactRef) -> dict:
    …  # fills run.folder, returns manifest fields

ref = train_sft(recipe, store=store, base=base, snapshot=snapshot)     # in a flow: a Prefect task run, or its cached result
ref = train_sft.run(recipe, store=store, base=base, snapshot=snapshot) # anywhere: the same key and lock without Prefect
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from prefect import Task
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.serializers import JSONSerializer
from prefect.utilities.annotations import NotSet

from rightcall.errors import RightcallError
from rightcall.recipe.schema import Recipe
from tasks.machine.full_disk import disk_errors
from tasks.machine.run_logger import run_logger
from tasks.runtime import retries
from tasks.runtime.freshness import FLOW_RUN, is_of_this_run, is_wanted_anew, note_versions, versions_of
from tasks.runtime.keys import StageCachePolicy, module_digest, stage_key
from tasks.store.folder_store import Store
from tasks.store.manifests import ArtifactRef, Kind

LOGGED_VALUES = 6
Logger = logging.Logger | logging.LoggerAdapter

# Task runs whose body really ran in this process, so that a flow can say which were cached.
_ran: ContextVar[list[str] | None] = ContextVar("rightcall_ran", default=None)


@dataclass(frozen=True)
class StageRun:
    """What a stage's body gets to work with."""

    name: str
    key: str
    store: Store
    folder: Path  # its content is what gets committed; empty at the start
    scratch: Path  # survives kills, deleted after the commit: checkpoints
    logger: Logger
    label: str | None = None
    job_key: str = ""  # names the job on another machine: the key, or a key of its own where a result is replaced

    @property
    def title(self) -> str:
        return run_name(self.name, self.key, self.label)


def run_name(name: str, key: str, label: str | None = None) -> str:
    return f"{name}-{key[:8]}" + (f" ({label})" if label else "")


@dataclass(frozen=True)
class StageCall:
    """One call of a stage, with everything that its key is made of, digested once."""

    recipe: Recipe
    refs: dict[str, Any]
    label: str | None
    store: Store
    stage: str
    ingredients: dict[str, Any]
    fresh: bool = False  # what is stored does not count, and is replaced

    @property
    def key(self) -> str:
        return stage_key(self.stage, self.ingredients)

    @property
    def cache_key(self) -> str:
        """Name of Prefect's record, and of the lease."""
        return f"{self.stage}-{self.key}"

    @property
    def title(self) -> str:
        return run_name(self.stage, self.key, self.label)


@dataclass(frozen=True, eq=False)
class Stage:
    """A stage and the Prefect task around it; call it in a flow, ``run`` it elsewhere."""

    name: str
    kind: Kind
    modules: tuple[str, ...]
    slice: Callable[[Recipe], Any]
    version: int
    reads: Mapping[str, str | tuple[str, ...]]
    fn: Callable[..., Mapping[str, Any]]
    tags: tuple[str, ...] = ()
    retries: int = retries.RETRIES
    skip: Callable[[Recipe, Mapping[str, Any]], ArtifactRef | None] | None = None
    task: Task[..., ArtifactRef] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "__doc__", self.fn.__doc__)
        object.__setattr__(self, "__name__", self.fn.__name__)

        def execute(call: StageCall) -> ArtifactRef:
            ran = _ran.get()
            if ran is not None:
                ran.append(self.name)
            return self._execute(call, get_run_logger())

        execute.__qualname__ = execute.__name__ = self.fn.__name__
        execute.__doc__, execute.__module__ = self.fn.__doc__, self.fn.__module__
        task: Task[..., ArtifactRef] = Task(
            execute,
            name=self.name,
            tags=self.tags,
            version=str(self.version),
            retries=self.retries,
            retry_delay_seconds=retries.RETRY_DELAYS_SECONDS,
            retry_jitter_factor=retries.RETRY_JITTER_FACTOR,
            retry_condition_fn=retries.retry_if_transient,
            persist_result=True,
            result_serializer=JSONSerializer(),
            # The in-memory copy would outlive the files it stands for.
            cache_result_in_memory=False,
        )
        object.__setattr__(self, "task", task)

    def __call__(self, recipe: Recipe, *, store: Store, label: str | None = None, **refs: Any) -> ArtifactRef:
        """Runs the stage as a Prefect task of the current flow, or gives its cached ref."""
        if (instead := self._skipped(recipe, refs)) is not None:
            return instead
        call = self._call(recipe, refs, store, label)
        call = replace(call, fresh=is_wanted_anew(self.name, partial(self._stored_manifest, call)))
        ran: list[str] = []
        token = _ran.set(ran)
        try:
            ref = self._task_for(call)(call)
        finally:
            _ran.reset(token)
        manifest = call.store.manifest(ref)
        note_versions(self.name, recipe, manifest)
        if not ran:
            run_logger(__name__).info("%s cached: %s", call.title, summary_line(manifest))
        return ref

    def run(
        self, recipe: Recipe, *, store: Store, label: str | None = None, fresh: bool = False, **refs: Any
    ) -> ArtifactRef:
        """The same without Prefect: tests, the benchmark of Prefect's overhead, a shell."""
        if (instead := self._skipped(recipe, refs)) is not None:
            return instead
        call = replace(self._call(recipe, refs, store, label), fresh=fresh)
        lock, holder = call.store.locks(), str(uuid.uuid4())
        lock.acquire_lock(call.cache_key, holder)
        try:
            return self._execute(call, run_logger(__name__))
        finally:
            lock.release_lock(call.cache_key, holder)

    def key(self, recipe: Recipe, refs: Mapping[str, Any], *, store: Store) -> str:
        """The name of the result: equal for equal work, wherever and whenever it is done."""
        return self._call(recipe, refs, store).key

    def _call(self, recipe: Recipe, refs: Mapping[str, Any], store: Store, label: str | None = None) -> StageCall:
        ingredients = {
            "version": self.version,
            "slice": self.slice(recipe),
            "input_digests": {
                name: _digests(value, partial(store.digest, part=self.reads.get(name, "")))
                for name, value in refs.items()
            },
            "modules": module_digest(self.modules),
        }
        return StageCall(recipe, dict(refs), label, store, self.name, ingredients)

    def _stored_manifest(self, call: StageCall) -> Mapping[str, Any] | None:
        stored = call.store.find(self.name, call.key)
        return None if stored is None else call.store.manifest(stored)

    def _skipped(self, recipe: Recipe, refs: Mapping[str, Any]) -> ArtifactRef | None:
        instead = self.skip(recipe, refs) if self.skip is not None else None
        if instead is not None:
            run_logger(__name__).info("%s skipped, as the recipe says; its input %s goes on", self.name, instead.uri)
        return instead

    def _task_for(self, call: StageCall) -> Task[..., ArtifactRef]:
        # Prefect would give the ref in its record though its files are gone, or were made again with another content.
        recorded, found = call.store.recorded_digest(call.cache_key), call.store.find(self.name, call.key)
        dangling = recorded is not None and (found is None or found.digest != recorded)
        return self.task.with_options(
            task_run_name=call.title,
            cache_policy=StageCachePolicy(isolation_level="SERIALIZABLE", lock_manager=call.store.locks()),
            result_storage=call.store.results(),
            refresh_cache=True if dangling or call.fresh else NotSet,
        )

    def _execute(self, call: StageCall, logger: Logger) -> ArtifactRef:
        store, key = call.store, call.key
        found = store.find(self.name, key)
        # Another try of the task, after the network went away: what this run has made already is used.
        if found is not None and (not call.fresh or is_of_this_run(store.manifest(found))):
            logger.info("%s found in the store: %s", call.title, summary_line(store.manifest(found)))
            return found
        if (finished := store.finish_commit(self.name, key)) is not None:
            logger.info("%s was made and is now stored: %s", call.title, summary_line(store.manifest(finished)))
            return finished
        for name, value in call.refs.items():
            for ref in _refs_in(value):
                store.check(ref, self.reads.get(name, ""))
        # A killed run may have left half a result; its checkpoints, in scratch, are used.
        folder = store.workdir(self.name, key, empty=True)
        job_key = stage_key(key, {"replaces": store.manifest(found).get("created")}) if found is not None else key
        run = StageRun(self.name, key, store, folder, store.scratch(self.name, key), logger, call.label, job_key)
        started = time.monotonic()
        with disk_errors(run.folder):
            fields = dict(self.fn(run, call.recipe, **call.refs))
        seconds = round(time.monotonic() - started, 3)
        for ref in _refs_in(call.refs):
            store.manifest(ref)  # another run's --fresh may have replaced an input while it was read
        manifest = {
            **call.ingredients,
            "inputs": {name: _as_json(value) for name, value in call.refs.items()},
            "versions": versions_of(fields),
            "result": fields,
            FLOW_RUN: flow_run.id,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": seconds,
        }
        ref = store.commit(self.name, key, self.kind, run.folder, manifest, replace=call.fresh)
        if found is not None:
            outcome = "is the same" if found.digest == ref.digest else f"has replaced {found.digest[:8]}"
            logger.info("%s was computed again: %s %s", call.title, ref.digest[:8], outcome)
        logger.info("%s done in %.1f s: %s", call.title, seconds, summary_line(store.manifest(ref)))
        return ref


def stage(
    *,
    name: str,
    kind: Kind,
    modules: tuple[str, ...],
    slice: Callable[[Recipe], Any],
    version: int = 1,
    reads: Mapping[str, str | tuple[str, ...]] | None = None,
    tags: tuple[str, ...] = (),
    max_retries: int = retries.RETRIES,
    skip: Callable[[Recipe, Mapping[str, Any]], ArtifactRef | None] | None = None,
) -> Callable[[Callable[..., Mapping[str, Any]]], Stage]:
    """Makes a Stage of ``fn(run, recipe, **refs) -> manifest fields``.

    modules: roots of the code that makes the result; with what they import they enter the key.
    slice: the part of the recipe that the result depends on, as plain JSON.
    version: raise it when the body changes its result.
    reads: input name → the part or parts of it that are read ("model/", "sft.parquet"); the rest does not count.
    skip: the ref to give instead of running, None = run.
    """

    def decorate(fn: Callable[..., Mapping[str, Any]]) -> Stage:
        return Stage(name, kind, modules, slice, version, reads or {}, fn, ("rightcall", *tags), max_retries, skip)

    return decorate


def summary_line(manifest: Mapping[str, Any]) -> str:
    """The first numbers of a manifest on one line; what is measured last (memory, devices) stays in the manifest."""
    result = manifest["result"].items()
    values = dict([(name, value) for name, value in result if isinstance(value, int | float | str)][:LOGGED_VALUES])
    size_bytes = sum(entry["size_bytes"] for entry in manifest["files"].values())
    numbers = [f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in values.items()]
    return ", ".join([*numbers, f"{len(manifest['files'])} files", f"{size_bytes / 1e6:.1f} MB"])


def _digests(value: Any, digest_of: Callable[[ArtifactRef], str]) -> Any:
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, ArtifactRef):
        return digest_of(value)
    if isinstance(value, Mapping):
        return {str(name): _digests(entry, digest_of) for name, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_digests(entry, digest_of) for entry in value]
    raise RightcallError(f"a stage takes refs and plain values, not {value!r}; commit it to the store and pass its ref")


def _refs_in(value: Any) -> Iterator[ArtifactRef]:
    if isinstance(value, ArtifactRef):
        yield value
    elif isinstance(value, Mapping):
        yield from (ref for entry in value.values() for ref in _refs_in(entry))
    elif isinstance(value, list | tuple):
        yield from (ref for entry in value for ref in _refs_in(entry))


def _as_json(value: Any) -> Any:
    if isinstance(value, ArtifactRef):
        return value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return {str(name): _as_json(entry) for name, entry in value.items()}
    return [_as_json(entry) for entry in value] if isinstance(value, list | tuple) else value
