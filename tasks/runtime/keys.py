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
from itertools import accumulate
from pathlib import Path
from typing import Any

from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext

from rightcall.chat.model_folder import TEMPLATES
from rightcall.errors import RightcallError
from tasks.machine.checkout import CHECKOUT

KEY_LENGTH = 32  # hex digits of sha256: 128 bits
PARSE_ATTEMPTS = 20
# Packages whose imports are followed, and the folder that holds them.
FOLLOWED = {"rightcall": "training_image", "data_checks": "."}
OURS = {*FOLLOWED, "tasks", "flows"}
# These carry values and addresses, or refuse; they make no result. A recipe's own values are in the key.
NOT_RESULTS = (
    "rightcall.errors",
    "rightcall.job.folders",
    "rightcall.job.stage_table",
    "rightcall.recipe",
    "rightcall.toolcalls.template_check",
    "rightcall.training.probe",  # of a recipe that probes it is in the slice: tasks/stages/training.py
)
READS_TEMPLATES = "rightcall.chat.model_folder"
NO_CODE = hashlib.sha256(b"").hexdigest()


def stage_key(stage: str, ingredients: dict[str, Any]) -> str:
    """First 32 hex digits of sha256 over stage, version, recipe slice, digests of the inputs, digest of the code."""
    text = json.dumps({"stage": stage, **ingredients}, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:KEY_LENGTH]


def module_digest(roots: tuple[str, ...], checkout: Path = CHECKOUT) -> str:
    """sha256 over the code of ``roots`` and of everything they import, however late, within rightcall and data_checks.

    Comments, docstrings, layout and the names of modules do not count: a file that moves keeps its digest, and an import
    stands for the code of what is imported. With the chat's code its templates count too.

    Raises:
        RightcallError: a root does not exist, a module does not parse, modules import each other in a circle, or the
            folder of the templates is empty.
    """
    code = _Code(checkout)
    total = hashlib.sha256("".join(sorted(map(code.digest, roots))).encode())
    if READS_TEMPLATES in code.digests:
        templates = sorted((checkout / TEMPLATES.relative_to(CHECKOUT)).glob("*.jinja"))
        if not templates:
            raise RightcallError(f"no chat template in {str(TEMPLATES)!r}, which a stage's key counts; restore them")
        for template in templates:
            total.update(f"{template.name}\0".encode() + template.read_bytes() + b"\0")
    return total.hexdigest()


def module_closure(roots: tuple[str, ...], checkout: Path = CHECKOUT) -> set[str]:
    """Names of the modules whose code makes the result.

    Raises:
        RightcallError: as ``module_digest``.
    """
    code = _Code(checkout)
    for root in roots:
        code.digest(root)
    return set(code.digests)


class _Code:
    """Digests of modules, each with all that it imports."""

    def __init__(self, checkout: Path) -> None:
        self.checkout = checkout
        self.digests: dict[str, str] = {}
        self._open: list[str] = []  # modules whose imports are being followed

    def digest(self, module: str) -> str:
        if module in self.digests:
            return self.digests[module]
        path = _file(module, self.checkout)
        if path is None:
            raise RightcallError(
                f"module {module!r} of a stage is not below {str(self.checkout)!r}; correct its modules=(…)"
            )
        if module in self._open:
            raise RightcallError(f"modules import each other in a circle: {[*self._open, module]!r}; break it")
        self._open.append(module)
        code, imports = _outline(module, path, _stamp(path), self.checkout)
        total = hashlib.sha256(code.encode())
        for line in sorted(f"{self._digest_of_import(name)}\0{thing}\0{local}\n" for name, thing, local in imports):
            total.update(line.encode())
        self._open.pop()
        self.digests[module] = total.hexdigest()
        return self.digests[module]

    def _digest_of_import(self, module: str) -> str:
        """Importing a module runs its packages first, so these count as well."""
        if module.partition(".")[0] not in FOLLOWED or _makes_no_result(module):
            return ""
        packages = list(accumulate(module.split("."), "{}.{}".format))[:-1]
        above = [self.digest(name) for name in packages if name not in self._open]
        return "".join([*(digest for digest in above if digest != NO_CODE), self.digest(module)])


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


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


Import = tuple[str, str, str]  # module, thing in it ("" = the module itself), local name


@lru_cache(maxsize=1024)
def _outline(module: str, path: Path, stamp: tuple[int, int], checkout: Path) -> tuple[str, tuple[Import, ...]]:
    """The code without comments, docstrings, layout and our own imports, and these imports.

    A name that stands for a module of ours is numbered by its first use. unparse, because ast.dump differs between
    Python versions.
    """
    tree = copy.deepcopy(_tree(path, stamp))
    imports = list(_imported(module, path.name == "__init__.py", tree, checkout))
    modules = {local: "" for _, thing, local in imports if not thing}
    for node in ast.walk(tree):
        match node:
            case ast.Module() | ast.ClassDef() | ast.FunctionDef() | ast.AsyncFunctionDef() if _has_docstring(node):
                del node.body[0]
    tree = _WithoutOurImports().visit(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in modules:
            modules[node.id] = modules[node.id] or f"module_{sum(map(bool, modules.values()))}"
            node.id = modules[node.id]
    return ast.unparse(tree), tuple((name, thing, modules.get(local, local)) for name, thing, local in imports)


def _imported(module: str, is_package: bool, tree: ast.Module, checkout: Path) -> Iterator[Import]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((each.name, "", each.asname or each.name) for each in node.names if _is_ours(each.name))
        elif isinstance(node, ast.ImportFrom):
            parts = module.split(".") if is_package else module.split(".")[:-1]
            above = parts[: len(parts) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for each in node.names if _is_ours(base) else ():
                inner, local = f"{base}.{each.name}", each.asname or each.name
                yield (inner, "", local) if _file(inner, checkout) else (base, each.name, local)


class _WithoutOurImports(ast.NodeTransformer):
    """A block may be left empty: the text is hashed, never run."""

    def visit_Import(self, node: ast.Import) -> ast.AST | None:
        node.names = [each for each in node.names if not _is_ours(each.name)]
        return node if node.names else None

    def visit_ImportFrom(self, node: ast.ImportFrom) -> ast.AST | None:
        return None if node.level or _is_ours(node.module or "") else node


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in OURS


def _makes_no_result(module: str) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in NOT_RESULTS)


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
