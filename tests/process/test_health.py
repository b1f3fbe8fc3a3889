"""A GPU that is broken and answers: the process tells the kubelet, the scheduler, and people."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from dra_driver.model.kinds import EVENT
from dra_driver.wire.health_v1 import api_pb2, api_pb2_grpc
from kubelet_plugin.app import PING_S
from tests.process.conftest import Cluster, Plugin, eventually
from tests.vendors.faults import set_faults

GPU, NAME = "0000:1b:00.0", "gpu-0000-1b-00-0"
OLD_DRIVER: dict[str, Any] = {"fields": {"RECOVERY_ACTION": None}}


def breaks(plugin: Plugin, **fault: Any) -> None:
    """This is wrong with the first GPU from now on."""
    folder = plugin.folder / "hardware" / "nvidia"
    folder.mkdir(parents=True, exist_ok=True)
    set_faults(folder, {GPU: fault})


async def tainted(cluster: Cluster) -> dict[str, set[str]]:
    """Names of the devices by `key=value:effect` of each taint that is about health."""
    found: dict[str, set[str]] = {}
    for item in await cluster.slices():
        for device in item["spec"].get("devices", ()):
            for taint in device.get("taints", ()):
                text = f"{taint['key']}={taint.get('value', '')}:{taint['effect']}"
                found.setdefault(text, set()).add(device["name"])
    found.pop("gpu.dra-driver.dev/monitor=:NoSchedule", None)
    return found


async def unhealthy(plugin: Plugin) -> dict[str, str]:
    """Messages of the devices that the first message of a stream calls unhealthy; no other is worse than healthy."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.insecure_channel(f"unix:{plugin.sockets[1]}", options) as channel:
        stub = api_pb2_grpc.DRAResourceHealthStub(channel)
        stream: Any = stub.NodeWatchResources(api_pb2.NodeWatchResourcesRequest())
        async with asyncio.timeout(10):
            answer = await stream.read()
        stream.cancel()
    return {
        one.device.device_name: one.message
        for one in answer.devices
        if one.health == api_pb2.UNHEALTHY
    }


async def until_unhealthy(plugin: Plugin, names: set[str]) -> dict[str, str]:
    """Those messages, once these devices have one and no others: a slice may be written while the other GPUs are still being asked."""
    told: dict[str, str] = {}

    async def are_told() -> bool:
        nonlocal told
        told = await unhealthy(plugin)
        return told.keys() == names

    await eventually(are_told)
    return told


async def names_of_first(cluster: Cluster) -> set[str]:
    """All devices of the first GPU."""
    return {
        device["name"]
        for item in await cluster.slices()
        for device in item["spec"].get("devices", ())
        if device["name"].startswith(NAME)
    }


async def test_an_xid_reaches_slices_kubelet_and_people(idle: Plugin, cluster: Cluster) -> None:
    """Within two pings; all forms of that GPU and of no other, by one write of its slice."""
    breaks(idle, **OLD_DRIVER)
    await idle.start()
    await eventually(cluster.is_published)
    before = {one["metadata"]["name"]: one["metadata"] for one in await cluster.slices()}
    breaks(idle, **OLD_DRIVER, xids=[{"xid": 119}])
    taint = "gpu.dra-driver.dev/driver-error=119:NoSchedule"

    async def is_tainted() -> bool:
        return taint in await tainted(cluster)

    await eventually(is_tainted, within_s=2 * PING_S + 3)
    first = await names_of_first(cluster)
    assert await tainted(cluster) == {taint: first}
    told = await until_unhealthy(idle, first)
    assert all(message.startswith(f"GPU {GPU}: XID 119: ") for message in told.values())
    after = {one["metadata"]["name"]: one["metadata"] for one in await cluster.slices()}
    changed = [
        name for name in after if after[name]["resourceVersion"] != before[name]["resourceVersion"]
    ]
    assert len(changed) == 1

    async def is_told() -> bool:
        events = await cluster.api.list(EVENT)
        return any(
            event["reason"] == "GpuUnhealthy" and "XID 119" in event["message"]
            for event in events.items
        )

    await eventually(is_told)


async def test_a_gpu_that_is_broken_from_the_start_is_published_so(
    idle: Plugin, cluster: Cluster
) -> None:
    """There is no moment in which a scheduler could take it; where it is allowed its pods are evicted, but for those that watch it."""
    breaks(idle, fields={"RECOVERY_ACTION": 4})
    idle.settings["broken-gpu-effect"] = "NoExecute"
    await idle.start()
    await eventually(cluster.is_published)
    taint = "gpu.dra-driver.dev/recovery-due=drain-and-reset"
    monitor = {f"{NAME}-monitor"}
    assert await tainted(cluster) == {
        f"{taint}:NoExecute": await names_of_first(cluster) - monitor,
        f"{taint}:NoSchedule": monitor,
    }
    assert (await unhealthy(idle)).keys() == await names_of_first(cluster)
