"""Names of MIG profiles and identities of MIG instances."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dra_driver.model.errors import VendorError
from dra_driver.vendors.nvidia.nvml import GPU_PROFILE_SUFFIXES, GpuProfile

_GIB = 1 << 30
_IDENTITY = re.compile(r"gi-(\d+)(?:/ci-(\d+))?")


def profile_name(index: int, profile: GpuProfile, gpu_memory_bytes: int) -> str:
    """`3g.40gb`, `1g.10gb+me`: as NVIDIA's tools write it.

    The gigabytes are the profile's share of the GPU in eighths, rounded up, times the GPU's memory in GiB, rounded up;
    halves round up. They are a name, not an amount: the memory a user gets is less.
    """
    eighths = -(-8 * (profile.memory_mib << 20) // gpu_memory_bytes)
    gigabytes = (2 * eighths * -(-gpu_memory_bytes // _GIB) + 8) // 16
    return f"{profile.slices}g.{gigabytes}gb{GPU_PROFILE_SUFFIXES.get(index, '')}"


def part_name(slices: int, whole: str) -> str:
    """`1c.3g.40gb`: so many compute slices of a partition of that profile."""
    return f"{slices}c.{whole}"


@dataclass(frozen=True, slots=True)
class Identity:
    """`gi-3`, or `gi-3/ci-0` with its compute instance."""

    instance: int
    compute: int | None = None

    def __str__(self) -> str:
        return f"gi-{self.instance}" + (f"/ci-{self.compute}" if self.compute is not None else "")

    @classmethod
    def parse(cls, text: str, gpu: str) -> Identity:
        """The identity that was written like that; VendorError, as only a damaged record can be wrong."""
        match = _IDENTITY.fullmatch(text)
        if match is None:
            raise VendorError(
                f"GPU {gpu}: {text!r} names no MIG instance (gi-3, gi-3/ci-0); its record is damaged"
            )
        instance, compute = match.groups()
        return cls(int(instance), None if compute is None else int(compute))
