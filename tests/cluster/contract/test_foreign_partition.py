"""A GPU on which an administrator keeps an instance: what our devices let a scheduler give out, in the sandbox and on real ones.

The GPU is published as the plugin would publish it. What has to be possible follows from the placement engine, and from
which positions the instance covers.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import deviceclasses
from dra_driver.kube.codec import slice_to_json
from dra_driver.kube.rest import RestApi
from dra_driver.model.device import Gpu, Partitioning, Placement
from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import DEVICE_CLASS, RESOURCE_CLAIM, RESOURCE_SLICE
from dra_driver.model.names import partition_name
from dra_driver.ports import JsonObject
from dra_driver.rules.forms import covered
from dra_driver.rules.partitions import Placed, fits
from dra_driver.rules.pool_diff import diff_pool
from dra_driver.rules.publish import PublishMode, desired_pool
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.cluster.contract.cluster import Cluster, sandbox_cluster
from tests.cluster.controlplane import ControlPlane
from tests.cluster.release import node_object
from tests.kubelet_plugin.conftest import machine_of

NODE = "n1"
THEIRS = Placed("3g.40gb", Placement(4, 4))
FIRST = ("1g.10gb", "1g.10gb+me", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb")
"""Profiles of which there is room beside the instance; each is tried as the one that the GPU is filled up with first."""


@pytest.fixture
def gpu(tmp_path: Path) -> Gpu:
    """An H100 with an idle 3g at 4 that somebody else made."""
    instance = {"profile": THEIRS.profile_name, "start": THEIRS.placement.start}
    machine = machine_of("H100-SXM5-80GB", 1, instances=[instance])
    [gpu] = discover(NvidiaBackend(SimulatedNvml(machine, node=NODE, state_dir=tmp_path))).gpus
    return gpu


@pytest.fixture
async def cluster(plane: ControlPlane | None, api: RestApi, gpu: Gpu) -> AsyncIterator[Cluster]:
    """A scheduler, our classes, and a node with that GPU."""
    async with AsyncExitStack() as stack:
        cluster = Cluster(api=api)
        if plane is None:
            cluster = await stack.enter_async_context(sandbox_cluster())
        await stack.enter_async_context(node_object(cluster.api, NODE))
        for one in deviceclasses.load_all():
            await cluster.api.create(DEVICE_CLASS, one)
        inventory = Inventory(vendor=gpu.vendor, gpus=(gpu,))
        pool = desired_pool(NODE, inventory, frozenset(), PublishMode.FULL, 64)
        for published in diff_pool(pool, []).writes:
            await cluster.api.create(RESOURCE_SLICE, slice_to_json(published))
        yield cluster


@pytest.mark.usefixtures("all_features")
@pytest.mark.parametrize("first", FIRST)
async def test_all_but_the_instance_can_be_had_and_nothing_that_overlaps_it(
    cluster: Cluster, gpu: Gpu, first: str
) -> None:
    """Claims fill the GPU up with all that the placement engine says fits beside the instance; what comes then waits.

    In the end a claim for any partition gets the instance itself, as the only device that is left, and once.
    """
    assert gpu.partitioning is not None
    names = _names(gpu)
    placed = [THEIRS]
    while profile := _next(gpu.partitioning, placed, first):
        given = names[await _given(cluster, f"fits-{len(placed)}", _partition(profile))]
        assert given in fits(gpu.partitioning, placed), f"{given} is given out beside {placed}"
        assert not covered(given.placement) & covered(THEIRS.placement)
        placed.append(given)
    profiles = [one.name for one in gpu.partitioning.profiles]
    waiting = {"whole": _request("gpu"), **{_label(one): _partition(one) for one in profiles}}
    for name, devices in waiting.items():
        await cluster.new_claimant(name, devices)
    for name in waiting:
        await cluster.waits(name)
    assert names[await _given(cluster, "any", _request("gpu-partition"))] == THEIRS
    await cluster.new_claimant("one-more", _request("gpu-partition"))
    await cluster.waits("one-more")
    assert sorted([names[device] for device in await _given_out(cluster)]) == sorted(placed)


def test_every_profile_that_fits_beside_the_instance_is_tried(gpu: Gpu) -> None:
    """None is forgotten above."""
    assert gpu.partitioning is not None
    assert {one.profile_name for one in fits(gpu.partitioning, [THEIRS])} == set(FIRST)


def _next(partitioning: Partitioning, placed: list[Placed], first: str) -> str | None:
    """The profile to ask for: the first one as long as it fits, then whatever fits; None when the GPU is full."""
    room = {one.profile_name for one in fits(partitioning, placed)}
    return first if first in room else min(room, default=None)


def _names(gpu: Gpu) -> Mapping[str, Placed]:
    """What the devices of the GPU's partitions are."""
    assert gpu.partitioning is not None
    return {
        partition_name(gpu.pci_address, profile, placement): Placed(profile.name, placement)
        for profile in gpu.partitioning.profiles
        for placement in profile.placements
    }


async def _given(cluster: Cluster, name: str, devices: JsonObject) -> str:
    """The device that the scheduler gives to a new pod with such a claim."""
    await cluster.new_claimant(name, devices)
    await cluster.scheduled(name)
    [result] = await cluster.results(name)
    device: str = result["device"]
    return device


async def _given_out(cluster: Cluster) -> list[str]:
    """The devices of all claims."""
    claims = (await cluster.api.list(RESOURCE_CLAIM, namespace="default")).items
    allocations = [
        one["status"]["allocation"] for one in claims if "allocation" in one.get("status", {})
    ]
    return [one["device"] for allocation in allocations for one in allocation["devices"]["results"]]


def _partition(profile: str) -> JsonObject:
    """One of that profile, and not somebody else's."""
    own = 'device.attributes["gpu.dra-driver.dev"]'
    wanted = f'{own}.profile == "{profile}" && !{own}.?foreign.orValue(false)'
    return _request("gpu-partition", selectors=[{"cel": {"expression": wanted}}])


def _request(device_class: str, **more: object) -> JsonObject:
    exactly = {"deviceClassName": f"{device_class}.dra-driver.dev", **more}
    return {"requests": [{"name": "gpu", "exactly": exactly}]}


def _label(profile: str) -> str:
    return profile.replace(".", "-").replace("+", "-with-")
