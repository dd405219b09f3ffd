"""The CreateTrainingJob requests that every recipe renders, kept in tests/generators/golden/ so that a change shows up in review.

python tests/generators/golden_requests.py --write     # after a change that is meant; then read `git diff tests/generators/golden`
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rightcall.recipe.loading import load_recipe
from tasks.jobs.sagemaker.request import JobPlan, training_request

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("golden")
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
STAGES = ("sft", "dpo", "score")
STORE = "s3://example-bucket/rightcall"
# An account, image and role that are nobody's; a key as long as real ones are.
SETTINGS = {
    "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing", "AWS_EC2_METADATA_DISABLED": "true",
    "RIGHTCALL_IMAGE": "111122223333.dkr.ecr.us-east-1.amazonaws.com/rightcall:golden",
    "RIGHTCALL_SAGEMAKER_ROLE": "arn:aws:iam::111122223333:role/rightcall-job",
}  # fmt: skip
KEY = "0123456789abcdef0123456789abcdef"


def golden_path(recipe: Path) -> Path:
    return GOLDEN / f"{'-'.join(recipe.relative_to(ROOT / 'recipes').with_suffix('').parts)}.json"


def requests_of(path: Path) -> dict[str, Any]:
    """Stage → request, of the recipe with nothing but the backend changed."""
    recipe = load_recipe(path, ["compute.backend=sagemaker"])
    channels = {"model": f"{STORE}/base/{KEY}/model/", "dataset": f"{STORE}/ingest/{KEY}/"}
    with _settings():
        return {
            stage: training_request(JobPlan(stage, KEY, recipe, channels, f"{STORE}/.jobs/{stage}/{KEY}"))
            for stage in STAGES
        }


def rendered(requests: dict[str, Any]) -> str:
    return json.dumps(requests, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def _settings() -> Iterator[None]:
    """Of the environment only what stands above reaches a request."""
    before = {name: value for name, value in os.environ.items() if name.startswith(("AWS_", "RIGHTCALL_"))}
    changed = [name for name in before if name not in ("RIGHTCALL_HOME", "RIGHTCALL_STORE", "RIGHTCALL_MIRROR")]
    for name in changed:
        del os.environ[name]
    os.environ.update(SETTINGS)
    try:
        yield
    finally:
        for name in SETTINGS:
            os.environ.pop(name, None)
        os.environ.update(before)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Compare tests/generators/golden with what the recipes render, or rewrite it."
    )
    parser.add_argument("--write", action="store_true", help="make the files equal to what the recipes render now")
    write = parser.parse_args().write
    differing = []
    GOLDEN.mkdir(exist_ok=True)
    wanted = {golden_path(path): rendered(requests_of(path)) for path in RECIPES}
    for path, text in wanted.items():
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            differing.append(path)
            if write:
                path.write_text(text, encoding="utf-8")
    for path in set(GOLDEN.glob("*.json")) - set(wanted):
        differing.append(path)
        if write:
            path.unlink()
    verb = "written" if write else "differ from what the recipes render"
    sys.stdout.write("".join(f"{path.relative_to(ROOT)}\n" for path in differing) + f"{len(differing)} files {verb}\n")
    return 0 if write or not differing else 1


if __name__ == "__main__":
    sys.exit(main())
