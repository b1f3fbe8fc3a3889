"""NVML through NVIDIA's own binding, and the two kernel tables that NVML does not speak of. Nobody else imports pynvml."""

from __future__ import annotations

from ctypes import CDLL, byref, c_uint
from functools import partial
from typing import Any

from dra_driver.model.device import Placement
from dra_driver.vendors.holders import other_holders
from dra_driver.vendors.nvidia.driver_root import NVML_LIBRARY, DriverRoot
from dra_driver.vendors.nvidia.nvml import (
    Code,
    ComputeInstance,
    ComputeProfile,
    GpuInstance,
    GpuProfile,
    Handle,
    MigMode,
    NvmlError,
    PciPlace,
)
from dra_driver.vendors.nvidia.sdk_activity import PynvmlActivity
from dra_driver.vendors.nvidia.sdk_health import PynvmlHealth
from dra_driver.vendors.nvidia.session import Held, Session
from dra_driver.vendors.pci import bound_addresses

_INSTANCE_LIMIT = 16
"""More than a GPU or a GPU instance can hold: some boards report too small a limit for their own profiles."""

_SHARED_ENGINES = 0


class PynvmlNvml:
    """Implements `NvmlLibrary`; its handles are `session.Held`. Safe to use from several threads.

    The library is loaded by the first call and kept: each init costs a second of CPU on 8 GPUs. It is the driver's at
    `root`, which also says where the host's proc and sys folders lie.
    """

    def __init__(self, root: DriverRoot) -> None:
        self._proc = root.seen("/proc")
        self._minors = root.seen("/proc/driver/nvidia-caps/mig-minors")
        self._pci_devices = root.seen("/sys/bus/pci/devices")
        self._driver = root.seen("/sys/bus/pci/drivers/nvidia")
        self._session = Session(partial(_load, root))
        self._call, self._hold = self._session.call, self._session.hold
        self.health = PynvmlHealth(self._session)
        self.activity = PynvmlActivity(self._session, _pynvml)
        self._bound: tuple[str, ...] | None = None

    def close(self) -> None:
        """See Nvml. Nothing happens if the driver is gone by now."""
        self._session.end()

    def driver_version(self) -> str:
        """See Nvml."""
        return str(self._session.begin("SystemGetDriverVersion").value)

    def cuda_version(self) -> int:
        """See Nvml."""
        return int(self._session.begin("SystemGetCudaDriverVersion_v2").value)

    def pci_addresses(self) -> tuple[str, ...]:
        """See Nvml. Virtual functions are left out: they belong to virtual machines, and NVML does not know them.

        NVML looks for GPUs when it is initialised, so after a device was bound it is initialised anew.
        """
        bound = bound_addresses(self._driver)
        if self._bound is None or set(bound) <= set(self._bound) or self._session.end():
            self._bound = bound
        return tuple(at for at in bound if not (self._pci_devices / at / "physfn").exists())

    def gpu_by_address(self, pci_address: str) -> Handle:
        """See Nvml."""
        return self._session.begin("DeviceGetHandleByPciBusId", pci_address)

    def pci_device_id(self, gpu: Handle) -> int:
        """See Nvml."""
        return int(self._call("DeviceGetPciInfo", gpu).pciDeviceId) >> 16

    def pci_place(self, pci_address: str) -> PciPlace:
        """See Nvml. The kernel writes -1 for a NUMA node that it does not know."""
        folder = self._pci_devices / pci_address
        root = next((part for part in folder.resolve().parts if part.startswith("pci0")), None)
        try:
            numa_node = int((folder / "numa_node").read_text())
        except (OSError, ValueError):
            numa_node = -1
        return PciPlace(root=root, numa_node=numa_node if numa_node >= 0 else None)

    def name(self, gpu: Handle) -> str:
        """See Nvml."""
        return str(self._call("DeviceGetName", gpu))

    def uuid(self, gpu: Handle) -> str:
        """See Nvml."""
        return str(self._call("DeviceGetUUID", gpu))

    def minor(self, gpu: Handle) -> int:
        """See Nvml."""
        return int(self._call("DeviceGetMinorNumber", gpu))

    def architecture(self, gpu: Handle) -> int:
        """See Nvml."""
        return int(self._call("DeviceGetArchitecture", gpu))

    def compute_capability(self, gpu: Handle) -> tuple[int, int]:
        """See Nvml."""
        major, minor = self._call("DeviceGetCudaComputeCapability", gpu)
        return int(major), int(minor)

    def memory_bytes(self, gpu: Handle) -> int:
        """See Nvml."""
        return int(self._call("DeviceGetMemoryInfo", gpu).total)

    def core_count(self, gpu: Handle) -> int:
        """See Nvml."""
        return int(self._call("DeviceGetNumGpuCores", gpu))

    def mig_mode(self, gpu: Handle) -> tuple[int, int]:
        """See Nvml."""
        current, pending = self._call("DeviceGetMigMode", gpu)
        return int(current), int(pending)

    def set_mig_mode(self, gpu: Handle, mode: MigMode) -> int:
        """See Nvml."""
        return int(self._call("DeviceSetMigMode", gpu, int(mode)))

    def users(self, gpu: Handle) -> tuple[str, ...]:
        """See GpuUsers. The host's processes, with their pids there."""
        return tuple(map(str, other_holders(self._proc, {f"/dev/nvidia{self.minor(gpu)}"})))

    def is_mig_resetless(self, gpu: Handle) -> bool:
        """See Nvml. Each field of the answer has a return code of its own."""
        field = _pynvml().NVML_FI_DEV_IS_RESETLESS_MIG_SUPPORTED
        (value,) = self._call("DeviceGetFieldValues", gpu, [field])
        return bool(value.nvmlReturn == Code.SUCCESS and value.value.uiVal)

    def gpu_profile(self, gpu: Handle, index: int) -> GpuProfile:
        """See Nvml."""
        info = self._call("DeviceGetGpuInstanceProfileInfo", gpu, index)
        return GpuProfile(
            id=info.id,
            slices=info.sliceCount,
            limit=info.instanceCount,
            multiprocessors=info.multiprocessorCount,
            copy_engines=info.copyEngineCount,
            decoders=info.decoderCount,
            encoders=info.encoderCount,
            jpeg_engines=info.jpegCount,
            ofa_engines=info.ofaCount,
            memory_mib=info.memorySizeMB,
        )

    def placements(self, gpu: Handle, profile_id: int) -> tuple[Placement, ...]:
        """See Nvml. Asked twice: without a buffer NVML only counts."""
        count = c_uint(0)
        ask = "DeviceGetGpuInstancePossiblePlacements"
        self._call(ask, gpu, profile_id, None, byref(count))
        buffer = (_pynvml().c_nvmlGpuInstancePlacement_t * count.value)()
        self._call(ask, gpu, profile_id, buffer, byref(count))
        return tuple(sorted(_placement(found) for found in buffer[: count.value]))

    def create_gpu_instance(self, gpu: Handle, profile_id: int, placement: Placement) -> Handle:
        """See Nvml."""
        place = _pynvml().c_nvmlGpuInstancePlacement_t(placement.start, placement.size)
        return self._hold("DeviceCreateGpuInstanceWithPlacement", gpu, profile_id, byref(place))

    def gpu_instances(self, gpu: Handle, profile_id: int) -> tuple[Handle, ...]:
        """See Nvml."""
        count = c_uint(_INSTANCE_LIMIT)
        buffer = (_pynvml().c_nvmlGpuInstance_t * _INSTANCE_LIMIT)()
        self._call("DeviceGetGpuInstances", gpu, profile_id, buffer, byref(count))
        return tuple(Held(one, gpu.period) for one in buffer[: count.value])

    def gpu_instance(self, gpu: Handle, instance_id: int) -> Handle:
        """See Nvml."""
        return self._hold("DeviceGetGpuInstanceById", gpu, instance_id)

    def gpu_instance_info(self, instance: Handle) -> GpuInstance:
        """See Nvml."""
        info = self._call("GpuInstanceGetInfo", instance)
        return GpuInstance(
            id=info.id, profile_id=info.profileId, placement=_placement(info.placement)
        )

    def destroy_gpu_instance(self, instance: Handle) -> None:
        """See Nvml."""
        self._call("GpuInstanceDestroy", instance)

    def compute_profile(self, instance: Handle, index: int) -> ComputeProfile:
        """See Nvml."""
        info = self._call(
            "GpuInstanceGetComputeInstanceProfileInfo", instance, index, _SHARED_ENGINES
        )
        return ComputeProfile(
            id=info.id, slices=info.sliceCount, multiprocessors=info.multiprocessorCount
        )

    def create_compute_instance(
        self, instance: Handle, profile_id: int, placement: Placement | None = None
    ) -> Handle:
        """See Nvml."""
        if placement is None:
            return self._hold("GpuInstanceCreateComputeInstance", instance, profile_id)
        place = _pynvml().c_nvmlComputeInstancePlacement_t(placement.start, placement.size)
        create = "GpuInstanceCreateComputeInstanceWithPlacement"
        return self._hold(create, instance, profile_id, byref(place))

    def compute_instances(self, instance: Handle, profile_id: int) -> tuple[Handle, ...]:
        """See Nvml."""
        count = c_uint(_INSTANCE_LIMIT)
        buffer = (_pynvml().c_nvmlComputeInstance_t * _INSTANCE_LIMIT)()
        self._call("GpuInstanceGetComputeInstances", instance, profile_id, buffer, byref(count))
        return tuple(Held(one, instance.period) for one in buffer[: count.value])

    def compute_instance(self, instance: Handle, compute_id: int) -> Handle:
        """See Nvml."""
        return self._hold("GpuInstanceGetComputeInstanceById", instance, compute_id)

    def compute_instance_info(self, compute: Handle) -> ComputeInstance:
        """See Nvml."""
        info = self._call("ComputeInstanceGetInfo", compute)
        return ComputeInstance(id=info.id, profile_id=info.profileId, start=info.placement.start)

    def destroy_compute_instance(self, compute: Handle) -> None:
        """See Nvml."""
        self._call("ComputeInstanceDestroy", compute)

    def mig_uuids(self, gpu: Handle) -> dict[tuple[int, int], str]:
        """See Nvml."""
        return {(one.instance, one.compute): one.uuid for one in self.activity.mig_devices(gpu)}

    def capability_minor(self, capability: str) -> int:
        """See Nvml. The table is the kernel's and the same for every driver of one build: `gpu0/gi0/access 3`."""
        try:
            table = dict(line.split() for line in self._minors.read_text().splitlines())
            return int(table[capability])
        except (OSError, ValueError, KeyError) as error:
            raise NvmlError(Code.NOT_FOUND, f"{capability} in {self._minors}") from error


def _pynvml() -> Any:
    import pynvml  # noqa: PLC0415 -- nodes without NVIDIA GPUs never pay for it

    return pynvml


def _load(root: DriverRoot) -> Any:
    """NVML initialised. The process has one library for good: that of the driver's root, or else what the loader finds."""
    pynvml = _pynvml()
    path = root.nvml()
    if path is not None and pynvml.nvmlLib is None:
        try:
            pynvml.nvmlLib = CDLL(str(path))
        except OSError as error:
            raise NvmlError(Code.LIBRARY_NOT_FOUND, f"loading {path} ({error})") from error
    try:
        pynvml.nvmlInitWithFlags(pynvml.NVML_INIT_FLAG_NO_GPUS)
    except pynvml.NVMLError as error:
        raise NvmlError(error.value, f"loading {path or NVML_LIBRARY}") from error
    return pynvml


def _placement(place: Any) -> Placement:
    return Placement(place.start, place.size)
