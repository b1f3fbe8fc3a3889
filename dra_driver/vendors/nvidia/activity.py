"""What NVIDIA GPUs and their MIG devices do, as the vendor-neutral model. What one figure lacks never costs another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from math import isfinite, nan

from dra_driver.model.activity import Activity, GpuProcess, Throttle
from dra_driver.vendors.nvidia.gpm import GpmSampler, if_measured
from dra_driver.vendors.nvidia.nvml import Handle, MigMode
from dra_driver.vendors.nvidia.nvml_activity import (
    ClockReason,
    GpmMetric,
    MeasuringNvml,
    MemoryUse,
    MigDevice,
    ProcessSample,
    RunningProcess,
)

_POWER = ClockReason.SW_POWER_CAP | ClockReason.HW_POWER_BRAKE
_THERMAL = ClockReason.SW_THERMAL_SLOWDOWN | ClockReason.HW_THERMAL_SLOWDOWN


class ActivityMeter:
    """Measures GPUs; for each it keeps the counters of the last time, until `close`, or until NVML is given back.

    Calls about one GPU follow one another, those about different GPUs may come at once.
    """

    def __init__(self, nvml: MeasuringNvml, *, clock: Callable[[], float] = time.time) -> None:
        self._nvml = nvml
        self._calls = nvml.activity
        self._clock = clock
        self._gpm = GpmSampler(self._calls)
        self._sampled_at_us: dict[str, int] = {}

    def measure(self, pci_address: str) -> tuple[Activity, ...]:
        """The GPU's activity, then that of each MIG device; NvmlError if the GPU does not answer."""
        gpu = self._nvml.gpu_by_address(pci_address)
        modes = if_measured(partial(self._nvml.mig_mode, gpu))
        is_cut = modes is not None and modes[0] == MigMode.ENABLED
        devices = if_measured(partial(self._calls.mig_devices, gpu)) if is_cut else ()
        running = if_measured(partial(self._calls.processes, gpu))
        whole = self._whole(pci_address, gpu, running, is_cut=is_cut)
        parts = [self._part(pci_address, gpu, one, devices or (), running) for one in devices or ()]
        self._gpm.free(pci_address, but={whole.uuid, *(part.uuid for part in parts)})
        return (whole, *parts)

    def leave(self, pci_address: str, instance: int) -> None:
        """Nothing of ours is left in that GPU instance; the averages of others go on."""
        self._gpm.free_instance(pci_address, instance)

    def close(self, pci_address: str) -> None:
        """Nothing of ours is left on the GPU; the next measurement begins anew."""
        self._gpm.close(pci_address)
        self._sampled_at_us.pop(pci_address, None)

    def _whole(
        self,
        pci_address: str,
        gpu: Handle,
        running: tuple[RunningProcess, ...] | None,
        *,
        is_cut: bool,
    ) -> Activity:
        calls, uuid = self._calls, self._nvml.uuid(gpu)
        rates = None if is_cut else if_measured(partial(calls.utilization, gpu))
        memory = if_measured(partial(calls.memory_use, gpu))
        milliwatts = if_measured(partial(calls.power_milliwatts, gpu))
        sampled = self._process_ratios(pci_address, gpu) if running and not is_cut else {}
        bare = Activity(
            uuid=uuid,
            taken_at=self._clock(),
            utilization=None if rates is None else rates.gpu / 100,
            memory_utilization=None if rates is None else rates.memory / 100,
            power_watts=None if milliwatts is None else milliwatts / 1000,
            temperature_celsius=if_measured(partial(calls.temperature_celsius, gpu)),
            throttled=_throttled(if_measured(partial(calls.clock_reasons, gpu))),
            processes=None if running is None else _processes(running, sampled),
        )
        return _with_counters(bare, memory, self._gpm.since_last(pci_address, uuid, gpu))

    def _part(
        self,
        pci_address: str,
        gpu: Handle,
        device: MigDevice,
        devices: tuple[MigDevice, ...],
        running: tuple[RunningProcess, ...] | None,
    ) -> Activity:
        """NVML samples GPU instances: for one that is split between several compute instances, nobody knows whose work it is."""
        is_alone = [one.instance for one in devices].count(device.instance) == 1
        gpm = (
            self._gpm.since_last(pci_address, device.uuid, gpu, device.instance) if is_alone else {}
        )
        memory = if_measured(partial(self._calls.memory_use, device.handle))
        place = (device.instance, device.compute)
        ours = [one for one in running or () if (one.instance, one.compute) == place]
        bare = Activity(
            uuid=device.uuid,
            taken_at=self._clock(),
            processes=None if running is None else _processes(ours, {}),
        )
        return _with_counters(bare, memory, gpm)

    def _process_ratios(self, pci_address: str, gpu: Handle) -> dict[int, float]:
        """By process the newest of the driver's samples since the last call."""
        now_us = int(self._clock() * 1e6)
        since_us = self._sampled_at_us.get(pci_address, now_us - 1_000_000)
        found: tuple[ProcessSample, ...] = (
            if_measured(partial(self._calls.process_samples, gpu, since_us)) or ()
        )
        self._sampled_at_us[pci_address] = now_us
        newest = sorted(found, key=lambda sample: sample.taken_at_us)
        return {sample.pid: _ratio(sample.sm) for sample in newest}


def _with_counters(
    bare: Activity, memory: MemoryUse | None, gpm: Mapping[GpmMetric, float]
) -> Activity:
    def ratio(metric: GpmMetric) -> float | None:
        percentage = gpm.get(metric, nan)
        return _ratio(percentage) if isfinite(percentage) else None

    return replace(
        bare,
        engine_activity=ratio(GpmMetric.GRAPHICS_UTIL),
        sm_activity=ratio(GpmMetric.SM_UTIL),
        sm_occupancy=ratio(GpmMetric.SM_OCCUPANCY),
        tensor_activity=ratio(GpmMetric.ANY_TENSOR_UTIL),
        dram_activity=ratio(GpmMetric.DRAM_BW_UTIL),
        memory_used_bytes=None if memory is None else memory.used,
        memory_total_bytes=None if memory is None else memory.total,
    )


def _ratio(percentage: float) -> float:
    """What is counted over slightly different times may come out above 100."""
    return min(max(percentage / 100, 0.0), 1.0)


def _processes(
    running: Iterable[RunningProcess], ratios: Mapping[int, float]
) -> tuple[GpuProcess, ...]:
    return tuple(
        GpuProcess(pid=one.pid, memory_bytes=one.memory_bytes, sm_ratio=ratios.get(one.pid))
        for one in running
    )


def _throttled(reasons: int | None) -> frozenset[Throttle] | None:
    if reasons is None:
        return None
    causes: dict[Throttle, ClockReason] = {"power": _POWER, "thermal": _THERMAL}
    return frozenset(cause for cause, bits in causes.items() if reasons & bits)
