"""`python tests/generators/image_requirements.py` writes training_image/requirements.txt from pyproject.toml and constraints.txt."""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
REQUIREMENTS = ROOT / "training_image" / "requirements.txt"
EXTRAS = ("train", "gpu", "image")
HEADER = """\
# All that the training program runs on in a container, with everything it needs, at the versions of constraints.txt:
# pyproject's dependencies and its extras train, gpu and image. Written by tests/generators/image_requirements.py; a test compares.
# Not here: setuptools, the base's own, and what a CUDA build of torch adds (nvidia-*, triton), which its metadata pins.
"""
NOT_OURS = re.compile(r"setuptools|triton|nvidia-.+|cuda-.+")


def pins(path: Path) -> dict[str, str]:
    """Canonical package name → version, from lines `name==version`."""
    found = re.findall(r"^([\w.-]+)==(\S+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def direct() -> list[Requirement]:
    """What pyproject.toml asks for, from the file itself: an editable install's metadata may be old."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [
        Requirement(text) for text in (*project["dependencies"], *(text for name in EXTRAS for text in extras[name]))
    ]


def closure(wanted: list[Requirement]) -> set[str]:
    """Canonical names of the packages asked for and of all that they need here, from what is installed."""
    names: set[str] = set()
    seen: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        requirement = wanted.pop()
        name, extras = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        names.add(name)
        for text in metadata.requires(name) or ():
            needed = Requirement(text)
            contexts = [{"extra": extra} for extra in extras] or [{"extra": ""}]
            if needed.marker is None or any(needed.marker.evaluate(context) for context in contexts):
                wanted.append(needed)
    return names


def requirements_text() -> str:
    """The whole file.  Raises: KeyError for a package that constraints.txt does not pin: pin it there."""
    versions = pins(ROOT / "constraints.txt")
    names = sorted(name for name in closure(direct()) if not NOT_OURS.fullmatch(name))
    return HEADER + "".join(f"{name}=={versions[name]}\n" for name in names)


if __name__ == "__main__":
    REQUIREMENTS.write_text(requirements_text(), encoding="utf-8")
