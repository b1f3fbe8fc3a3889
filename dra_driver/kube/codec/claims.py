"""ResourceClaims and DeviceClasses from JSON (k8s.io/api/resource/v1).

Whoever allocates reads `claim_from_json`: a request, mode or constraint of a type that we do not know is refused, as the API
asks, since ignoring it would hand out the wrong devices. A node reads `allocated_claim_from_json`: the choice is made by then,
and what a newer API server may have been asked for is no reason to fail a pod.
"""

from __future__ import annotations

from typing import get_args

from dra_driver.kube.codec.allocations import (
    allocation_from,
    configs_from,
    granted_from,
    tolerations_from,
)
from dra_driver.kube.codec.part import Part, object_part
from dra_driver.model.claim import (
    AllocatedClaim,
    AllocationMode,
    Claim,
    ClaimRef,
    ClaimRequest,
    Constraint,
    Consumer,
    DeviceClass,
    DeviceRequest,
)
from dra_driver.model.kinds import DEVICE_CLASS, RESOURCE_CLAIM
from dra_driver.ports import JsonObject

_MODES: tuple[AllocationMode, ...] = get_args(AllocationMode)


def claim_from_json(json: JsonObject) -> Claim:
    """The claim with all that was asked and given; raises Invalid for a malformed one."""
    part = object_part(RESOURCE_CLAIM.kind, json)
    asked = part.part("spec").optional_part("devices")
    status = part.optional_part("status")
    allocation = status.optional_part("allocation") if status else None
    return Claim(
        ref=_ref(part.part("metadata")),
        requests=tuple(_request(r) for r in asked.parts("requests")) if asked else (),
        constraints=tuple(_constraint(c) for c in asked.parts("constraints")) if asked else (),
        config=tuple(configs_from(asked, "FromClaim")) if asked else (),
        allocation=allocation_from(allocation) if allocation else None,
    )


def allocated_claim_from_json(json: JsonObject) -> AllocatedClaim:
    """What a node needs of the claim: metadata and what was given. Its spec is not looked at; Invalid for a malformed rest."""
    part = object_part(RESOURCE_CLAIM.kind, json)
    metadata = part.part("metadata")
    status = part.optional_part("status")
    allocation = status.optional_part("allocation") if status else None
    return AllocatedClaim(
        ref=_ref(metadata),
        resource_version=metadata.text("resourceVersion"),
        deleting=metadata.has("deletionTimestamp"),
        allocation=granted_from(allocation) if allocation else None,
        consumers=tuple(_consumer(c) for c in status.parts("reservedFor")) if status else (),
    )


def class_from_json(json: JsonObject) -> DeviceClass:
    """The class; raises Invalid for a malformed one."""
    part = object_part(DEVICE_CLASS.kind, json)
    spec = part.part("spec")
    return DeviceClass(
        name=part.part("metadata").text("name"),
        selectors=_selectors(spec),
        config=tuple(configs_from(spec, "FromClass")),
    )


def _ref(metadata: Part) -> ClaimRef:
    return ClaimRef(
        namespace=metadata.text("namespace"), name=metadata.text("name"), uid=metadata.text("uid")
    )


def _consumer(part: Part) -> Consumer:
    return Consumer(resource=part.text("resource"), name=part.text("name"), uid=part.text("uid"))


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
        tolerations=tolerations_from(part),
        capacity=capacity.quantities("requests") if capacity else {},
    )


def _selectors(part: Part) -> tuple[str, ...]:
    return tuple(s.part("cel").text("expression") for s in part.parts("selectors"))


def _constraint(part: Part) -> Constraint:
    match, distinct = part.optional_text("matchAttribute"), part.optional_text("distinctAttribute")
    if match is None and distinct is None:
        raise part.odd("matchAttribute", "is missing, and so is distinctAttribute")
    return Constraint(requests=part.texts("requests"), match=match, distinct=distinct)
