"""Partitions that somebody else made since the plugin last looked: a claim may fail over one, and never undoes it."""

from __future__ import annotations

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.device import CreateStage, Placement, SetMode
from dra_driver.model.errors import DraError, StorageError, VendorError
from dra_driver.vendors.nvidia import simulated_smi
from tests.kubelet_plugin.conftest import CountingApi, NewClaim, NodePlugin
from tests.vendors.faults import set_faults

ADDRESS = "0000:1b:00.0"
DEVICE = "gpu-0000-1b-00-0-mig-1g-10gb-6"
BARE = CreateStage(gpu=ADDRESS, profile="1g.10gb", placement=Placement(6, 1), stage="gpu-instance")


async def test_a_partition_where_a_claim_wants_its_own_is_left_and_then_used(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The hardware refuses, which is a look: the claim's next call gets the partition as it is, and leaves it as it was."""
    node.backend.partition(SetMode(gpu=ADDRESS, mode="mig"))
    simulated_smi.create(node.backend, ADDRESS, "1g.10gb", 6)
    before = node.inventory()
    claim = new_claim(DEVICE)
    with pytest.raises(VendorError, match=r"INSUFFICIENT_RESOURCES"):
        await node.prepare(claim)
    assert node.inventory() == before
    assert node.state.records == {}
    await node.prepare(claim)
    assert len(node.state.records) == 1
    await node.unprepare(claim)
    assert node.inventory() == before


async def test_a_partition_that_is_gone_by_now_is_made_anew(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Somebody destroyed what the claim was to get: its first call finds that out, and the next one makes the claim its own."""
    node.backend.partition(SetMode(gpu=ADDRESS, mode="mig"))
    simulated_smi.create(node.backend, ADDRESS, "1g.10gb", 6)
    await node.node.survey.look()
    simulated_smi.destroy(node.backend, ADDRESS, 6)
    claim = new_claim(DEVICE)
    with pytest.raises(VendorError, match="prepare the claim anew"):
        await node.prepare(claim)
    await node.prepare(claim)
    assert node.instances() == [("1g.10gb", 6, True)]
    await node.unprepare(claim)
    assert node.leftovers() == []


async def test_a_bare_gpu_instance_where_a_claim_wants_its_own_is_left(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """It looks like what this claim's first step would have made, and is not."""
    node.backend.partition(SetMode(gpu=ADDRESS, mode="mig"))
    node.backend.partition(BARE)
    before = node.inventory()
    claim = new_claim(DEVICE)
    for _ in range(2):
        with pytest.raises(DraError, match=r"INSUFFICIENT_RESOURCES|somebody else"):
            await node.prepare(claim)
        assert node.inventory() == before
        assert node.state.records == {}


async def test_a_successor_knows_what_was_refused(
    node: NodePlugin, machine: Machine, api: CountingApi, new_claim: NewClaim
) -> None:
    """A process that ends between the refusal and the end of its undoing leaves no order to destroy somebody else's instance."""
    node.backend.partition(SetMode(gpu=ADDRESS, mode="mig"))
    node.backend.partition(BARE)
    before = node.inventory()

    def cannot(uid: str) -> None:
        raise StorageError(f"the record of {uid} cannot be removed")

    node.store.forget = cannot  # type: ignore[method-assign]
    with pytest.raises(VendorError, match="INSUFFICIENT_RESOURCES"):
        await node.prepare(new_claim(DEVICE))
    successor = await NodePlugin(node.folder, machine, api).start()
    assert successor.inventory() == before
    assert successor.state.records == {}


async def test_an_instance_whose_number_nvml_does_not_say_is_undone(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """It was made: that NVML refused to describe it is no refusal to make it."""
    fault = {ADDRESS: {"error": "NOT_SUPPORTED", "calls": ["compute_instance_info"]}}
    set_faults(node.folder / "hardware", fault)
    claim = new_claim(DEVICE)
    with pytest.raises(VendorError, match="does not say its number"):
        await node.prepare(claim)
    set_faults(node.folder / "hardware", {})
    await node.unprepare(claim)
    assert node.leftovers() == []
