"""What the plugin publishes: complete pools in the form that the API server can keep, and back again when they are gone."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import aiohttp
import pytest

from dra_driver.model.kinds import EVENT, NODE, RESOURCE_SLICE
from dra_driver.rules.publish import LIMITED_ANNOTATION
from dra_driver.sandbox.apiserver.gates import Gates
from tests.process.conftest import NODE_NAME, Cluster, Plugin, eventually

SLICES = "/apis/resource.k8s.io/v1/resourceslices"


async def devices(cluster: Cluster) -> list[dict[str, Any]]:
    """All that are published."""
    return [d for item in await cluster.slices() for d in item["spec"].get("devices", [])]


async def test_everything_a_gpu_can_become_is_one_complete_pool(
    plugin: Plugin, cluster: Cluster
) -> None:
    """27 forms of each H100, on the counters of a slice of their own; the smallest come first, the whole GPU after them."""
    slices = await cluster.slices()
    published = await devices(cluster)
    assert len(published) == 8 * 27
    assert len({device["name"] for device in published}) == len(published)
    sets = {c["name"] for item in slices for c in item["spec"].get("sharedCounters", [])}
    assert len(sets) == 8
    assert {u["counterSet"] for d in published for u in d.get("consumesCounters", [])} == sets
    assert {item["spec"]["pool"]["name"] for item in slices} == {f"{NODE_NAME}/nvidia"}
    assert {item["spec"]["pool"]["resourceSliceCount"] for item in slices} == {len(slices)}
    for parent, forms in groupby(published, lambda d: str(d["attributes"]["parent"]["string"])):
        names = [device["name"] for device in forms]
        assert names[0].startswith(f"{parent}-mig-1g-10gb")
        assert names[-2:] == [parent, f"{parent}-monitor"]


async def test_slices_come_back_after_a_deletecollection(plugin: Plugin, cluster: Cluster) -> None:
    """All of them within two seconds, by one write for each; another driver's are not ours to restore."""
    count = len(await cluster.slices())
    before = Counter(cluster.server.requests)
    async with (
        aiohttp.ClientSession() as session,
        session.delete(
            cluster.server.url + SLICES, params={"fieldSelector": f"spec.nodeName={NODE_NAME}"}
        ) as answer,
    ):
        assert answer.status == 200
    await eventually(cluster.is_published, within_s=2)
    asked = cluster.server.requests - before
    assert asked["create", "resourceslices"] == count
    assert asked["update", "resourceslices"] == 0


async def test_gpus_of_a_device_plugin_are_published_only_when_told_so(
    idle: Plugin, cluster: Cluster
) -> None:
    """A complete, empty pool; with `--coexistence ignore`, everything."""
    status = {"status": {"allocatable": {"nvidia.com/gpu": "8"}}}
    await cluster.api.patch(NODE, NODE_NAME, status, subresource="status")
    await idle.start()
    await eventually(cluster.is_published)
    assert await devices(cluster) == []
    await idle.stop()
    idle.settings["coexistence"] = "ignore"
    await idle.start()

    async def all_are_there() -> bool:
        return len(await devices(cluster)) == 8 * 27

    await eventually(all_are_there)


async def test_a_slice_that_somebody_else_changed_is_put_right(
    plugin: Plugin, cluster: Cluster
) -> None:
    """Within two seconds it says again what the hardware is."""
    name = (await cluster.slices())[-1]["metadata"]["name"]
    changed = await cluster.api.get(RESOURCE_SLICE, name)
    gone = changed["spec"]["devices"].pop()["name"]
    await cluster.api.replace(RESOURCE_SLICE, changed)

    async def is_right() -> bool:
        item = await cluster.api.get(RESOURCE_SLICE, name)
        return bool(item["spec"]["devices"][-1]["name"] == gone)

    await eventually(is_right, within_s=2)
    assert await cluster.is_published()


@pytest.mark.parametrize(
    ("version", "gates"),
    [("v1.34.3", Gates()), ("v1.36.2", Gates(partitionable_devices=False))],
)
async def test_where_counters_are_not_kept_whole_gpus_are_published(
    plugin: Plugin, cluster: Cluster
) -> None:
    """An old API server, or one with that gate off: eight devices without counters, and the node's Event says why."""
    published = await devices(cluster)
    assert [device["attributes"]["type"]["string"] for device in published] == ["gpu"] * 8
    assert not any("consumesCounters" in device for device in published)
    notes = [item["metadata"]["annotations"] for item in await cluster.slices()]
    assert all("DRAPartitionableDevices" in note[LIMITED_ANNOTATION] for note in notes)
    claim = await cluster.new_claim(published[0]["name"])
    assert (await plugin.prepare(claim))[claim["metadata"]["uid"]].error == ""

    async def told() -> bool:
        events = (await cluster.api.list(EVENT)).items
        return [e["involvedObject"]["name"] for e in events] == [NODE_NAME]

    await eventually(told)


@pytest.mark.parametrize("gates", [Gates(consumable_capacity=False, binding_conditions=False)])
async def test_gates_that_partitions_do_not_need_may_be_off(
    plugin: Plugin, cluster: Cluster
) -> None:
    """Everything is published all the same."""
    assert len(await devices(cluster)) == 8 * 27
