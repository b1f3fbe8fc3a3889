"""Deletion: preconditions, finalizers, grace, collections, owners, namespaces."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dra_driver.model.errors import Conflict, Forbidden, Invalid, NotFound
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


async def test_preconditions_guard_deletes(api: LocalApi, new_slice: Build) -> None:
    """A uid or resourceVersion that is not the object's is 409, and the object stays."""
    obj = await api.create(RESOURCE_SLICE, new_slice())
    for wrong in ({"uid": str(uuid.uuid4())}, {"resourceVersion": "1"}):
        with pytest.raises(Conflict, match="Precondition failed"):
            await api.delete(RESOURCE_SLICE, "s", preconditions=wrong)
    meta = obj["metadata"]
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    await api.delete(RESOURCE_SLICE, "s", preconditions=right)
    with pytest.raises(NotFound):
        await api.delete(RESOURCE_SLICE, "s")


async def test_finalizers_hold_an_object(api: LocalApi, new_claim: Build) -> None:
    """DELETE marks it, no finalizer may be added, removing the last one deletes it."""
    body = new_claim()
    body["metadata"]["finalizers"] = ["example.com/a", "example.com/b"]
    await api.create(RESOURCE_CLAIM, body)
    await api.delete(RESOURCE_CLAIM, "c", namespace="default")
    assert (await api.get(RESOURCE_CLAIM, "c", namespace="default"))["metadata"][
        "deletionTimestamp"
    ]

    async def finalize(*left: str) -> None:
        patch = {"metadata": {"finalizers": list(left)}}
        await api.patch(RESOURCE_CLAIM, "c", patch, namespace="default")

    with pytest.raises(Invalid, match="no new finalizers"):
        await finalize("example.com/a", "example.com/c")
    await finalize("example.com/b")
    await api.get(RESOURCE_CLAIM, "c", namespace="default")
    await finalize()
    with pytest.raises(NotFound):
        await api.get(RESOURCE_CLAIM, "c", namespace="default")


async def test_a_running_pod_goes_in_two_steps(client: Any, new_pod: Build) -> None:
    """A scheduled pod is terminating until somebody deletes it with a grace period of 0."""
    await client.send("POST", PODS, new_pod(nodeName="n1", terminationGracePeriodSeconds=7))
    pod = await client.send("DELETE", f"{PODS}/p")
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 7
    assert (await client.send("DELETE", f"{PODS}/p"))["metadata"] == pod["metadata"]
    await client.send("DELETE", f"{PODS}/p?gracePeriodSeconds=0")
    await client.send("GET", f"{PODS}/p", code=404)


async def test_a_waiting_pod_goes_at_once(api: LocalApi, new_pod: Build) -> None:
    """An unscheduled or finished pod has nothing to wind down."""
    await api.create(POD, new_pod("waiting"))
    await api.create(POD, new_pod("done", nodeName="n1"))
    await api.patch(
        POD, "done", {"status": {"phase": "Failed"}}, namespace="default", subresource="status"
    )
    for name in ("waiting", "done"):
        await api.delete(POD, name, namespace="default")
        with pytest.raises(NotFound):
            await api.get(POD, name, namespace="default")


async def test_a_force_deleted_pod_is_gone(api: LocalApi, new_pod: Build) -> None:
    """Grace period 0 removes even a running pod, as `kubectl delete --force` does."""
    await api.create(POD, new_pod(nodeName="n1"))
    await api.delete(POD, "p", namespace="default", grace_period_s=0)
    with pytest.raises(NotFound):
        await api.get(POD, "p", namespace="default")


async def test_the_kubelets_wipe(client: Any, new_slice: Build) -> None:
    """Deletecollection takes what the selectors select."""
    for name, node in (("a", "n1"), ("b", "n1"), ("c", "n2")):
        await client.send("POST", SLICES, new_slice(name, nodeName=node))
    await client.send("DELETE", f"{SLICES}?fieldSelector=spec.nodeName=n1")
    left = await client.send("GET", SLICES)
    assert [item["metadata"]["name"] for item in left["items"]] == ["c"]


async def test_dependents_follow_their_last_owner(
    collected: LocalApi, new_pod: Build, new_claim: Build
) -> None:
    """A dependent goes with its last owner; a dead owner beside a living one is only forgotten."""
    first = await collected.create(POD, new_pod("first"))
    second = await collected.create(POD, new_pod("second"))
    await collected.create(RESOURCE_CLAIM, owned_by(new_claim("both"), first, second))
    await collected.create(RESOURCE_CLAIM, owned_by(new_claim("one"), first))
    await collected.delete(POD, "first", namespace="default")
    assert await is_gone(lambda: collected.get(RESOURCE_CLAIM, "one", namespace="default"))
    both = await collected.get(RESOURCE_CLAIM, "both", namespace="default")
    assert [one["name"] for one in both["metadata"]["ownerReferences"]] == ["second"]
    await collected.delete(POD, "second", namespace="default")
    assert await is_gone(lambda: collected.get(RESOURCE_CLAIM, "both", namespace="default"))


async def test_a_dependent_of_the_dead_is_collected(
    collected: LocalApi, new_pod: Build, new_claim: Build
) -> None:
    """An object created after its owner went does not stay, nor does one of a namesake."""
    owner = await collected.create(POD, new_pod())
    await collected.delete(POD, "p", namespace="default")
    await collected.create(POD, new_pod())
    await collected.create(RESOURCE_CLAIM, owned_by(new_claim(), owner))
    assert await is_gone(lambda: collected.get(RESOURCE_CLAIM, "c", namespace="default"))


async def test_orphans_stay(client: Any, new_slice: Build) -> None:
    """propagationPolicy=Orphan frees the dependents."""
    node = await client.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    await client.send("POST", SLICES, owned_by(new_slice(), node))
    await client.send("DELETE", "/api/v1/nodes/n", {"propagationPolicy": "Orphan"})
    for _ in range(100):
        listed = await client.send("GET", "/api/v1/nodes")
        if not listed["items"]:
            break
        await asyncio.sleep(0.01)
    left = await client.send("GET", f"{SLICES}/s")
    assert "ownerReferences" not in left["metadata"]


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
