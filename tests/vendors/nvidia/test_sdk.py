"""The real binding: whatever the backend sees of simulated hardware through pynvml must be what it sees without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pynvml
import pytest

from dra_driver.model.device import CreateStage, DestroyStage, Placement, SetMode, Target
from dra_driver.model.errors import VendorError
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.nvml import Code, GpuProfile, NvmlError, PciPlace
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.nvidia.conftest import bind

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"


def test_pynvml_and_simulation_look_the_same(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml], tmp_path: Path
) -> None:
    """Every number of every GPU passes the binding unchanged, with instances and without."""
    spec = [{"profile": "3g.40gb", "start": 4}, {"profile": "1g.10gb+me", "start": 1}]
    nvml = simulate(count=2, instances=spec)
    expected = discover(NvidiaBackend(nvml))
    backend = NvidiaBackend(through_pynvml(nvml))
    bare = [replace(gpu, numa_node=None, pcie_root=None) for gpu in expected.gpus]
    assert list(discover(backend).gpus) == bare
    backend.close()


def test_a_partitions_whole_life_through_pynvml(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml], tmp_path: Path
) -> None:
    """Mode, both stages, what a container gets, and back: the simulated hardware follows each call."""
    nvml = simulate()
    minors = tmp_path / "proc/driver/nvidia-caps/mig-minors"
    minors.parent.mkdir(parents=True)
    minors.write_text("config 1\nmonitor 2\ngpu0/gi1/access 12\ngpu0/gi1/ci0/access 13\n")
    backend, direct = NvidiaBackend(through_pynvml(nvml)), NvidiaBackend(nvml)
    assert backend.partition(SetMode(gpu=GPU, mode="mig")) == "whole"
    stage = CreateStage(gpu=GPU, profile="2g.20gb", placement=Placement(2, 2), stage="gpu-instance")
    assert backend.partition(stage) == "gi-1"
    stage = replace(stage, stage="compute-instance", parent="gi-1")
    assert backend.partition(stage) == "gi-1/ci-0"
    (made,) = discover(direct).gpus[0].instances
    assert (made.profile, made.placement, made.complete) == ("2g.20gb", Placement(2, 2), True)
    target = Target(gpu=GPU, instance="gi-1/ci-0")
    assert backend.edits(target) == direct.edits(target)
    backend.partition(DestroyStage(created=stage, identity="gi-1/ci-0"))
    backend.partition(DestroyStage(created=replace(stage, stage="gpu-instance"), identity="gi-1"))
    assert backend.partition(SetMode(gpu=GPU, mode="whole")) == "mig"
    assert discover(direct).gpus[0].instances == ()


def test_codes_come_through_pynvml(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml]
) -> None:
    """An NVML error is an NvmlError with the same code."""
    nvml = through_pynvml(simulate(instances=[{"profile": "7g.80gb", "start": 0}]))
    gpu = nvml.gpu_by_address(GPU)
    with pytest.raises(NvmlError) as refused:
        nvml.create_gpu_instance(gpu, 19, Placement(0, 1))
    assert refused.value.code == Code.INSUFFICIENT_RESOURCES
    assert isinstance(nvml.gpu_profile(gpu, 0), GpuProfile)


def test_without_the_library_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Building costs nothing; the first use fails clearly, as often as it is tried, and closing is harmless."""

    def missing(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr(pynvml, "nvmlLib", None)
    monkeypatch.setattr(pynvml, "CDLL", missing)
    bind(tmp_path, GPU)
    backend = NvidiaBackend(PynvmlNvml(DriverRoot(host_root=tmp_path)))
    for _ in range(2):
        with pytest.raises(VendorError, match=r"install the NVIDIA driver.*libnvidia-ml\.so\.1"):
            backend.read(GPU)
    backend.close()


@pytest.mark.parametrize(
    "code", [Code.UNINITIALIZED, Code.DRIVER_NOT_LOADED, Code.LIB_RM_VERSION_MISMATCH]
)
def test_a_reloaded_driver_is_found_again(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml], code: Code
) -> None:
    """However NVML says that its driver is gone, it is initialised anew, once, and the same call succeeds."""
    backend = NvidiaBackend(through_pynvml(simulate()))
    before = backend.read(GPU)
    pynvml.nvmlLib.state = code
    assert backend.read(GPU) == before
    assert pynvml.nvmlLib.inits == 2


def test_a_driver_that_is_away_may_come_back(
    simulate: Simulate,
    through_pynvml: Callable[[SimulatedNvml], PynvmlNvml],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While it is not loaded each call says so and invites a retry; afterwards everything is as before."""
    backend = NvidiaBackend(through_pynvml(simulate()))
    before = backend.read(GPU)

    def unloaded(_: SimulatedNvml) -> str:
        raise NvmlError(Code.DRIVER_NOT_LOADED, "loading")

    with monkeypatch.context() as patch:
        patch.setattr(SimulatedNvml, "driver_version", unloaded)
        pynvml.nvmlLib.state = Code.DRIVER_NOT_LOADED
        for _ in range(2):
            with pytest.raises(VendorError, match=rf"{GPU}.*load the nvidia") as refused:
                backend.read(GPU)
            assert refused.value.retryable
    assert backend.read(GPU) == before


def test_a_handle_from_before_a_reload_is_refused(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml]
) -> None:
    """It may by now be another GPU's: the library never sees it, and the caller is to begin again."""
    nvml = through_pynvml(simulate(mode="mig"))
    gpu = nvml.gpu_by_address(GPU)
    instance = nvml.create_gpu_instance(gpu, 19, Placement(0, 1))
    pynvml.nvmlLib.state = Code.DRIVER_NOT_LOADED
    with pytest.raises(NvmlError):
        nvml.mig_mode(gpu)
    nvml.gpu_by_address(GPU)
    for ask in (lambda: nvml.gpu_instance_info(instance), lambda: nvml.mig_mode(gpu)):
        with pytest.raises(NvmlError, match="outdated handle") as refused:
            ask()
        assert refused.value.retryable


def test_a_gpu_that_is_plugged_in_is_found(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml], tmp_path: Path
) -> None:
    """NVML is initialised anew when a device was bound since, and not when one has gone, nor at any other look."""
    late = tmp_path / "sys/bus/pci/drivers/nvidia/0000:43:00.0"
    backend = NvidiaBackend(through_pynvml(simulate(count=2)))
    seen = []
    for plugged in (False, False, True, True, False, True):
        late.unlink(missing_ok=True)
        if plugged:
            bind(tmp_path, late.name)
        seen.append((len(discover(backend).gpus), pynvml.nvmlLib.inits))
    assert seen == [(1, 1), (1, 1), (2, 2), (2, 2), (1, 2), (2, 3)]


def test_only_what_the_driver_has_itself_is_a_gpu(tmp_path: Path) -> None:
    """Ascending; the virtual functions of a GPU are none, and neither are the driver's own files."""
    bind(tmp_path, "0000:43:00.0", GPU, "0000:43:00.4")
    (tmp_path / "sys/bus/pci/devices/0000:43:00.4/physfn").mkdir()
    (tmp_path / "sys/bus/pci/drivers/nvidia/bind").touch()
    assert PynvmlNvml(DriverRoot(host_root=tmp_path)).pci_addresses() == (GPU, "0000:43:00.0")


def test_the_host_says_where_a_gpu_sits(tmp_path: Path) -> None:
    """Root and NUMA node come from sysfs; what the kernel does not know is None."""
    bridge = tmp_path / "sys/devices/pci0000:1a/0000:1a:01.0"
    devices = tmp_path / "sys/bus/pci/devices"
    devices.mkdir(parents=True)
    for address, numa_node in [(GPU, "1\n"), ("0000:43:00.0", "-1\n")]:
        (bridge / address).mkdir(parents=True)
        (bridge / address / "numa_node").write_text(numa_node)
        (devices / address).symlink_to(bridge / address)
    nvml = PynvmlNvml(DriverRoot(host_root=tmp_path))
    assert nvml.pci_place(GPU) == PciPlace(root="pci0000:1a", numa_node=1)
    assert nvml.pci_place("0000:43:00.0") == PciPlace(root="pci0000:1a", numa_node=None)
    assert nvml.pci_place("0000:52:00.0") == PciPlace()


def test_a_capability_that_the_kernel_does_not_list_is_named(tmp_path: Path) -> None:
    """No table, or no such line: the error names both."""
    with pytest.raises(VendorError, match=r"gpu0/gi1/access in .*/mig-minors"):
        PynvmlNvml(DriverRoot(host_root=tmp_path)).capability_minor("gpu0/gi1/access")


def test_users_of_a_gpu_are_others(
    simulate: Simulate, through_pynvml: Callable[[SimulatedNvml], PynvmlNvml], tmp_path: Path
) -> None:
    """Processes of the host with the GPU's node open; this one, whose NVML has it open, is no obstacle to be named."""
    nvml = through_pynvml(simulate(count=2))
    for pid, name, node in ((1, "plugin", 1), (7, "dcgm", 1), (8, "other", 0)):
        descriptors = tmp_path / f"proc/{pid}/fd"
        descriptors.mkdir(parents=True)
        (descriptors / "3").symlink_to(f"/dev/nvidia{node}")
        (descriptors.parent / "comm").write_text(f"{name}\n")
    (tmp_path / "proc/self").symlink_to("1")
    assert nvml.users(nvml.gpu_by_address("0000:43:00.0")) == ("dcgm (PID 7)",)
