"""What real boards report about themselves: simulation's only source of truth, never used beside real hardware.

Amounts are those that `nvidia-smi mig -lgip` prints, placements those of `-lgipp`, both from NVIDIA's MIG user guide and
from outputs that users published. Values marked (est.) were seen nowhere and are filled in from sibling boards.
"""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.nvml import Architecture, GpuProfile


@dataclass(frozen=True, slots=True)
class Cut:
    """One way to cut a board. `index` is one of GPU_PROFILE_INDEXES."""

    index: int
    profile: GpuProfile
    placements: tuple[Placement, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One GPU model. `cuts` is empty on boards without MIG; `nvlinks` are those that a full set of bridges or switches connects."""

    product_name: str
    device_id: int
    architecture: Architecture
    compute_capability: tuple[int, int]
    memory_mib: int
    cores: int
    nvlinks: int = 0
    cuts: tuple[Cut, ...] = ()

    @property
    def is_mig_resetless(self) -> bool:
        """Since Hopper the mode is switched without a reset."""
        return bool(self.cuts) and self.architecture >= Architecture.HOPPER


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a profile has in common on all boards of a family."""

    index: int
    id: int
    slices: int
    size: int
    starts: tuple[int, ...]
    limit: int


_SEVEN_SLICES = {
    "1g": _Shape(0, 19, 1, 1, (0, 1, 2, 3, 4, 5, 6), 7),
    "1g+me": _Shape(7, 20, 1, 1, (0, 1, 2, 3, 4, 5, 6), 1),
    "1g double": _Shape(9, 15, 1, 2, (0, 2, 4, 6), 4),
    "2g": _Shape(1, 14, 2, 2, (0, 2, 4), 3),
    "3g": _Shape(2, 9, 3, 4, (0, 4), 2),
    "4g": _Shape(3, 5, 4, 4, (0,), 1),
    "7g": _Shape(4, 0, 7, 8, (0,), 1),
}

_A30 = {
    "1g": _Shape(0, 14, 1, 1, (0, 1, 2, 3), 4),
    "1g+me": _Shape(7, 21, 1, 1, (0, 1, 2, 3), 1),
    "2g": _Shape(1, 5, 2, 2, (0, 2), 2),
    "2g+me": _Shape(8, 6, 2, 2, (0, 2), 1),
    "4g": _Shape(3, 0, 4, 4, (0,), 1),
}

# Starts (est.): as on the A30.
_RTX_PRO = {
    "1g": _Shape(0, 14, 1, 1, (0, 1, 2, 3), 4),
    "1g+me": _Shape(7, 21, 1, 1, (0, 1, 2, 3), 1),
    "1g+gfx": _Shape(10, 47, 1, 1, (0, 1, 2, 3), 4),
    "1g+me.all": _Shape(15, 65, 1, 1, (0, 1, 2, 3), 1),
    "1g-me": _Shape(13, 67, 1, 1, (0, 1, 2, 3), 4),
    "2g": _Shape(1, 5, 2, 2, (0, 2), 2),
    "2g+gfx": _Shape(11, 35, 2, 2, (0, 2), 2),
    "2g+me.all": _Shape(16, 64, 2, 2, (0, 2), 1),
    "2g-me": _Shape(14, 66, 2, 2, (0, 2), 2),
    "4g": _Shape(3, 0, 4, 4, (0,), 1),
    "4g+gfx": _Shape(12, 32, 4, 4, (0,), 1),
}


def _cuts(
    family: dict[str, _Shape], amounts: dict[str, tuple[int, int, int, int, int, int, int]]
) -> tuple[Cut, ...]:
    """Amounts: memory in MiB, multiprocessors, then copy, decode, encode, JPEG and OFA engines."""
    cuts = []
    for name, (memory_mib, multiprocessors, copy, decode, encode, jpeg, ofa) in amounts.items():
        shape = family[name]
        profile = GpuProfile(
            id=shape.id,
            slices=shape.slices,
            limit=shape.limit,
            multiprocessors=multiprocessors,
            copy_engines=copy,
            decoders=decode,
            encoders=encode,
            jpeg_engines=jpeg,
            ofa_engines=ofa,
            memory_mib=memory_mib,
        )
        placements = tuple(Placement(start, shape.size) for start in shape.starts)
        cuts.append(Cut(shape.index, profile, placements))
    return tuple(cuts)


BOARDS = {
    "A30": Board(
        product_name="NVIDIA A30",
        device_id=0x20B7,
        architecture=Architecture.AMPERE,
        compute_capability=(8, 0),
        memory_mib=24576,
        cores=56 * 64,
        nvlinks=4,
        cuts=_cuts(
            _A30,
            {
                "1g": (5836, 14, 1, 0, 0, 0, 0),
                "1g+me": (5836, 14, 1, 1, 0, 1, 1),
                "2g": (11672, 28, 2, 2, 0, 0, 0),
                "2g+me": (11672, 28, 2, 2, 0, 1, 1),
                "4g": (23344, 56, 4, 4, 0, 1, 1),
            },
        ),
    ),
    "A100-SXM4-40GB": Board(
        product_name="NVIDIA A100-SXM4-40GB",
        device_id=0x20B0,
        architecture=Architecture.AMPERE,
        compute_capability=(8, 0),
        memory_mib=40960,
        cores=108 * 64,
        nvlinks=12,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (4864, 14, 1, 0, 0, 0, 0),
                "1g+me": (4864, 14, 1, 1, 0, 1, 1),
                "1g double": (9856, 14, 1, 1, 0, 0, 0),
                "2g": (9856, 28, 2, 1, 0, 0, 0),
                "3g": (19968, 42, 3, 2, 0, 0, 0),
                "4g": (19968, 56, 4, 2, 0, 0, 0),
                "7g": (40192, 98, 7, 5, 0, 1, 1),
            },
        ),
    ),
    "A100-SXM4-80GB": Board(
        product_name="NVIDIA A100-SXM4-80GB",
        device_id=0x20B2,
        architecture=Architecture.AMPERE,
        compute_capability=(8, 0),
        memory_mib=81920,
        cores=108 * 64,
        nvlinks=12,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (9856, 14, 1, 0, 0, 0, 0),
                "1g+me": (9856, 14, 1, 1, 0, 1, 1),
                "1g double": (19968, 14, 1, 1, 0, 0, 0),
                "2g": (19968, 28, 2, 1, 0, 0, 0),
                "3g": (40192, 42, 3, 2, 0, 0, 0),
                "4g": (40192, 56, 4, 2, 0, 0, 0),
                "7g": (80384, 98, 7, 5, 0, 1, 1),
            },
        ),
    ),
    "H100-SXM5-80GB": Board(
        product_name="NVIDIA H100 80GB HBM3",
        device_id=0x2330,
        architecture=Architecture.HOPPER,
        compute_capability=(9, 0),
        memory_mib=81559,
        cores=132 * 128,
        nvlinks=18,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (9984, 16, 1, 1, 0, 1, 0),
                "1g+me": (9984, 16, 1, 1, 0, 1, 1),
                "1g double": (20096, 26, 1, 1, 0, 1, 0),
                "2g": (20096, 32, 2, 2, 0, 2, 0),
                "3g": (40448, 60, 3, 3, 0, 3, 0),
                "4g": (40448, 64, 4, 4, 0, 4, 0),
                "7g": (81152, 132, 8, 7, 0, 7, 1),
            },
        ),
    ),
    "H100-NVL-94GB": Board(
        product_name="NVIDIA H100 NVL",
        device_id=0x2321,
        architecture=Architecture.HOPPER,
        compute_capability=(9, 0),
        memory_mib=95830,
        cores=132 * 128,
        nvlinks=12,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (11008, 16, 1, 1, 0, 1, 0),
                "1g+me": (11008, 16, 1, 1, 0, 1, 1),
                "1g double": (22144, 26, 1, 1, 0, 1, 0),
                "2g": (22144, 32, 2, 2, 0, 2, 0),
                "3g": (47488, 60, 3, 3, 0, 3, 0),
                "4g": (47488, 64, 4, 4, 0, 4, 0),
                "7g": (95360, 132, 8, 7, 0, 7, 1),
            },
        ),
    ),
    "H200-SXM5-141GB": Board(
        product_name="NVIDIA H200",
        device_id=0x2335,
        architecture=Architecture.HOPPER,
        compute_capability=(9, 0),
        memory_mib=143771,
        cores=132 * 128,
        nvlinks=18,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (16384, 16, 1, 1, 0, 1, 0),
                "1g+me": (16384, 16, 1, 1, 0, 1, 1),
                "1g double": (33024, 26, 1, 1, 0, 1, 0),
                "2g": (33024, 32, 2, 2, 0, 2, 0),
                "3g": (71168, 60, 3, 3, 0, 3, 0),
                "4g": (71168, 64, 4, 4, 0, 4, 0),
                "7g": (143104, 132, 8, 7, 0, 7, 1),
            },
        ),
    ),
    "B200-SXM-180GB": Board(
        product_name="NVIDIA B200",
        device_id=0x2901,
        architecture=Architecture.BLACKWELL,
        compute_capability=(10, 0),
        memory_mib=183359,
        cores=148 * 128,
        nvlinks=18,
        cuts=_cuts(
            _SEVEN_SLICES,
            {
                "1g": (20992, 18, 2, 1, 0, 1, 0),
                "1g+me": (20992, 18, 2, 1, 0, 1, 1),
                "1g double": (45312, 30, 2, 1, 0, 1, 0),
                "2g": (45312, 36, 4, 2, 0, 2, 0),
                "3g": (91136, 70, 6, 3, 0, 3, 0),  # memory and multiprocessors (est.)
                "4g": (91136, 72, 8, 4, 0, 4, 0),  # memory and multiprocessors (est.)
                "7g": (182528, 148, 16, 7, 0, 7, 1),  # memory (est.)
            },
        ),
    ),
    "RTX-PRO-6000-96GB": Board(
        product_name="NVIDIA RTX PRO 6000 Blackwell Server Edition",
        device_id=0x2BB5,
        architecture=Architecture.BLACKWELL,
        compute_capability=(12, 0),
        memory_mib=97887,
        cores=188 * 128,
        cuts=_cuts(
            _RTX_PRO,
            {
                "1g": (24186, 46, 1, 1, 1, 1, 0),
                "1g+me": (24186, 46, 1, 1, 1, 1, 1),
                "1g+gfx": (24186, 46, 1, 1, 1, 1, 0),
                "1g+me.all": (24186, 46, 1, 4, 4, 4, 1),
                "1g-me": (24186, 46, 1, 0, 0, 0, 0),
                "2g": (48517, 94, 2, 2, 2, 2, 0),
                "2g+gfx": (48517, 94, 2, 2, 2, 2, 0),
                "2g+me.all": (48517, 94, 2, 4, 4, 4, 1),
                "2g-me": (48517, 94, 2, 0, 0, 0, 0),
                "4g": (97280, 188, 4, 4, 4, 4, 1),
                "4g+gfx": (97280, 188, 4, 4, 4, 4, 1),
            },
        ),
    ),
    "L40S": Board(
        product_name="NVIDIA L40S",
        device_id=0x26B9,
        architecture=Architecture.ADA,
        compute_capability=(8, 9),
        memory_mib=46068,
        cores=142 * 128,
    ),
}
"""By the name that machine profiles use. The L40S has no MIG."""
