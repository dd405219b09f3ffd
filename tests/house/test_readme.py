"""What the README says is true: its modules and recipes exist, its tree matches the disk, its first command stands early."""

from __future__ import annotations

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
    modules = re.findall(r"python -m ((?:flows|tasks)\.\w+)", README)
    assert modules
    assert [name for name in modules if not (ROOT / (name.replace(".", "/") + ".py")).is_file()] == []


def test_every_recipe_that_the_readme_names_exists() -> None:
    named = set(re.findall(r"recipes/[\w./-]+\.yaml", README))
    assert named
    assert [name for name in named if not (ROOT / name).is_file()] == []


def test_the_tree_of_the_readme_matches_the_disk() -> None:
    tree = next(block for block in BLOCKS if block.startswith("flows/"))
    described: dict[str, set[str]] = {}
    folder = ""
    for line in tree.splitlines():
        name = line.split()[0] if line.split() else ""
        if name.endswith("/") and not line.startswith(" "):
            folder = name
            described[folder] = set()
        elif line.startswith(" ") and name.endswith((".py", ".yaml", ".txt", "/")):
            described[folder].add(name)
    for folder, names in described.items():
        inside = [path.removeprefix(folder) for path in tracked() if path.startswith(folder) and (ROOT / path).exists()]
        files = {path for path in inside if "/" not in path and path.endswith(".py") and path != "__init__.py"}
        if folder in {"flows/", "tasks/", "data_checks/", "training_image/"}:
            assert {name for name in names if name.endswith(".py")} == files, folder
        assert all((ROOT / folder / name).exists() for name in names), folder
