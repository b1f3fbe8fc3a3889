"""The measuring calls of the simulated NVML: what its devices do stands in `activity.json`, beside `faults.json`.

Without the file everything is idle. All figures of a device follow its SM activity, and that follows the clock, so a test
knows what it must see.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from dra_driver.config.load import SimulatedLoad, parse_loads
from dra_driver.model.errors import VendorError
from dra_driver.vendors.fault_file import FaultFile
from dra_driver.vendors.nvidia.nvml import Architecture, Code, MigMode, NvmlError
from dra_driver.vendors.nvidia.nvml_activity import (
    ClockReason,
    GpmMetric,
    MemoryUse,
    MigDevice,
    ProcessSample,
    RunningProcess,
    Utilization,
)
from dra_driver.vendors.nvidia.simulated_faults import meets_faults
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu
from dra_driver.vendors.nvidia.simulated_state import MigState, cut_of

_IDLE = SimulatedLoad()
_SHARES: Mapping[GpmMetric, float] = {
    GpmMetric.GRAPHICS_UTIL: 1.0,
    GpmMetric.SM_UTIL: 1.0,
    GpmMetric.SM_OCCUPANCY: 0.5,
    GpmMetric.ANY_TENSOR_UTIL: 0.4,
    GpmMetric.DRAM_BW_UTIL: 0.6,
}
"""What each figure is for a device whose SMs are all active."""

_IDLE_WATTS, _BUSY_WATTS = 70, 700
_IDLE_CELSIUS, _BUSY_CELSIUS = 30, 75


class MigStates(Protocol):
    """Where the instances are looked up."""

    def state(self, gpu: SimulatedGpu) -> MigState:
        """The GPU's mode and instances now; NOT_SUPPORTED without MIG."""


@dataclass(frozen=True, slots=True)
class _Device:
    """A MIG device's handle."""

    gpu: SimulatedGpu
    uuid: str
    profile_id: int


@dataclass(frozen=True, slots=True)
class _Sample:
    """`instance` is the GPU instance's id, None for the whole GPU; `load` is what stood in the file then."""

    gpu: SimulatedGpu
    instance: int | None
    taken_s: float
    load: SimulatedLoad


@meets_faults
class SimulatedActivity:
    """Implements `NvmlActivity` on simulated GPUs; `clock` gives seconds since 1970."""

    def __init__(
        self,
        states: MigStates,
        faults: FaultFile,
        path: Path,
        *,
        gpus: tuple[str, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._states = states
        self.faults = faults
        self._path = path
        self._gpus = gpus
        self._clock = clock

    def mig_devices(self, gpu: SimulatedGpu) -> tuple[MigDevice, ...]:
        """See NvmlActivity."""
        if not self._is_cut(gpu):
            return ()
        return tuple(
            MigDevice(
                instance=instance.id,
                compute=compute.id,
                uuid=compute.uuid,
                handle=_Device(gpu, compute.uuid, instance.profile_id),
            )
            for instance in self._states.state(gpu).instances
            for compute in instance.computes
        )

    def utilization(self, gpu: SimulatedGpu) -> Utilization:
        """See NvmlActivity. While any SM is active a kernel runs: this is why nobody should reclaim by it."""
        if self._is_cut(gpu):
            raise NvmlError(Code.NOT_SUPPORTED, "simulated NVML: utilization in MIG mode")
        sm = self._load(gpu.pci_address).sm_at(self._clock())
        return Utilization(gpu=100 if sm else 0, memory=round(sm * 60))

    def memory_use(self, device: SimulatedGpu | _Device) -> MemoryUse:
        """See NvmlActivity."""
        match device:
            case SimulatedGpu():
                key, total_mib = device.pci_address, device.board.memory_mib
            case _Device():
                cut = cut_of(device.gpu.board, device.profile_id)
                key, total_mib = device.uuid, cut.profile.memory_mib
                if key not in {one.uuid for one in self.mig_devices(device.gpu)}:
                    raise NvmlError(Code.NOT_FOUND, f"simulated NVML: MIG device {key}")
        return MemoryUse(total=total_mib << 20, used=self._load(key).memory_mib << 20)

    def power_milliwatts(self, gpu: SimulatedGpu) -> int:
        """See NvmlActivity."""
        sm = self._load(gpu.pci_address).sm_at(self._clock())
        return round((_IDLE_WATTS + sm * (_BUSY_WATTS - _IDLE_WATTS)) * 1000)

    def temperature_celsius(self, gpu: SimulatedGpu) -> int:
        """See NvmlActivity."""
        sm = self._load(gpu.pci_address).sm_at(self._clock())
        return round(_IDLE_CELSIUS + sm * (_BUSY_CELSIUS - _IDLE_CELSIUS))

    def clock_reasons(self, gpu: SimulatedGpu) -> int:
        """See NvmlActivity. A simulated GPU knows heat alone."""
        return ClockReason.HW_THERMAL_SLOWDOWN if self.faults.of(gpu.pci_address).hot else 0

    def processes(self, gpu: SimulatedGpu) -> tuple[RunningProcess, ...]:
        """See NvmlActivity."""
        places: dict[str, tuple[int | None, int | None]] = {gpu.pci_address: (None, None)}
        if self._is_cut(gpu):
            places = {one.uuid: (one.instance, one.compute) for one in self.mig_devices(gpu)}
        return tuple(
            RunningProcess(
                pid=one.pid,
                memory_bytes=one.memory_mib << 20,
                instance=instance,
                compute=compute,
            )
            for device, (instance, compute) in places.items()
            for one in self._load(device).processes
        )

    def process_samples(self, gpu: SimulatedGpu, since_us: int) -> tuple[ProcessSample, ...]:
        """See NvmlActivity. The processes of a GPU have equal parts of its work."""
        if self._is_cut(gpu):
            raise NvmlError(Code.NOT_SUPPORTED, "simulated NVML: processes' samples in MIG mode")
        now_s, load = self._clock(), self._load(gpu.pci_address)
        now_us = int(now_s * 1e6)
        return tuple(
            ProcessSample(
                pid=one.pid,
                taken_at_us=now_us,
                sm=round(load.sm_at(now_s) * 100 / len(load.processes)),
            )
            for one in load.processes
            if now_us > since_us
        )

    def has_gpm(self, gpu: SimulatedGpu) -> bool:
        """See NvmlActivity."""
        return gpu.board.architecture >= Architecture.HOPPER

    def gpm_sample(self, gpu: SimulatedGpu, instance: int | None) -> _Sample:
        """See NvmlActivity."""
        if not self.has_gpm(gpu):
            raise NvmlError(Code.NOT_SUPPORTED, "simulated NVML: GPM before Hopper")
        key = gpu.pci_address
        if instance is not None:
            computes = self._states.state(gpu).instance(instance).computes
            key = computes[0].uuid if computes else ""
        return _Sample(gpu, instance, self._clock(), self._load(key))

    def gpm_percentages(self, earlier: _Sample, later: _Sample) -> Mapping[GpmMetric, float]:
        """See NvmlActivity. What the file says when the later sample is taken counts for all the time since the earlier."""
        if (earlier.gpu, earlier.instance) != (later.gpu, later.instance):
            raise NvmlError(Code.INVALID_ARGUMENT, "simulated NVML: samples of two devices")
        seconds = later.taken_s - earlier.taken_s
        if seconds <= 0:
            raise NvmlError(Code.INVALID_ARGUMENT, "simulated NVML: samples of one moment")
        load = later.load
        sm_seconds = load.sm_seconds(later.taken_s) - load.sm_seconds(earlier.taken_s)
        sm = max(0.0, min(1.0, sm_seconds / seconds))
        return {metric: sm * share * 100 for metric, share in _SHARES.items()}

    def gpm_free(self, sample: _Sample) -> None:
        """See NvmlActivity."""

    def address(self, handle: SimulatedGpu | _Device | _Sample) -> str:
        """The PCI address of the GPU that the handle is about."""
        return handle.pci_address if isinstance(handle, SimulatedGpu) else handle.gpu.pci_address

    def _is_cut(self, gpu: SimulatedGpu) -> bool:
        return bool(gpu.board.cuts) and self._states.state(gpu).mode is MigMode.ENABLED

    def _load(self, device: str) -> SimulatedLoad:
        try:
            return parse_loads(self._path.read_bytes(), self._gpus).get(device, _IDLE)
        except FileNotFoundError:
            return _IDLE
        except ValueError as error:
            raise VendorError(f"{self._path}: {error}", retryable=True) from error
