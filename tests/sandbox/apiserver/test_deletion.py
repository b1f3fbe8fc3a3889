"""Deletion: preconditions, finalizers, grace, collections, owners, namespaces."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dra_driver.model.errors import Forbidden, NotFound
from dra_driver.model.kinds import NAMESPACE, NODE, POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import JsonObject
from dra_driver.sandbox.apiserver import ApiServer, LocalApi

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
PODS = "/api/v1/namespaces/default/pods"


async def is_gone(read: Callable[[], Awaitable[Any]]) -> bool:
    """Whether reading ends in NotFound within a second."""
    for _ in range(100):
        try:
            await read()
        except NotFound:
            return True
        await asyncio.sleep(0.01)
    return False


def owned_by(body: JsonObject, *owners: JsonObject) -> JsonObject:
    references = [
        {
            "apiVersion": owner["apiVersion"],
            "kind": owner["kind"],
            "name": owner["metadata"]["name"],
            "uid": owner["metadata"]["uid"],
        }
        for owner in owners
    ]
    return body | {"metadata": body["metadata"] | {"ownerReferences": references}}


@pytest.fixture
def collected(server: ApiServer) -> LocalApi:
    """A store whose garbage is collected."""
    return LocalApi(server.store)


async def test_collecting_catches_up(new_slice: Build) -> None:
    """What lost its owner while nobody collected goes once somebody does."""
    server = ApiServer()
    api = LocalApi(server.store)
    node = await api.create(NODE, {"metadata": {"name": "n"}})
    await api.create(RESOURCE_SLICE, owned_by(new_slice(), node))
    await api.delete(NODE, "n")
    await server.start()
    try:
        assert await is_gone(lambda: api.get(RESOURCE_SLICE, "s"))
    finally:
        await server.stop()


async def test_a_namespace_takes_its_contents_along(
    collected: LocalApi, new_pod: Build, new_claim: Build
) -> None:
    """It is Terminating, and closed to new objects, until all it holds is gone."""
    await collected.create(NAMESPACE, {"metadata": {"name": "ns"}})
    pod = new_pod(nodeName="n1")
    pod["metadata"]["namespace"] = "ns"
    await collected.create(POD, pod)
    claim = new_claim()
    claim["metadata"]["namespace"] = "ns"
    await collected.create(RESOURCE_CLAIM, claim)
    await collected.delete(NAMESPACE, "ns")
    assert await is_gone(lambda: collected.get(RESOURCE_CLAIM, "c", namespace="ns"))
    assert (await collected.get(NAMESPACE, "ns"))["status"]["phase"] == "Terminating"
    with pytest.raises(Forbidden, match="being terminated"):
        await collected.create(RESOURCE_CLAIM, claim)
    await collected.delete(POD, "p", namespace="ns", grace_period_s=0)
    assert await is_gone(lambda: collected.get(NAMESPACE, "ns"))
