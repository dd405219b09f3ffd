"""The rooms hold: imports point one way, the orchestrator needs no torch, training_image/ runs alone."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "training_image" / "rightcall"
ROOMS = ("flows", "tasks", "data_checks", "rightcall")  # each may import those to its right
TORCH = {"torch", "trl", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes"}
TOUCHES_THE_WORLD = {"boto3", "botocore", "sagemaker", "mlflow"}
# Orchestrator-side modules of the library: a check or a flow imports them, so none may pull torch in.
LIGHT = ("errors", "recipe", "recipe_loading", "recipe_rules", "recipe_yaml", "rows", "when2call", "bfcl", "chat",
         "toolcalls", "metrics", "baseline", "gate")  # fmt: skip
# Served by MLflow in a process of its own, never imported by a flow: the one module of tasks/ that may load torch.
SERVED = ROOT / "tasks" / "served_model.py"


def room(name: str) -> list[Path]:
    folder = LIBRARY if name == "rightcall" else ROOT / name
    return sorted(folder.rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Every module named by an import statement anywhere in the file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported(path)}


@pytest.mark.parametrize("name", ROOMS)
def test_imports_point_one_way(name: str) -> None:
    to_the_left = set(ROOMS[: ROOMS.index(name)])
    wrong = {str(path.relative_to(ROOT)): found for path in room(name) if (found := packages(path) & to_the_left)}
    assert not wrong


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("rightcall", {"prefect", "great_expectations", "polars"} | TOUCHES_THE_WORLD),
        ("data_checks", {"prefect"} | TOUCHES_THE_WORLD | TORCH),
        ("tasks", TORCH),
        ("flows", TOUCHES_THE_WORLD | TORCH),
    ],
)
def test_a_room_does_not_import_what_belongs_to_another(name: str, forbidden: set[str]) -> None:
    wrong = {
        str(path.relative_to(ROOT)): found
        for path in room(name)
        if path != SERVED and (found := packages(path) & forbidden)
    }
    assert not wrong


def test_no_relative_imports_hide_from_these_tests() -> None:
    for name in ROOMS:
        for path in room(name):
            levels = [node.level for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
            assert not any(levels), path


def test_light_modules_of_the_library_load_without_torch() -> None:
    names = [name for name in LIGHT if (LIBRARY / f"{name}.py").exists()]
    code = f"import sys\nfor name in {names!r}: __import__('rightcall.' + name)\n"
    code += f"print(sorted({TORCH!r} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": str(ROOT / "training_image")}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).strip() == "[]"


def test_every_flow_loads_without_torch() -> None:
    names = [path.stem for path in room("flows") if path.stem != "__init__"]
    code = (
        f"import sys\nfor name in {names!r}: __import__(f'flows.{{name}}')\nprint(sorted({TORCH!r} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "training_image")])}
    assert subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).splitlines()[-1] == "[]"


def test_recipes_are_never_imported() -> None:
    assert not list((ROOT / "recipes").rglob("*.py"))


def test_no_flow_file_shadows_a_library() -> None:
    """Prefect puts flows/ on sys.path: a flows/mlflow.py would be imported for the real one."""
    ours = {path.stem for path in room("flows")} - {"__init__"}
    search = [
        entry
        for entry in sys.path
        if Path(entry or ".").resolve() not in (ROOT, ROOT / "flows", ROOT / "training_image")
    ]
    shadowed = {
        name
        for name in ours
        if importlib.machinery.PathFinder.find_spec(name, search) or name in sys.stdlib_module_names
    }
    assert not shadowed


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "misc"}
    assert not [path for name in ROOMS for path in room(name) if path.stem in empty]


def test_the_training_image_runs_alone_and_ends_a_broken_job_with_a_clean_failure(tmp_path: Path) -> None:
    """Copied away, nothing of the checkout on the path: the library imports, and entry.py reports instead of dying."""
    alone = tmp_path / "image"
    shutil.copytree(ROOT / "training_image", alone, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("SM_")
    }
    modules = sorted(f"rightcall.{path.stem}" for path in (alone / "rightcall").glob("*.py") if path.stem != "__init__")
    code = f"import sys; sys.path.insert(0, {str(alone)!r})\nfor name in {modules!r}: __import__(name)\n"
    code += "import rightcall\nprint(rightcall.__file__)"
    imports = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd=tmp_path,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
        timeout=300,
    )
    assert imports.returncode == 0, imports.stderr
    assert imports.stdout.strip() == str(alone / "rightcall" / "__init__.py")

    root = tmp_path / "ml"
    job = root / "input" / "data" / "job"
    job.mkdir(parents=True)
    (job / "job.json").write_text('{"stage": "sft", "recipe": {"name": "broken"}}')
    run = subprocess.run(
        [sys.executable, str(alone / "entry.py")], cwd=tmp_path, env=environment | {"SM_ML_ROOT": str(root)}, text=True,
        capture_output=True, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 1, run.stderr
    failure = (root / "output" / "failure").read_text()
    assert failure.split(":")[0] in ("RecipeError", "BackendError", "ValidationError"), failure
