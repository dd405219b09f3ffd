"""Every error that rightcall raises on purpose, named by who has to fix it.

RightcallError
├── RecipeError        the recipe's author: an unknown field, a value out of range, fields that contradict each other
├── DataError          the owner of the rows: broken lines, calls to tools that are not offered, leakage, too few rows
│   └── SourceError    whoever named the source: it is missing, unreachable, not pinned, or its hash does not match
├── StoreError         whoever runs the store: a full disk, a folder that cannot be written, a digest that does not match
├── BackendError       whoever runs the machine: the job could not be started, was killed, or ended without a result
├── TrainingError      the recipe's author again: the loss became NaN, the run was distributed in another way than asked
├── ScoringError       the owner of the evaluation: no items, a prompt longer than the window
└── RegistryError      whoever runs MLflow: it cannot be reached, the model is not there, the version is not ours

A message is what happened + the value with ``!r`` + what to do next.
"""


class RightcallError(Exception):
    """Base of all of them; one string argument, so that every one survives pickling between processes."""


class RecipeError(RightcallError):
    """A recipe or one of its overrides cannot be used; every problem is in the one message."""


class DataError(RightcallError):
    """Rows cannot be used; ``reason`` is the code of one row's problem ("bad_role"), by which they are counted."""

    def __init__(self, detail: str, *, reason: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.reason else self.detail


class SourceError(DataError):
    """What a source names cannot be fetched, or is not what the recipe pinned."""


class StoreError(RightcallError):
    """The store, a folder or a bucket, cannot be read or written."""


class BackendError(RightcallError):
    """A job could not be started, or ended without a result."""


class TrainingError(RightcallError):
    """Training ran, and what it makes is no model to go on with."""


class ScoringError(RightcallError):
    """A model cannot be scored, or what was scored cannot be compared."""


class RegistryError(RightcallError):
    """MLflow refuses a run or a version, or a registered model cannot be loaded."""
