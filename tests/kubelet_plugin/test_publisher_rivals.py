"""GPUs that another driver gives out on this node are not published, and come back when it is gone."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.model.inventory import Inventory
from dra_driver.model.kinds import NODE, RESOURCE_SLICE
from kubelet_plugin.targets import PublishPolicy
from tests.kubelet_plugin.publishing import Lab, new_lab, small_inventory

FIRST, SECOND = "gpu-0000-1b-00-0", "gpu-0000-43-00-0"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """Two small GPUs."""
    return small_inventory(tmp_path)


@pytest.fixture
async def lab(inventory: Inventory) -> Lab:
    """A node that publishes them."""
    return await new_lab(inventory)


async def offer(lab: Lab, amount: str) -> None:
    """A device plugin offers so many GPUs."""
    status = {"status": {"allocatable": {"nvidia.com/gpu": amount}}}
    await lab.world.patch(NODE, "n", status, subresource="status")


async def publish_first(lab: Lab) -> None:
    """Another DRA driver publishes the first GPU."""
    device = {
        "name": "a",
        "attributes": {"resource.kubernetes.io/pciBusID": {"string": "0000:1b:00.0"}},
    }
    pool = {"name": "other", "generation": 1, "resourceSliceCount": 1}
    spec = {"driver": "gpu.nvidia.com", "nodeName": "n", "pool": pool, "devices": [device]}
    await lab.world.create(RESOURCE_SLICE, {"metadata": {"name": "theirs"}, "spec": spec})


async def ours(lab: Lab) -> set[str]:
    """The whole GPUs that we publish without a taint."""
    return {FIRST, SECOND} & (await lab.devices()).keys() - (await lab.taints()).keys()


async def test_a_device_plugin_keeps_us_out(lab: Lab) -> None:
    """From the start: one empty, complete pool, and one Event; ten minutes after it is gone, all is published."""
    await offer(lab, "8")
    async with lab.running():
        await lab.clock.advance(3600)
        assert await ours(lab) == set()
        assert [item["spec"].get("devices", []) for item in await lab.slices()] == [[]]
        ((reason, message),) = lab.events.said
        assert reason == "AnotherDriverOffers"
        assert "GPU 0000:1b:00.0, 0000:43:00.0; a device plugin offers nvidia.com/gpu;" in message
        await offer(lab, "0")
        await lab.clock.advance(610)
        assert await ours(lab) == {FIRST, SECOND}


async def test_another_driver_keeps_us_out_of_its_gpus(lab: Lab) -> None:
    """One that comes later is seen within ten minutes; what a claim has of us meanwhile stays, tainted."""
    async with lab.running():
        assert await ours(lab) == {FIRST, SECOND}
        await lab.claim(FIRST)
        await publish_first(lab)
        await lab.clock.advance(750)  # ten minutes, and two looks a minute apart
        assert await ours(lab) == {SECOND}
        assert await lab.taints() == {FIRST: ["withdrawn"]}
        await lab.world.delete(RESOURCE_SLICE, "theirs")
        await lab.clock.advance(610)
        assert await ours(lab) == {FIRST, SECOND}
        assert await lab.taints() == {}


async def test_an_administrator_may_know_better(inventory: Inventory) -> None:
    """With `coexistence: ignore` nobody is asked."""
    lab = await new_lab(inventory, policy=PublishPolicy(ignores_rivals=True))
    await offer(lab, "8")
    await publish_first(lab)
    async with lab.running():
        assert await ours(lab) == {FIRST, SECOND}
        assert not lab.events.said
