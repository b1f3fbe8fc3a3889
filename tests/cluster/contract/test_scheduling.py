"""What scheduler and controllers do with claims, in the sandbox and in real control planes alike; nodes here have no kubelet."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from typing import Any

import pytest

from dra_driver.kube.endpoint import Endpoint
from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import (
    DEVICE_CLASS,
    POD,
    RESOURCE_CLAIM,
    RESOURCE_CLAIM_TEMPLATE,
    RESOURCE_SLICE,
)
from dra_driver.ports import JsonObject
from tests.cluster.contract.cluster import Cluster, sandbox_cluster
from tests.cluster.controlplane import ControlPlane
from tests.cluster.release import node_object
from tests.cluster.waiting import eventually

TAINT = {"key": "sick", "effect": "NoSchedule"}


@pytest.fixture
async def cluster(
    plane: ControlPlane | None, endpoint: Endpoint, api: RestApi
) -> AsyncIterator[Cluster]:
    """A scheduler and claim controllers, a node, and a class of all devices of the driver."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(api=api)
        if plane is None:
            cluster = await stack.enter_async_context(sandbox_cluster())
        await stack.enter_async_context(node_object(cluster.api, "n1"))
        await cluster.api.create(DEVICE_CLASS, class_of(cluster, cluster.driver))
        yield cluster


def class_of(cluster: Cluster, name: str) -> JsonObject:
    """A class of all devices of the driver."""
    ours = {"cel": {"expression": f"device.driver == '{cluster.driver}'"}}
    return {"metadata": {"name": name}, "spec": {"selectors": [ours]}}


async def publish(cluster: Cluster, *devices: JsonObject, **more: Any) -> None:
    """Make these the devices of the node."""
    pool = {"name": "n1/x", "generation": 1, "resourceSliceCount": 1 + bool(more)}
    place = {"driver": cluster.driver, "nodeName": "n1", "pool": pool}
    for index, content in enumerate([{"devices": list(devices)}, *([more] if more else [])]):
        body = {"metadata": {"name": f"s{index}"}, "spec": place | content}
        await cluster.api.create(RESOURCE_SLICE, body)


def exactly(cluster: Cluster, **fields: Any) -> JsonObject:
    """A claim for one device, of the class that is called like the driver unless said otherwise."""
    return {"requests": [{"name": "gpu", "exactly": {"deviceClassName": cluster.driver, **fields}}]}


async def test_a_template_becomes_a_claim_that_goes_with_its_pod(cluster: Cluster) -> None:
    """Named after pod and entry, owned by the pod, named in its status, allocated, reserved; collected afterwards."""
    await publish(cluster, {"name": "gpu-0"})
    template = {"metadata": {"name": "t"}, "spec": {"spec": {"devices": exactly(cluster)}}}
    await cluster.api.create(RESOURCE_CLAIM_TEMPLATE, template, namespace="default")
    await cluster.new_pod("p", resourceClaimTemplateName="t")
    pod = await cluster.scheduled("p")
    [claim] = (await cluster.api.list(RESOURCE_CLAIM, namespace="default")).items
    assert claim["metadata"]["name"].startswith("p-gpu-")
    assert claim["metadata"]["ownerReferences"][0]["uid"] == pod["metadata"]["uid"]
    assert claim["metadata"]["annotations"]["resource.kubernetes.io/pod-claim-name"] == "gpu"
    [named] = pod["status"]["resourceClaimStatuses"]
    assert named == {"name": "gpu", "resourceClaimName": claim["metadata"]["name"]}
    assert [one["uid"] for one in claim["status"]["reservedFor"]] == [pod["metadata"]["uid"]]
    await cluster.api.delete(POD, "p", namespace="default", grace_period_s=0)
    await eventually(cluster.has_no_claims)


async def test_devices_are_given_out_once(cluster: Cluster) -> None:
    """The second pod waits, and runs as soon as the first has gone."""
    await publish(cluster, {"name": "gpu-0"})
    first = await cluster.new_claimant("a", exactly(cluster))
    await cluster.scheduled("a")
    await cluster.new_claimant("b", exactly(cluster))
    await cluster.waits("b")
    await cluster.api.delete(POD, "a", namespace="default", grace_period_s=0)
    await cluster.api.delete(RESOURCE_CLAIM, first, namespace="default")
    await cluster.scheduled("b")


@pytest.mark.usefixtures("all_features")
async def test_counters_exclude(cluster: Cluster) -> None:
    """Two halves, or the whole: what one device takes is missing for the others."""
    whole, half = ({"gpu": {"memory": {"value": size}}} for size in ("2", "1"))
    await publish(
        cluster,
        *(
            {"name": name, "consumesCounters": [{"counterSet": key, "counters": counters}]}
            for name, part in (("half-0", half), ("half-1", half), ("whole", whole))
            for key, counters in part.items()
        ),
        sharedCounters=[{"name": "gpu", "counters": {"memory": {"value": "2"}}}],
    )
    for name in ("a", "b"):
        await cluster.new_claimant(name, exactly(cluster))
        await cluster.scheduled(name)
    given = {(await cluster.results(name))[0]["device"] for name in ("a", "b")}
    assert given == {"half-0", "half-1"}
    await cluster.new_claimant("c", exactly(cluster))
    await cluster.waits("c")


@pytest.mark.usefixtures("all_features")
async def test_capacity_is_shared_out(cluster: Cluster) -> None:
    """Claims on one device get shares of their own, until the capacity is used up."""
    policy = {"default": "10Gi", "validRange": {"min": "1Gi"}}
    memory = {"value": "80Gi", "requestPolicy": policy}
    device = {"name": "gpu-0", "allowMultipleAllocations": True, "capacity": {"memory": memory}}
    await publish(cluster, device)
    for name in ("a", "b"):
        await cluster.new_claimant(
            name, exactly(cluster, capacity={"requests": {"memory": "30Gi"}})
        )
        await cluster.scheduled(name)
    shares = [(await cluster.results(name))[0] for name in ("a", "b")]
    assert [one["consumedCapacity"] for one in shares] == [{"memory": "30Gi"}] * 2
    assert len({one["shareID"] for one in shares}) == 2
    await cluster.new_claimant("c", exactly(cluster, capacity={"requests": {"memory": "30Gi"}}))
    await cluster.waits("c")
    await cluster.new_claimant("d", exactly(cluster))
    await cluster.scheduled("d")
    assert (await cluster.results("d"))[0]["consumedCapacity"] == {"memory": "10Gi"}


@pytest.mark.usefixtures("all_features")
async def test_tainted_devices_are_for_who_tolerates_them(cluster: Cluster) -> None:
    """NoSchedule keeps the others away."""
    await publish(cluster, {"name": "gpu-0", "taints": [TAINT]})
    await cluster.new_claimant("a", exactly(cluster))
    await cluster.waits("a")
    await cluster.new_claimant(
        "b", exactly(cluster, tolerations=[{"key": "sick", "operator": "Exists"}])
    )
    await cluster.scheduled("b")


async def test_the_first_alternative_that_fits_is_taken(cluster: Cluster) -> None:
    """And the result says which it was."""
    await publish(cluster, {"name": "gpu-0"})
    never = [{"cel": {"expression": "device.driver == 'none'"}}]
    options = [
        {"name": "best", "deviceClassName": cluster.driver, "selectors": never},
        {"name": "good", "deviceClassName": cluster.driver},
    ]
    await cluster.new_claimant("a", {"requests": [{"name": "gpu", "firstAvailable": options}]})
    await cluster.scheduled("a")
    assert [one["request"] for one in await cluster.results("a")] == ["gpu/good"]


@pytest.mark.usefixtures("all_features")
async def test_a_no_execute_taint_ends_pods(cluster: Cluster) -> None:
    """Pods that have the device are deleted, also where a toleration names no effect: that one only lets them in."""
    names = ("plain", "vague", "brave", "elsewhere")
    await publish(cluster, *({"name": f"gpu-{index}"} for index in range(len(names))))
    tolerations = {
        "vague": [{"operator": "Exists"}],
        "brave": [{"operator": "Exists", "effect": "NoExecute"}],
    }
    for name in names:
        await cluster.new_claimant(name, exactly(cluster, tolerations=tolerations.get(name, [])))
        await cluster.scheduled(name)
    ending = {"taints": [TAINT | {"effect": "NoExecute"}]}
    devices = [{"name": f"gpu-{index}", **ending} for index in range(3)] + [{"name": "gpu-3"}]
    await cluster.api.patch(RESOURCE_SLICE, "s0", {"spec": {"devices": devices}})

    for name in ("plain", "vague"):
        await eventually(partial(cluster.is_going, name))
    for name in ("brave", "elsewhere"):
        assert not await cluster.is_going(name)


@pytest.mark.usefixtures("all_features")
async def test_an_extended_resource_is_served_by_a_class(
    plane: ControlPlane | None, cluster: Cluster
) -> None:
    """A pod that asks for `example.com/gpu: 1` gets a claim made for it."""
    if plane is None:
        pytest.skip("the sandbox makes no claims for extended resources")
    await publish(cluster, {"name": "gpu-0"})
    named = {"spec": {"extendedResourceName": "example.com/gpu"}}
    await cluster.api.patch(DEVICE_CLASS, cluster.driver, named)
    resources = {"limits": {"example.com/gpu": "1"}}
    container = {"name": "main", "image": "x", "resources": resources}
    body: JsonObject = {"metadata": {"name": "a"}, "spec": {"containers": [container]}}
    await cluster.api.create(POD, body, namespace="default")
    pod = await cluster.scheduled("a")
    claim = pod["status"]["extendedResourceClaimStatus"]["resourceClaimName"]
    found = await cluster.api.get(RESOURCE_CLAIM, claim, namespace="default")
    assert found["status"]["allocation"]["devices"]["results"][0]["device"] == "gpu-0"


async def test_dead_classes_and_claims_keep_a_pod_waiting(cluster: Cluster) -> None:
    """A class that does not exist is no error: the pod waits for it."""
    await publish(cluster, {"name": "gpu-0"})
    await cluster.new_claimant("a", exactly(cluster, deviceClassName="later"))
    await cluster.waits("a")
    await cluster.api.create(DEVICE_CLASS, class_of(cluster, "later"))
    await cluster.scheduled("a")
