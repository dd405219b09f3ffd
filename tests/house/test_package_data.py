"""Files that code finds by a path, not by an import: each lies where the code looks, and travels in the wheel."""

from __future__ import annotations

import importlib
import subprocess
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest

from rightcall.recipe.loading import default_recipe

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "training_image" / "rightcall"
SIDES = {"tasks": ROOT / "tasks", "rightcall": LIBRARY}
WHEEL = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
DATA = sorted(path for path in LIBRARY.rglob("*") if path.suffix in {".json", ".jinja"})


@pytest.mark.parametrize("side", SIDES)
def test_every_path_that_a_module_names_exists(side: str) -> None:
    found = {}
    for path in sorted(SIDES[side].rglob("*.py")):
        name = ".".join((side, *path.relative_to(SIDES[side]).with_suffix("").parts)).removesuffix(".__init__")
        constants = vars(importlib.import_module(name)).items()
        found |= {f"{name}.{constant}": value for constant, value in constants if isinstance(value, Path)}
    # what a run makes lies below .rightcall
    ours = {name: path for name, path in found.items() if ROOT in path.parents and ".rightcall" not in path.parts}
    assert ours
    assert {name: str(path) for name, path in ours.items() if not path.exists()} == {}


def test_the_wheel_holds_the_data_of_the_library() -> None:
    """Hatch takes every file of a package that git does not ignore."""
    assert WHEEL["packages"] == ["training_image/rightcall"]
    places = {path.relative_to(LIBRARY).as_posix() for path in DATA}
    assert {"recipe/trl_fields.json", "chat/templates/chatml-tools.jinja", "parallel/zero3.json"} <= places
    assert all(files("rightcall").joinpath(place).is_file() for place in places)
    ignored = subprocess.run(
        ["git", "check-ignore", *map(str, DATA)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert (ignored.returncode, ignored.stdout) == (1, "")


def test_the_embedded_recipe_is_the_quickstart_of_the_checkout() -> None:
    assert WHEEL["force-include"] == {"recipes/quickstart.yaml": "rightcall/quickstart.yaml"}
    assert default_recipe().resolve() == ROOT / "recipes" / "quickstart.yaml"
