"""YAML as we want it written: keys are text, and none is set twice (PyYAML keeps the last one and says nothing)."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml

_TEXT = "tag:yaml.org,2002:str"


def load_mapping(content: bytes) -> dict[str, Any]:
    """The mapping that the document holds (an empty document: none); ValueError with line and reason if it is not one."""
    try:
        document = yaml.load(content, Loader=_StrictLoader)  # noqa: S506  (a safe loader, stricter)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ValueError(f"{line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ValueError(f"holds a {type(document).__name__} where keys and values should be")  # noqa: TRY004
    return document


class _StrictLoader(yaml.CSafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002
        seen: set[str] = set()
        for key, _ in node.value:
            if key.tag != _TEXT:
                raise yaml.constructor.ConstructorError(
                    problem="a key that is not text; put it in quotes", problem_mark=key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"{key.value!r} is set twice; remove one", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)
