"""What a stage's key is made of: its recipe slice, its inputs' content, and the code that makes the result.

Prefect's INPUTS policy would hash a ref's address (a miss on the next machine) and TASK_SOURCE sees only the task's own
text (a stale result after an edit one module further), hence our own policy.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from rightcall.errors import RightcallError
from tasks.machine.checkout import CHECKOUT

KEY_LENGTH = 32  # hex digits of sha256: 128 bits
PARSE_ATTEMPTS = 20
# Packages whose imports are followed, and the folder that holds them.
FOLLOWED = {"rightcall": "training_image", "data_checks": "."}
# They carry values and addresses, or refuse, and make no result; what a recipe says is in the key by value.
NOT_RESULTS = {
    "rightcall.errors",
    "rightcall.job.folders",
    "rightcall.recipe.sections",
    "rightcall.toolcalls.template_check",
}


def stage_key(stage: str, ingredients: dict[str, Any]) -> str:
    """First 32 hex digits of sha256 over stage, version, recipe slice, digests of the inputs, digest of the code."""
    text = json.dumps({"stage": stage, **ingredients}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def module_digest(roots: tuple[str, ...], checkout: Path = CHECKOUT) -> str:
    """sha256 over the code of ``roots`` and of everything they import, however late, within rightcall and data_checks.

    Comments, docstrings and layout do not count. With rightcall.chat its templates count too.

    Raises:
        RightcallError: a root does not exist, or a module does not parse.
    """
    total = hashlib.sha256()
    closure = sorted(module_closure(roots, checkout))
    for module in closure:
        path = _file(module, checkout)
        total.update(f"{module}\0{_normalised(path, _stamp(path)) if path else ''}\0".encode())
    if "rightcall.chat.template" in closure:
        folder = checkout / "training_image" / "rightcall" / "templates"
        for template in sorted(folder.glob("*.jinja")):
            total.update(f"{template.name}\0".encode() + template.read_bytes() + b"\0")
    return total.hexdigest()


def module_closure(roots: tuple[str, ...], checkout: Path = CHECKOUT) -> set[str]:
    """Names of the modules whose code makes the result."""
    for root in roots:
        if _file(root, checkout) is None:
            raise RightcallError(f"module {root!r} of a stage is not below {str(checkout)!r}; correct its modules=(…)")
    closure: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in closure or module in NOT_RESULTS:
            continue
        closure.add(module)
        path = _file(module, checkout)
        if path is not None:
            waiting.extend(_imports(module, path, checkout))
        if "." in module and module.partition(".")[0] in FOLLOWED:
            waiting.append(module.rpartition(".")[0])  # importing a module runs its package first
    return closure


@dataclass
class StageCachePolicy(CachePolicy):
    """The key that the stage's call has worked out; flow parameters, run ids and the task's text do not enter it."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        return str(inputs["call"].cache_key)


def _file(module: str, checkout: Path) -> Path | None:
    package = module.partition(".")[0]
    path = checkout / FOLLOWED.get(package, ".") / module.replace(".", "/")
    for candidate in (path.with_name(path.name + ".py"), path / "__init__.py"):
        if candidate.is_file():
            return candidate
    return None


def _imports(module: str, path: Path, checkout: Path) -> list[str]:
    """Followed modules that ``module`` imports; ``from package import name`` may name a module or a thing in it."""
    return [name for name in _named(module, path, _stamp(path)) if _file(name, checkout) is not None]


@lru_cache(maxsize=1024)
def _named(module: str, path: Path, stamp: tuple[int, int]) -> frozenset[str]:
    return frozenset(name for name in _imported(module, path, stamp) if name.partition(".")[0] in FOLLOWED)


def _imported(module: str, path: Path, stamp: tuple[int, int]) -> Iterator[str]:
    is_package = path.name == "__init__.py"
    for node in ast.walk(_tree(path, stamp)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from (base, *(f"{base}.{alias.name}" for alias in node.names))


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


@lru_cache(maxsize=1024)
def _normalised(path: Path, stamp: tuple[int, int]) -> str:
    """Text without comments, docstrings and layout; unparse, because ast.dump differs between Python versions."""
    tree = copy.deepcopy(_tree(path, stamp))
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if _has_docstring(node):
                del node.body[0]
    return ast.unparse(tree)


def _has_docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return ast.get_docstring(node, clean=False) is not None


@lru_cache(maxsize=1024)
def _tree(path: Path, stamp: tuple[int, int]) -> ast.Module:
    text = path.read_text(encoding="utf-8")
    for attempts_left in reversed(range(PARSE_ATTEMPTS)):
        try:
            return ast.parse(text)
        except SystemError:
            # CPython before 3.11.9 and 3.12.3 counts the depth of two parses in two threads together (gh-106905),
            # and Prefect parses in its own.
            if not attempts_left:
                raise
            time.sleep(0.01)
        except SyntaxError as err:
            raise RightcallError(f"{str(path)!r} does not parse: {err}; correct it, a stage's key needs it") from err
    raise AssertionError("unreachable")
