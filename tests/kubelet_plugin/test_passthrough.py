"""Claims of virtual machines, from the kubelet's call to sysfs, on a simulated node whose GPUs may leave their driver."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.device import BindPassthrough, Passthrough, UnbindPassthrough
from dra_driver.model.edits import ContainerEdits, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.vendors.handovers import Handovers
from dra_driver.vendors.holders import Holder
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.passthrough import PassthroughBackend
from dra_driver.vendors.vfio import Vfio
from dra_driver.vendors.vfio_simulated import SimulatedBus
from kubelet_plugin.instances import joined
from tests.kubelet_plugin.conftest import BOOT, NODE, POOL, CountingApi, NewClaim, NodePlugin

GPU = "0000:1b:00.0"
MACHINE, WHOLE = "gpu-0000-1b-00-0-vfio", "gpu-0000-1b-00-0"


class OfferingPlugin(NodePlugin):
    """A plugin whose GPUs virtual machines may have. `users` have the GPUs open."""

    def __init__(self, folder: Path, machine: Machine, api: CountingApi) -> None:
        super().__init__(folder, machine, api)
        self.sys = folder / "sys"
        self.users: tuple[Holder, ...] = ()
        nvml = SimulatedNvml(
            machine,
            node=NODE,
            state_dir=folder / "hardware",
            driver=self.sys / "bus/pci/drivers/nvidia",
        )
        bus = SimulatedBus(self.sys, nvml.faults.gpus, "nvidia")
        offering = PassthroughBackend(
            NvidiaBackend(nvml),
            Vfio(self.sys, bus.write),
            Handovers(folder / "passthrough", BOOT),
            lambda *_: self.users,
            offered=True,
        )
        offering.patience_s = 0.0
        self.backends = {POOL: offering}

    @property
    def driver(self) -> str | None:
        """Who has the GPU, as the kernel says."""
        return Vfio(self.sys).driver_of(GPU)


@pytest.fixture
async def node(tmp_path: Path, machine: Machine, api: CountingApi) -> OfferingPlugin:
    """A started one."""
    plugin = OfferingPlugin(tmp_path, machine, api)
    await plugin.start()
    return plugin


@asynccontextmanager
async def two(
    tmp_path: Path, machine: Machine, api: CountingApi
) -> AsyncIterator[list[OfferingPlugin]]:
    """Two processes' plugins over one folder and the same hardware."""
    plugins = []
    with ExitStack() as instances:
        for name in ("old", "new"):
            plugin = OfferingPlugin(tmp_path, machine, api)
            plugin.instance = instances.enter_context(joined(tmp_path, name))
            await plugin.start()
            plugins.append(plugin)
        yield plugins


async def test_a_virtual_machine_s_pod_gets_the_gpu_through_vfio(
    node: OfferingPlugin, new_claim: NewClaim
) -> None:
    """Its CDI file has vfio's nodes alone; a replay answers the same; given back, the GPU is its driver's and nothing is left."""
    claim = new_claim(MACHINE)
    answer = await node.prepare(claim)
    assert node.driver == "vfio-pci"
    (file,) = (node.folder / "cdi").iterdir()
    (device,) = json.loads(file.read_text())["devices"]
    nodes = [one["path"] for one in device["containerEdits"]["deviceNodes"]]
    assert nodes[:3] == ["/dev/vfio/vfio", "/dev/vfio/16", "/dev/iommu"]
    assert await node.prepare(claim) == answer
    await node.unprepare(claim)
    assert node.driver == "nvidia"
    assert node.leftovers() == []


async def test_a_virtual_machine_brings_its_own_driver(
    node: OfferingPlugin, new_claim: NewClaim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the files of the host's driver, which other containers get, its pod gets none."""
    files = SharedEdits(name="nvidia-driver-1", edits=ContainerEdits())
    monkeypatch.setattr(node.backend, "shared", lambda: files)
    assert len(await node.prepare(new_claim("gpu-0000-43-00-0"))) == 2
    assert len(await node.prepare(new_claim(MACHINE))) == 1


async def test_a_gpu_that_is_away_is_no_lost_gpu(node: OfferingPlugin, new_claim: NewClaim) -> None:
    """No look and no ping makes a fault of it, or forgets it; back with its driver it is what it was."""
    before = node.state.inventories[POOL]
    claim = new_claim(MACHINE)
    await node.prepare(claim)
    for look in (node.node.survey.ping, node.node.survey.look):
        await look()
        inventory = node.state.inventories[POOL]
        assert (inventory.faults, inventory.addresses) == ((), before.addresses)
        gpu = inventory.gpu(GPU)
        assert gpu is not None
        assert gpu.passthrough is Passthrough.BOUND
    await node.unprepare(claim)
    assert node.state.inventories[POOL] == before
    await node.node.survey.look()
    assert node.state.inventories[POOL] == before


async def test_a_gpu_in_use_is_refused_and_stays(node: OfferingPlugin, new_claim: NewClaim) -> None:
    """The call says who uses it, holds nothing afterwards, and the next one succeeds once that has ended."""
    node.users = (Holder(pid=7, name="dcgm"),)
    claim = new_claim(MACHINE)
    with pytest.raises(VendorError, match=r"in use by dcgm \(PID 7\)"):
        await node.prepare(claim, deadline=0.0)
    assert node.driver == "nvidia"
    assert node.leftovers() == []
    node.users = ()
    await node.prepare(claim)
    assert node.driver == "vfio-pci"


async def test_a_running_machine_keeps_its_gpu(node: OfferingPlugin, new_claim: NewClaim) -> None:
    """An unprepare that comes too early fails, and the next one goes on."""
    claim = new_claim(MACHINE)
    await node.prepare(claim)
    node.users = (Holder(pid=8, name="qemu"),)
    with pytest.raises(VendorError, match=r"in use by qemu \(PID 8\)"):
        await node.unprepare(claim)
    assert node.driver == "vfio-pci"
    node.users = ()
    await node.unprepare(claim)
    assert node.driver == "nvidia"
    assert node.leftovers() == []


async def test_forms_of_a_gpu_follow_one_another(node: OfferingPlugin, new_claim: NewClaim) -> None:
    """Machine, container, partition, machine: each finds the GPU as it needs it."""
    for device in (MACHINE, WHOLE, f"{WHOLE}-mig-1g-10gb-6", MACHINE):
        claim = new_claim(device)
        await node.prepare(claim)
        assert node.driver == ("vfio-pci" if device == MACHINE else "nvidia")
        await node.unprepare(claim)
    assert node.leftovers() == []


async def test_what_one_process_hands_over_another_takes_back(
    tmp_path: Path, machine: Machine, api: CountingApi, new_claim: NewClaim
) -> None:
    """In an upgrade either serves the claim: the same answer, and the GPU is back when the newer one has unprepared it."""
    async with two(tmp_path, machine, api) as (old, new):
        claim = new_claim(MACHINE)
        answer = await old.prepare(claim)
        assert await new.prepare(claim) == answer
        await new.unprepare(claim)
        assert new.driver == "nvidia"
        other = new_claim(WHOLE)
        await old.prepare(other)
        assert old.state.records[other["metadata"]["uid"]].steps == ()


async def test_a_successor_takes_back_what_was_half_handed_over(
    tmp_path: Path, machine: Machine, api: CountingApi, new_claim: NewClaim, node: OfferingPlugin
) -> None:
    """A process that died inside the change has recorded no identity for it; the intent alone brings the GPU back."""
    claim = new_claim(MACHINE)
    real = node.backends[POOL].partition

    def dies(change: object) -> str:
        if isinstance(change, BindPassthrough):
            real(change)
        assert not isinstance(change, UnbindPassthrough), "it is dead"
        raise VendorError("killed")

    node.backends[POOL].partition = dies  # type: ignore[method-assign]
    with pytest.raises((VendorError, AssertionError)):
        await node.prepare(claim)
    assert node.driver == "vfio-pci"
    successor = OfferingPlugin(tmp_path, machine, api)
    await successor.start()
    assert successor.driver == "nvidia"
    assert successor.leftovers() == []
