"""ResourceSlice: the limits and rules of Kubernetes 1.37 (reference: `pkg/apis/resource/types.go`, KEPs 4815, 5055, 5075)."""

from __future__ import annotations

from typing import Any, Final

from dra_driver.model.names import (
    is_dns_label,
    is_dns_subdomain,
    is_pool_name,
    is_qualified_name,
    is_semver,
)
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver.validation.capacity import validate_capacity
from dra_driver.sandbox.apiserver.validation.findings import DNS_LABEL, DNS_SUBDOMAIN, Findings
from dra_driver.sandbox.apiserver.validation.metadata import (
    QUALIFIED_NAME,
    is_label_key,
    is_label_value,
)

EFFECTS: Final = ("None", "NoSchedule", "NoExecute")


def is_driver_name(text: str) -> bool:
    """A DNS subdomain in which, unlike elsewhere, capitals are allowed."""
    return is_dns_subdomain(text.lower())


ATTRIBUTE_NAME: Final = (
    "must be a C identifier of at most 32 characters, optionally after a DNS subdomain and a slash"
)
_DEVICES: Final = 128
_DEVICES_WITH_EXTRAS: Final = 64
_COUNTER_SETS: Final = 8
_COUNTERS: Final = 32
_COUNTER_SETS_CONSUMED: Final = 2
_ATTRIBUTES_AND_CAPACITIES: Final = 32
_TAINTS: Final = 16
_BINDING: Final = ("bindingConditions", "bindingFailureConditions")
_BINDING_CONDITIONS: Final = 4
_TEXT: Final = 64
_ATTRIBUTE_KINDS: Final = (
    "`int`, `bool`, `string`, `version`, `ints`, `bools`, `strings`, `versions`"
)
_PLACES: Final = ("nodeName", "nodeSelector", "allNodes")


def validate_slice(new: JsonObject, old: JsonObject | None, found: Findings) -> None:
    """All rules of one slice; what concerns a whole pool only allocators see."""
    spec = new.get("spec", {})
    found.check("spec.driver", spec.get("driver", ""), is_driver_name, DNS_SUBDOMAIN)
    found.bound("spec.driver", spec.get("driver", ""), 63)
    _validate_pool(spec, found)
    _validate_place("spec", spec, (*_PLACES, "perDeviceNodeSelection"), found)
    if spec.get("devices") and spec.get("sharedCounters"):
        why = "only one of `sharedCounters` or `devices` is allowed"
        found.invalid("spec", "{`sharedCounters`, `devices`}", why)
    _validate_counter_sets(spec.get("sharedCounters", []), found)
    _validate_devices(spec, found)
    if old is not None:
        _validate_unchanged(spec, old["spec"], found)


def _validate_unchanged(spec: JsonObject, old: JsonObject, found: Findings) -> None:
    for field in ("driver", "nodeName"):
        if spec.get(field) != old.get(field):
            found.immutable(f"spec.{field}", spec.get(field))
    pool = spec.get("pool", {}).get("name")
    if pool != old["pool"]["name"]:
        found.immutable("spec.pool.name", pool)


def _validate_pool(spec: JsonObject, found: Findings) -> None:
    pool = spec.get("pool", {})
    found.bound("spec.pool.name", pool.get("name", ""), 253)
    found.check("spec.pool.name", pool.get("name", ""), is_pool_name, DNS_SUBDOMAIN)
    if pool.get("resourceSliceCount", 0) <= 0:
        count = pool.get("resourceSliceCount", 0)
        found.invalid("spec.pool.resourceSliceCount", count, "must be greater than zero")
    if pool.get("generation", 0) < 0:
        why = "must be greater than or equal to zero"
        found.invalid("spec.pool.generation", pool["generation"], why)


def _validate_place(
    path: str, holder: JsonObject, choices: tuple[str, ...], found: Findings
) -> None:
    """Exactly one of the choices says where devices are reachable."""
    chosen = [field for field in choices if field in holder]
    wanted = f"exactly one of {', '.join(f'`{field}`' for field in choices)} is required"
    if not chosen:
        found.required(path, wanted)
    elif len(chosen) > 1:
        many = "{" + ", ".join(f"`{field}`" for field in chosen) + "}"
        found.invalid(path, many, f"{wanted}, but multiple fields are set")
    if "nodeName" in holder:
        name = holder["nodeName"]
        if not name:
            why = "must be either unset or set to a non-empty string"
            found.invalid(f"{path}.nodeName", name, why)
        else:
            found.check(f"{path}.nodeName", name, is_dns_subdomain, DNS_SUBDOMAIN)
    for flag in ("allNodes", "perDeviceNodeSelection"):
        if holder.get(flag) is False:
            found.invalid(f"{path}.{flag}", value=False, why="must be either unset or set to true")
    terms = holder.get("nodeSelector", {}).get("nodeSelectorTerms", [])
    if "nodeSelector" in holder and len(terms) != 1:
        where = f"{path}.nodeSelector.nodeSelectorTerms"
        found.invalid(where, terms, "must have exactly one node selector term")


def _validate_counter_sets(sets: list[JsonObject], found: Findings) -> None:
    found.bound("spec.sharedCounters", sets, _COUNTER_SETS)
    found.unique("spec.sharedCounters", [one.get("name", "") for one in sets])
    for index, one in enumerate(sets):
        path = f"spec.sharedCounters[{index}]"
        found.check(f"{path}.name", one.get("name", ""), is_dns_label, DNS_LABEL)
        _validate_counters(f"{path}.counters", one.get("counters", {}), found)


def _validate_counters(path: str, counters: JsonObject, found: Findings) -> None:
    if not counters:
        found.required(path)
    found.bound(path, counters, _COUNTERS)
    for name in counters:
        found.check(path, name, is_dns_label, DNS_LABEL)


def _validate_devices(spec: JsonObject, found: Findings) -> None:
    devices = spec.get("devices", [])
    has_extras = any(one.get("taints") or one.get("consumesCounters") for one in devices)
    found.bound("spec.devices", devices, _DEVICES_WITH_EXTRAS if has_extras else _DEVICES)
    found.unique("spec.devices", [one.get("name", "") for one in devices])
    for index, device in enumerate(devices):
        path = f"spec.devices[{index}]"
        found.check(f"{path}.name", device.get("name", ""), is_dns_label, DNS_LABEL)
        _validate_properties(path, device, found)
        _validate_consumption(path, device.get("consumesCounters", []), found)
        _validate_taints(path, device.get("taints", []), found)
        _validate_binding(path, device, found)
        if spec.get("perDeviceNodeSelection"):
            _validate_place(path, device, _PLACES, found)
        elif any(field in device for field in _PLACES):
            found.forbidden(path, "a device's place may only be set with `perDeviceNodeSelection`")


def _validate_properties(path: str, device: JsonObject, found: Findings) -> None:
    attributes, capacities = device.get("attributes", {}), device.get("capacity", {})
    if (total := len(attributes) + len(capacities)) > _ATTRIBUTES_AND_CAPACITIES:
        why = f"the total number of attributes and capacities must not exceed {_ATTRIBUTES_AND_CAPACITIES}"
        found.invalid(path, total, why)
    for name, attribute in attributes.items():
        found.check(f"{path}.attributes", name, is_qualified_name, ATTRIBUTE_NAME)
        _validate_attribute(f"{path}.attributes[{name}]", attribute, found)
    for name, capacity in capacities.items():
        found.check(f"{path}.capacity", name, is_qualified_name, ATTRIBUTE_NAME)
        shared = device.get("allowMultipleAllocations") is True
        validate_capacity(f"{path}.capacity[{name}]", capacity, shared=shared, found=found)


def _validate_attribute(path: str, attribute: JsonObject, found: Findings) -> None:
    if not attribute:
        found.invalid(path, "", f"must specify one of: {_ATTRIBUTE_KINDS}")
    elif len(attribute) > 1:
        found.invalid(path, list(attribute), f"must specify exactly one of: {_ATTRIBUTE_KINDS}")
    for kind in ("string", "version"):
        found.bound(f"{path}.{kind}", attribute.get(kind, ""), _TEXT)
    version: Any = attribute.get("version")
    if version is not None and not is_semver(version):
        why = "must be a string compatible with semver.org spec 2.0.0"
        found.invalid(f"{path}.version", version, why)


def _validate_consumption(path: str, consumed: list[JsonObject], found: Findings) -> None:
    path = f"{path}.consumesCounters"
    found.bound(path, consumed, _COUNTER_SETS_CONSUMED)
    found.unique(path, [one.get("counterSet", "") for one in consumed])
    for index, one in enumerate(consumed):
        here = f"{path}[{index}]"
        found.check(f"{here}.counterSet", one.get("counterSet", ""), is_dns_label, DNS_LABEL)
        _validate_counters(f"{here}.counters", one.get("counters", {}), found)


def _validate_taints(path: str, taints: list[JsonObject], found: Findings) -> None:
    found.bound(f"{path}.taints", taints, _TAINTS)
    for index, taint in enumerate(taints):
        here = f"{path}.taints[{index}]"
        found.check(f"{here}.key", taint.get("key", ""), is_label_key, QUALIFIED_NAME)
        if not is_label_value(taint.get("value", "")):
            found.invalid(f"{here}.value", taint["value"], QUALIFIED_NAME)
        if not taint.get("effect"):
            found.required(f"{here}.effect")
        elif taint["effect"] not in EFFECTS:
            found.unsupported(f"{here}.effect", taint["effect"], EFFECTS)


def _validate_binding(path: str, device: JsonObject, found: Findings) -> None:
    for needed, other in (_BINDING, _BINDING[::-1]):
        if device.get(other) and not device.get(needed):
            found.invalid(f"{path}.{needed}", None, f"{needed} are required to use {other}")
    for field in _BINDING:
        conditions = device.get(field, [])
        found.bound(f"{path}.{field}", conditions, _BINDING_CONDITIONS)
        for index, condition in enumerate(conditions):
            found.check(f"{path}.{field}[{index}]", condition, is_label_key, QUALIFIED_NAME)
