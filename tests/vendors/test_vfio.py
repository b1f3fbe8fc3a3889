"""GPUs change hands through sysfs: a tree of files that acts as the kernel's does."""

from __future__ import annotations

import errno
import json
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from dra_driver.config.machine import Machine, load_machine
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
from dra_driver.vendors.vfio import Vfio, write_file
from dra_driver.vendors.vfio_simulated import SimulatedBus

GPU, AUDIO, OTHER = "0000:1b:00.0", "0000:1b:00.1", "0000:43:00.0"
BIND, UNBIND = BindPassthrough(gpu=GPU), UnbindPassthrough(gpu=GPU)
BOOT = "11111111-2222-3333-4444-555555555555"
NATIVE: Mapping[str, str | None] = {AUDIO: "snd_hda_intel", GPU: "nvidia"}
AWAY: Mapping[str, str | None] = {AUDIO: "vfio-pci", GPU: "vfio-pci"}


class Killed(BaseException):
    """A process that ends here; nothing may catch it."""


@dataclass
class Host:
    """Two GPUs of a node; `process()` is a process that starts on it, which dies at its `dies_at`-th write from now."""

    folder: Path
    machine: Machine
    dies_at: float = float("inf")
    writes: list[str] = field(default_factory=list)
    users: tuple[Holder, ...] = ()
    looked_for: set[str] = field(default_factory=set)

    @property
    def sys(self) -> Path:
        return self.folder / "sys"

    def process(self, *, offered: bool = True, boot_id: str = BOOT) -> PassthroughBackend:
        driver = self.sys / "bus/pci/drivers/nvidia"
        nvml = SimulatedNvml(self.machine, node="n", state_dir=self.folder / "gpus", driver=driver)
        bus = SimulatedBus(self.sys, nvml.faults.gpus, "nvidia")

        def write(file: Path, text: str) -> None:
            if len(self.writes) >= self.dies_at:
                raise Killed
            self.writes.append(str(file.relative_to(self.sys)))
            bus.write(file, text)

        handovers = Handovers(self.folder / "passthrough", boot_id)
        backend = PassthroughBackend(
            NvidiaBackend(nvml), Vfio(self.sys, write), handovers, self._using, offered=offered
        )
        backend.patience_s = 0.0
        return backend

    def drivers(self) -> Mapping[str, str | None]:
        """Who has the GPU's functions now, as the kernel says."""
        return {function: Vfio(self.sys).driver_of(function) for function in NATIVE}

    def device(self, function: str) -> Path:
        return self.sys / "bus/pci/devices" / function

    def _using(self, _: str, nodes: Collection[str]) -> tuple[Holder, ...]:
        self.looked_for |= set(nodes)
        return self.users


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, machine())


def machine(**spec: object) -> Machine:
    return Machine.model_validate(
        {
            "apiVersion": "gpu.dra-driver.dev/v1alpha1",
            "kind": "Machine",
            "name": "two",
            "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", "count": 2, **spec}],
        }
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


def test_a_gpu_in_use_does_not_go(host: Host) -> None:
    """The processes are named, nothing was written; only nodes of this one GPU count as use, not those of all."""
    host.users = (Holder(pid=7, name="dcgm"),)
    with pytest.raises(VendorError, match=r"in use by dcgm \(PID 7\); end what uses it") as refused:
        host.process().partition(BIND)
    assert refused.value.retryable
    assert host.writes == []
    assert host.looked_for == {"/dev/nvidia0"}


def test_a_gpu_in_a_running_machine_does_not_come_back(host: Host) -> None:
    """The kernel would wait for the machine for ever; so it is named instead, and the GPU stays where it is."""
    host.process().partition(BIND)
    host.users, host.looked_for = (Holder(pid=8, name="qemu"),), set()
    with pytest.raises(VendorError, match=r"in use by qemu \(PID 8\)"):
        host.process().partition(UNBIND)
    assert host.drivers() == AWAY
    assert host.looked_for == {
        "/dev/vfio/16",
        "/dev/vfio/devices/vfio0",
        "/dev/vfio/devices/vfio1",
    }


def test_a_gpu_with_instances_does_not_go(tmp_path: Path) -> None:
    """They are named, and nothing was written."""
    host = Host(tmp_path, machine(mode="mig", instances=[{"profile": "1g.10gb", "start": 2}]))
    with pytest.raises(VendorError, match=r"instances exist \(1g\.10gb at 2\)"):
        host.process().partition(BIND)
    assert host.writes == []


def share_the_group(host: Host) -> None:
    other = host.device(GPU) / "iommu_group/devices" / OTHER
    other.symlink_to(host.device(OTHER))


def turn_the_iommu_off(host: Host) -> None:
    (host.device(GPU) / "iommu_group").unlink()


def unload_the_module(host: Host) -> None:
    (host.sys / "bus/pci/drivers/vfio-pci").rename(host.sys / "elsewhere")


def make_virtual_functions(host: Host) -> None:
    (host.device(GPU) / "sriov_numvfs").write_text("4\n")


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (share_the_group, f"its IOMMU group 16 also holds {OTHER}; put it into another slot"),
        (turn_the_iommu_off, "it is in no IOMMU group; turn the IOMMU on"),
        (unload_the_module, "the kernel module vfio-pci is not loaded; load it"),
        (make_virtual_functions, "while it has virtual functions; write 0 to its sriov_numvfs"),
    ],
)
def test_a_gpu_that_cannot_go_is_not_offered(
    host: Host, spoil: Callable[[Host], None], cause: str
) -> None:
    """Who tries is told why, and it is usable in its other forms; where only this GPU is concerned, others are offered as before."""
    backend = host.process()
    spoil(host)
    assert backend.read(GPU).passthrough is None
    of_all = None if spoil is unload_the_module else Passthrough.POSSIBLE
    assert backend.read(OTHER).passthrough is of_all
    with pytest.raises(VendorError, match=cause):
        backend.partition(BIND)
    assert host.writes == []


@pytest.mark.parametrize("gone", ["class", "iommu_group/devices"])
def test_a_gpu_that_is_unplugged_under_our_eyes_is_a_vendor_error(host: Host, gone: str) -> None:
    """What sysfs showed a moment ago may not be there any more; whoever looks again sees it."""
    host.process()
    (host.device(GPU) / "iommu_group/devices/0000:1a:01.0").symlink_to(host.device("0000:1a:01.0"))
    if gone == "class":
        host.device("0000:1a:01.0").mkdir()
    else:
        shutil.rmtree(host.device(GPU) / gone)
    with pytest.raises(VendorError, match="cannot be read: No such file") as unplugged:
        Vfio(host.sys).functions(GPU)
    assert unplugged.value.retryable


def test_a_function_that_is_not_there_has_no_driver(host: Host) -> None:
    """Nor has one between two drivers, whose link leads nowhere for a moment."""
    host.process()
    assert Vfio(host.sys).driver_of("0000:ff:00.0") is None
    (host.device(GPU) / "driver").unlink()
    assert Vfio(host.sys).driver_of(GPU) is None


def test_a_bridge_in_the_group_does_no_harm(host: Host) -> None:
    """The kernel keeps bridges out of the machine's way by itself."""
    backend = host.process()
    bridge = host.device("0000:1a:01.0")
    bridge.mkdir()
    (bridge / "class").write_text("0x060400\n")
    (host.device(GPU) / "iommu_group/devices" / bridge.name).symlink_to(bridge)
    assert backend.read(GPU).passthrough is Passthrough.POSSIBLE


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


def test_the_claims_gpu_taken_by_somebody_else_is_not_given_out(host: Host) -> None:
    """Whoever binds it to another driver behind our back is noticed when the claim is looked at."""
    backend = host.process()
    backend.partition(BIND)
    Vfio(host.sys, SimulatedBus(host.sys, (), "nvidia").write).give_back(NATIVE)
    with pytest.raises(VendorError, match=r"is with nvidia and not with vfio-pci"):
        backend.identify(Target(gpu=GPU, passthrough=True))


@pytest.mark.parametrize("refused", [AUDIO, GPU])
def test_only_the_gpu_s_own_driver_is_waited_for(host: Host, refused: str) -> None:
    """A claim is not held up by a sound card that its driver does not take back; a GPU that is with nobody is no success."""
    backend = host.process()
    backend.partition(BIND)
    (host.device(refused) / "modalias").write_text("changed\n")
    with capture_logs() as logs, nullcontext() if refused == AUDIO else pytest.raises(VendorError):
        backend.partition(UNBIND)
    assert host.drivers()[refused] is None
    assert [AUDIO in one["why"] for one in logs] == [True] * (refused == AUDIO)
    assert backend.read(GPU).passthrough is (
        Passthrough.POSSIBLE if refused == AUDIO else Passthrough.BOUND
    )


def test_a_refusal_of_the_kernel_names_the_file(host: Host) -> None:
    """As does one of a file that is not there: no file is made in sysfs."""
    backend = host.process()
    (host.device(AUDIO) / "driver_override").unlink()
    with pytest.raises(VendorError, match=r"driver_override: the kernel refused 'vfio-pci'"):
        backend.partition(BIND)
    with pytest.raises(FileNotFoundError) as missing:
        write_file(host.sys / "nowhere", "x")
    assert missing.value.errno == errno.ENOENT
    backend.partition(UNBIND)
    assert host.drivers() == NATIVE


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
    """Nobody can look at it: it suffers from what it suffered from, until its own driver says otherwise."""
    backend, faults = host.process(), host.folder / "gpus/faults.json"
    faults.write_text(json.dumps({GPU: {"hot": True}}))
    before = backend.health(GPU)
    assert before
    backend.partition(BIND)
    faults.unlink()
    assert backend.health(GPU) == before
    backend.partition(UNBIND)
    assert backend.health(GPU) == ()
