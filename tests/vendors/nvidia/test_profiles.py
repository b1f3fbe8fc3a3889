"""The catalogue that simulation lives on, and the names made from it."""

from __future__ import annotations

import pytest

from dra_driver.config.machine import load_machine
from dra_driver.model.device import PartitionProfile
from dra_driver.model.names import partition_name
from dra_driver.vendors.discovery import discover
from dra_driver.vendors.nvidia.backend import NvidiaBackend
from dra_driver.vendors.nvidia.mig_names import profile_name
from dra_driver.vendors.nvidia.profiles import BOARDS
from dra_driver.vendors.nvidia.simulated import SimulatedNvml


@pytest.mark.parametrize(
    ("model", "names"),
    [
        ("A30", "1g.6gb 1g.6gb+me 2g.12gb 2g.12gb+me 4g.24gb"),
        ("A100-SXM4-40GB", "1g.5gb 1g.5gb+me 1g.10gb 2g.10gb 3g.20gb 4g.20gb 7g.40gb"),
        ("A100-SXM4-80GB", "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H100-SXM5-80GB", "1g.10gb 1g.10gb+me 1g.20gb 2g.20gb 3g.40gb 4g.40gb 7g.80gb"),
        ("H100-NVL-94GB", "1g.12gb 1g.12gb+me 1g.24gb 2g.24gb 3g.47gb 4g.47gb 7g.94gb"),
        ("H200-SXM5-141GB", "1g.18gb 1g.18gb+me 1g.35gb 2g.35gb 3g.71gb 4g.71gb 7g.141gb"),
        ("B200-SXM-180GB", "1g.23gb 1g.23gb+me 1g.45gb 2g.45gb 3g.90gb 4g.90gb 7g.180gb"),
        (
            "RTX-PRO-6000-96GB",
            "1g.24gb 1g.24gb+me 1g.24gb+gfx 1g.24gb+me.all 1g.24gb-me 2g.48gb 2g.48gb+gfx 2g.48gb+me.all 2g.48gb-me 4g.96gb 4g.96gb+gfx",
        ),
        ("L40S", ""),
    ],
)
def test_names_computed_from_memory_are_nvidias(model: str, names: str) -> None:
    """Every board's profiles get the names that NVIDIA's own tools print."""
    board = BOARDS[model]
    computed = [profile_name(c.index, c.profile, board.memory_mib << 20) for c in board.cuts]
    assert computed == names.split()


def test_device_names_are_unique_on_every_board() -> None:
    """No two partitions of one GPU, of any profile or placement, share a device name."""
    for board in BOARDS.values():
        device_names = [
            partition_name("0000:1b:00.0", _profile(name), placement)
            for cut in board.cuts
            for name in [profile_name(cut.index, cut.profile, board.memory_mib << 20)]
            for placement in cut.placements
        ]
        assert len(device_names) == len(set(device_names))


def test_profile_ids_and_indexes_are_unique_on_every_board() -> None:
    """Both numbers identify a profile, and they are different numbers."""
    for board in BOARDS.values():
        assert len({cut.profile.id for cut in board.cuts}) == len(board.cuts)
        assert len({cut.index for cut in board.cuts}) == len(board.cuts)


@pytest.mark.parametrize(
    "machine",
    [
        "8xa100-40",
        "8xa100-80",
        "4xa30",
        "8xh100-80",
        "8xh100-94",
        "8xh200",
        "8xb200",
        "8xrtx-pro-6000",
    ],
)
def test_shipped_machines_can_be_discovered(
    machine: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Each NVIDIA machine that we ship has as many sound GPUs as its name says, none of them a fault."""
    nvml = SimulatedNvml(load_machine(machine), node="n", state_dir=tmp_path_factory.mktemp("gpus"))
    found = discover(NvidiaBackend(nvml))
    assert len(found.gpus) == int(machine[0])
    assert found.faults == ()


def _profile(name: str) -> PartitionProfile:
    return PartitionProfile(
        name=name,
        mode="mig",
        memory_bytes=0,
        compute_units=0,
        placements=(),
        consumes={},
        stages=(),
    )
