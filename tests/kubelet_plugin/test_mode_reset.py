"""Where a mode needs a reset, the driver serves the mode that there is, and an administrator changes it: docs/user/nvidia.md."""

from __future__ import annotations

from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.errors import VendorError
from dra_driver.rules.devices import render_device
from dra_driver.rules.publish import PublishMode, published_forms
from dra_driver.vendors.nvidia import simulated_smi
from tests.kubelet_plugin.conftest import POOL, CountingApi, NewClaim, NodePlugin, machine_of
from tests.vendors.faults import set_faults

ADDRESS = "0000:1b:00.0"
WHOLE = "gpu-0000-1b-00-0"
PENDING = "modeAfterReset"
BOARDS = {"A30": f"{WHOLE}-mig-1g-6gb-3", "A100-SXM4-80GB": f"{WHOLE}-mig-1g-10gb-6"}


@pytest.fixture(params=BOARDS)
def machine(request: pytest.FixtureRequest) -> Machine:
    """One GPU of a board that needs a reset for its mode."""
    return machine_of(request.param, 1)


@pytest.fixture
def partition(machine: Machine) -> str:
    """A device name that the board has with MIG on."""
    return BOARDS[machine.gpus[0].model]


def offered(node: NodePlugin) -> dict[str, object]:
    """The devices of the GPU but its monitor, each with the mode that it says a reset would bring."""
    gpu = node.state.inventories[POOL].gpu(ADDRESS)
    assert gpu is not None
    forms = published_forms(gpu, frozenset(), PublishMode.FULL)
    devices = [render_device(form, with_counters=True) for form in forms]
    return {one.name: one.attributes.get(PENDING) for one in devices if one.consumes}


async def test_without_mig_such_a_gpu_is_whole_and_nothing_else(
    node: NodePlugin, new_claim: NewClaim, partition: str
) -> None:
    """No partition is offered. A claim that has one all the same learns what an administrator does, and changes nothing."""
    assert offered(node) == {WHOLE: None}
    with pytest.raises(VendorError, match=rf"nvidia-smi -i {ADDRESS} -mig 1") as refused:
        await node.prepare(new_claim(partition))
    assert refused.value.retryable
    assert node.leftovers() == []
    assert offered(node) == {WHOLE: None}


async def test_a_pending_mode_is_shown_and_changes_nothing_else(
    node: NodePlugin, new_claim: NewClaim
) -> None:
    """Between `nvidia-smi -mig 1` and the reset the GPU is whole, and given out; taking the change back is seen as well."""
    simulated_smi.set_mode(node.nvml, ADDRESS, "mig")
    await node.node.survey.look()
    assert offered(node) == {WHOLE: "mig"}
    claim = new_claim(WHOLE)
    await node.prepare(claim)
    await node.unprepare(claim)
    assert node.nvml.mig_mode(node.nvml.gpu_by_address(ADDRESS)) == (0, 1)
    simulated_smi.set_mode(node.nvml, ADDRESS, "whole")
    await node.node.survey.look()
    assert offered(node) == {WHOLE: None}


async def test_after_the_reset_the_gpu_is_what_its_mode_says(
    node: NodePlugin, new_claim: NewClaim, partition: str
) -> None:
    """Partitions instead of the whole GPU, and claims get them; after the way back, which is the same, the whole GPU."""
    simulated_smi.set_mode(node.nvml, ADDRESS, "mig")
    assert simulated_smi.reset(node.nvml, ADDRESS) == "mig"
    await node.node.survey.look()
    assert WHOLE not in offered(node)
    assert offered(node)[partition] is None
    claim = new_claim(partition)
    await node.prepare(claim)
    assert [complete for *_, complete in node.instances()] == [True]
    await node.unprepare(claim)
    assert node.leftovers() == []
    simulated_smi.set_mode(node.nvml, ADDRESS, "whole")
    await node.node.survey.look()
    assert offered(node)[partition] == "whole"
    simulated_smi.reset(node.nvml, ADDRESS)
    await node.node.survey.look()
    assert offered(node) == {WHOLE: None}
    await node.prepare(new_claim(WHOLE))


async def test_a_plugin_that_starts_after_the_reset_sees_the_new_mode_at_once(
    tmp_path: Path, machine: Machine, api: CountingApi, new_claim: NewClaim, partition: str
) -> None:
    """The order that the documentation gives: the plugin is off the node while the GPU is reset, because it has the GPU open."""
    before = await NodePlugin(tmp_path, machine, api).start()
    simulated_smi.set_mode(before.nvml, ADDRESS, "mig")
    simulated_smi.reset(before.nvml, ADDRESS)
    after = await NodePlugin(tmp_path, machine, api).start()
    assert partition in offered(after)
    await after.prepare(new_claim(partition))


async def test_a_reset_that_fails_leaves_everything_as_it_was(node: NodePlugin) -> None:
    """Somebody has the GPU open: the mode stays pending, and the GPU what it was."""
    simulated_smi.set_mode(node.nvml, ADDRESS, "mig")
    set_faults(node.folder / "hardware", {ADDRESS: {"busy": True}})
    with pytest.raises(VendorError, match="IN_USE"):
        simulated_smi.reset(node.nvml, ADDRESS)
    await node.node.survey.look()
    assert offered(node) == {WHOLE: "mig"}
