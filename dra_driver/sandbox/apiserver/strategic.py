"""Strategic merge patch, as far as kubectl uses it on built-in kinds.

A merge patch that knows which lists are maps in disguise: items of those are matched by their merge key. Directives:
`$patch: delete|replace` in an object or in a list item, `$retainKeys`, `$deleteFromPrimitiveList/<field>`.
`$setElementOrder/<field>` is accepted and ignored: new items go to the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.objects import copied

_MERGE_KEYS: Final[Mapping[str, str]] = {
    "addresses": "type",
    "conditions": "type",
    "containers": "name",
    "containerStatuses": "name",
    "env": "name",
    "ephemeralContainers": "name",
    "hostAliases": "ip",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ownerReferences": "uid",
    "ports": "containerPort",
    "reservedFor": "uid",
    "resourceClaims": "name",
    "resourceClaimStatuses": "name",
    "topologySpreadConstraints": "topologyKey",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_MERGED_PRIMITIVES: Final = frozenset({"finalizers"})
_DELETE_PRIMITIVES: Final = "$deleteFromPrimitiveList/"


def merge_strategically(target: Any, patch: JsonObject) -> JsonObject:
    """The target with the patch applied; neither is changed."""
    patch = copied(patch)
    directive = patch.pop("$patch", None)
    if directive == "delete":
        return {}
    if directive == "replace":
        return patch
    result: JsonObject = dict(target) if isinstance(target, dict) else {}
    retained = patch.pop("$retainKeys", None)
    for key, value in patch.items():
        _merge_field(result, key, value)
    if retained is not None:
        return {key: value for key, value in result.items() if key in retained}
    return result


def _merge_field(result: JsonObject, key: str, value: Any) -> None:
    if key.startswith(_DELETE_PRIMITIVES):
        field = key.removeprefix(_DELETE_PRIMITIVES)
        result[field] = [item for item in result.get(field, []) if item not in value]
    elif key.startswith("$"):
        return
    elif value is None:
        result.pop(key, None)
    elif isinstance(value, dict):
        result[key] = merge_strategically(result.get(key), value)
    elif isinstance(value, list):
        result[key] = _merge_list(key, result.get(key) or [], value)
    else:
        result[key] = value


def _merge_list(field: str, present: list[Any], patch: list[Any]) -> list[Any]:
    if field in _MERGED_PRIMITIVES:
        return present + [item for item in patch if item not in present]
    key = _MERGE_KEYS.get(field)
    mergeable = key is not None and all(isinstance(item, dict) for item in present + patch)
    if not mergeable:
        return patch
    if {"$patch": "replace"} in patch:
        return [item for item in patch if "$patch" not in item]
    merged = {item.get(key): item for item in present}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = merge_strategically(merged.get(item.get(key)), item)
    return list(merged.values())
