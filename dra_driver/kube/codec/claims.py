"""ResourceClaims and DeviceClasses as JSON (k8s.io/api/resource/v1).

A request, mode or constraint of a type that we do not know is refused, as the API asks: ignoring it would hand out the
wrong devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from dra_driver.kube.codec.nodes import selector_from, selector_to
from dra_driver.kube.codec.part import Part, filled, object_part
from dra_driver.model.claim import (
    Allocation,
    AllocationMode,
    AllocationResult,
    Claim,
    ClaimRef,
    ClaimRequest,
    ConfigSource,
    Constraint,
    DeviceClass,
    DeviceRequest,
    OpaqueConfig,
    Toleration,
)
from dra_driver.model.kinds import DEVICE_CLASS, RESOURCE_CLAIM
from dra_driver.ports import JsonObject

_MODES: tuple[AllocationMode, ...] = get_args(AllocationMode)
_SOURCES: tuple[ConfigSource, ...] = get_args(ConfigSource)
_OPERATORS: tuple[Literal["Exists", "Equal"], ...] = ("Exists", "Equal")


def claim_from_json(json: JsonObject) -> Claim:
    """The claim; raises Invalid for a malformed one."""
    part = object_part(RESOURCE_CLAIM.kind, json)
    metadata = part.part("metadata")
    asked = part.part("spec").optional_part("devices")
    status = part.optional_part("status")
    allocation = status.optional_part("allocation") if status else None
    return Claim(
        ref=ClaimRef(
            namespace=metadata.text("namespace"),
            name=metadata.text("name"),
            uid=metadata.text("uid"),
        ),
        requests=tuple(_request(r) for r in asked.parts("requests")) if asked else (),
        constraints=tuple(_constraint(c) for c in asked.parts("constraints")) if asked else (),
        config=tuple(_configs(asked, "FromClaim")) if asked else (),
        allocation=_allocation(allocation) if allocation else None,
    )


def class_from_json(json: JsonObject) -> DeviceClass:
    """The class; raises Invalid for a malformed one."""
    part = object_part(DEVICE_CLASS.kind, json)
    spec = part.part("spec")
    return DeviceClass(
        name=part.part("metadata").text("name"),
        selectors=_selectors(spec),
        config=tuple(_configs(spec, "FromClass")),
    )


def allocation_to_json(allocation: Allocation) -> JsonObject:
    """What `status.allocation` holds."""
    devices = {
        "results": [_result_to(result) for result in allocation.results],
        "config": [_config_to(config) for config in allocation.config],
    }
    return {"devices": filled(devices), **selector_to(allocation.node_selector)}


def _request(part: Part) -> ClaimRequest:
    name = part.text("name")
    exactly = part.optional_part("exactly")
    if exactly:
        return ClaimRequest(name=name, alternatives=(_device_request(exactly, name),))
    alternatives = tuple(_device_request(a, a.text("name")) for a in part.parts("firstAvailable"))
    if not alternatives:
        raise part.odd("exactly", "is missing, and so is firstAvailable")
    return ClaimRequest(name=name, alternatives=alternatives, prioritized=True)


def _device_request(part: Part, name: str) -> DeviceRequest:
    capacity = part.optional_part("capacity")
    return DeviceRequest(
        name=name,
        device_class=part.text("deviceClassName"),
        selectors=_selectors(part),
        mode=part.choice("allocationMode", _MODES, "ExactCount"),
        count=part.whole("count", 1),
        admin_access=part.flag("adminAccess"),
        tolerations=_tolerations(part),
        capacity=capacity.quantities("requests") if capacity else {},
    )


def _selectors(part: Part) -> tuple[str, ...]:
    return tuple(s.part("cel").text("expression") for s in part.parts("selectors"))


def _constraint(part: Part) -> Constraint:
    match, distinct = part.optional_text("matchAttribute"), part.optional_text("distinctAttribute")
    if match is None and distinct is None:
        raise part.odd("matchAttribute", "is missing, and so is distinctAttribute")
    return Constraint(requests=part.texts("requests"), match=match, distinct=distinct)


def _configs(part: Part, source: ConfigSource) -> Iterator[OpaqueConfig]:
    """The opaque entries of `config`; other types, of which there are none yet, are nobody's parameters."""
    for entry in part.parts("config"):
        opaque = entry.optional_part("opaque")
        if opaque:
            yield OpaqueConfig(
                driver=opaque.text("driver"),
                parameters=opaque.opaque("parameters"),
                requests=entry.texts("requests"),
                source=entry.choice("source", _SOURCES, source),
            )


def _allocation(part: Part) -> Allocation:
    devices = part.optional_part("devices")
    return Allocation(
        results=tuple(_result(r) for r in devices.parts("results")) if devices else (),
        config=tuple(_configs(devices, "FromClaim")) if devices else (),
        node_selector=selector_from(part),
    )


def _result(part: Part) -> AllocationResult:
    return AllocationResult(
        request=part.text("request"),
        driver=part.text("driver"),
        pool=part.text("pool"),
        device=part.text("device"),
        admin_access=part.flag("adminAccess"),
        share_id=part.optional_text("shareID"),
        consumed_capacity=part.quantities("consumedCapacity"),
        tolerations=_tolerations(part),
        binding_conditions=part.texts("bindingConditions"),
        binding_failure_conditions=part.texts("bindingFailureConditions"),
    )


def _result_to(result: AllocationResult) -> JsonObject:
    return {
        "request": result.request,
        "driver": result.driver,
        "pool": result.pool,
        "device": result.device,
        **filled(
            {
                "adminAccess": result.admin_access,
                "shareID": result.share_id,
                "consumedCapacity": {
                    name: str(amount) for name, amount in result.consumed_capacity.items()
                },
                "tolerations": [_toleration_to(t) for t in result.tolerations],
                "bindingConditions": list(result.binding_conditions),
                "bindingFailureConditions": list(result.binding_failure_conditions),
            }
        ),
    }


def _config_to(config: OpaqueConfig) -> JsonObject:
    opaque = {"driver": config.driver, "parameters": dict(config.parameters)}
    return {
        "source": config.source,
        **filled({"requests": list(config.requests)}),
        "opaque": opaque,
    }


def _tolerations(part: Part) -> tuple[Toleration, ...]:
    return tuple(
        Toleration(
            key=toleration.optional_text("key") or "",
            operator=toleration.choice("operator", _OPERATORS, "Equal"),
            value=toleration.optional_text("value") or "",
            effect=toleration.optional_text("effect") or "",
        )
        for toleration in part.parts("tolerations")
    )


def _toleration_to(toleration: Toleration) -> JsonObject:
    return {
        "operator": toleration.operator,
        **filled({"key": toleration.key, "value": toleration.value, "effect": toleration.effect}),
    }
