"""Nothing is lost when the plugin or the kubelet restarts, when pods are killed by force, or when slices are wiped."""

from __future__ import annotations

import asyncio

from dra_driver.kube.rest import RestApi
from dra_driver.model.kinds import RESOURCE_SLICE
from tests.cluster.kubelet.plugin import Plugin
from tests.cluster.kubelet.pods import Workload, is_published, quickstart
from tests.cluster.waiting import eventually


async def test_a_pod_outlives_the_plugin_and_is_released_by_the_next_one(
    plugin: Plugin, workload: Workload
) -> None:
    """The plugin is killed while a pod runs; the next one registers, takes the claim over, and gives it back in the end."""
    await workload.apply(*quickstart("1-"))
    before = await workload.runs("whole-gpu")
    plugin.kill()
    plugin.start()
    after = await workload.runs("whole-gpu")
    started = [pod["status"]["containerStatuses"][0]["state"] for pod in (before, after)]
    assert started[0] == started[1]
    assert len(plugin.leftovers()) == 2
    await workload.delete("whole-gpu")
    await eventually(lambda: not plugin.leftovers())


async def uids(api: RestApi) -> set[str]:
    """Which slices there are."""
    return {item["metadata"]["uid"] for item in (await api.list(RESOURCE_SLICE)).items}


async def test_a_plugin_that_comes_back_soon_keeps_its_slices(plugin: Plugin, api: RestApi) -> None:
    """Killed and started again within the kubelet's 30 seconds: nothing is wiped, also not when these are over."""
    before = await uids(api)
    plugin.kill()
    plugin.start()
    await asyncio.sleep(33)
    assert await uids(api) == before


async def test_a_pod_that_ends_without_a_plugin_waits_for_one(
    plugin: Plugin, workload: Workload
) -> None:
    """While no plugin runs the claim stays prepared; the kubelet asks again as soon as there is one."""
    await workload.apply(*quickstart("1-"))
    await workload.runs("whole-gpu")
    assert plugin.stop() == 0
    await workload.delete("whole-gpu")
    await asyncio.sleep(1)
    assert plugin.leftovers()
    plugin.start()
    await eventually(lambda: not plugin.leftovers(), within_s=120)
    await eventually(lambda: workload.is_gone("whole-gpu"), within_s=120)


async def test_a_restarted_kubelet_finds_the_plugin(
    plugin: Plugin, workload: Workload, api: RestApi
) -> None:
    """It wipes all slices, which come back; the running pod goes on, the plugin registers by itself, and the next pod starts."""
    await workload.apply(*quickstart("1-"))
    before = await workload.runs("whole-gpu")
    registrations = plugin.said("registered with the kubelet")
    wiped = await uids(api)
    plugin.node.stop_kubelet()
    plugin.node.start_kubelet()
    await eventually(lambda: plugin.said("registered with the kubelet") > registrations)

    async def are_back() -> bool:
        return not wiped & await uids(api) and await is_published(api)

    await eventually(are_back)
    await workload.apply(*quickstart("5-"))
    await workload.runs("amd-gpu")
    after = await workload.runs("whole-gpu")
    started = [pod["status"]["containerStatuses"][0]["state"] for pod in (before, after)]
    assert started[0] == started[1]


async def test_a_pod_killed_by_force_can_be_made_anew_at_once(
    plugin: Plugin, workload: Workload
) -> None:
    """Same names, other UIDs: the second claim is served though the first is just being given back."""
    template, pod = quickstart("1-")
    await workload.apply(template, pod)
    first = await workload.runs("whole-gpu")
    await workload.delete("whole-gpu", grace_period_s=0)
    await eventually(lambda: workload.is_gone("whole-gpu"))
    await workload.apply(pod)
    second = await workload.runs("whole-gpu")
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    await eventually(lambda: len(plugin.leftovers()) == 2)


async def test_wiped_slices_are_back_at_once(
    plugin: Plugin, workload: Workload, api: RestApi
) -> None:
    """Whoever deletes our slices, be it the kubelet: they are there again within two seconds."""
    for item in (await api.list(RESOURCE_SLICE)).items:
        await api.delete(RESOURCE_SLICE, item["metadata"]["name"])
    await eventually(lambda: is_published(api), within_s=2)
