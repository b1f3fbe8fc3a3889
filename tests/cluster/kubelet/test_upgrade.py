"""A rolling upgrade on a real kubelet: two processes with their pods' sockets, while a pod runs and others come and go."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import RESOURCE_SLICE
from dra_driver.ports import KubeApi
from tests.cluster.kubelet.hardware import Hardware
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, is_published, quickstart
from tests.cluster.node import Node
from tests.cluster.release import Release
from tests.cluster.waiting import eventually


@pytest.fixture
async def plugin(
    ready_node: Node, release: Release, hardware: Hardware, api: RestApi
) -> AsyncIterator[Plugin]:
    """The process of the first pod."""
    access = await release.access_of(ready_node.name)
    plugin = Plugin(ready_node, access, hardware, pod_uid="old")
    try:
        plugin.start()
        await eventually(lambda: is_published(api))
        yield plugin
    finally:
        plugin.close()


async def versions(api: KubeApi) -> dict[str, str]:
    """Which slices there are, and how they were written last."""
    metadata = [item["metadata"] for item in (await api.list(RESOURCE_SLICE)).items]
    return {one["uid"]: one["resourceVersion"] for one in metadata}


async def come_and_go(workload: Workload, name: str, stop: asyncio.Event) -> int:
    """One pod after the other with an AMD GPU, each until it runs; how many there were."""
    template, pod = quickstart("5-")
    await workload.apply(template)
    for count in range(1000):
        if stop.is_set():
            return count
        await workload.apply(pod)
        await workload.runs(name)
        await workload.delete(name)
        await eventually(lambda: workload.is_gone(name))
    raise AssertionError("nobody said stop")


async def test_an_upgrade_is_not_noticed(plugin: Plugin, workload: Workload, api: RestApi) -> None:
    """The running pod goes on, the others start and end all the time, no slice is written; the second process gives all back."""
    await workload.apply(*quickstart("1-"))
    running = await workload.runs("whole-gpu")
    before, stop = await versions(api), asyncio.Event()
    load = asyncio.create_task(come_and_go(workload, "amd-gpu", stop))
    successor = Plugin(plugin.node, plugin.access, plugin.hardware, pod_uid="new")
    try:
        await asyncio.to_thread(successor.start)
        await eventually(lambda: successor.said("this process publishes and reconciles") == 1)
        assert len(list(plugin.node.registry_dir.iterdir())) == 2
        await asyncio.sleep(2)  # both serve for a while
        assert await asyncio.to_thread(plugin.stop) == 0
        await eventually(lambda: successor.said("prepared") > 0)
        stop.set()
        assert await load > 0
        assert await versions(api) == before
        states = [
            pod["status"]["containerStatuses"][0]["state"]
            for pod in (running, await workload.runs("whole-gpu"))
        ]
        assert states[0] == states[1]
        await workload.delete("whole-gpu")
        await eventually(lambda: not successor.leftovers())
        failed = [
            line["event"]
            for one in (plugin, successor)
            for line in one.log
            if "failed" in str(line["event"])
        ]
        assert failed == []
    finally:
        stop.set()
        await asyncio.wait({load}, timeout=30)
        successor.close()
