"""Simulated machines, made to measure, and a libnvidia-ml made of Python that answers from them.

Through the latter pynvml's own code runs, with its structs and out-arguments.
"""

# ruff: noqa: N802 -- the library's functions have the names that pynvml asks for

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pynvml
import pytest

from dra_driver.config.machine import Machine
from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia.driver_root import DriverRoot
from dra_driver.vendors.nvidia.nvml import Architecture, Code, MigMode, NvmlError
from dra_driver.vendors.nvidia.nvml_health import Field
from dra_driver.vendors.nvidia.sdk import PynvmlNvml
from dra_driver.vendors.nvidia.simulated import SimulatedNvml


@pytest.fixture
def simulate(tmp_path: Path) -> Callable[..., SimulatedNvml]:
    """`simulate(model="A30", count=2, mode="mig", ...)`: NVML of such a machine, its state in `tmp_path / "gpus"`."""

    def build(**spec: object) -> SimulatedNvml:
        machine = Machine.model_validate(
            {
                "apiVersion": "gpu.dra-driver.dev/v1alpha1",
                "kind": "Machine",
                "name": "bench",
                "gpus": [{"vendor": "nvidia", "model": "H100-SXM5-80GB", **spec}],
            }
        )
        return SimulatedNvml(machine, node="node-a", state_dir=tmp_path / "gpus")

    return build


@pytest.fixture
def through_pynvml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[SimulatedNvml], PynvmlNvml]:
    """The same hardware, seen through pynvml, on a host whose proc and sys folders lie in `tmp_path`."""

    def build(nvml: SimulatedNvml) -> PynvmlNvml:
        bind(tmp_path, *nvml.pci_addresses())
        monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
        monkeypatch.setattr(pynvml, "nvmlLib", Library(nvml))
        return PynvmlNvml(DriverRoot(host_root=tmp_path))

    return build


def bind(host_root: Path, *addresses: str) -> None:
    """Have the host's sysfs say that the nvidia driver has these devices."""
    for address in addresses:
        device = host_root / "sys/bus/pci/devices" / address
        device.mkdir(parents=True, exist_ok=True)
        bound = host_root / "sys/bus/pci/drivers/nvidia" / address
        bound.parent.mkdir(parents=True, exist_ok=True)
        bound.symlink_to(device)


class Library:
    """libnvidia-ml.so.1 as pynvml calls it: C arguments in, return codes out.

    `inits` counts how often it was initialised. While `state` is not SUCCESS, that is what it answers to anything else.
    """

    def __init__(self, nvml: SimulatedNvml) -> None:
        self._nvml = nvml
        self._handles: list[Any] = [None]
        self.inits = 0
        self.state = Code.UNINITIALIZED

    def __getattr__(self, function: str) -> Callable[..., int]:
        implementation = getattr(type(self), f"c_{function}")

        def call(*arguments: Any) -> int:
            try:
                if self.state and function not in {"nvmlInitWithFlags", "nvmlShutdown"}:
                    return self.state
                implementation(self, *arguments)
            except NvmlError as error:
                return error.code
            return Code.SUCCESS

        return call

    def c_nvmlInitWithFlags(self, flags: int) -> None:
        assert flags == pynvml.NVML_INIT_FLAG_NO_GPUS
        assert self.state is not Code.SUCCESS, "initialised twice, which changes nothing"
        self._nvml.driver_version()
        self.inits += 1
        self.state = Code.SUCCESS

    def c_nvmlShutdown(self) -> None:
        self._handles = [None]
        self.state = Code.UNINITIALIZED

    def c_nvmlSystemGetDriverVersion(self, text: Any, _size: Any) -> None:
        text.value = self._nvml.driver_version().encode()

    def c_nvmlSystemGetCudaDriverVersion_v2(self, number: Any) -> None:
        number._obj.value = self._nvml.cuda_version()

    def c_nvmlDeviceGetHandleByPciBusId_v2(self, address: Any, handle: Any) -> None:
        self._give(handle._obj, self._nvml.gpu_by_address(address.value.decode()))

    def c_nvmlDeviceGetPciInfo_v3(self, gpu: Any, info: Any) -> None:
        info._obj.pciDeviceId = self._nvml.pci_device_id(self._of(gpu)) << 16 | 0x10DE

    def c_nvmlDeviceGetName(self, gpu: Any, text: Any, _size: Any) -> None:
        text.value = self._nvml.name(self._of(gpu)).encode()

    def c_nvmlDeviceGetUUID(self, device: Any, text: Any, _size: Any) -> None:
        known = self._of(device)
        uuid = known[2] if isinstance(known, tuple) else self._nvml.uuid(known)
        text.value = uuid.encode()

    def c_nvmlDeviceGetMinorNumber(self, gpu: Any, number: Any) -> None:
        number._obj.value = self._nvml.minor(self._of(gpu))

    def c_nvmlDeviceGetArchitecture(self, gpu: Any, number: Any) -> None:
        number._obj.value = self._nvml.architecture(self._of(gpu))

    def c_nvmlDeviceGetCudaComputeCapability(self, gpu: Any, major: Any, minor: Any) -> None:
        major._obj.value, minor._obj.value = self._nvml.compute_capability(self._of(gpu))

    def c_nvmlDeviceGetMemoryInfo(self, gpu: Any, memory: Any) -> None:
        memory._obj.total = self._nvml.memory_bytes(self._of(gpu))

    def c_nvmlDeviceGetNumGpuCores(self, gpu: Any, number: Any) -> None:
        number._obj.value = self._nvml.core_count(self._of(gpu))

    def c_nvmlDeviceGetMigMode(self, gpu: Any, current: Any, pending: Any) -> None:
        current._obj.value, pending._obj.value = self._nvml.mig_mode(self._of(gpu))

    def c_nvmlDeviceSetMigMode(self, gpu: Any, mode: int, status: Any) -> None:
        status._obj.value = self._nvml.set_mig_mode(self._of(gpu), MigMode(mode))

    def c_nvmlDeviceGetFieldValues(self, gpu: Any, count: Any, values: Any) -> None:
        device = self._of(gpu)
        offered = self._nvml.health.field_values(device, tuple(Field))
        for field in values._obj[: count.value]:
            known: dict[int, int] = {int(one): value for one, value in offered.items()}
            if field.fieldId == 184:
                known[184] = self._nvml.is_mig_resetless(device)
            elif field.fieldId == 165 and field.scopeId < 18 and self._is_hopper(device):
                known[165] = field.scopeId < self._nvml.health.active_links(device)
            field.nvmlReturn = Code.SUCCESS if field.fieldId in known else Code.NOT_SUPPORTED
            field.valueType, field.value.ullVal = 3, known.get(field.fieldId, 0)

    def c_nvmlDeviceGetNvLinkState(self, gpu: Any, link: int, active: Any) -> None:
        if link >= 18:
            raise NvmlError(Code.INVALID_ARGUMENT, "NVLink")
        active._obj.value = link < self._nvml.health.active_links(self._of(gpu))

    def c_nvmlDeviceGetCurrentClocksEventReasons(self, gpu: Any, reasons: Any) -> None:
        reasons._obj.value = self._nvml.activity.clock_reasons(self._of(gpu))

    def c_nvmlDeviceGetSupportedEventTypes(self, gpu: Any, types: Any) -> None:
        types._obj.value = pynvml.nvmlEventTypeXidCriticalError

    def c_nvmlEventSetCreate(self, events: Any) -> None:
        self._give(events._obj, [])

    def c_nvmlDeviceRegisterEvents(self, gpu: Any, types: Any, events: Any) -> None:
        assert types.value == pynvml.nvmlEventTypeXidCriticalError
        self._of(events).append(self._nvml.health.open_events(self._of(gpu)))

    def c_nvmlEventSetWait_v2(self, events: Any, data: Any, timeout: Any) -> None:
        assert timeout.value == 0, "a wait would keep NVML from being initialised anew"
        (registered,) = self._of(events)
        event = self._nvml.health.next_event(registered)
        if event is None:
            raise NvmlError(Code.TIMEOUT, "no event")
        data._obj.eventType, data._obj.eventData = pynvml.nvmlEventTypeXidCriticalError, event.xid
        data._obj.gpuInstanceId = 0xFFFFFFFF if event.instance is None else event.instance

    def c_nvmlEventSetFree(self, events: Any) -> None:
        self._handles[ctypes.cast(events, ctypes.c_void_p).value or 0] = None

    def c_nvmlDeviceGetGpuInstanceProfileInfoV(self, gpu: Any, index: int, info: Any) -> None:
        profile = self._nvml.gpu_profile(self._of(gpu), index)
        info._obj.memorySizeMB = profile.memory_mib
        info._obj.id, info._obj.sliceCount = profile.id, profile.slices
        info._obj.instanceCount, info._obj.multiprocessorCount = (
            profile.limit,
            profile.multiprocessors,
        )
        info._obj.copyEngineCount, info._obj.decoderCount = profile.copy_engines, profile.decoders
        info._obj.encoderCount, info._obj.jpegCount = profile.encoders, profile.jpeg_engines
        info._obj.ofaCount = profile.ofa_engines

    def c_nvmlDeviceGetGpuInstancePossiblePlacements_v2(
        self, gpu: Any, profile_id: int, buffer: Any, count: Any
    ) -> None:
        found = self._nvml.placements(self._of(gpu), profile_id)
        if buffer is not None:
            assert count._obj.value >= len(found)
            for slot, placement in zip(buffer, found, strict=False):
                slot.start, slot.size = placement.start, placement.size
        count._obj.value = len(found)

    def c_nvmlDeviceCreateGpuInstanceWithPlacement(
        self, gpu: Any, profile_id: int, place: Any, handle: Any
    ) -> None:
        placement = Placement(place._obj.start, place._obj.size)
        self._give(
            handle._obj, self._nvml.create_gpu_instance(self._of(gpu), profile_id, placement)
        )

    def c_nvmlDeviceGetGpuInstances(
        self, gpu: Any, profile_id: int, buffer: Any, count: Any
    ) -> None:
        self._fill(buffer, count, self._nvml.gpu_instances(self._of(gpu), profile_id))

    def c_nvmlDeviceGetGpuInstanceById(self, gpu: Any, number: int, handle: Any) -> None:
        self._give(handle._obj, self._nvml.gpu_instance(self._of(gpu), number))

    def c_nvmlGpuInstanceGetInfo(self, instance: Any, info: Any) -> None:
        found = self._nvml.gpu_instance_info(self._of(instance))
        info._obj.id, info._obj.profileId = found.id, found.profile_id
        info._obj.placement.start, info._obj.placement.size = (
            found.placement.start,
            found.placement.size,
        )

    def c_nvmlGpuInstanceDestroy(self, instance: Any) -> None:
        self._nvml.destroy_gpu_instance(self._of(instance))

    def c_nvmlGpuInstanceGetComputeInstanceProfileInfoV(
        self, instance: Any, index: int, engines: int, info: Any
    ) -> None:
        assert engines == pynvml.NVML_COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED
        profile = self._nvml.compute_profile(self._of(instance), index)
        info._obj.id, info._obj.sliceCount = profile.id, profile.slices
        info._obj.multiprocessorCount = profile.multiprocessors

    def c_nvmlGpuInstanceCreateComputeInstance(
        self, instance: Any, profile_id: int, handle: Any
    ) -> None:
        self._give(handle._obj, self._nvml.create_compute_instance(self._of(instance), profile_id))

    def c_nvmlGpuInstanceCreateComputeInstanceWithPlacement(
        self, instance: Any, profile_id: int, place: Any, handle: Any
    ) -> None:
        placement = Placement(place._obj.start, place._obj.size)
        made = self._nvml.create_compute_instance(self._of(instance), profile_id, placement)
        self._give(handle._obj, made)

    def c_nvmlGpuInstanceGetComputeInstances(
        self, instance: Any, profile_id: int, buffer: Any, count: Any
    ) -> None:
        self._fill(buffer, count, self._nvml.compute_instances(self._of(instance), profile_id))

    def c_nvmlGpuInstanceGetComputeInstanceById(
        self, instance: Any, number: int, handle: Any
    ) -> None:
        self._give(handle._obj, self._nvml.compute_instance(self._of(instance), number))

    def c_nvmlComputeInstanceGetInfo_v2(self, compute: Any, info: Any) -> None:
        found = self._nvml.compute_instance_info(self._of(compute))
        info._obj.id, info._obj.profileId = found.id, found.profile_id
        info._obj.placement.start = found.start

    def c_nvmlComputeInstanceDestroy(self, compute: Any) -> None:
        self._nvml.destroy_compute_instance(self._of(compute))

    def c_nvmlDeviceGetMaxMigDeviceCount(self, gpu: Any, number: Any) -> None:
        number._obj.value = 7

    def c_nvmlDeviceGetMigDeviceHandleByIndex(self, gpu: Any, index: Any, handle: Any) -> None:
        """MIG devices stand at odd indexes only: real ones have gaps too."""
        found = [(*ids, uuid) for ids, uuid in self._nvml.mig_uuids(self._of(gpu)).items()]
        slot, empty = divmod(index.value - 1, 2)
        if empty or not 0 <= slot < len(found):
            raise NvmlError(Code.NOT_FOUND, "MIG device")
        self._give(handle._obj, found[slot])

    def c_nvmlDeviceGetGpuInstanceId(self, device: Any, number: Any) -> None:
        number._obj.value = self._of(device)[0]

    def c_nvmlDeviceGetComputeInstanceId(self, device: Any, number: Any) -> None:
        number._obj.value = self._of(device)[1]

    def _is_hopper(self, gpu: Any) -> bool:
        return self._nvml.architecture(gpu) >= Architecture.HOPPER

    def _give(self, pointer: Any, handle: Any) -> None:
        self._handles.append(handle)
        ctypes.c_void_p.from_address(ctypes.addressof(pointer)).value = len(self._handles) - 1

    def _fill(self, buffer: Any, count: Any, handles: tuple[Any, ...]) -> None:
        assert count._obj.value >= len(handles)
        for number, handle in enumerate(handles):
            self._handles.append(handle)
            slot = ctypes.addressof(buffer) + number * ctypes.sizeof(ctypes.c_void_p)
            ctypes.c_void_p.from_address(slot).value = len(self._handles) - 1
        count._obj.value = len(handles)

    def _of(self, pointer: Any) -> Any:
        return self._handles[self._address(pointer)]

    def _address(self, pointer: Any) -> int:
        return ctypes.cast(pointer, ctypes.c_void_p).value or 0
