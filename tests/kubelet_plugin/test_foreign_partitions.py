"""A GPU that somebody else partitions: said on the Node, shown on the device, and nothing that overlaps is given out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.model.device import Instance, Placement
from dra_driver.model.inventory import Inventory
from tests.kubelet_plugin.publishing import Lab, new_lab, small_inventory

GPU = "gpu-0000-1b-00-0"
HIGH, LOW, SEVEN = f"{GPU}-mig-3g-40gb-4", f"{GPU}-mig-3g-40gb-0", f"{GPU}-mig-7g-80gb-0"


@pytest.fixture
def inventory(tmp_path: Path) -> Inventory:
    """One small GPU."""
    return small_inventory(tmp_path, gpus=1)


def partitioned(inventory: Inventory, *starts: int, complete: bool = True) -> Inventory:
    """With a 3g at these starts, and MIG on."""
    (gpu,) = inventory.gpus
    assert gpu.partitioning is not None
    made = tuple(
        Instance(
            profile="3g.40gb",
            placement=Placement(start, 4),
            identity=f"gi-{start + 1}",
            uuid=f"MIG-{start}",
            complete=complete,
        )
        for start in starts
    )
    in_mig = replace(gpu.partitioning, mode="mig")
    return replace(inventory, gpus=(replace(gpu, partitioning=in_mig, instances=made),))


async def offered(lab: Lab) -> set[str]:
    """What a new claim may be given, monitors apart."""
    devices = (await lab.devices()).keys() - (await lab.taints()).keys()
    return {name for name in devices if not name.endswith("-monitor")}


async def test_each_change_is_said_once_and_what_overlaps_is_withdrawn(
    inventory: Inventory,
) -> None:
    """The instance itself stays a device and says whose it is; when it is gone, all is as it was, without a word."""
    lab = await new_lab(inventory)
    async with lab.running():
        everything = await offered(lab)
        lab.observe(partitioned(inventory, 4))
        await lab.clock.advance(600)
        assert await offered(lab) == {HIGH, LOW}
        assert (await lab.devices())[HIGH]["attributes"]["foreign"] == {"bool": True}
        assert "foreign" not in (await lab.devices())[LOW]["attributes"]
        lab.observe(partitioned(inventory, 0, 4))
        await lab.clock.advance(600)
        lab.observe(inventory)
        await lab.clock.advance(600)
        assert await offered(lab) == everything
    assert [reason for reason, _ in lab.events.said] == ["ForeignPartitions"] * 2
    first, second = (message for _, message in lab.events.said)
    assert "GPU 0000:1b:00.0 was partitioned by somebody else: 3g.40gb at 4;" in first
    assert "3g.40gb at 0, 3g.40gb at 4;" in second


async def test_a_bare_instance_is_in_the_way_and_no_device(inventory: Inventory) -> None:
    """Half a partition cannot be given to anybody; it is said all the same."""
    lab = await new_lab(partitioned(inventory, 4, complete=False))
    async with lab.running():
        assert await offered(lab) == {LOW}
    assert lab.events.reasons == {"ForeignPartitions"}
