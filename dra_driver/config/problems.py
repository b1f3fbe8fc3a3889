"""Says in one line what is wrong with something a person wrote: the place, the value and the fix.

Pydantic finds the problem, but its words are for programmers. A validator of ours words its ValueError so that it follows
the value: `is not an absolute path; begin it with /`. Values and unknown names are cut and escaped, because the
line ends up in Events, gRPC answers and terminals.
"""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Sequence
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

_LONGEST_SHOWN = 80


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """The first problem of something that should have been a `model`, and how many more there are."""
    first, *others = error.errors(include_url=False)
    more = f" (and {len(others)} more)" if others else ""
    return f"{_path(first['loc'])}: {_sentence(first, model)}{more}"


def choices_of(annotation: object) -> tuple[str, ...]:
    """The values of a Literal; nothing for any other type."""
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def show(value: object) -> str:
    """The value on one line, cut to a readable length, without control characters."""
    short = reprlib.Repr()
    short.maxstring = _LONGEST_SHOWN
    return short.repr(value)


def _sentence(problem: Any, model: type[BaseModel]) -> str:
    place = [part for part in problem["loc"] if isinstance(part, str)]  # numbers count in lists
    *parents, name = place
    value = show(problem["input"])
    fields = _fields_at(model, parents)
    if problem["type"] == "extra_forbidden":
        return f"unknown field, set to {value}; known: {', '.join(fields)}{_hint(name, fields)}"
    choices = choices_of(fields[name].annotation)
    known = f"; write {'one of ' if len(choices) > 1 else ''}{', '.join(choices)}"
    if problem["type"] == "missing":
        return f"missing{known if choices else '; set it'}"
    if choices:
        return f"{value} is not known{known}{_hint(problem['input'], choices)}"
    if problem["type"] == "model_type":
        return f"{value} is not an object; known: {', '.join(_fields_at(model, place))}"
    if problem["type"] == "path_type":
        return f"{value} should be a path"
    return f"{value} {problem['msg'].removeprefix('Value error, ').removeprefix('Input ')}"


def _hint(written: object, known: Sequence[str] | dict[str, FieldInfo]) -> str:
    spelling = {name.lower(): name for name in known}
    word = str(written)[:_LONGEST_SHOWN].lower() if isinstance(written, str) else ""
    near = difflib.get_close_matches(word, spelling, n=1)
    return f" (did you mean {spelling[near[0]]}?)" if near else ""


def _path(location: Sequence[int | str]) -> str:
    return ".".join(
        name if name.isidentifier() and len(name) <= _LONGEST_SHOWN else show(name)
        for name in map(str, location)
    )


def _fields_at(model: type[BaseModel], path: Sequence[int | str]) -> dict[str, FieldInfo]:
    """The fields, as people write them, of the object at that path; a field with an object is `Model` or `Model | None`."""
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    if not path:
        return fields
    annotation = fields[str(path[0])].annotation
    inner = next(
        kind
        for kind in (annotation, *get_args(annotation))
        if isinstance(kind, type) and issubclass(kind, BaseModel)
    )
    return _fields_at(inner, path[1:])
