"""Feature gates drop fields without a word, as Kubernetes does: drivers must compare what came back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dra_driver.model.errors import Invalid
from dra_driver.model.kinds import (
    NAMESPACE,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
)
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import LocalApi

Build = Callable[..., JsonObject]
GatedApi = Callable[..., LocalApi]

DEVICE_FIELDS: dict[str, JsonObject] = {
    "partitionable_devices": {
        "consumesCounters": [{"counterSet": "gpu", "counters": {"memory": {"value": "1"}}}]
    },
    "consumable_capacity": {"allowMultipleAllocations": True},
    "device_taints": {
        "taints": [{"key": "sick", "effect": "NoSchedule", "timeAdded": "2026-01-01T00:00:00Z"}]
    },
    "binding_conditions": {
        "bindsToNode": True,
        "bindingConditions": ["example.com/ready"],
        "bindingFailureConditions": ["example.com/failed"],
    },
}


@pytest.mark.parametrize("gate", DEVICE_FIELDS)
async def test_device_fields_of_closed_gates_are_dropped(
    gated_api: GatedApi, new_slice: Build, gate: str
) -> None:
    """Off: gone from create and update; on: stored as sent."""
    devices = [{"name": "gpu-0"} | DEVICE_FIELDS[gate]]
    open_api, closed = gated_api(), gated_api(**{gate: False})
    assert (await open_api.create(RESOURCE_SLICE, new_slice("on", devices=devices)))["spec"][
        "devices"
    ] == devices
    stored = await closed.create(RESOURCE_SLICE, new_slice("off", devices=devices))
    assert stored["spec"]["devices"] == [{"name": "gpu-0"}]
    patched = await closed.patch(RESOURCE_SLICE, "off", {"spec": {"devices": devices}})
    assert patched["spec"]["devices"] == [{"name": "gpu-0"}]
    assert patched["metadata"]["resourceVersion"] == stored["metadata"]["resourceVersion"]


@pytest.mark.parametrize("gate", DEVICE_FIELDS)
async def test_stored_fields_survive_closed_gates(
    gated_api: GatedApi, new_slice: Build, gate: str
) -> None:
    """A value that is stored already is kept by updates after the gate was closed."""
    devices = [{"name": "gpu-0"} | DEVICE_FIELDS[gate]]
    await gated_api().create(RESOURCE_SLICE, new_slice(devices=devices))
    patch = {"spec": {"devices": [*devices, {"name": "gpu-1"}]}}
    updated = await gated_api(**{gate: False}).patch(RESOURCE_SLICE, "s", patch)
    assert updated["spec"]["devices"][0] == devices[0]


async def test_counter_slices_lose_their_counters(gated_api: GatedApi, new_slice: Build) -> None:
    """With partitionable devices off, a counter slice is stored as an empty one."""
    counters = [{"name": "gpu", "counters": {"memory": {"value": "8"}}}]
    body = new_slice(devices=None, sharedCounters=counters)
    stored = await gated_api(partitionable_devices=False).create(RESOURCE_SLICE, body)
    assert "sharedCounters" not in stored["spec"]


async def test_request_policies_need_their_gate(gated_api: GatedApi, new_slice: Build) -> None:
    """With consumable capacity off, capacities keep their values and lose their policies."""
    capacity = {"memory": {"value": "80Gi", "requestPolicy": {"default": "10Gi"}}}
    device = {"name": "gpu-0", "allowMultipleAllocations": True, "capacity": capacity}
    stored = await gated_api(consumable_capacity=False).create(
        RESOURCE_SLICE, new_slice(devices=[device])
    )
    assert stored["spec"]["devices"] == [
        {"name": "gpu-0", "capacity": {"memory": {"value": "80Gi"}}}
    ]


async def test_claims_lose_what_is_off(gated_api: GatedApi, new_claim: Build) -> None:
    """adminAccess, capacity and tolerations go, and what is left is a plain request."""
    api = gated_api(admin_access=False, consumable_capacity=False, device_taints=False)
    exactly = {
        "deviceClassName": "gpu.example.com",
        "adminAccess": True,
        "capacity": {"requests": {"memory": "1Gi"}},
        "tolerations": [{"operator": "Exists"}],
    }
    stored = await api.create(
        RESOURCE_CLAIM, new_claim(requests=[{"name": "gpu", "exactly": exactly}])
    )
    assert set(stored["spec"]["devices"]["requests"][0]["exactly"]) == {
        "deviceClassName",
        "allocationMode",
        "count",
    }


async def test_a_prioritized_list_without_its_gate_is_no_request(
    gated_api: GatedApi, new_claim: Build
) -> None:
    """FirstAvailable is dropped first, and what remains asks for nothing: 422, in claims and templates."""
    api = gated_api(prioritized_list=False)
    body = new_claim(
        requests=[
            {"name": "gpu", "firstAvailable": [{"name": "a", "deviceClassName": "gpu.example.com"}]}
        ]
    )
    with pytest.raises(Invalid, match="exactly one of `exactly` or `firstAvailable` is required"):
        await api.create(RESOURCE_CLAIM, body)
    with pytest.raises(Invalid, match=r"spec\.spec\.devices"):
        await api.create(RESOURCE_CLAIM_TEMPLATE, body | {"spec": {"spec": body["spec"]}})
    await gated_api().create(RESOURCE_CLAIM, body)


async def test_allocation_results_lose_what_is_off(
    gated_api: GatedApi, new_claim: Build, allocation: JsonObject
) -> None:
    """shareID, consumedCapacity and binding conditions of results follow their gates."""
    api = gated_api(consumable_capacity=False, binding_conditions=False)
    await api.create(RESOURCE_CLAIM, new_claim())
    plain = dict(allocation["devices"]["results"][0])
    allocation["devices"]["results"][0] |= {
        "shareID": "0" * 8,
        "consumedCapacity": {"memory": "1Gi"},
        "bindingConditions": ["example.com/ready"],
    }
    patch = {"status": {"allocation": allocation}}
    stored = await api.patch(RESOURCE_CLAIM, "c", patch, namespace="default", subresource="status")
    assert stored["status"]["allocation"]["devices"]["results"] == [plain]


@pytest.mark.parametrize("labels", [{}, {"resource.kubernetes.io/admin-access": "true"}])
async def test_admin_access_is_for_labelled_namespaces(
    api: LocalApi, new_claim: Build, labels: dict[str, Any]
) -> None:
    """AdminAccess without the namespace's label is a 422 with a Forbidden cause."""
    await api.patch(NAMESPACE, "default", {"metadata": {"labels": labels}})
    exactly = {"deviceClassName": "gpu.example.com", "adminAccess": True}
    claim = new_claim(requests=[{"name": "gpu", "exactly": exactly}])
    if labels:
        await api.create(RESOURCE_CLAIM, claim)
        return
    with pytest.raises(Invalid, match="Forbidden: admin access to devices requires") as caught:
        await api.create(RESOURCE_CLAIM, claim)
    assert caught.value.status == 422
