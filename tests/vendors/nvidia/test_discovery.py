"""What the backend finds: every field from NVML, per-GPU faults, and drivers that do not say everything."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from dra_driver.model.device import (
    Gpu,
    Placement,
    Vendor,
)
from dra_driver.model.slices import Version
from dra_driver.ports import Backend
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.faults import set_faults

Simulate = Callable[..., SimulatedNvml]

GPU = "0000:1b:00.0"


def only_gpu(backend: Backend) -> Gpu:
    (gpu,) = discover(backend).gpus
    return gpu


def unsupported(*_: object) -> None:
    raise NvmlError(Code.NOT_SUPPORTED, "asking for what the driver lacks")


def test_a_whole_gpu_is_described_in_full(simulate: Simulate) -> None:
    """Every field that the model has is filled from NVML."""
    backend: Backend = NvidiaBackend(simulate())
    gpu = only_gpu(backend)
    assert (gpu.vendor, gpu.pci_address, gpu.index) == (Vendor.NVIDIA, GPU, 0)
    assert (gpu.product_name, gpu.architecture) == ("NVIDIA H100 80GB HBM3", "Hopper")
    assert (gpu.compute_capability, gpu.driver_version) == ("9.0", "580.105.08")
    assert (gpu.memory_bytes, gpu.compute_units) == (81559 << 20, 132)
    assert (gpu.numa_node, gpu.pcie_root) == (0, "pci0000:1a")
    assert gpu.engines == {"copy-engines": 8, "decoders": 7, "jpeg-engines": 7, "ofa-engines": 1}
    assert gpu.extras == {"cudaDriverVersion": Version("13.0.0"), "pciDeviceId": "0x2330"}
    assert gpu.instances == ()


def test_what_a_gpu_can_become_is_read_from_nvml(simulate: Simulate) -> None:
    """Positions and counters are the GPU's totals; a profile says what it takes of them, without zeros."""
    partitioning = only_gpu(
        NvidiaBackend(simulate(model="A100-SXM4-40GB", mode="mig"))
    ).partitioning
    assert partitioning is not None
    assert (partitioning.mode, partitioning.whole_mode, partitioning.positions) == (
        "mig",
        "whole",
        8,
    )
    assert partitioning.counters == {
        "compute-slices": 7,
        "copy-engines": 7,
        "decoders": 5,
        "jpeg-engines": 1,
        "ofa-engines": 1,
    }
    profile = partitioning.profile("3g.20gb")
    assert profile is not None
    assert profile.consumes == {"compute-slices": 3, "copy-engines": 3, "decoders": 2}
    assert profile.placements == (Placement(0, 4), Placement(4, 4))
    assert (profile.memory_bytes, profile.compute_units) == (19968 << 20, 42)
    assert (profile.mode, profile.stages) == ("mig", ("gpu-instance", "compute-instance"))


@pytest.mark.parametrize(
    ("model", "switchable"), [("A30", False), ("A100-SXM4-80GB", False), ("H200-SXM5-141GB", True)]
)
def test_only_modes_that_need_no_reset_are_switchable(
    simulate: Simulate, model: str, *, switchable: bool
) -> None:
    """Hopper and newer; nobody resets a GPU behind its users."""
    partitioning = only_gpu(NvidiaBackend(simulate(model=model))).partitioning
    assert partitioning is not None
    assert partitioning.switchable is switchable


def test_a_gpu_without_mig_is_whole_and_nothing_else(simulate: Simulate) -> None:
    """No partitioning, no engines that NVML could name."""
    gpu = only_gpu(NvidiaBackend(simulate(model="L40S")))
    assert gpu.partitioning is None
    assert (gpu.compute_units, gpu.engines, gpu.instances) == (142, {}, ())


@pytest.mark.parametrize("lacking", ["core_count", "is_mig_resetless", "mig_uuids"])
def test_a_driver_that_says_less_still_has_partitions(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """What nobody said is taken from the profiles, or taken for a no."""
    monkeypatch.setattr(SimulatedNvml, lacking, unsupported)
    gpu = only_gpu(NvidiaBackend(simulate()))
    assert gpu.compute_units == 132
    assert gpu.partitioning is not None
    assert gpu.partitioning.switchable is (lacking != "is_mig_resetless")


@pytest.mark.parametrize("lacking", ["memory_bytes", "placements", "gpu_profile", "mig_mode"])
def test_a_driver_that_says_nothing_of_profiles_has_whole_gpus(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    """Drivers up to 535 with MIG off, and boards without memory of their own: no partitions, but no fault either."""
    monkeypatch.setattr(SimulatedNvml, lacking, unsupported)
    gpu = only_gpu(NvidiaBackend(simulate()))
    assert gpu.product_name == "NVIDIA H100 80GB HBM3"
    assert gpu.partitioning is None


def test_a_lost_gpu_is_a_fault_and_hides_nobody(simulate: Simulate, tmp_path: Path) -> None:
    """The fault names GPU, cause and cure; the others are found."""
    backend = NvidiaBackend(simulate(count=8))
    set_faults(tmp_path / "gpus", {"0000:52:00.0": {"error": "GPU_IS_LOST"}})
    found = discover(backend)
    assert len(found.gpus) == 7
    (fault,) = found.faults
    assert fault.pci_address == "0000:52:00.0"
    for word in ["0000:52:00.0", "GPU_IS_LOST", "reset the GPU"]:
        assert word in fault.message


def test_an_instance_split_by_others_is_nobodys_partition(simulate: Simulate) -> None:
    """A GPU instance with several small compute instances is reported, and never as a complete partition."""
    nvml = simulate(mode="mig")
    instance = nvml.create_gpu_instance(nvml.gpu_by_address(GPU), 9, Placement(4, 4))
    nvml.create_compute_instance(instance, 0)
    found, part = only_gpu(NvidiaBackend(nvml)).instances
    assert (part.profile, part.placement, part.complete) == (
        "1c.3g.40gb",
        Placement(4, 4, part=0),
        True,
    )
    assert not found.complete
