"""Feature gates: a field whose gate is off is dropped without a word, unless the stored object already uses it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.catalog import GroupResource


@dataclass(frozen=True, slots=True, kw_only=True)
class Gates:
    """Which features of Dynamic Resource Allocation are on; the defaults are those of Kubernetes 1.37."""

    partitionable_devices: bool = True
    consumable_capacity: bool = True
    device_taints: bool = True
    binding_conditions: bool = True
    admin_access: bool = True
    prioritized_list: bool = True

    def apply(self, resource: GroupResource, new: JsonObject, old: JsonObject | None) -> None:
        """Drop from `new` the fields of each gate that is off, unless `old` has any of them."""
        for gate, paths in _FIELDS.get(str(resource), {}).items():
            if getattr(self, gate):
                continue
            if old is not None and any(_holders(old, path) for path in paths):
                continue
            for path in paths:
                for holder in _holders(new, path):
                    del holder[path[-1]]


_Path = tuple[str, ...]
"""Keys from the root of an object; `*` stands for every item of a list or every value of an object."""


def _paths(prefix: str, *suffixes: str) -> tuple[_Path, ...]:
    return tuple((*prefix.split("."), *suffix.split(".")) for suffix in suffixes)


def _request_paths(spec: str, *fields: str) -> tuple[_Path, ...]:
    return _paths(f"{spec}.devices.requests.*.exactly", *fields) + _paths(
        f"{spec}.devices.requests.*.firstAvailable.*", *fields
    )


def _claim_spec_fields(spec: str) -> dict[str, tuple[_Path, ...]]:
    return {
        "consumable_capacity": _request_paths(spec, "capacity")
        + _paths(f"{spec}.devices.constraints.*", "distinctAttribute"),
        "device_taints": _request_paths(spec, "tolerations"),
        "admin_access": _request_paths(spec, "adminAccess"),
        "prioritized_list": _paths(f"{spec}.devices.requests.*", "firstAvailable"),
    }


_RESULTS: Final = "status.allocation.devices.results.*"
_RESULT_FIELDS: Final[Mapping[str, tuple[_Path, ...]]] = {
    "consumable_capacity": _paths(_RESULTS, "shareID", "consumedCapacity")
    + _paths("status.devices.*", "shareID"),
    "device_taints": _paths(_RESULTS, "tolerations"),
    "admin_access": _paths(_RESULTS, "adminAccess"),
    "binding_conditions": _paths(_RESULTS, "bindingConditions", "bindingFailureConditions")
    + _paths("status.allocation", "allocationTimestamp"),
    "prioritized_list": (),
}
_FIELDS: Final[Mapping[str, Mapping[str, tuple[_Path, ...]]]] = {
    "resourceslices.resource.k8s.io": {
        "partitionable_devices": _paths("spec", "sharedCounters", "perDeviceNodeSelection")
        + _paths("spec.devices.*", "consumesCounters", "nodeName", "nodeSelector", "allNodes"),
        "consumable_capacity": _paths(
            "spec.devices.*", "allowMultipleAllocations", "capacity.*.requestPolicy"
        ),
        "device_taints": _paths("spec.devices.*", "taints"),
        "binding_conditions": _paths(
            "spec.devices.*", "bindsToNode", "bindingConditions", "bindingFailureConditions"
        ),
    },
    "resourceclaims.resource.k8s.io": {
        gate: _claim_spec_fields("spec").get(gate, ()) + paths
        for gate, paths in _RESULT_FIELDS.items()
    },
    "resourceclaimtemplates.resource.k8s.io": _claim_spec_fields("spec.spec"),
}


def _holders(value: Any, path: Sequence[str]) -> list[JsonObject]:
    """The objects at the end of the path, less its last key, that have that key."""
    reached = [value]
    for key in path[:-1]:
        reached = [inner for outer in reached for inner in _below(outer, key)]
    return [one for one in reached if isinstance(one, dict) and path[-1] in one]


def _below(value: Any, key: str) -> Iterator[Any]:
    if key != "*":
        if isinstance(value, dict) and key in value:
            yield value[key]
    elif isinstance(value, dict):
        yield from value.values()
    elif isinstance(value, list):
        yield from value
