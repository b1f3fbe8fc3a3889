"""The measuring calls of NVML, through the binding that `sdk` loads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from dra_driver.vendors.nvidia.nvml import Code, Handle, NvmlError
from dra_driver.vendors.nvidia.nvml_activity import (
    GpmMetric,
    MemoryUse,
    MigDevice,
    ProcessSample,
    RunningProcess,
    Utilization,
)
from dra_driver.vendors.nvidia.session import Held, Session

_CHIP = 0
"""`NVML_TEMPERATURE_GPU`."""
_NO_INSTANCE = 0xFFFFFFFF
_NO_LIST = frozenset({Code.NOT_SUPPORTED, Code.FUNCTION_NOT_FOUND})
_NO_SAMPLES = frozenset({Code.SUCCESS, Code.NOT_FOUND})
"""The binding raises SUCCESS where the driver has counted no samples."""


class PynvmlActivity:
    """Implements `NvmlActivity`; `binding` gives the module for its structures."""

    def __init__(self, session: Session, binding: Callable[[], Any]) -> None:
        self._session = session
        self._call, self._hold = session.call, session.hold
        self._binding = binding

    def mig_devices(self, gpu: Handle) -> tuple[MigDevice, ...]:
        """See NvmlActivity. They are numbered with gaps, so all numbers are tried."""
        return tuple(self._walk(gpu))

    def utilization(self, gpu: Handle) -> Utilization:
        """See NvmlActivity."""
        rates = self._call("DeviceGetUtilizationRates", gpu)
        return Utilization(gpu=rates.gpu, memory=rates.memory)

    def memory_use(self, device: Handle) -> MemoryUse:
        """See NvmlActivity. The first version of this call counts the driver's own memory as used."""
        memory = self._call("DeviceGetMemoryInfo", device, self._binding().nvmlMemory_v2)
        return MemoryUse(total=memory.total, used=memory.used)

    def power_milliwatts(self, gpu: Handle) -> int:
        """See NvmlActivity."""
        return int(self._call("DeviceGetPowerUsage", gpu))

    def temperature_celsius(self, gpu: Handle) -> int:
        """See NvmlActivity."""
        return int(self._call("DeviceGetTemperature", gpu, _CHIP))

    def clock_reasons(self, gpu: Handle) -> int:
        """See NvmlActivity."""
        return int(self._call("DeviceGetCurrentClocksEventReasons", gpu))

    def processes(self, gpu: Handle) -> tuple[RunningProcess, ...]:
        """See NvmlActivity. Clients of MPS, and those that draw, are in lists of their own, which not every GPU and driver has."""
        found = [
            *self._also("DeviceGetGraphicsRunningProcesses", gpu),
            *self._also("DeviceGetMPSComputeRunningProcesses", gpu),
            *self._call("DeviceGetComputeRunningProcesses", gpu),
        ]
        by_place = {(one.pid, one.gpuInstanceId, one.computeInstanceId): one for one in found}
        return tuple(
            RunningProcess(
                pid=pid,
                memory_bytes=one.usedGpuMemory,
                instance=None if instance == _NO_INSTANCE else instance,
                compute=None if compute == _NO_INSTANCE else compute,
            )
            for (pid, instance, compute), one in by_place.items()
        )

    def process_samples(self, gpu: Handle, since_us: int) -> tuple[ProcessSample, ...]:
        """See NvmlActivity."""
        try:
            samples = self._call("DeviceGetProcessUtilization", gpu, since_us)
        except NvmlError as error:
            if error.code not in _NO_SAMPLES:
                raise
            samples = ()
        return tuple(
            ProcessSample(pid=one.pid, taken_at_us=one.timeStamp, sm=one.smUtil) for one in samples
        )

    def has_gpm(self, gpu: Handle) -> bool:
        """See NvmlActivity."""
        return bool(self._call("GpmQueryDeviceSupport", gpu).isSupportedDevice)

    def gpm_sample(self, gpu: Handle, instance: int | None) -> Handle:
        """See NvmlActivity."""
        sample = self._session.borrow("GpmSampleAlloc", give_back="GpmSampleFree")
        try:
            if instance is None:
                self._call("GpmSampleGet", gpu, sample)
            else:
                self._call("GpmMigSampleGet", gpu, instance, sample)
        except NvmlError:
            with suppress(NvmlError):
                self.gpm_free(sample)
            raise
        return sample

    def gpm_percentages(self, earlier: Handle, later: Handle) -> Mapping[GpmMetric, float]:
        """See NvmlActivity. Each metric has a return code of its own."""
        if not (self._session.is_good(earlier) and self._session.is_good(later)):
            raise NvmlError(Code.INVALID_ARGUMENT, "nvmlGpmMetricsGet with an outdated sample")
        binding = self._binding()
        request = binding.c_nvmlGpmMetricsGet_t(
            version=binding.NVML_GPM_METRICS_GET_VERSION,
            numMetrics=len(GpmMetric),
            sample1=earlier.value,
            sample2=later.value,
        )
        for place, metric in zip(request.metrics, GpmMetric, strict=False):
            place.metricId = metric
        answer = self._call("GpmMetricsGet", Held(request, earlier.period))
        answered = zip(answer.metrics, GpmMetric, strict=False)
        return {metric: one.value for one, metric in answered if one.nvmlReturn == Code.SUCCESS}

    def gpm_free(self, sample: Handle) -> None:
        """See NvmlActivity."""
        self._session.give_back(sample)

    def _also(self, function: str, gpu: Handle) -> list[Any]:
        try:
            return list(self._call(function, gpu))
        except NvmlError as error:
            if error.code not in _NO_LIST:
                raise
            return []

    def _walk(self, gpu: Handle) -> Iterator[MigDevice]:
        for index in range(self._call("DeviceGetMaxMigDeviceCount", gpu)):
            try:
                device = self._hold("DeviceGetMigDeviceHandleByIndex", gpu, index)
            except NvmlError as error:
                if error.code != Code.NOT_FOUND:
                    raise
                continue
            yield MigDevice(
                instance=int(self._call("DeviceGetGpuInstanceId", device)),
                compute=int(self._call("DeviceGetComputeInstanceId", device)),
                uuid=str(self._call("DeviceGetUUID", device)),
                handle=device,
            )
