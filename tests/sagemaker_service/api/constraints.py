"""What botocore's model of SageMaker says about a request, in the words of the service.

botocore.validate.ParamValidator knows required members and types; it does not look at patterns, enums and most lengths.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator
from typing import Any

import botocore.session
from botocore.model import OperationModel, ServiceModel, Shape
from botocore.validate import ParamValidator

from sagemaker_service.api.wire import ServiceError, invalid

CLASSES = {r"\p{Alnum}": "A-Za-z0-9", r"\p{L}": "A-Za-zÀ-\uffff", r"\p{Z}": " \u00a0", r"\p{N}": "0-9"}
NUMBERS = ("integer", "long", "float", "double")


@functools.cache
def model() -> ServiceModel:
    return botocore.session.get_session().get_service_model("sagemaker")


def check(operation: str, request: dict[str, Any]) -> None:
    """Raises ServiceError: SerializationException for wrong types, ValidationException for everything else."""
    shape = operation_model(operation).input_shape
    if shape is None:
        return
    problems = list(_violations(request, shape, ""))
    if problems:
        plural = "s" if len(problems) > 1 else ""
        raise invalid(f"{len(problems)} validation error{plural} detected: {'; '.join(problems)}")
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        raise ServiceError("SerializationException", report.generate_report())


def operation_model(operation: str) -> OperationModel:
    if operation not in model().operation_names:
        raise ServiceError("UnknownOperationException", f"{operation!r} is no operation of SageMaker", 404)
    return model().operation_model(operation)


def _violations(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if isinstance(value, dict | list):
        yield from _nested(value, shape, path)
    elif shape.type_name == "string" and isinstance(value, str):
        yield from _text(value, shape, path)
    elif shape.type_name in NUMBERS and isinstance(value, int | float):
        for limit, words, wrong in _range(value, shape):
            if wrong:
                yield _say(value, path, f"Member must have value {words} than or equal to {limit}")


def _nested(value: Any, shape: Shape, path: str) -> Iterator[str]:
    if shape.type_name == "structure" and isinstance(value, dict):
        for name in shape.required_members:
            if value.get(name) is None:
                yield _say("null", _join(path, name), "Member must not be null")
        for name, member in value.items():
            if name in shape.members and member is not None:
                yield from _violations(member, shape.members[name], _join(path, name))
    elif shape.type_name == "list" and isinstance(value, list):
        yield from _size(value, len(value), shape, path)
        for number, member in enumerate(value, 1):
            yield from _violations(member, shape.member, f"{path}.{number}.member")
    elif shape.type_name == "map" and isinstance(value, dict):
        yield from _size(value, len(value), shape, path)
        for key, member in value.items():
            yield from _violations(key, shape.key, f"{path}.key")
            yield from _violations(member, shape.value, f"{path}.{key}.member")


def _text(value: str, shape: Shape, path: str) -> Iterator[str]:
    yield from _size(value, len(value), shape, path)
    if shape.enum and value not in shape.enum:
        yield _say(value, path, f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    pattern = shape.metadata.get("pattern")
    if pattern and not _compiled(pattern).fullmatch(value):
        yield _say(value, path, f"Member must satisfy regular expression pattern: {pattern}")


def _size(value: Any, size: int, shape: Shape, path: str) -> Iterator[str]:
    for limit, words, wrong in _range(size, shape):
        if wrong:
            yield _say(value, path, f"Member must have length {words} than or equal to {limit}")


def _range(number: float, shape: Shape) -> Iterator[tuple[Any, str, bool]]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    yield least, "greater", least is not None and number < least
    yield most, "less", most is not None and number > most


@functools.cache
def _compiled(pattern: str) -> re.Pattern[str]:
    for java, python in CLASSES.items():
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _join(path: str, name: str) -> str:
    return f"{path}.{name[0].lower()}{name[1:]}".lstrip(".")


def _say(value: Any, path: str, rule: str) -> str:
    shown = "null" if value == "null" else f"'{value}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {rule}"
