"""The part of NVML that we use, as a protocol: real (`sdk`) and simulated (`simulated`) hardware differ only below it.

One method per library call, plain numbers and frozen values in and out, handles opaque. Every method raises NvmlError.
Names and numbers follow NVML's API reference (docs.nvidia.com/deploy/nvml-api).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, TypeAlias

from dra_driver.model.device import Placement
from dra_driver.model.errors import VendorError

Handle: TypeAlias = Any


class Code(IntEnum):
    """The NVML return codes that mean something to us (`nvmlReturn_t`)."""

    SUCCESS = 0
    UNINITIALIZED = 1
    INVALID_ARGUMENT = 2
    NOT_SUPPORTED = 3
    NO_PERMISSION = 4
    NOT_FOUND = 6
    DRIVER_NOT_LOADED = 9
    TIMEOUT = 10
    LIBRARY_NOT_FOUND = 12
    FUNCTION_NOT_FOUND = 13
    GPU_IS_LOST = 15
    RESET_REQUIRED = 16
    LIB_RM_VERSION_MISMATCH = 18
    IN_USE = 19
    INSUFFICIENT_RESOURCES = 23
    NOT_READY = 27
    UNKNOWN = 999


_RETRYABLE = frozenset(
    {
        Code.UNINITIALIZED,
        Code.DRIVER_NOT_LOADED,
        Code.TIMEOUT,
        Code.LIB_RM_VERSION_MISMATCH,
        Code.IN_USE,
        Code.NOT_READY,
    }
)
_REFUSALS = frozenset(
    {
        Code.INVALID_ARGUMENT,
        Code.NOT_SUPPORTED,
        Code.NO_PERMISSION,
        Code.NOT_FOUND,
        Code.IN_USE,
        Code.INSUFFICIENT_RESOURCES,
    }
)
"""After any other code, a time-out or a lost GPU say, only a look tells whether something was changed."""
_ADVICE: dict[int, str] = {
    Code.UNINITIALIZED: "the driver was reloaded meanwhile; try again",
    Code.NOT_SUPPORTED: "this GPU, its present mode or this driver version cannot do it",
    Code.NO_PERMISSION: "run as root, or grant the mig/config capability",
    Code.NOT_FOUND: "it does not exist (any more)",
    Code.DRIVER_NOT_LOADED: "load the nvidia kernel module",
    Code.TIMEOUT: "the GPU did not answer in time",
    Code.LIBRARY_NOT_FOUND: "install the NVIDIA driver, or set nvidiaDriverRoot to the folder of the host below which its libnvidia-ml.so.1 is",
    Code.FUNCTION_NOT_FOUND: "install a newer NVIDIA driver",
    Code.GPU_IS_LOST: "reset the GPU or reboot the node",
    Code.RESET_REQUIRED: "reset the GPU",
    Code.LIB_RM_VERSION_MISMATCH: "restart this process, or else the node, so that kernel module and library are of one version",
    Code.IN_USE: "end the processes that use it",
    Code.INSUFFICIENT_RESOURCES: "another instance has the slices or engines that it needs",
}


class NvmlError(VendorError):
    """NVML returned `code`; `doing` names what was asked of which GPU. The one place that says what is worth a retry, and what a refusal is."""

    def __init__(self, code: int, doing: str) -> None:
        advice = f"; {_ADVICE[code]}" if code in _ADVICE else ""
        super().__init__(
            f"{doing}: NVML says {code_name(code)}{advice}",
            retryable=code in _RETRYABLE,
            refused=code in _REFUSALS,
        )
        self.code = code


def code_name(code: int) -> str:
    """`IN_USE` for 19; the number where we have no name for it."""
    return next((known.name for known in Code if known == code), f"error {code}")


class Architecture(IntEnum):
    """`nvmlDeviceArchitecture_t`."""

    KEPLER = 2
    MAXWELL = 3
    PASCAL = 4
    VOLTA = 5
    TURING = 6
    AMPERE = 7
    ADA = 8
    HOPPER = 9
    BLACKWELL = 10


class MigMode(IntEnum):
    """`NVML_DEVICE_MIG_*`."""

    DISABLED = 0
    ENABLED = 1


GPU_PROFILE_INDEXES = range(18)
"""The values of `NVML_GPU_INSTANCE_PROFILE_*`: what profiles are asked by. A profile's `id` is another number."""

GPU_PROFILE_SUFFIXES = {
    7: "+me",
    8: "+me",
    10: "+gfx",
    11: "+gfx",
    12: "+gfx",
    13: "-me",
    14: "-me",
    15: "+me.all",
    16: "+me.all",
    17: "+gfx",
}
"""What a profile of that index adds to its name; the others add nothing."""

COMPUTE_PROFILE_INDEXES = range(9)
"""The values of `NVML_COMPUTE_INSTANCE_PROFILE_*`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuProfile:
    """`nvmlGpuInstanceProfileInfo_t`. `id` is what nvidia-smi shows, `slices` are compute slices."""

    id: int
    slices: int
    limit: int
    multiprocessors: int
    copy_engines: int
    decoders: int
    encoders: int
    jpeg_engines: int
    ofa_engines: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuInstance:
    """`nvmlGpuInstanceInfo_t`."""

    id: int
    profile_id: int
    placement: Placement


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeProfile:
    """`nvmlComputeInstanceProfileInfo_t`."""

    id: int
    slices: int
    multiprocessors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComputeInstance:
    """`nvmlComputeInstanceInfo_t`. Its `device` is the GPU: the MIG device's UUID comes from `Nvml.mig_uuids`.

    `start` is its first compute slice in the GPU instance.
    """

    id: int
    profile_id: int
    start: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PciPlace:
    """Where a GPU sits: `root` like `pci0000:1a`; None where the host does not say."""

    root: str | None = None
    numa_node: int | None = None


class Nvml(Protocol):
    """The library. Methods that take a `gpu` want the handle that `gpu_by_address` gave."""

    def close(self) -> None:
        """Give the library back; nothing happens if it was never used, or while a call is under way."""

    def driver_version(self) -> str:
        """`580.105.08`."""

    def cuda_version(self) -> int:
        """`13000` for 13.0."""

    def pci_addresses(self) -> tuple[str, ...]:
        """`dddd:bb:dd.f`, lower case, of all GPUs that the kernel's driver has, ascending; no GPU is asked."""

    def gpu_by_address(self, pci_address: str) -> Handle:
        """The handle of the GPU at that address; NOT_FOUND."""

    def pci_device_id(self, gpu: Handle) -> int:
        """`0x20B0`: tells boards apart that share a name."""

    def pci_place(self, pci_address: str) -> PciPlace:
        """What the host's sysfs says; never fails."""

    def name(self, gpu: Handle) -> str:
        """`NVIDIA A100-SXM4-40GB`."""

    def uuid(self, gpu: Handle) -> str:
        """`GPU-` and a UUID."""

    def minor(self, gpu: Handle) -> int:
        """The N of /dev/nvidiaN."""

    def architecture(self, gpu: Handle) -> int:
        """See Architecture; newer ones have higher numbers."""

    def compute_capability(self, gpu: Handle) -> tuple[int, int]:
        """Major and minor."""

    def memory_bytes(self, gpu: Handle) -> int:
        """All of the GPU's memory."""

    def core_count(self, gpu: Handle) -> int:
        """CUDA cores, not multiprocessors."""

    def mig_mode(self, gpu: Handle) -> tuple[int, int]:
        """Current and pending MigMode; NOT_SUPPORTED on GPUs without MIG."""

    def set_mig_mode(self, gpu: Handle, mode: MigMode) -> int:
        """Set the pending mode and try to make it current; other than 0 is the Code of why it is still pending."""

    def is_mig_resetless(self, gpu: Handle) -> bool:
        """Whether the mode changes without a reset of the GPU (field 184; Hopper and newer)."""

    def gpu_profile(self, gpu: Handle, index: int) -> GpuProfile:
        """The profile of that GPU_PROFILE_INDEXES; NOT_SUPPORTED where the GPU lacks it."""

    def placements(self, gpu: Handle, profile_id: int) -> tuple[Placement, ...]:
        """All places where the profile may stand on an empty GPU."""

    def create_gpu_instance(self, gpu: Handle, profile_id: int, placement: Placement) -> Handle:
        """A new GPU instance; INSUFFICIENT_RESOURCES where there is no room."""

    def gpu_instances(self, gpu: Handle, profile_id: int) -> tuple[Handle, ...]:
        """Those of that profile."""

    def gpu_instance(self, gpu: Handle, instance_id: int) -> Handle:
        """The one with that id; NOT_FOUND."""

    def gpu_instance_info(self, instance: Handle) -> GpuInstance:
        """What it is."""

    def destroy_gpu_instance(self, instance: Handle) -> None:
        """IN_USE while it has compute instances."""

    def compute_profile(self, instance: Handle, index: int) -> ComputeProfile:
        """The profile of that COMPUTE_PROFILE_INDEXES; NOT_SUPPORTED where the instance lacks it."""

    def create_compute_instance(
        self, instance: Handle, profile_id: int, placement: Placement | None = None
    ) -> Handle:
        """A new compute instance, on these compute slices of the GPU instance or on some that are free.

        INVALID_ARGUMENT if it may not start there, INSUFFICIENT_RESOURCES if they are taken.
        """

    def compute_instances(self, instance: Handle, profile_id: int) -> tuple[Handle, ...]:
        """Those of that profile."""

    def compute_instance(self, instance: Handle, compute_id: int) -> Handle:
        """The one with that id; NOT_FOUND."""

    def compute_instance_info(self, compute: Handle) -> ComputeInstance:
        """What it is."""

    def destroy_compute_instance(self, compute: Handle) -> None:
        """IN_USE while a process uses it."""

    def mig_uuids(self, gpu: Handle) -> dict[tuple[int, int], str]:
        """`MIG-` and a UUID for each MIG device, by the ids of its GPU instance and compute instance; none without MIG."""

    def capability_minor(self, capability: str) -> int:
        """The N of /dev/nvidia-caps/nvidia-capN for `gpu0/gi3/access` or `gpu0/gi3/ci0/access`; NOT_FOUND."""
