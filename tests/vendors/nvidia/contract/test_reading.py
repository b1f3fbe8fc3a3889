"""What a GPU says about itself: on simulated boards, on the C library, and unchanged on the GPUs of this machine."""

from __future__ import annotations

import re
from functools import partial

import pytest

from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.nvml import Architecture, Code, MigMode
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.profiles import BOARDS
from tests.vendors.nvidia.contract.boards import first, on_all_boards, profiles, refusal
from tests.vendors.nvidia.contract.conftest import Hardware

_UUID = "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}"


def test_a_gpu_says_what_it_is(readable: NvmlLibrary) -> None:
    """Each fact has the shape that discovery reads, and no two GPUs share address, UUID or minor."""
    gpus = {at: readable.gpu_by_address(at) for at in readable.pci_addresses()}
    assert gpus
    assert re.fullmatch(r"\d+\.\d+(\.\d+)?", readable.driver_version())
    assert readable.cuda_version() >= 11000
    for gpu in gpus.values():
        assert re.fullmatch(f"GPU-{_UUID}", readable.uuid(gpu))
        assert readable.name(gpu).isprintable()
        assert readable.architecture(gpu) >= Architecture.KEPLER
        assert readable.compute_capability(gpu) >= (3, 0)
        assert readable.memory_bytes(gpu) > 1 << 30
        assert readable.core_count(gpu) % 64 == 0
        assert 0 < readable.pci_device_id(gpu) < 1 << 16
    assert len({readable.uuid(gpu) for gpu in gpus.values()}) == len(gpus)
    assert len({readable.minor(gpu) for gpu in gpus.values()}) == len(gpus)


def test_a_gpu_that_is_not_there_is_not_found(readable: NvmlLibrary) -> None:
    """The address of no device is NOT_FOUND, and not an invalid argument."""
    assert refusal(lambda: readable.gpu_by_address("0000:fe:1f.0")) == Code.NOT_FOUND


def test_profiles_are_consistent(readable: NvmlLibrary) -> None:
    """Whether MIG is on or off: ids are unique, places lie on one axis, equally wide, and hold at least one instance."""
    gpu = first(readable)
    found = dict(profiles(readable, gpu))
    assert len({profile.id for profile in found.values()}) == len(found)
    axis = 0
    for profile in found.values():
        places = readable.placements(gpu, profile.id)
        assert places
        (size,) = {place.size for place in places}
        assert all(place.start % size == 0 for place in places)
        assert profile.limit >= 1
        axis = max(axis, *(place.start + place.size for place in places))
    assert axis in {0, 2, 4, 8}
    assert all(
        0 < profile.memory_mib << 20 < readable.memory_bytes(gpu) for profile in found.values()
    )


def test_mig_off_is_no_error_where_devices_are_listed(readable: NvmlLibrary) -> None:
    """With MIG off, or none at all, there are no MIG devices; GPU instances cannot even be asked for."""
    gpu = first(readable)
    found = dict(profiles(readable, gpu))
    if found and readable.mig_mode(gpu)[0] == MigMode.ENABLED:
        pytest.skip("MIG is on, and this GPU is not to be changed")
    assert readable.mig_uuids(gpu) == {}
    for profile in found.values():
        ask = partial(readable.gpu_instances, gpu, profile.id)
        assert refusal(ask) == Code.NOT_SUPPORTED


def test_the_backend_reads_it_without_a_fault(readable: NvmlLibrary) -> None:
    """Each GPU that the kernel lists becomes one of ours."""
    found = discover(NvidiaBackend(readable))
    assert found.faults == ()
    assert tuple(gpu.pci_address for gpu in found.gpus) == readable.pci_addresses()


@on_all_boards
def test_a_boards_numbers_arrive_unchanged(hardware: Hardware, model: str) -> None:
    """Every number of the board's description, through structures and out-arguments."""
    nvml, board = hardware(model=model), BOARDS[model]
    gpu = first(nvml)
    assert nvml.name(gpu) == board.product_name
    assert nvml.pci_device_id(gpu) == board.device_id
    assert nvml.architecture(gpu) == board.architecture
    assert nvml.compute_capability(gpu) == board.compute_capability
    assert nvml.memory_bytes(gpu) == board.memory_mib << 20
    assert nvml.core_count(gpu) == board.cores
    assert nvml.mig_mode(gpu) == (MigMode.DISABLED, MigMode.DISABLED)
    assert nvml.is_mig_resetless(gpu) == board.is_mig_resetless
    assert dict(profiles(nvml, gpu)) == {cut.index: cut.profile for cut in board.cuts}
    for cut in board.cuts:
        assert nvml.placements(gpu, cut.profile.id) == cut.placements


def test_a_board_without_mig_says_so(hardware: Hardware) -> None:
    """An L40S has neither mode nor profiles, and no MIG devices."""
    nvml = hardware(model="L40S")
    gpu = first(nvml)
    assert refusal(lambda: nvml.mig_mode(gpu)) == Code.NOT_SUPPORTED
    assert refusal(lambda: nvml.set_mig_mode(gpu, MigMode.ENABLED)) == Code.NOT_SUPPORTED
    assert not nvml.is_mig_resetless(gpu)
    assert dict(profiles(nvml, gpu)) == {}
    assert nvml.mig_uuids(gpu) == {}
