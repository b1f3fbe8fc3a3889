"""The installed chart gives a node's plugin what it needs, and nothing of other nodes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from copy import deepcopy

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.errors import Forbidden, Invalid, KubeError, NotFound
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.model.names import DRIVER_NAME
from dra_driver.ports import JsonObject
from tests.cluster.controlplane import ControlPlane
from tests.cluster.release import Release, installed, node_object

OWN, OTHER = "node-a", "node-b"


@pytest.fixture
async def release(control_plane: ControlPlane, api: RestApi) -> AsyncIterator[Release]:
    """The chart, in a cluster with two nodes."""
    async with AsyncExitStack() as stack:
        for name in (OWN, OTHER):
            await stack.enter_async_context(node_object(api, name))
        yield await stack.enter_async_context(installed(control_plane, api))


@pytest.fixture
async def plugin_api(release: Release, api: RestApi) -> AsyncIterator[RestApi]:
    """The API as the plugin of node-a reaches it, once the policy is in force."""
    async with RestApi(await release.endpoint_of(OWN), component="tests") as plugin_api:
        probe = new_slice("probe", nodeName=OTHER)
        async with asyncio.timeout(30):
            while await _verdict(plugin_api.create(RESOURCE_SLICE, probe)) != "denied by policy":
                with suppress(NotFound):
                    await api.delete(RESOURCE_SLICE, "probe")
                await asyncio.sleep(0.1)
        yield plugin_api


def new_slice(name: str, *, driver: str = DRIVER_NAME, **place: object) -> JsonObject:
    """A slice with one device, where `place` says."""
    pool = {"name": name, "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": driver, "pool": pool, "devices": [{"name": "gpu"}], **place}
    return {"metadata": {"name": name}, "spec": spec}


ELSEWHERE: dict[str, JsonObject] = {
    "other node": new_slice("s", nodeName=OTHER),
    "all nodes": new_slice("s", allNodes=True),
    "node selector": new_slice(
        "s",
        nodeSelector={
            "nodeSelectorTerms": [
                {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [OWN]}]}
            ]
        },
    ),
    "other driver": new_slice("s", driver="other.example.com", nodeName=OWN),
}


async def test_the_policy_bites(plugin_api: RestApi, api: RestApi) -> None:
    """Create, update and delete: all is allowed on the own node, nothing elsewhere: twelve cases and more."""
    mine = await plugin_api.create(RESOURCE_SLICE, new_slice("mine", nodeName=OWN))
    mine["spec"]["pool"]["generation"] = 2
    await plugin_api.replace(RESOURCE_SLICE, mine)
    await plugin_api.patch(RESOURCE_SLICE, "mine", {"metadata": {"labels": {"a": "b"}}})
    await plugin_api.delete(RESOURCE_SLICE, "mine")
    for what, body in ELSEWHERE.items():
        created = plugin_api.create(RESOURCE_SLICE, deepcopy(body))
        assert await _verdict(created) == "denied by policy", what
        await api.create(RESOURCE_SLICE, deepcopy(body))
        changed = plugin_api.patch(RESOURCE_SLICE, "s", {"metadata": {"labels": {"a": "b"}}})
        assert await _verdict(changed) == "denied by policy", what
        deleted = plugin_api.delete(RESOURCE_SLICE, "s")
        assert await _verdict(deleted) == "denied by policy", what
        await api.delete(RESOURCE_SLICE, "s")


async def test_a_token_that_names_no_node_writes_nothing(
    release: Release, plugin_api: RestApi, control_plane: ControlPlane
) -> None:
    """A token of the same service account, but made without a pod, has no node and so no slices."""
    endpoint = control_plane.with_token(await release.token_without_a_pod())
    async with RestApi(endpoint, component="tests") as nowhere:
        verdict = await _verdict(nowhere.create(RESOURCE_SLICE, new_slice("s", nodeName=OWN)))
    assert verdict == "denied by policy"


async def test_others_are_left_alone(plugin_api: RestApi, api: RestApi) -> None:
    """The policy is about our plugin: other drivers' writers are not asked."""
    await api.create(RESOURCE_SLICE, deepcopy(ELSEWHERE["all nodes"]))
    await api.delete(RESOURCE_SLICE, "s")


async def _verdict(call: object) -> str:
    """What became of a call: allowed, denied by policy, or denied because the right is missing."""
    try:
        await call  # type: ignore[misc]
    except (Forbidden, Invalid) as error:
        return "denied by policy" if "ValidatingAdmissionPolicy" in str(error) else str(error)
    except KubeError as error:
        return str(error)
    return "allowed"
