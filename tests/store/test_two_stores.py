"""Two runs of one process with a store each do not mix, and neither looks where RIGHTCALL_STORE points."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest
from prefect import flow
from prefect_fixture import prefect_server  # noqa: F401
from stage_examples import make_first, make_second, ran, small_recipe

from tasks.store.manifests import ArtifactRef
from tasks.store.opening import open_store

together = Barrier(2)


@flow(persist_result=False)
def two_stages(address: str, learning_rate: float, *, at_once: bool = False) -> tuple[ArtifactRef, ArtifactRef]:
    """As the flows of the product do it: the store is opened once, and handed on."""
    store, recipe = open_store(address), small_recipe(sft={"learning_rate": learning_rate})
    if at_once:
        together.wait(60)
    first = make_first(recipe, store=store)
    if at_once:
        together.wait(60)
    return first, make_second(recipe, store=store, model=first)


def one_after_the_other(addresses: list[str]) -> list[tuple[ArtifactRef, ArtifactRef]]:
    return [two_stages(address, rate) for address, rate in zip(addresses, (0.1, 0.2), strict=True)]


def in_two_threads(addresses: list[str]) -> list[tuple[ArtifactRef, ArtifactRef]]:
    with ThreadPoolExecutor(2) as threads:
        runs = [
            threads.submit(two_stages, address, rate, at_once=True)
            for address, rate in zip(addresses, (0.1, 0.2), strict=True)
        ]
        return [run.result(120) for run in runs]


@pytest.mark.parametrize("way", [one_after_the_other, in_two_threads])
def test_two_runs_of_one_process_keep_to_their_stores(
    way: Callable[[list[str]], list[tuple[ArtifactRef, ArtifactRef]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    prefect_server: None,  # noqa: F811
) -> None:
    monkeypatch.setenv("RIGHTCALL_STORE", str(tmp_path / "elsewhere"))
    ran.clear()
    addresses = [str(tmp_path / name) for name in ("a", "b")]
    refs = way(addresses)
    assert sorted(ran) == ["first", "first", "second", "second"]
    for address, (first, second), text in zip(addresses, refs, ("0.1 0.1", "0.2 0.1"), strict=True):
        store = open_store(address)
        assert (store.refs("first"), store.refs("second")) == ([first], [second])
        assert (store.path(second) / "scores").read_text() == text
        assert len(list((Path(address) / ".results").iterdir())) == 2
    assert not (tmp_path / "elsewhere").exists()


def test_the_same_work_is_done_once_a_store(tmp_path: Path, prefect_server: None) -> None:  # noqa: F811
    """What one store has, its files and Prefect's record, says nothing of the other."""
    ran.clear()
    addresses = [str(tmp_path / name) for name in ("a", "b")]
    (one, two, again) = [two_stages(address, 0.1) for address in (*addresses, addresses[0])]
    assert one == two == again
    assert ran == ["first", "second"] * 2
    for address in addresses:
        open_store(address).verify(one[1])
