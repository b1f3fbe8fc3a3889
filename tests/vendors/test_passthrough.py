"""GPUs change hands through sysfs, and are known while they are away, whichever process looks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from dra_driver.config.machine import load_machine
from dra_driver.model.device import (
    BindPassthrough,
    Gpu,
    Passthrough,
    Target,
    UnbindPassthrough,
)
from dra_driver.model.errors import VendorError
from dra_driver.vendors.amd.backend import AmdBackend
from dra_driver.vendors.amd.sdk import Sysfs
from dra_driver.vendors.amd.simulated import build_tree
from dra_driver.vendors.handovers import Handovers
from dra_driver.vendors.holders import Holder
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from dra_driver.vendors.passthrough import PassthroughBackend
from dra_driver.vendors.vfio import Vfio
from dra_driver.vendors.vfio_simulated import SimulatedBus
from tests.vendors.vfio_host import (
    AWAY,
    BIND,
    BOOT,
    GPU,
    NATIVE,
    OTHER,
    UNBIND,
    Host,
    Killed,
    machine,
)


def test_a_gpu_goes_with_its_group_and_comes_back(host: Host) -> None:
    """All functions are with vfio-pci and then with their own drivers again, free for any; the other GPU is left alone."""
    backend = host.process()
    assert backend.partition(BIND) == "nvidia"
    assert host.drivers() == AWAY
    assert not any("43:00" in written for written in host.writes)
    assert backend.partition(UNBIND) == "nvidia"
    assert host.drivers() == NATIVE
    assert {(host.device(f) / "driver_override").read_text().strip() for f in NATIVE} == {""}


def test_a_gpu_that_is_away_is_known_as_it_was(host: Host) -> None:
    """To any process: listed, with the facts of before but that it is away; then NVML finds it again."""
    before = host.process().read(GPU)
    assert before.passthrough is Passthrough.POSSIBLE
    host.process().partition(BIND)
    backend = host.process()
    assert backend.addresses() == (GPU, OTHER)
    away = backend.read(GPU)
    assert away.passthrough is Passthrough.BOUND
    assert backend.identify(Target(gpu=GPU)) == (before.uuid,)
    backend.partition(UNBIND)
    assert (away.uuid, away.partitioning) == (before.uuid, before.partitioning)
    assert backend.read(GPU) == before


def test_a_container_gets_the_device_nodes_of_vfio_alone(host: Host) -> None:
    """The group's, iommufd's with one for each function, and the PCI address in a variable; none of NVIDIA's."""
    backend = host.process()
    backend.partition(BIND)
    edits = backend.edits(Target(gpu=GPU, passthrough=True))
    assert [node.path for node in edits.device_nodes] == [
        "/dev/vfio/vfio",
        "/dev/vfio/16",
        "/dev/iommu",
        "/dev/vfio/devices/vfio1",
        "/dev/vfio/devices/vfio0",
    ]
    assert edits.env == (("DRA_DEVICE_0000_1B_00_0_VFIO", GPU),)
    with pytest.raises(VendorError, match="is in a virtual machine"):
        backend.edits(Target(gpu=GPU))


@pytest.mark.parametrize(
    ("gone", "nodes"),
    [
        ("class/misc/iommu", {"/dev/vfio/vfio", "/dev/vfio/16"}),
        ("class/vfio/16", {"/dev/iommu", "/dev/vfio/devices/vfio0", "/dev/vfio/devices/vfio1"}),
    ],
)
def test_an_older_or_newer_kernel_offers_one_way(host: Host, gone: str, nodes: set[str]) -> None:
    """Without iommufd the group alone, without groups iommufd alone."""
    backend = host.process()
    backend.partition(BIND)
    (host.sys / gone).rmdir()
    found = backend.edits(Target(gpu=GPU, passthrough=True)).device_nodes
    assert {node.path for node in found} == nodes


@pytest.mark.parametrize("back", [False, True], ids=["going", "coming back"])
def test_a_process_may_die_at_any_write(tmp_path: Path, *, back: bool) -> None:
    """Its successor knows the GPU, and brings it back from wherever it is, or to vfio-pci and back; twice is as once."""
    for dies_at in range(20):
        host = Host(tmp_path / str(dies_at), machine())
        known = host.process().read(GPU)
        if back:
            host.process().partition(BIND)
        host.dies_at = len(host.writes) + dies_at
        try:
            host.process().partition(UNBIND if back else BIND)
        except Killed:
            host.dies_at = float("inf")
        else:
            assert dies_at >= 6
            return
        successor = host.process()
        assert successor.addresses() == (GPU, OTHER)
        assert successor.read(GPU).uuid == known.uuid
        if dies_at % 2:
            successor.partition(BIND)
            assert host.drivers() == AWAY
        successor.partition(UNBIND)
        assert host.process().partition(UNBIND) == "nvidia"
        assert host.drivers() == NATIVE
        assert host.process().read(GPU) == known
    pytest.fail("it never came to its end")


def test_what_went_comes_back_when_nobody_offers_it_any_more(host: Host) -> None:
    """The setting decides who may go; a GPU that is away stays known, and can be given back."""
    host.process().partition(BIND)
    backend = host.process(offered=False)
    assert backend.read(GPU).passthrough is Passthrough.BOUND
    backend.partition(UNBIND)
    assert backend.read(GPU).passthrough is None


def test_a_gpu_does_not_go_that_nobody_would_find_again(host: Host) -> None:
    """What it was is written first: where that fails, the GPU stays. A file that cannot be removed is named as well."""
    known = host.folder / "passthrough" / BOOT
    (known / f"{GPU}.new").mkdir(parents=True)
    with pytest.raises(
        VendorError, match=r"cannot be written: .*; see that dataDir has room"
    ) as full:
        host.process().partition(BIND)
    assert full.value.retryable
    assert host.writes == []
    (known / f"{GPU}.json").mkdir()
    with pytest.raises(VendorError, match=r"\.json cannot be removed"):
        Handovers(known.parent, BOOT).forget(GPU)


def test_a_reboot_voids_what_was_known(host: Host) -> None:
    """A GPU that an administrator gives to vfio-pci at the next boot is none of ours."""
    host.process().partition(BIND)
    later = host.process(boot_id="22222222-2222-3333-4444-555555555555")
    assert later.addresses() == (OTHER,)


def test_a_gpu_of_another_vendor_goes_and_comes_back(tmp_path: Path) -> None:
    """Nothing of this is NVIDIA's: an AMD GPU is known while it is away, and amdgpu's afterwards."""
    sys = build_tree(load_machine("8xmi300x"), tmp_path / "sys", node="n")
    inner = AmdBackend(Sysfs(sys))
    (sys / "bus/pci/devices").mkdir()
    for address in inner.addresses():
        device = (sys / "bus/pci/drivers/amdgpu" / address).resolve()
        (sys / "bus/pci/devices" / address).symlink_to(device)
    bus = SimulatedBus(sys, inner.addresses(), "amdgpu")
    handovers = Handovers(tmp_path / "passthrough", BOOT)
    backend = PassthroughBackend(
        inner, Vfio(sys, bus.write), handovers, lambda *_: (), offered=True
    )
    gpu = backend.addresses()[0]
    before = backend.read(gpu)
    assert backend.partition(BindPassthrough(gpu=gpu)) == "amdgpu"
    assert gpu not in inner.addresses()
    assert backend.read(gpu) == replace(before, passthrough=Passthrough.BOUND)
    assert backend.partition(UnbindPassthrough(gpu=gpu)) == "amdgpu"
    assert backend.read(gpu) == before


class OpenLibrary(NvidiaBackend):
    """As the real library: after any question it has the GPU open, until it is given back."""

    is_open = False
    closed = 0

    def read(self, pci_address: str) -> Gpu:
        self.is_open = True
        return super().read(pci_address)

    def close(self) -> None:
        self.is_open = False
        self.closed += 1


def test_what_is_going_away_is_waited_for(tmp_path: Path) -> None:
    """First of all the vendor's library in this process; then whoever lets go within seconds, looked at again and again.

    The library is given back once, where it has the GPU: it is the other GPUs' too.
    """
    sys = tmp_path / "sys"
    driver = sys / "bus/pci/drivers/nvidia"
    inner = OpenLibrary(
        SimulatedNvml(machine(), node="n", state_dir=tmp_path / "gpus", driver=driver)
    )
    bus = SimulatedBus(sys, (GPU, OTHER), "nvidia")
    leaving = [Holder(pid=7, name="old plugin")] * 2

    def using(*_: object) -> tuple[Holder, ...]:
        if inner.is_open:
            return (Holder(pid=8, name="plugin", is_ours=True),)
        return (leaving.pop(),) if leaving else ()

    handovers = Handovers(tmp_path / "passthrough", BOOT)
    backend = PassthroughBackend(inner, Vfio(sys, bus.write), handovers, using, offered=True)
    assert backend.partition(BIND) == "nvidia"
    assert (leaving, inner.closed) == ([], 1)


def test_a_sick_gpu_is_not_well_because_it_is_away(host: Host) -> None:
    """Nobody can look at it: that is no news of what it suffers from, until its own driver says otherwise."""
    backend, faults = host.process(), host.folder / "gpus/faults.json"
    faults.write_text(json.dumps({GPU: {"hot": True}}))
    assert backend.health(GPU)
    backend.partition(BIND)
    faults.unlink()
    assert backend.health(GPU) is None
    backend.partition(UNBIND)
    assert backend.health(GPU) == ()
