"""What the README says is true: its modules and recipes exist, its tree matches the disk, its first command stands early."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(?:\w*)\n(.*?)```", README, re.DOTALL)


def tracked() -> set[str]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(listed.stdout.splitlines())


def test_the_two_commands_stand_before_line_25() -> None:
    first = README.splitlines()[:24]
    assert any(line.startswith("make quickstart") for line in first)
    assert any(line.startswith("make test") for line in first)


def test_every_module_that_the_readme_runs_exists() -> None:
    modules = re.findall(r"python -m ((?:flows|tasks)[.\w]+)", README)
    assert modules
    assert [name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).is_file()] == []


def test_every_recipe_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"recipes/[\w./-]+\.yaml", README))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def tree() -> dict[str, str]:
    """Folder → what the README's tree says of it."""
    block = next(block for block in BLOCKS if block.startswith("flows/"))
    above: list[str] = []
    found = {}
    for line in block.splitlines():
        name, text = line.split(maxsplit=1)
        depth = (len(line) - len(line.lstrip())) // 2
        above = [*above[:depth], name]
        found["".join(above).rstrip("/")] = text
    return found


def rooms() -> dict[str, Path]:
    packages = [*(ROOT / "tasks").rglob("__init__.py"), *(ROOT / "training_image" / "rightcall").rglob("__init__.py")]
    found = {path.parent.relative_to(ROOT).as_posix(): path for path in packages}
    return {name: path for name, path in found.items() if name not in ("tasks", "training_image/rightcall")}


def test_the_tree_of_the_readme_names_every_folder_that_is_there() -> None:
    top = {path.split("/")[0] for path in tracked() if "/" in path and not path.startswith(".")} - {"docs"}
    assert set(tree()) == {*top, "training_image/rightcall", *rooms()}


def test_the_tree_of_the_readme_says_what_the_rooms_say() -> None:
    said = {name: text for name, text in tree().items() if name in rooms()}
    assert said
    assert said == {name: docstring(path)[0].rstrip(".") for name, path in rooms().items()}


def docstring(path: Path) -> list[str]:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").splitlines()


def test_a_room_has_a_line_for_each_of_its_files() -> None:
    for name, path in rooms().items():
        lines = [line.split(maxsplit=1) for line in docstring(path)[2:]]
        assert all(len(line) == 2 for line in lines), name
        assert [line[0] for line in lines] == sorted(f.name for f in path.parent.glob("*.py") if f != path), name
