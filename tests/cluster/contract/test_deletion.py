"""Deletion: preconditions, finalizers, grace, collections, owners, namespaces."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from dra_driver.model.errors import Conflict, Invalid, NotFound
from dra_driver.model.kinds import POD, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.ports import JsonObject, KubeApi
from tests.cluster.waiting import eventually

Build = Callable[..., JsonObject]
SLICES = "/apis/resource.k8s.io/v1/resourceslices"
PODS = "/api/v1/namespaces/default/pods"


async def is_gone(read: Callable[[], Awaitable[Any]]) -> bool:
    """Whether reading ends in NotFound, in the end."""
    for _ in range(1000):
        try:
            await read()
        except NotFound:
            return True
        await asyncio.sleep(0.03)
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


async def test_preconditions_guard_deletes(api: KubeApi, new_slice: Build) -> None:
    """A uid or resourceVersion that is not the object's is 409, and the object stays."""
    obj = await api.create(RESOURCE_SLICE, new_slice())
    for wrong in ({"uid": str(uuid.uuid4())}, {"resourceVersion": "1"}):
        with pytest.raises(Conflict, match=r"(?i)precondition"):
            await api.delete(RESOURCE_SLICE, "s", preconditions=wrong)
    meta = obj["metadata"]
    right = {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"]}
    await api.delete(RESOURCE_SLICE, "s", preconditions=right)
    with pytest.raises(NotFound):
        await api.delete(RESOURCE_SLICE, "s")


async def test_finalizers_hold_an_object(api: KubeApi, new_claim: Build) -> None:
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


async def test_a_waiting_pod_goes_at_once(api: KubeApi, new_pod: Build) -> None:
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


async def test_a_force_deleted_pod_is_gone(api: KubeApi, new_pod: Build) -> None:
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


async def test_orphans_stay(client: Any, new_slice: Build) -> None:
    """propagationPolicy=Orphan frees the dependents."""
    node = await client.send("POST", "/api/v1/nodes", {"metadata": {"name": "n"}})
    dead = node | {"metadata": {"name": "dead", "uid": str(uuid.uuid4())}}
    await client.send("POST", SLICES, owned_by(new_slice(), node, dead))

    async def is_known_to_the_collector() -> bool:
        owners = (await client.send("GET", f"{SLICES}/s"))["metadata"]["ownerReferences"]
        return [one["name"] for one in owners] == ["n"]

    await eventually(is_known_to_the_collector)
    await client.send("DELETE", "/api/v1/nodes/n", {"propagationPolicy": "Orphan"})
    for _ in range(1000):
        listed = await client.send("GET", "/api/v1/nodes")
        if not listed["items"]:
            break
        await asyncio.sleep(0.03)
    left = await client.send("GET", f"{SLICES}/s")
    assert "ownerReferences" not in left["metadata"]


async def test_dependents_follow_their_last_owner(
    api: KubeApi, new_pod: Build, new_claim: Build
) -> None:
    """A dependent goes with its last owner; a dead owner beside a living one is only forgotten."""
    first = await api.create(POD, new_pod("first"))
    second = await api.create(POD, new_pod("second"))
    await api.create(RESOURCE_CLAIM, owned_by(new_claim("both"), first, second))
    await api.create(RESOURCE_CLAIM, owned_by(new_claim("one"), first))
    await api.delete(POD, "first", namespace="default")
    assert await is_gone(lambda: api.get(RESOURCE_CLAIM, "one", namespace="default"))

    async def is_forgotten() -> bool:
        both = await api.get(RESOURCE_CLAIM, "both", namespace="default")
        return [one["name"] for one in both["metadata"]["ownerReferences"]] == ["second"]

    await eventually(is_forgotten)
    await api.delete(POD, "second", namespace="default")
    assert await is_gone(lambda: api.get(RESOURCE_CLAIM, "both", namespace="default"))


async def test_a_dependent_of_the_dead_is_collected(
    api: KubeApi, new_pod: Build, new_claim: Build
) -> None:
    """An object created after its owner went does not stay, nor does one of a namesake."""
    owner = await api.create(POD, new_pod())
    await api.delete(POD, "p", namespace="default")
    await api.create(POD, new_pod())
    await api.create(RESOURCE_CLAIM, owned_by(new_claim(), owner))
    assert await is_gone(lambda: api.get(RESOURCE_CLAIM, "c", namespace="default"))
