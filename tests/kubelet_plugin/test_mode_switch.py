"""The mode of a GPU is switched by the first claim that needs it; where that is refused, nobody else is sent into the same wall."""

from __future__ import annotations

import pytest

from dra_driver.model.errors import VendorError
from dra_driver.rules.publish import PublishMode, published_forms
from tests.kubelet_plugin.conftest import POOL, NewClaim, NodePlugin
from tests.vendors.faults import set_faults

ADDRESS = "0000:1b:00.0"
DEVICE = "gpu-0000-1b-00-0-mig-1g-10gb-6"


def partitions(node: NodePlugin) -> int:
    """How many are offered of the GPU."""
    gpu = node.state.inventories[POOL].gpu(ADDRESS)
    assert gpu is not None
    offered = published_forms(gpu, frozenset(), PublishMode.FULL)
    return sum(form.profile is not None for form in offered)


async def test_a_gpu_in_use_keeps_its_mode_and_offers_no_other(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """The error names who uses it. Its partitions are offered again after the next look, and then they are had."""
    hardware, in_use = node.folder / "hardware", {"busy": True, "users": ["dcgm (pid 4711)"]}
    told: list[int] = []
    node.state.on_inventory(lambda: told.append(partitions(node)))
    set_faults(hardware, {ADDRESS: in_use})
    before = partitions(node)
    claim = new_claim(DEVICE)
    with pytest.raises(VendorError, match=r"in use by dcgm \(pid 4711\)"):
        await node.prepare(claim)
    assert node.leftovers() == []
    assert partitions(node) == 0
    assert told[-1] == 0
    set_faults(hardware, {})
    await node.node.survey.look()
    assert partitions(node) == before
    await node.prepare(claim)


async def test_a_switch_that_succeeds_frees_the_mode(node: NodePlugin, new_claim: NewClaim) -> None:
    """The claim that was refused tries again and is served before the next look; the GPU can become all that it could."""
    set_faults(node.folder / "hardware", {ADDRESS: {"busy": True}})
    claim = new_claim(DEVICE)
    with pytest.raises(VendorError, match="IN_USE"):
        await node.prepare(claim)
    set_faults(node.folder / "hardware", {})
    await node.prepare(claim)
    gpu = node.state.inventories[POOL].gpu(ADDRESS)
    assert gpu is not None
    assert gpu.partitioning is not None
    assert (gpu.partitioning.mode, gpu.partitioning.switchable) == ("mig", True)
