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
    pass


class DataError(RightcallError):
    pass


class SourceError(DataError):
    pass


class StoreError(RightcallError):
    pass


class BackendError(RightcallError):
    pass


class TrainingError(RightcallError):
    pass


class ScoringError(RightcallError):
    pass


class RegistryError(RightcallError):
    pass
