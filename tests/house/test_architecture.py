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
ARROW = ("flows", "tasks", "data_checks", "rightcall")  # each may import those to its right
TORCH = {"torch", "trl", "transformers", "peft", "accelerate", "deepspeed", "bitsandbytes"}
TOUCHES_THE_WORLD = {"boto3", "botocore", "sagemaker", "mlflow"}
MOST_FILES = 12  # in a room, without __init__.py
# Every room, from the ground up, and the rooms that it may import; "machine" of tasks/ stands for tasks/machine.
ROOMS = {
    "tasks/machine": "",
    "tasks/aws": "machine",
    "tasks/store": "aws machine",
    "tasks/runtime": "store machine",
    "tasks/results": "store",
    "tasks/costs": "store machine",
    "tasks/files": "",
    "tasks/sources": "tracking files",
    "tasks/data": "sources files aws machine",
    "tasks/drafts": "sources data files store machine",
    "tasks/jobs": "results runtime costs aws machine store",
    "tasks/jobs/sagemaker": "jobs results runtime costs aws machine store",
    "tasks/tracking": "results runtime costs store machine",
    "tasks/serving": "tracking costs aws machine store",
    "tasks/reporting": "tracking results costs store machine",
    "tasks/operations": "tracking jobs data costs results runtime store aws machine",
    "tasks/stages": "reporting tracking jobs jobs/sagemaker data results runtime store",
    "tasks/runs": "sources stages reporting tracking jobs data files costs results runtime store aws machine",
    "rightcall/likelihood": "",
    "rightcall/decoding": "likelihood chat rows schemas",
    "rightcall/schemas": "",
    "rightcall/rows": "schemas",
    "rightcall/chat": "",
    "rightcall/recipe": "rows",
    "rightcall/bfcl": "rows",
    "rightcall/retail": "rows",
    "rightcall/dialects": "",
    "rightcall/toolcalls": "dialects rows chat schemas",
    "rightcall/job": "recipe rows",
    "rightcall/measurement": "rows recipe",
    "rightcall/records": "dialects toolcalls rows",
    "rightcall/traces": "rows",
    "rightcall/rollouts": "toolcalls chat rows recipe",
    "rightcall/parallel": "likelihood recipe",
    "rightcall/training": "decoding parallel likelihood toolcalls chat rows recipe job",
    "rightcall/evaluation": "rollouts decoding likelihood parallel chat toolcalls measurement rows recipe job",
    "data_checks": "",
    "flows": "",
}
NEEDS_TORCH = {
    *("rightcall/likelihood", "rightcall/decoding", "rightcall/parallel"),
    *("rightcall/training", "rightcall/evaluation"),
}
OUTSIDE_OF_ROOMS = {"rightcall/errors.py"}
# Served by MLflow in a process of its own, never imported by a flow: the one module of tasks/ that may load torch.
SERVED = ROOT / "tasks" / "serving" / "served_model.py"


def folder(name: str) -> Path:
    return LIBRARY.parent / name if name.startswith("rightcall") else ROOT / name


def place(path: Path) -> str:
    """ "tasks/store/leases.py", "rightcall/chat/template.py"."""
    return path.relative_to(LIBRARY.parent if LIBRARY in path.parents else ROOT).as_posix()


def files(name: str) -> list[Path]:
    """All Python files of one side of the arrow."""
    found = sorted(folder(name).rglob("*.py"))
    assert found, name
    return found


EVERY_FILE = [path for name in ARROW for path in files(name)]
MODULES = {place(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in EVERY_FILE}


def imported(path: Path) -> Iterator[str]:
    """Every module named by an import statement anywhere in the file, lazy ones included."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> set[Path]:
    """The files of ours that a file imports; a package is named by every import of what lies in it and says nothing."""
    found = {MODULES[name] for name in imported(path) if name in MODULES}
    return {other for other in found - {path} if other.name != "__init__.py"}


def packages(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imported(path)}


def room_of(path: Path) -> str:
    return Path(place(path)).parent.as_posix()


def test_every_file_lies_in_a_room() -> None:
    assert [place(path) for path in EVERY_FILE if path.name != "__init__.py" and room_of(path) not in ROOMS] == [
        *sorted(OUTSIDE_OF_ROOMS)
    ]
    assert [name for name in ROOMS if not list(folder(name).glob("*.py"))] == []


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_row_names(room: str) -> None:
    side = room.split("/", maxsplit=1)[0]
    allowed = {room, *(f"{side}/{name}" for name in ROOMS[room].split())}
    found = [path for path in folder(room).glob("*.py") if path.name != "__init__.py"]
    assert found
    wrong = {
        place(path): sorted(place(other) for other in others)
        for path in found
        if (
            others := {o for o in ours(path) if place(o).split("/")[0] == side and room_of(o) in ROOMS.keys() - allowed}
        )
    }
    assert not wrong


def test_no_room_has_more_files_than_one_takes_in_at_a_look() -> None:
    rooms = {path.parent for path in EVERY_FILE} | {path.parent for path in (ROOT / "tests").rglob("*.py")}
    counts = {room: len([path for path in room.glob("*.py") if path.name != "__init__.py"]) for room in rooms}
    assert {str(room.relative_to(ROOT)): count for room, count in counts.items() if count > MOST_FILES} == {}


def test_the_init_of_a_room_is_one_docstring() -> None:
    """A re-export would pull a whole room into the key of every stage that imports one file of it."""
    rooms = [folder(name) / "__init__.py" for name in ROOMS if "/" in name]
    assert rooms
    for path in rooms:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert len(tree.body) == 1, path
        assert ast.get_docstring(tree), path


@pytest.mark.parametrize("name", ["bench", "tests"])
def test_every_module_of_ours_that_is_imported_from_outside_exists(name: str) -> None:
    """Late imports too, which nothing else sees before they run; mypy lets a module pass that it cannot find."""
    found = sorted((ROOT / name).rglob("*.py"))
    assert found
    wrong = {}
    for path in found:
        nodes = [
            node for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.ImportFrom)
        ]
        modules = {str(node.module) for node in nodes if str(node.module).split(".")[0] in ARROW}
        if missing := modules - MODULES.keys():
            wrong[path.name] = missing
    assert not wrong


def test_no_file_imports_in_a_circle() -> None:
    """Also under TYPE_CHECKING and inside functions."""
    done: set[Path] = set()

    def follow(path: Path, above: tuple[Path, ...]) -> None:
        assert path not in above, [place(each) for each in (*above[above.index(path) :], path)]
        if path not in done:
            for other in ours(path):
                follow(other, (*above, path))
            done.add(path)

    for path in EVERY_FILE:
        follow(path, ())


@pytest.mark.parametrize("name", ARROW)
def test_imports_point_one_way(name: str) -> None:
    to_the_left = set(ARROW[: ARROW.index(name)])
    wrong = {place(path): found for path in files(name) if (found := packages(path) & to_the_left)}
    assert not wrong


@pytest.mark.parametrize(
    ("name", "forbidden"),
    [
        ("rightcall", {"prefect", "great_expectations", "polars"} | TOUCHES_THE_WORLD),
        ("data_checks", {"prefect"} | TOUCHES_THE_WORLD | TORCH),
        ("tasks", TORCH),
        ("flows", TOUCHES_THE_WORLD | TORCH),
        *((room, TORCH) for room in ROOMS if room.startswith("rightcall/") and room not in NEEDS_TORCH),
    ],
)
def test_a_room_does_not_import_what_belongs_to_another(name: str, forbidden: set[str]) -> None:
    wrong = {place(path): found for path in files(name) if path != SERVED and (found := packages(path) & forbidden)}
    assert not wrong


def test_only_the_room_of_data_imports_the_checks() -> None:
    importers = {room_of(path) for path in files("tasks") if "data_checks" in packages(path)}
    assert importers == {"tasks/data"}


def test_training_and_evaluation_know_nothing_of_each_other() -> None:
    assert "evaluation" not in ROOMS["rightcall/training"].split()
    assert "training" not in ROOMS["rightcall/evaluation"].split()


def test_no_relative_imports_hide_from_these_tests() -> None:
    for path in EVERY_FILE:
        levels = [node.level for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        assert not any(levels), path


def loaded_torch(modules: list[str]) -> str:
    """What of torch and its kind a process has loaded after importing the modules."""
    assert modules
    code = f"import sys\nfor name in {modules!r}: __import__(name)\nprint(sorted({TORCH!r} & set(sys.modules)))"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "training_image")])}
    return subprocess.check_output([sys.executable, "-c", code], env=environment, text=True).splitlines()[-1]


def test_light_rooms_of_the_library_load_without_torch() -> None:
    light = [room for room in ROOMS if room.startswith("rightcall/") and room not in NEEDS_TORCH]
    modules = [name for name, path in MODULES.items() if room_of(path) in light]
    assert len(modules) > len(light)
    assert loaded_torch(sorted(modules)) == "[]"


def test_every_flow_loads_without_torch() -> None:
    assert loaded_torch([f"flows.{path.stem}" for path in files("flows") if path.stem != "__init__"]) == "[]"


def test_recipes_are_never_imported() -> None:
    assert list((ROOT / "recipes").rglob("*.yaml"))
    assert not list((ROOT / "recipes").rglob("*.py"))


def test_no_flow_file_shadows_a_library() -> None:
    """Prefect puts flows/ on sys.path: a flows/mlflow.py would be imported for the real one."""
    named = {path.stem for path in files("flows")} - {"__init__"}
    search = [
        entry
        for entry in sys.path
        if Path(entry or ".").resolve() not in (ROOT, ROOT / "flows", ROOT / "training_image")
    ]
    shadowed = {
        name
        for name in named
        if importlib.machinery.PathFinder.find_spec(name, search) or name in sys.stdlib_module_names
    }
    assert not shadowed


def test_no_room_of_the_tests_shadows_a_library() -> None:
    """tests/ is on sys.path: a tests/mlflow/__init__.py would be imported for the real one."""
    rooms = [path for path in (ROOT / "tests").iterdir() if path.is_dir() and path.name != "__pycache__"]
    assert rooms
    assert [path.name for path in rooms if (path / "__init__.py").exists()] == ["sagemaker_service"]


def test_no_file_has_a_name_that_says_nothing() -> None:
    empty = {"utils", "helpers", "common", "misc"}
    assert not [path for path in EVERY_FILE if path.stem in empty]


def test_the_training_image_runs_alone_and_ends_a_broken_job_with_a_clean_failure(tmp_path: Path) -> None:
    """Copied away, nothing of the checkout on the path: the library imports, and entry.py reports instead of dying."""
    alone = tmp_path / "image"
    shutil.copytree(ROOT / "training_image", alone, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {
        name: value for name, value in os.environ.items() if name != "PYTHONPATH" and not name.startswith("SM_")
    }
    modules = sorted(name for name in MODULES if name.startswith("rightcall."))
    assert len(modules) > MOST_FILES
    # the editable install puts the checkout on the path as well
    ours = [str(ROOT), str(ROOT / "training_image")]
    code = f"import sys; sys.path = [{str(alone)!r}] + [name for name in sys.path if name not in {ours!r}]\n"
    code += f"for name in {modules!r}: __import__(name)\n"
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
