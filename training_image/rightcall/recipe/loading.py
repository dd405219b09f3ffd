"""Read a recipe file and its `--set a.b=c` overrides into a checked Recipe, or say all that is wrong at once."""

from __future__ import annotations

import json
import types
import typing
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from rightcall.errors import RecipeError
from rightcall.recipe.pins import looks_secret
from rightcall.recipe.rules import suggestion
from rightcall.recipe.schema import Recipe
from rightcall.recipe.yaml_lines import YamlProblem, parse_value, parse_yaml

Location = tuple[str | int, ...]
FILE_SCHEMES = {"tools": "openapi:", "uri": "traces:"}
SOURCE_PATHS = ("uri", "tools", "system")  # fields of a source that may name a local file
MAX_FILE_BYTES = 1_000_000  # the largest recipe that makes sense is a few KB; a data file given by mistake is not read


@dataclass
class Draft:
    """A recipe before it is checked: plain values, and where in the file or overrides each was written."""

    values: dict[str, Any]
    origins: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def where(self, location: Location) -> str:
        """`line 12: ` or `--set 'a.b=c': ` of the place itself or of the nearest one around it."""
        for length in range(len(location), 0, -1):
            if origin := self.origins.get(location[:length]):
                return f"{origin}: "
        return ""


def default_recipe() -> Path:
    """recipes/quickstart.yaml: beside rightcall in the wheel, in recipes/ of a checkout."""
    packaged = Path(str(files("rightcall"))) / "quickstart.yaml"
    return packaged if packaged.is_file() else Path(__file__).parents[3] / "recipes" / "quickstart.yaml"


def load_recipe(path: str | Path | None = None, overrides: list[str] | tuple[str, ...] = ()) -> Recipe:
    """None loads the embedded default. Relative paths in the file mean its folder, those in overrides the current one.

    Raises:
        RecipeError: with every problem at once; the recipe's author corrects them.
    """
    file = default_recipe() if path is None else Path(path).expanduser()
    draft = _read(file)
    _resolve_paths(draft.values, file.resolve().parent)
    for override in overrides:
        _apply(draft, override)
    _resolve_paths(draft.values, Path.cwd())
    _find_secrets(draft, draft.values, ())
    recipe = _validate(draft)
    if draft.problems or recipe is None:
        count = f"{len(draft.problems)} problem{'s' if len(draft.problems) > 1 else ''}"
        raise RecipeError(
            f"{file}: {count} in the recipe:\n" + "\n".join(f"  - {problem}" for problem in draft.problems)
        )
    return recipe


def _read(file: Path) -> Draft:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise RecipeError(
                f"{str(file)!r} has {file.stat().st_size:,} bytes; a recipe is a small YAML file. Is it the right one?"
            )
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as err:
        near = sorted(str(found) for found in file.parent.glob("*.yaml")) if file.parent.is_dir() else []
        hint = (
            f"; there are {', '.join(near[:8])}" if near else "; recipes/README.md lists those that come with rightcall"
        )
        raise RecipeError(f"recipe {str(file)!r} does not exist{hint}") from err
    except UnicodeDecodeError as err:
        raise RecipeError(
            f"{str(file)!r} is not UTF-8 (byte {err.start}: {err.object[err.start]:#04x}); save it as UTF-8"
        ) from err
    except OSError as err:
        raise RecipeError(f"recipe {str(file)!r} cannot be read: {err.strerror}; give the path of a YAML file") from err
    try:
        parsed = parse_yaml(text)
    except YamlProblem as err:
        raise RecipeError(f"{file} is not valid YAML: {err}; correct it there") from err
    if not isinstance(parsed.value, dict):
        kind = "empty" if parsed.value is None else f"a {type(parsed.value).__name__}"
        raise RecipeError(
            f"{file} is {kind}, not a recipe: sections such as model:, data:, sft: belong at its top level"
        )
    try:  # a copy: where places share a YAML anchor, an override of one would otherwise change all
        values = json.loads(json.dumps(parsed.value, default=str))
    except (ValueError, TypeError) as err:
        raise RecipeError(f"{file} cannot be written as plain values ({err}); use text keys") from err
    draft = Draft(values, {place: f"line {line}" for place, line in parsed.lines.items()})
    for place, line, first in parsed.duplicates:
        draft.problems.append(f"line {line}: {_dotted(place)}: given twice, first in line {first}; keep one")
    return draft


def _apply(draft: Draft, override: str) -> None:
    """Put one `a.b=c` into the draft; numbers address list items (`data.sft.0.limit=10`)."""
    name, equals, text = override.partition("=")
    keys = [int(key) if key.isdecimal() else key for key in name.strip().split(".")]
    if not equals or "" in keys:
        draft.problems.append(f"--set {override!r}: not of the form section.field=value, as in --set dpo.beta=0.2")
        return
    shown = f"--set {name.strip()}=…" if looks_secret(str(keys[-1]), text) else f"--set {override}"
    try:
        value = parse_value(text)
    except YamlProblem as err:
        draft.problems.append(f"{shown}: the value is not YAML: {err}")
        return
    around: Any = draft.values
    at: Any = around
    for depth, key in enumerate(keys):
        if isinstance(at, dict) and at.get(key) is None:
            at[key] = {}  # a section that the file leaves out, or the field itself
        if (isinstance(at, dict) and isinstance(key, str)) or _has(at, key):
            around, at = at, at[key]
        else:
            name = _dotted(tuple(keys[:depth])) or "the recipe"
            holds = (
                f"a list of {len(at)} items"
                if isinstance(at, list)
                else f"the value {at!r}"
                if depth
                else "named sections"
            )
            draft.problems.append(f"{shown}: {name} is {holds}, it has no {key!r}")
            return
    around[keys[-1]] = value
    place = tuple(keys)
    draft.origins = {known: origin for known, origin in draft.origins.items() if known[: len(place)] != place}
    draft.origins[place] = shown


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Make local sources absolute; everything with a scheme, and everything that is no text, stays for the checks."""
    data = values.get("data")
    named = ("conversations", "sft", "preference", "evaluation")
    rows = [data.get(name) for name in named] if isinstance(data, dict) else []
    sources = [
        (source, key) for listed in rows if isinstance(listed, list) for source in listed for key in SOURCE_PATHS
    ]
    for section, key in [*sources, (values.get("model"), "source")]:
        uri = section.get(key) if isinstance(section, dict) else None
        scheme = FILE_SCHEMES.get(key, "")
        if scheme and isinstance(uri, str) and uri.startswith(scheme) and not uri.startswith("traces:mlflow:"):
            rest = uri.removeprefix(scheme)
            section[key] = f"{scheme}{(folder / Path(rest).expanduser()).resolve()}" if rest.strip() else uri
        elif isinstance(uri, str) and uri.strip() and ":" not in uri:
            section[key] = str((folder / Path(uri).expanduser()).resolve())


def _find_secrets(draft: Draft, value: Any, location: Location) -> None:
    """Report and remove what looks like a credential, so that no later message can repeat it."""
    items = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, item in items:
        place = (*location, key)
        if isinstance(item, (dict, list)):
            _find_secrets(draft, item, place)
        elif looks_secret(str(key), item):
            draft.problems.append(
                f"{draft.where(place)}{_dotted(place)}: looks like a secret; a recipe is stored with every run. "
                "Put it into the environment (HF_TOKEN, AWS_PROFILE …) and remove it here"
            )
            value[key] = None
            if isinstance(value, dict):
                del value[key]


def _validate(draft: Draft) -> Recipe | None:
    """Check single fields, then, with the wrong ones replaced by stand-ins, what fields mean together."""
    wrong: set[str] = set()
    for _ in range(4):  # each round can uncover errors in a section that could not be checked before
        try:
            return Recipe.model_validate_json(json.dumps(draft.values, default=str), strict=True)
        except ValidationError as err:
            errors = err.errors(include_url=False)
        if errors[0]["type"] == "contradictions":
            agreeing = [problem for problem in errors[0]["ctx"]["problems"] if wrong.isdisjoint(problem.fields)]
            for problem in agreeing:
                draft.problems.append(f"{draft.where(_place(problem.fields[0]))}{problem.fields[0]}: {problem.message}")
            return None
        for error in errors:
            location = _clean(error)
            if not any(f"{known}.".startswith(f"{_dotted(location)}.") for known in wrong):
                wrong.add(_dotted(location))
                draft.problems.append(f"{draft.where(location)}{_dotted(location)}: {_explain(error, location)}")
        for error in reversed(errors):  # from the end: a list item that is dropped must not move the others
            _stand_in(draft.values, _clean(error), error["type"])
    return None


def _explain(error: Any, location: Location) -> str:
    kind, value = error["type"], error.get("input")
    described = _description(location)
    if kind == "extra_forbidden":
        return f"no such field{suggestion(str(location[-1]), _fields_at(location[:-1]))}"
    if kind == "missing":
        return f"missing{described}"
    if kind == "source":
        return str(error["msg"])
    message = error["msg"][0].lower() + error["msg"][1:]
    if kind == "literal_error":
        allowed = [name.strip("'") for name in error["ctx"]["expected"].replace(" or ", ", ").split(", ")]
        return f"{value!r} is not allowed{suggestion(str(value), allowed)} ({error['msg']})"
    return f"{message}, got {value!r}{described}"


def _stand_in(values: Any, location: Location, kind: str) -> None:
    """Replace a wrong value by the quickstart's or drop it, so that the other checks can go on."""
    *around, last = location or ("",)
    stand_in: Any = parse_yaml(default_recipe().read_text(encoding="utf-8")).value
    for key in around:
        values = values[key] if _has(values, key) else None
        like = 0 if isinstance(key, int) else key
        stand_in = stand_in[like] if _has(stand_in, like) else None
    if isinstance(values, dict):
        values.pop(last, None)
        if kind != "extra_forbidden" and _has(stand_in, last):
            values[last] = stand_in[last]
    elif isinstance(values, list) and isinstance(last, int) and last < len(values):
        if _has(stand_in, 0):
            values[last] = stand_in[0]
        else:
            del values[last]


def _has(values: Any, key: Any) -> bool:
    return (isinstance(values, dict) and key in values) or (
        isinstance(values, list) and isinstance(key, int) and key < len(values)
    )


def _model_at(location: Location) -> type[BaseModel] | None:
    """The section class at a place of the recipe, None where the place holds no section."""
    model: Any = Recipe
    for key in location:
        if isinstance(key, int):
            continue
        found = {info.alias or name: info for name, info in model.model_fields.items()}.get(key)
        if found is None:
            return None
        kinds = [found.annotation, *_inside(found.annotation)]
        model = next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)
        if model is None:
            return None
    return typing.cast(type[BaseModel], model)


def _inside(annotation: Any) -> list[Any]:
    return (
        []
        if isinstance(annotation, types.GenericAlias) and not annotation.__args__
        else list(typing.get_args(annotation))
    )


def _fields_at(location: Location) -> list[str]:
    model = _model_at(location)
    return [info.alias or name for name, info in model.model_fields.items()] if model else []


def _description(location: Location) -> str:
    model = _model_at(location[:-1])
    info = (
        next((info for name, info in model.model_fields.items() if (info.alias or name) == location[-1]), None)
        if model
        else None
    )
    return f" ({info.description})" if info and info.description else ""


def _clean(error: Any) -> Location:
    """The field: pydantic also names union branches (`tuple[str, ...]`) and `[key]`, and the section for its checks."""
    named = tuple(key for key in error["loc"] if isinstance(key, int) or "[" not in key)
    return (*named, error["ctx"]["field"]) if error["type"] == "source" else named


def _dotted(location: Location) -> str:
    return ".".join(str(key) for key in location)


def _place(dotted: str) -> Location:
    return tuple(int(key) if key.isdecimal() else key for key in dotted.split("."))
