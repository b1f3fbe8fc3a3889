"""The measuring functions of a libnvidia-ml made of Python, with the samples that nobody has freed."""

# ruff: noqa: N802 -- the library's functions have the names that pynvml asks for

from __future__ import annotations

from typing import Any

from dra_driver.vendors.nvidia.nvml import Code, NvmlError
from dra_driver.vendors.nvidia.nvml_activity import GpmMetric, RunningProcess
from dra_driver.vendors.nvidia.simulated import SimulatedNvml
from tests.vendors.nvidia.conftest import Library

_NO_INSTANCE = 0xFFFFFFFF
_INSUFFICIENT_SIZE = 7


class MeasuringLibrary(Library):
    """As Library, and measures. `samples`: those that are allocated now, by their pointer; None until they are taken.

    `draws`: it lists processes that do; `mps_clients` are those of MPS.
    """

    def __init__(self, nvml: SimulatedNvml) -> None:
        super().__init__(nvml)
        self._activity = nvml.activity
        self.samples: dict[int, Any] = {}
        self.draws = True
        self.mps_clients: tuple[RunningProcess, ...] = ()

    def c_nvmlDeviceGetUtilizationRates(self, gpu: Any, rates: Any) -> None:
        found = self._activity.utilization(self._of(gpu))
        rates._obj.gpu, rates._obj.memory = found.gpu, found.memory

    def c_nvmlDeviceGetMemoryInfo_v2(self, device: Any, memory: Any) -> None:
        found = self._activity.memory_use(self._measured(device))
        memory._obj.total, memory._obj.used = found.total, found.used

    def c_nvmlDeviceGetPowerUsage(self, gpu: Any, milliwatts: Any) -> None:
        milliwatts._obj.value = self._activity.power_milliwatts(self._of(gpu))

    def c_nvmlDeviceGetTemperature(self, gpu: Any, sensor: Any, celsius: Any) -> None:
        assert sensor.value == 0
        celsius._obj.value = self._activity.temperature_celsius(self._of(gpu))

    def c_nvmlDeviceGetComputeRunningProcesses_v3(self, gpu: Any, count: Any, buffer: Any) -> None:
        self._list(self._activity.processes(self._of(gpu)), count, buffer)

    def c_nvmlDeviceGetGraphicsRunningProcesses_v3(self, gpu: Any, count: Any, buffer: Any) -> None:
        """Whoever computes may draw too, and is listed twice then."""
        if not self.draws:
            raise NvmlError(Code.NOT_SUPPORTED, "graphics")
        self._list(self._activity.processes(self._of(gpu))[:1], count, buffer)

    def c_nvmlDeviceGetMPSComputeRunningProcesses_v3(
        self, gpu: Any, count: Any, buffer: Any
    ) -> None:
        self._of(gpu)
        self._list(self.mps_clients, count, buffer)

    def c_nvmlDeviceGetProcessUtilization(
        self, gpu: Any, buffer: Any, count: Any, since: Any
    ) -> None:
        found = self._activity.process_samples(self._of(gpu), since.value)
        count._obj.value = len(found)
        if not found:
            raise NvmlError(Code.NOT_FOUND, "samples")
        if buffer is None:
            raise NvmlError(_INSUFFICIENT_SIZE, "samples")
        for slot, sample in zip(buffer, found, strict=True):
            slot.pid, slot.timeStamp, slot.smUtil = sample.pid, sample.taken_at_us, sample.sm

    def c_nvmlGpmQueryDeviceSupport(self, gpu: Any, support: Any) -> None:
        assert support._obj.version == 1
        support._obj.isSupportedDevice = self._activity.has_gpm(self._of(gpu))

    def c_nvmlGpmSampleAlloc(self, sample: Any) -> None:
        self._give(sample._obj, None)
        self.samples[len(self._handles) - 1] = None

    def c_nvmlGpmSampleFree(self, sample: Any) -> None:
        del self.samples[self._address(sample)]

    def c_nvmlGpmSampleGet(self, gpu: Any, sample: Any) -> None:
        self.samples[self._address(sample)] = self._activity.gpm_sample(self._of(gpu), None)

    def c_nvmlGpmMigSampleGet(self, gpu: Any, instance: int, sample: Any) -> None:
        self.samples[self._address(sample)] = self._activity.gpm_sample(self._of(gpu), instance)

    def c_nvmlGpmMetricsGet(self, request: Any) -> None:
        wanted = request._obj
        assert wanted.version == 1
        samples = (self.samples[self._address(one)] for one in (wanted.sample1, wanted.sample2))
        found = self._activity.gpm_percentages(*samples)
        for place in wanted.metrics[: wanted.numMetrics]:
            place.value = found[GpmMetric(place.metricId)]

    def _list(self, found: tuple[RunningProcess, ...], count: Any, buffer: Any) -> None:
        count._obj.value, room = len(found), count._obj.value
        if len(found) > room:
            raise NvmlError(_INSUFFICIENT_SIZE, "processes")
        for slot, one in zip(buffer or (), found, strict=False):
            slot.pid, slot.usedGpuMemory = one.pid, one.memory_bytes
            slot.gpuInstanceId = _NO_INSTANCE if one.instance is None else one.instance
            slot.computeInstanceId = _NO_INSTANCE if one.compute is None else one.compute

    def _measured(self, device: Any) -> Any:
        """A MIG device is known here by its numbers and UUID, and to the simulation by a handle."""
        known = self._of(device)
        if not isinstance(known, tuple):
            return known
        gpus = map(self._nvml.gpu_by_address, self._nvml.pci_addresses())
        handles = {
            one.uuid: one.handle
            for gpu in gpus
            if self._nvml.mig_mode(gpu)[0]
            for one in self._activity.mig_devices(gpu)
        }
        return handles[known[2]]
