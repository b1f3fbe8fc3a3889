"""`status.allocation` of a ResourceClaim (k8s.io/api/resource/v1): what the scheduler gave, and with which parameters."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

from dra_driver.kube.codec.nodes import selector_from, selector_to
from dra_driver.kube.codec.part import Part, filled
from dra_driver.model.claim import (
    Allocation,
    AllocationResult,
    ConfigSource,
    OpaqueConfig,
    Toleration,
)
from dra_driver.ports import JsonObject

_SOURCES: tuple[ConfigSource, ...] = get_args(ConfigSource)
_OPERATORS: tuple[Literal["Exists", "Equal"], ...] = ("Exists", "Equal")


def allocation_from(part: Part) -> Allocation:
    """The allocation with all that it says."""
    devices = part.optional_part("devices")
    return Allocation(
        results=tuple(_result(r, tolerations_from(r)) for r in devices.parts("results"))
        if devices
        else (),
        config=tuple(configs_from(devices, "FromClaim")) if devices else (),
        node_selector=selector_from(part),
    )


def granted_from(part: Part) -> Allocation:
    """The devices and their parameters, without nodes and tolerations: those have done their work when a device is granted."""
    devices = part.optional_part("devices")
    return Allocation(
        results=tuple(_result(r, ()) for r in devices.parts("results")) if devices else (),
        config=tuple(configs_from(devices, "FromClaim")) if devices else (),
    )


def allocation_to_json(allocation: Allocation) -> JsonObject:
    """What `status.allocation` holds."""
    devices = {
        "results": [_result_to(result) for result in allocation.results],
        "config": [_config_to(config) for config in allocation.config],
    }
    return {"devices": filled(devices), **selector_to(allocation.node_selector)}


def configs_from(part: Part, source: ConfigSource) -> Iterator[OpaqueConfig]:
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


def tolerations_from(part: Part) -> tuple[Toleration, ...]:
    """The `tolerations` of a request or a result."""
    return tuple(
        Toleration(
            key=toleration.optional_text("key") or "",
            operator=toleration.choice("operator", _OPERATORS, "Equal"),
            value=toleration.optional_text("value") or "",
            effect=toleration.optional_text("effect") or "",
        )
        for toleration in part.parts("tolerations")
    )


def _result(part: Part, tolerations: tuple[Toleration, ...]) -> AllocationResult:
    return AllocationResult(
        request=part.text("request"),
        driver=part.text("driver"),
        pool=part.text("pool"),
        device=part.text("device"),
        admin_access=part.flag("adminAccess"),
        share_id=part.optional_text("shareID"),
        consumed_capacity=part.quantities("consumedCapacity"),
        tolerations=tolerations,
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


def _toleration_to(toleration: Toleration) -> JsonObject:
    return {
        "operator": toleration.operator,
        **filled({"key": toleration.key, "value": toleration.value, "effect": toleration.effect}),
    }
