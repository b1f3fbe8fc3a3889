"""Merge patch (RFC 7386) and JSON patch (RFC 6902). Pure: the target is not changed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import copied
from dra_driver.sandbox.apiserver.status import Refusal, bad_request


def merge(target: Any, patch: Any) -> Any:
    """The target with the merge patch applied: null removes, objects merge, all else replaces."""
    if not isinstance(patch, dict):
        return copied(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def apply_operations(target: JsonObject, operations: Sequence[JsonObject]) -> JsonObject:
    """The target with a JSON patch applied, all operations or none; 422 for one that does not apply."""
    document: Any = copied(target)
    for operation in operations:
        try:
            document = _apply(document, operation)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise _inapplicable(f"{operation} does not apply: {error}") from error
    if not isinstance(document, dict):
        raise bad_request("the patched document is no object")
    return document


def _apply(document: Any, operation: JsonObject) -> Any:
    path = _pointer(operation["path"])
    match operation["op"]:
        case "add":
            return _added(document, path, copied(operation["value"]))
        case "remove":
            _removed(document, path)
        case "replace":
            _found(document, path)  # it must be there
            if path:
                _removed(document, path)
            return _added(document, path, copied(operation["value"]))
        case "move":
            return _added(document, path, _removed(document, _pointer(operation["from"])))
        case "copy":
            return _added(document, path, copied(_found(document, _pointer(operation["from"]))))
        case "test":
            if _found(document, path) != operation["value"]:
                raise _inapplicable(f"testing value {operation['path']} failed")
        case unknown:
            raise bad_request(f"{unknown!r} is not a JSON patch operation")
    return document


def _pointer(text: str) -> list[str]:
    if text and not text.startswith("/"):
        raise ValueError(f"{text!r} is not a JSON pointer")
    return [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]


def _found(document: Any, path: Sequence[str]) -> Any:
    for part in path:
        document = document[_index(document, part)]
    return document


def _added(document: Any, path: Sequence[str], value: Any) -> Any:
    if not path:
        return value
    parent, last = _found(document, path[:-1]), path[-1]
    if isinstance(parent, list):
        parent.insert(len(parent) if last == "-" else _position(last, len(parent) + 1), value)
    else:
        parent[last] = value
    return document


def _removed(document: Any, path: Sequence[str]) -> Any:
    parent = _found(document, path[:-1])
    return parent.pop(_index(parent, path[-1]))


def _index(container: Any, part: str) -> Any:
    if isinstance(container, list):
        return _position(part, len(container))
    if not isinstance(container, dict):
        raise TypeError(f"nothing can be inside {container!r}")
    return part


def _position(part: str, limit: int) -> int:
    position = int(part)
    if not 0 <= position < limit:
        raise IndexError(f"index {part} is not in the list")
    return position


def _inapplicable(message: str) -> Refusal:
    return Refusal(422, "Invalid", f"the server rejected our request due to an error: {message}")
