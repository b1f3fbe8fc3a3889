"""The part of NVML that measures, as a protocol: utilization, memory, power, processes, and GPM (Hopper and newer).

As in `nvml`: one method per library call, plain numbers and frozen values, every method raises NvmlError. All of it only looks.
Handles of GPUs are those that `Nvml.gpu_by_address` gave.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Protocol

from dra_driver.vendors.nvidia.nvml import Handle, Nvml


class GpmMetric(IntEnum):
    """`nvmlGpmMetricId_t`: those that we ask for. All are percentages, averaged over the time between two samples."""

    GRAPHICS_UTIL = 1
    SM_UTIL = 2
    SM_OCCUPANCY = 3
    ANY_TENSOR_UTIL = 5
    DRAM_BW_UTIL = 10


class ClockReason(IntFlag):
    """`nvmlClocksEventReason*`: those that say that the GPU is slower than its work would let it be."""

    SW_POWER_CAP = 0x4
    SW_THERMAL_SLOWDOWN = 0x20
    HW_THERMAL_SLOWDOWN = 0x40
    HW_POWER_BRAKE = 0x80


@dataclass(frozen=True, slots=True, kw_only=True)
class Utilization:
    """`nvmlUtilization_t`, in percent."""

    gpu: int
    memory: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryUse:
    """`nvmlMemory_v2_t`: `used` is without what the driver reserves."""

    total: int
    used: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningProcess:
    """`nvmlProcessInfo_t`. `instance` and `compute` are the MIG device's numbers, None on a whole GPU."""

    pid: int
    memory_bytes: int | None
    instance: int | None = None
    compute: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSample:
    """`nvmlProcessUtilizationSample_t`, in percent; `taken_at_us` is in microseconds since 1970."""

    pid: int
    taken_at_us: int
    sm: int


@dataclass(frozen=True, slots=True, kw_only=True)
class MigDevice:
    """A compute instance as NVML gives it out for measuring: its numbers, and a handle of its own kind."""

    instance: int
    compute: int
    uuid: str
    handle: Handle


class NvmlActivity(Protocol):
    """The measuring calls. A `device` is a GPU's handle or a MigDevice's."""

    def mig_devices(self, gpu: Handle) -> tuple[MigDevice, ...]:
        """All that there are now."""

    def utilization(self, gpu: Handle) -> Utilization:
        """Over the driver's last period, a second at most; NOT_SUPPORTED in MIG mode."""

    def memory_use(self, device: Handle) -> MemoryUse:
        """Now; NOT_SUPPORTED where the GPU has no memory of its own."""

    def power_milliwatts(self, gpu: Handle) -> int:
        """Of the whole board."""

    def temperature_celsius(self, gpu: Handle) -> int:
        """Of the chip."""

    def clock_reasons(self, gpu: Handle) -> int:
        """The bits of ClockReason and others."""

    def processes(self, gpu: Handle) -> tuple[RunningProcess, ...]:
        """Those that compute, by MPS or without, and those that draw, each once, on the GPU and all of its MIG devices."""

    def process_samples(self, gpu: Handle, since_us: int) -> tuple[ProcessSample, ...]:
        """What was sampled after that time; NOT_SUPPORTED in MIG mode."""

    def has_gpm(self, gpu: Handle) -> bool:
        """Whether the GPU can be sampled."""

    def gpm_sample(self, gpu: Handle, instance: int | None) -> Handle:
        """Counters as they are now, of the GPU or of the GPU instance of that id; must be freed."""

    def gpm_percentages(self, earlier: Handle, later: Handle) -> Mapping[GpmMetric, float]:
        """What lies between two samples of one device; what this GPU does not count is missing."""

    def gpm_free(self, sample: Handle) -> None:
        """Give the sample's memory back; it is not used again."""


class MeasuringNvml(Nvml, Protocol):
    """The library with its measuring calls."""

    @property
    def activity(self) -> NvmlActivity:
        """Over the same initialisation, so that handles are good for both."""
