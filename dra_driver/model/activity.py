"""What GPUs and partitions do, as their drivers measure it.

No data is None, and never 0: whoever reclaims idle hardware must be able to tell the two apart. Ratios are between 0 and 1, of
what that device has: an instance that is fully busy says 1, however small it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Throttle: TypeAlias = Literal["power", "thermal"]
"""Why clocks are lower than they could be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProcess:
    """A process that has the device open. `pid` is the host's; `sm_ratio` is its part of the time that kernels ran."""

    pid: int
    memory_bytes: int | None = None
    sm_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What one device, a GPU or a partition on it, did until `taken_at` (seconds since 1970); `uuid` says which hardware it is.

    `utilization`: the part of the time in which any kernel ran, `memory_utilization`: in which memory was read or written; of
    whole GPUs only, over the driver's own short period. `engine_activity` to `dram_activity` are averages since the device was
    last measured: compute or graphics engine in use, multiprocessors with work, resident warps of those possible, tensor cores in use, memory
    bandwidth used. `memory_used_bytes` leaves out what the driver keeps for itself.
    """

    uuid: str
    taken_at: float
    utilization: float | None = None
    memory_utilization: float | None = None
    engine_activity: float | None = None
    sm_activity: float | None = None
    sm_occupancy: float | None = None
    tensor_activity: float | None = None
    dram_activity: float | None = None
    memory_used_bytes: int | None = None
    memory_total_bytes: int | None = None
    power_watts: float | None = None
    temperature_celsius: int | None = None
    throttled: frozenset[Throttle] | None = None
    processes: tuple[GpuProcess, ...] | None = None
