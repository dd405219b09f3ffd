"""The two places that a store can be, for tests that hold for both; conftest.py imports the fixture."""

from __future__ import annotations

from pathlib import Path

import pytest

from tasks.aws import s3
from tasks.store.folder_store import Store
from tasks.store.s3_store import S3Store


@pytest.fixture(params=["folder", "s3"])
def any_root(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Address of an empty store, which RIGHTCALL_STORE names too."""
    root = str(tmp_path / "store")
    if request.param == "s3":
        root = f"s3://{request.getfixturevalue('s3_bucket')}/team/store"
        monkeypatch.setenv("RIGHTCALL_MIRROR", str(tmp_path / "mirror"))
    monkeypatch.setenv("RIGHTCALL_STORE", root)
    return root


def overwrite(store: Store, relative: str, content: str) -> None:
    """What a person or another program does behind the store's back."""
    if isinstance(store, S3Store):
        s3.put(store.remote, relative, content.encode())
    else:
        (store.root / relative).write_text(content)


def remove(store: Store, relative: str) -> None:
    if isinstance(store, S3Store):
        s3.delete(store.remote, relative)
    else:
        (store.root / relative).unlink()


def lies_in(store: Store, below: str = "") -> list[str]:
    """Paths of the files below ``below`` ("sft/k1/")."""
    if isinstance(store, S3Store):
        return sorted(s3.list_objects(store.remote, below))
    folder = store.root / below
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
