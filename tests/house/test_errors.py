"""The tree of errors: drawn as it is, said to its reader, raised somewhere, and whole after a process boundary."""

from __future__ import annotations

import ast
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from string import Formatter
from typing import Any

import botocore.exceptions
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from s3transfer.exceptions import S3DownloadFailedError, S3UploadFailedError, S3ValidationError

from rightcall import errors
from rightcall.errors import BackendError, DataError, RightcallError, SourceError, StoreError
from tasks.aws.errors import LOCAL_ADVICE, local_advice, s3_errors
from tasks.jobs.sagemaker.service import service_errors

ROOT = Path(__file__).parents[2]
CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, RightcallError)]
FOREIGN = sorted(
    {
        kind
        for kind in vars(botocore.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, BotoCoreError | ClientError)
    },
    key=lambda kind: kind.__name__,
)


def tree(kind: type[RightcallError] = RightcallError, depth: int = 0) -> Iterator[tuple[int, str]]:
    yield depth, kind.__name__
    for below in kind.__subclasses__():
        if below.__module__ == errors.__name__:
            yield from tree(below, depth + 1)


def test_the_drawing_is_the_tree() -> None:
    drawn = [(0, "RightcallError")]
    for line in str(errors.__doc__).splitlines():
        if match := re.match(r"([│ ]*)[├└]── (\w+)", line):
            drawn.append((len(match[1]) // 4 + 1, match[2]))
    assert drawn == list(tree())


@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_says_what_it_means_and_survives_pickling(kind: type[RightcallError]) -> None:
    assert kind.__doc__
    copy = pickle.loads(pickle.dumps(kind("what happened: 'x'; do this")))  # noqa: S301
    assert (type(copy), str(copy)) == (kind, "what happened: 'x'; do this")


@pytest.mark.parametrize("kind", [DataError, SourceError])
def test_a_reason_is_in_the_message_and_survives_pickling(kind: type[DataError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("'x' is no role", reason="bad_role")))  # noqa: S301
    assert (copy.reason, copy.detail, str(copy)) == ("bad_role", "'x' is no role", "bad_role: 'x' is no role")


def test_every_error_is_raised_somewhere() -> None:
    raised = set()
    for folder in ("training_image", "tasks", "flows", "data_checks"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if (
                    isinstance(node, ast.Raise)
                    and isinstance(node.exc, ast.Call)
                    and isinstance(node.exc.func, ast.Name)
                ):
                    raised.add(node.exc.func.id)
    assert {kind.__name__ for kind in CLASSES} - raised == set()


def test_no_reason_is_written_into_a_message() -> None:
    """A reason that stands in the text alone would have to be read out of it again."""
    written = []
    for folder in ("training_image/rightcall", "tasks", "data_checks"):
        for path in (ROOT / folder).rglob("*.py"):
            found = re.findall(
                r'(?:DataError|SourceError|CallError)\(\s*f?"[a-z]+(?:_[a-z]+)+(?::\S+)?: ', path.read_text()
            )
            written += [(path.name, text) for text in found]
    assert written == []


def example(kind: Any) -> Exception:
    if issubclass(kind, ClientError):
        return kind({"Error": {"Code": "Strange", "Message": "because"}}, "Operation")
    if issubclass(kind, botocore.exceptions.WaiterError):
        return kind("job_ended", "because", {})
    return kind(**{name: "because" for _, name, _, _ in Formatter().parse(kind.fmt) if name})


@pytest.mark.parametrize("kind", FOREIGN, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    ("boundary", "ours"),
    [
        (lambda: s3_errors("s3://rows/a.jsonl"), StoreError),
        (lambda: s3_errors("s3://rows/a.jsonl", SourceError), SourceError),
        (lambda: service_errors("job-1", "eu-west-3"), BackendError),
    ],
    ids=["store", "source", "job"],
)
def test_no_error_of_botocore_passes_unmapped(
    kind: type[Exception], boundary: Callable[[], AbstractContextManager[None]], ours: type[RightcallError]
) -> None:
    error = example(kind)
    with pytest.raises(ours, match=r"(?s)(s3://rows/a\.jsonl|job-1).*; \w+") as caught, boundary():
        raise error
    assert caught.value.__cause__ is error


@pytest.mark.parametrize("kind", [S3DownloadFailedError, S3UploadFailedError, S3ValidationError])
def test_no_failed_transfer_passes_unmapped(kind: type[Exception]) -> None:
    """S3DownloadFailedError is what s3transfer raises when an object was replaced while its parts were read."""
    said = "transfer of 's3://rows/a.jsonl' failed: because; .*run the same command"
    with pytest.raises(StoreError, match=said), s3_errors("s3://rows/a.jsonl"):
        raise kind("because")


def test_every_class_with_an_advice_of_its_own_exists_and_gets_it() -> None:
    by_name = {kind.__name__: kind for kind in FOREIGN}
    for text, names in LOCAL_ADVICE.items():
        for name in names:
            said = local_advice(example(by_name[name]), "S3", "'s3://rows'", "AWS_REGION")
            assert said.startswith(text.split("{what}")[0].format(service="S3"))
            assert "{" not in said
