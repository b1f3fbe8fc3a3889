"""ResourceSlices as JSON (k8s.io/api/resource/v1)."""

from __future__ import annotations

from collections.abc import Mapping

from dra_driver.kube.codec.nodes import place_from, place_to
from dra_driver.kube.codec.part import Part, filled, object_part
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    AttributeValue,
    Capacity,
    CounterConsumption,
    CounterSet,
    Device,
    PoolRef,
    RequestPolicy,
    ResourceSlice,
    Taint,
    TaintEffect,
    Version,
)
from dra_driver.ports import JsonObject


def slice_from_json(json: JsonObject) -> ResourceSlice:
    """The slice; raises Invalid for a malformed one.

    An attribute that is neither int, bool, string nor version (a list, say) is left out: to us the device lacks it.
    """
    part = object_part(RESOURCE_SLICE.kind, json)
    spec = part.part("spec")
    pool = spec.part("pool")
    return ResourceSlice(
        name=part.part("metadata").text("name"),
        driver=spec.text("driver"),
        pool=PoolRef(
            name=pool.text("name"),
            generation=pool.whole("generation", 0),
            slice_count=pool.whole("resourceSliceCount"),
        ),
        place=place_from(spec),
        per_device_node_selection=spec.flag("perDeviceNodeSelection"),
        devices=tuple(_device(device) for device in spec.parts("devices")),
        shared_counters=tuple(
            CounterSet(name=counters.text("name"), counters=_counters(counters))
            for counters in spec.parts("sharedCounters")
        ),
    )


def slice_to_json(value: ResourceSlice) -> JsonObject:
    """The object as we send it: everything that we decide, nothing that the server fills in."""
    return {
        "apiVersion": RESOURCE_SLICE.api_version,
        "kind": RESOURCE_SLICE.kind,
        "metadata": {"name": value.name},
        "spec": {
            "driver": value.driver,
            "pool": {
                "name": value.pool.name,
                "generation": value.pool.generation,
                "resourceSliceCount": value.pool.slice_count,
            },
            **place_to(value.place),
            **filled(
                {
                    "perDeviceNodeSelection": value.per_device_node_selection,
                    "devices": [_device_to(device) for device in value.devices],
                    "sharedCounters": [
                        {"name": counters.name, "counters": _counters_to(counters.counters)}
                        for counters in value.shared_counters
                    ],
                }
            ),
        },
    }


def _device(part: Part) -> Device:
    attributes = ((name, _attribute(entry)) for name, entry in part.entries("attributes"))
    return Device(
        name=part.text("name"),
        attributes={name: value for name, value in attributes if value is not None},
        capacity={
            name: Capacity(value=entry.quantity("value"), policy=_policy(entry))
            for name, entry in part.entries("capacity")
        },
        consumes=tuple(
            CounterConsumption(counter_set=entry.text("counterSet"), counters=_counters(entry))
            for entry in part.parts("consumesCounters")
        ),
        taints=tuple(_taint(taint) for taint in part.parts("taints")),
        allow_multiple_allocations=part.flag("allowMultipleAllocations"),
        place=place_from(part),
        binds_to_node=part.flag("bindsToNode"),
        binding_conditions=part.texts("bindingConditions"),
        binding_failure_conditions=part.texts("bindingFailureConditions"),
    )


def _device_to(device: Device) -> JsonObject:
    return {
        "name": device.name,
        **place_to(device.place),
        **filled(
            {
                "attributes": {n: _attribute_to(value) for n, value in device.attributes.items()},
                "capacity": {n: _capacity_to(value) for n, value in device.capacity.items()},
                "consumesCounters": [
                    {"counterSet": taken.counter_set, "counters": _counters_to(taken.counters)}
                    for taken in device.consumes
                ],
                "taints": [_taint_to(taint) for taint in device.taints],
                "allowMultipleAllocations": device.allow_multiple_allocations,
                "bindsToNode": device.binds_to_node,
                "bindingConditions": list(device.binding_conditions),
                "bindingFailureConditions": list(device.binding_failure_conditions),
            }
        ),
    }


def _attribute(part: Part) -> AttributeValue | None:
    if part.has("int"):
        return part.whole("int")
    if part.has("bool"):
        return part.flag("bool")
    if part.has("version"):
        return Version(part.text("version"))
    return (part.optional_text("string") or "") if part.has("string") else None


def _attribute_to(value: AttributeValue) -> JsonObject:
    match value:
        case bool():  # before int, which a bool is too
            return {"bool": value}
        case int():
            return {"int": value}
        case Version():
            return {"version": value.text}
        case str():
            return {"string": value}


def _policy(capacity: Part) -> RequestPolicy | None:
    policy = capacity.optional_part("requestPolicy")
    if policy is None:
        return None
    valid_range = policy.optional_part("validRange")
    return RequestPolicy(
        default=policy.optional_quantity("default"),
        valid_values=policy.quantity_list("validValues"),
        range_min=valid_range.quantity("min") if valid_range else None,
        range_max=valid_range.optional_quantity("max") if valid_range else None,
        range_step=valid_range.optional_quantity("step") if valid_range else None,
    )


def _capacity_to(capacity: Capacity) -> JsonObject:
    policy = capacity.policy
    if policy is None:
        return {"value": str(capacity.value)}
    bounds = {"min": policy.range_min, "max": policy.range_max, "step": policy.range_step}
    return {
        "value": str(capacity.value),
        "requestPolicy": filled(
            {
                "default": None if policy.default is None else str(policy.default),
                "validValues": [str(value) for value in policy.valid_values],
                "validRange": {n: str(bound) for n, bound in bounds.items() if bound is not None},
            }
        ),
    }


def _counters(part: Part) -> dict[str, Quantity]:
    return {name: entry.quantity("value") for name, entry in part.entries("counters")}


def _counters_to(counters: Mapping[str, Quantity]) -> JsonObject:
    return {name: {"value": str(amount)} for name, amount in counters.items()}


def _taint(part: Part) -> Taint:
    return Taint(
        key=part.text("key"),
        value=part.optional_text("value") or "",
        effect=_effect(part.text("effect")),
        time_added=part.optional_text("timeAdded"),
    )


def _effect(text: str) -> TaintEffect:
    match text:
        case "NoSchedule" | "NoExecute":
            return text
        case _:
            return "None"  # the API asks its readers to take effects they do not know for this one


def _taint_to(taint: Taint) -> JsonObject:
    more = filled({"value": taint.value, "timeAdded": taint.time_added})
    return {"key": taint.key, "effect": taint.effect, **more}
