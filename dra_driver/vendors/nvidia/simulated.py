"""NVML without hardware: the GPUs of a machine profile, with the placement rules, errors and lifetimes of real ones.

State lies in files, one per GPU, so instances outlive the process and several processes see the same hardware. A file
`faults.json` beside them breaks it (`config.faults`), from then on and until it is changed or removed. A GPU that is absent
is not listed, and lost for whoever holds a handle. A busy GPU cannot change its mode, a busy MIG device cannot be destroyed.
Where there is a folder of the kernel's for the `driver`, as in sysfs, only GPUs that are bound there are NVML's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dra_driver.config.faults import DRIVER
from dra_driver.config.machine import Machine
from dra_driver.model.device import Placement
from dra_driver.vendors.nvidia import simulated_state
from dra_driver.vendors.nvidia.nvml import (
    Code,
    ComputeInstance,
    ComputeProfile,
    GpuInstance,
    GpuProfile,
    MigMode,
    NvmlError,
    PciPlace,
)
from dra_driver.vendors.nvidia.simulated_activity import SimulatedActivity
from dra_driver.vendors.nvidia.simulated_faults import meets_faults, open_faults
from dra_driver.vendors.nvidia.simulated_file import StateFile
from dra_driver.vendors.nvidia.simulated_gpu import SimulatedGpu, simulated_gpus
from dra_driver.vendors.nvidia.simulated_health import SimulatedHealth
from dra_driver.vendors.nvidia.simulated_state import (
    COMPUTE_SLICES,
    ComputeWish,
    InstanceState,
    MigState,
)

T = TypeVar("T")

_CAPABILITY = re.compile(r"gpu(\d+)/gi(\d+)(?:/ci(\d+))?/access")
_GPU_CAPABILITIES, _INSTANCE_CAPABILITIES, _FIRST_CAPABILITY = 135, 9, 3
"""The kernel's table: 15 GPU instances for each GPU, each with itself and 8 compute instances."""


@dataclass(frozen=True, slots=True)
class _Instance:
    gpu: SimulatedGpu
    id: int


@dataclass(frozen=True, slots=True)
class _Compute:
    instance: _Instance
    id: int


@meets_faults
class SimulatedNvml:
    """Implements `NvmlLibrary` on the NVIDIA GPUs of a machine. MachineError if the profile describes no possible GPU."""

    def __init__(
        self, machine: Machine, *, node: str, state_dir: Path, driver: Path | None = None
    ) -> None:
        state_dir.mkdir(parents=True, exist_ok=True)
        self._driver = driver
        self._gpus = simulated_gpus(machine, node)
        self.faults = open_faults(state_dir, tuple(gpu.pci_address for gpu in self._gpus))
        self.health = SimulatedHealth(self.faults)
        self._files = {
            gpu.pci_address: StateFile(state_dir / f"{gpu.pci_address}.json", gpu.initial)
            for gpu in self._gpus
        }
        self.activity = SimulatedActivity(
            self, self.faults, state_dir / "activity.json", gpus=tuple(self._files)
        )

    def close(self) -> None:
        """See Nvml."""

    def driver_version(self) -> str:
        """See Nvml."""
        return self.faults.of(DRIVER).version or "580.105.08"

    def cuda_version(self) -> int:
        """See Nvml."""
        return 13000

    def pci_addresses(self) -> tuple[str, ...]:
        """See Nvml."""
        return self.faults.present(gpu.pci_address for gpu in self._gpus if self._drives(gpu))

    def gpu_by_address(self, pci_address: str) -> SimulatedGpu:
        """See Nvml."""
        for gpu in self._gpus:
            if gpu.pci_address == pci_address and self._drives(gpu):
                return gpu
        raise NvmlError(Code.NOT_FOUND, f"simulated NVML: GPU {pci_address}")

    def pci_device_id(self, gpu: SimulatedGpu) -> int:
        """See Nvml."""
        return gpu.board.device_id

    def pci_place(self, pci_address: str) -> PciPlace:
        """See Nvml."""
        return next((g.place for g in self._gpus if g.pci_address == pci_address), PciPlace())

    def name(self, gpu: SimulatedGpu) -> str:
        """See Nvml."""
        return gpu.board.product_name

    def uuid(self, gpu: SimulatedGpu) -> str:
        """See Nvml."""
        return gpu.uuid

    def minor(self, gpu: SimulatedGpu) -> int:
        """See Nvml."""
        return gpu.index

    def architecture(self, gpu: SimulatedGpu) -> int:
        """See Nvml."""
        return gpu.board.architecture

    def compute_capability(self, gpu: SimulatedGpu) -> tuple[int, int]:
        """See Nvml."""
        return gpu.board.compute_capability

    def memory_bytes(self, gpu: SimulatedGpu) -> int:
        """See Nvml."""
        return gpu.board.memory_mib << 20

    def core_count(self, gpu: SimulatedGpu) -> int:
        """See Nvml."""
        return gpu.board.cores

    def mig_mode(self, gpu: SimulatedGpu) -> tuple[int, int]:
        """See Nvml."""
        state = self._state(gpu)
        return state.mode, state.pending

    def set_mig_mode(self, gpu: SimulatedGpu, mode: MigMode) -> int:
        """See Nvml."""
        busy = self.faults.of(gpu.pci_address).busy
        return self._change(gpu, lambda s: simulated_state.with_mode(gpu.board, s, mode, busy=busy))

    def users(self, gpu: SimulatedGpu) -> tuple[str, ...]:
        """See GpuUsers."""
        return self.faults.of(gpu.pci_address).users

    def is_mig_resetless(self, gpu: SimulatedGpu) -> bool:
        """See Nvml."""
        return gpu.board.is_mig_resetless

    def gpu_profile(self, gpu: SimulatedGpu, index: int) -> GpuProfile:
        """See Nvml. Answers with MIG off too, as drivers since 545 do."""
        for cut in gpu.board.cuts:
            if cut.index == index:
                return cut.profile
        raise NvmlError(Code.NOT_SUPPORTED, f"simulated NVML: GPU instance profile index {index}")

    def placements(self, gpu: SimulatedGpu, profile_id: int) -> tuple[Placement, ...]:
        """See Nvml."""
        return simulated_state.cut_of(gpu.board, profile_id).placements

    def create_gpu_instance(
        self, gpu: SimulatedGpu, profile_id: int, placement: Placement
    ) -> _Instance:
        """See Nvml."""
        return _Instance(
            gpu,
            self._change(
                gpu,
                lambda s: simulated_state.with_instance(gpu.board, s, profile_id, placement),
            ),
        )

    def gpu_instances(self, gpu: SimulatedGpu, profile_id: int) -> tuple[_Instance, ...]:
        """See Nvml."""
        instances = self._state(gpu, in_mig_mode=True).instances
        return tuple(_Instance(gpu, i.id) for i in instances if i.profile_id == profile_id)

    def gpu_instance(self, gpu: SimulatedGpu, instance_id: int) -> _Instance:
        """See Nvml."""
        return _Instance(gpu, self._state(gpu, in_mig_mode=True).instance(instance_id).id)

    def gpu_instance_info(self, instance: _Instance) -> GpuInstance:
        """See Nvml."""
        found = self._found(instance)
        return GpuInstance(id=found.id, profile_id=found.profile_id, placement=found.placement)

    def destroy_gpu_instance(self, instance: _Instance) -> None:
        """See Nvml."""
        self._change(
            instance.gpu, lambda s: (simulated_state.without_instance(s, instance.id), None)
        )

    def compute_profile(self, instance: _Instance, index: int) -> ComputeProfile:
        """See Nvml. A compute slice has its part of the instance's multiprocessors."""
        profile_id = self._found(instance).profile_id
        whole = simulated_state.cut_of(instance.gpu.board, profile_id).profile
        slices = COMPUTE_SLICES.get(index)
        if slices is None or slices > whole.slices:
            raise NvmlError(Code.NOT_SUPPORTED, f"simulated NVML: compute profile index {index}")
        multiprocessors = whole.multiprocessors * slices // whole.slices
        return ComputeProfile(id=index, slices=slices, multiprocessors=multiprocessors)

    def create_compute_instance(
        self, instance: _Instance, profile_id: int, placement: Placement | None = None
    ) -> _Compute:
        """See Nvml."""
        gpu, start = instance.gpu, placement.start if placement else None

        def rule(state: MigState) -> tuple[MigState, int]:
            uuid = gpu.mig_uuid(state.created)
            wish = ComputeWish(profile_id=profile_id, uuid=uuid, start=start)
            return simulated_state.with_compute(gpu.board, state, instance.id, wish)

        return _Compute(instance, self._change(gpu, rule))

    def compute_instances(self, instance: _Instance, profile_id: int) -> tuple[_Compute, ...]:
        """See Nvml."""
        computes = self._found(instance).computes
        return tuple(_Compute(instance, c.id) for c in computes if c.profile_id == profile_id)

    def compute_instance(self, instance: _Instance, compute_id: int) -> _Compute:
        """See Nvml."""
        return _Compute(instance, self._found(instance).compute(compute_id).id)

    def compute_instance_info(self, compute: _Compute) -> ComputeInstance:
        """See Nvml."""
        found = self._found(compute.instance).compute(compute.id)
        return ComputeInstance(id=found.id, profile_id=found.profile_id, start=found.start)

    def destroy_compute_instance(self, compute: _Compute) -> None:
        """See Nvml."""
        instance = compute.instance
        busy = self.faults.of(self._found(instance).compute(compute.id).uuid).busy
        self._change(
            instance.gpu,
            lambda s: (
                simulated_state.without_compute(s, instance.id, compute.id, busy=busy),
                None,
            ),
        )

    def mig_uuids(self, gpu: SimulatedGpu) -> dict[tuple[int, int], str]:
        """See Nvml."""
        instances = self._files[gpu.pci_address].read().instances
        return {(i.id, c.id): c.uuid for i in instances for c in i.computes}

    def capability_minor(self, capability: str) -> int:
        """See Nvml."""
        match = _CAPABILITY.fullmatch(capability)
        if match is None:
            raise NvmlError(Code.NOT_FOUND, f"simulated NVML: capability {capability}")
        gpu, instance, compute = (int(part or -1) for part in match.groups())
        first = _FIRST_CAPABILITY + _GPU_CAPABILITIES * gpu + _INSTANCE_CAPABILITIES * instance
        return first + 1 + compute

    def address(self, handle: SimulatedGpu | _Instance | _Compute | str) -> str:
        """The PCI address of the GPU that the handle, or already the address, is about."""
        match handle:
            case SimulatedGpu():
                return handle.pci_address
            case _Instance():
                return handle.gpu.pci_address
            case _Compute():
                return handle.instance.gpu.pci_address
        return handle

    def reset(self, gpu: SimulatedGpu) -> None:
        """What NVML has no call for: the GPU starts anew, in the mode that was pending. IN_USE while it is busy."""
        busy = self.faults.of(gpu.pci_address).busy
        self._change(gpu, lambda s: (simulated_state.after_reset(s, busy=busy), None))

    def state(self, gpu: SimulatedGpu) -> MigState:
        """The GPU's mode and instances now; NOT_SUPPORTED without MIG."""
        return self._state(gpu)

    def _drives(self, gpu: SimulatedGpu) -> bool:
        return self._driver is None or (self._driver / gpu.pci_address).exists()

    def _change(self, gpu: SimulatedGpu, rule: Callable[[MigState], tuple[MigState, T]]) -> T:
        self._state(gpu)  # says so where the GPU has no MIG
        return self._files[gpu.pci_address].change(rule)

    def _found(self, instance: _Instance) -> InstanceState:
        return self._state(instance.gpu).instance(instance.id)

    def _state(self, gpu: SimulatedGpu, *, in_mig_mode: bool = False) -> MigState:
        state = self._files[gpu.pci_address].read()
        if not gpu.board.cuts or (in_mig_mode and state.mode is not MigMode.ENABLED):
            raise NvmlError(Code.NOT_SUPPORTED, f"simulated NVML: MIG on GPU {gpu.pci_address}")
        return state
