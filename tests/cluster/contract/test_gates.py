"""Feature gates drop fields without a word: drivers must compare what came back."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import JsonObject, KubeApi
from dra_driver.sandbox.apiserver import ApiServer, Gates
from tests.cluster.controlplane import ControlPlane

Build = Callable[..., JsonObject]
OPEN_SINCE = (1, 36)
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


@pytest.fixture(params=DEVICE_FIELDS)
def gate(request: pytest.FixtureRequest) -> str:
    """One of the gates that guard fields of devices."""
    name: str = request.param
    return name


@pytest.fixture
async def closed_api(
    plane: ControlPlane | None, endpoint: Endpoint, gate: str
) -> AsyncIterator[KubeApi]:
    """An API server whose gate is closed: the sandbox's, or one that is old enough."""
    if plane is not None and plane.version >= OPEN_SINCE:
        pytest.skip("all gates are open by default here")
    if plane is not None:
        async with RestApi(endpoint, component="tests") as api:
            yield api
        return
    server = ApiServer(gates=Gates(**{gate: False}))
    async with RestApi(Endpoint(server=await server.start()), component="tests") as api:
        yield api
    await server.stop()


async def test_open_gates_keep_their_fields(
    plane: ControlPlane | None, api: KubeApi, new_slice: Build, gate: str
) -> None:
    """From 1.36 on, and in the sandbox, a device is stored as it was sent."""
    if plane is not None and plane.version < OPEN_SINCE:
        pytest.skip("these gates are closed by default before Kubernetes 1.36")
    devices = [{"name": "gpu-0"} | DEVICE_FIELDS[gate]]
    stored = await api.create(RESOURCE_SLICE, new_slice(devices=devices))
    assert stored["spec"]["devices"] == devices


async def test_closed_gates_drop_their_fields(
    closed_api: KubeApi, new_slice: Build, gate: str
) -> None:
    """They are gone from create and update."""
    devices = [{"name": "gpu-0"} | DEVICE_FIELDS[gate]]
    stored = await closed_api.create(RESOURCE_SLICE, new_slice(devices=devices))
    assert stored["spec"]["devices"] == [{"name": "gpu-0"}]
    patched = await closed_api.patch(RESOURCE_SLICE, "s", {"spec": {"devices": devices}})
    assert patched["spec"]["devices"] == [{"name": "gpu-0"}]
