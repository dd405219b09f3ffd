"""Whether what a recipe names is on this machine: asked before a server is started or a byte is fetched."""

from __future__ import annotations

from collections.abc import Iterator

from rightcall.chat.model_folder import named_template
from rightcall.errors import DataError, RecipeError
from rightcall.recipe.schema import Recipe
from tasks.data.sources import require_local


def check_inputs(recipe: Recipe, *, base_model: bool = True) -> None:
    """Local files and folders, and the chat template's name; what lies elsewhere is found out when it is fetched.

    base_model: whether the run needs model.source.

    Raises:
        RecipeError: everything that is not there.
    """
    if problems := list(_problems(recipe, base_model)):
        raise RecipeError("; ".join(problems) if len(problems) == 1 else "\n  - ".join(["not found:", *problems]))


def _problems(recipe: Recipe, base_model: bool) -> Iterator[str]:
    if recipe.model.chat_template is not None:
        try:
            named_template(recipe.model.chat_template)
        except RecipeError as err:
            yield str(err)
    for path, field in _named(recipe, base_model).items():
        try:
            require_local(path)
        except DataError as err:
            yield f"{field}: {err}"


def _named(recipe: Recipe, base_model: bool) -> dict[str, str]:
    """Address → field of all that a run reads."""
    data = recipe.data
    found = {recipe.model.source: "model.source"} if base_model else {}
    for field in ("conversations", "sft", "preference", "evaluation"):
        found |= {source.uri: f"data.{field}" for source in getattr(data, field)}
    for source in data.conversations:
        found |= {path: "data.conversations" for path in (source.tools, source.system) if path is not None}
    return found
