"""NVIDIA GPUs as the rest of the driver sees them: whole GPUs and MIG partitions. Not a word of NVML gets past here."""

from __future__ import annotations

from dra_driver.model.device import (
    CreateStage,
    DestroyStage,
    Gpu,
    PartitionChange,
    SetMode,
    Target,
    Vendor,
)
from dra_driver.model.edits import ContainerEdits, DeviceNode
from dra_driver.model.errors import VendorError
from dra_driver.model.inventory import Fault, Inventory
from dra_driver.model.names import device_variable
from dra_driver.vendors.nvidia.changes import create_stage, destroy_stage, set_mode
from dra_driver.vendors.nvidia.discovery import explained, read_gpu
from dra_driver.vendors.nvidia.mig_names import Identity
from dra_driver.vendors.nvidia.nvml import Handle, Nvml, NvmlError

_COMMON_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class NvidiaBackend:
    """Implements `ports.Backend` on NVML."""

    vendor = Vendor.NVIDIA

    def __init__(self, nvml: Nvml) -> None:
        self._nvml = nvml

    def discover(self) -> Inventory:
        """Every GPU that the driver knows; one that does not answer is a fault."""
        with explained("looking for NVIDIA GPUs"):
            count = self._nvml.gpu_count()
        found = [self._discovered(index) for index in range(count)]
        by_address = sorted(found, key=lambda one: one.pci_address)
        return Inventory(
            vendor=self.vendor,
            gpus=tuple(one for one in by_address if isinstance(one, Gpu)),
            faults=tuple(one for one in by_address if isinstance(one, Fault)),
        )

    def partition(self, change: PartitionChange) -> str:
        """Change the MIG mode, or create or destroy a GPU instance (`gi-3`) or compute instance (`gi-3/ci-0`)."""
        match change:
            case SetMode():
                return set_mode(self._nvml, change)
            case CreateStage():
                return create_stage(self._nvml, change)
            case DestroyStage():
                return destroy_stage(self._nvml, change)

    def edits(self, target: Target) -> ContainerEdits:
        """Device nodes, and a variable `DRA_DEVICE_...` with the device's UUID, named so that no two devices collide.

        `NVIDIA_VISIBLE_DEVICES=void` keeps NVIDIA's own container runtime from adding devices of its choice.
        """
        with explained(f"GPU {target.gpu}: describing {target.instance or 'it'} to a container"):
            handle = self._nvml.gpu_by_address(target.gpu)
            nodes = [*_COMMON_NODES, f"/dev/nvidia{self._nvml.minor(handle)}"]
            if target.instance is None:
                variable, uuid = device_variable(target.gpu), self._nvml.uuid(handle)
            else:
                identity = Identity.parse(target.instance, target.gpu)
                instance = self._nvml.gpu_instance(handle, identity.instance)
                start = self._nvml.gpu_instance_info(instance).placement.start
                variable = device_variable(target.gpu, f"-mig-{start}")
                uuid = self._mig_uuid(handle, identity, target)
                nodes += self._capability_nodes(handle, identity)
        return ContainerEdits(
            env=(("NVIDIA_VISIBLE_DEVICES", "void"), (variable, uuid)),
            device_nodes=tuple(DeviceNode(path=path) for path in nodes),
        )

    def close(self) -> None:
        """Give NVML back."""
        self._nvml.close()

    def _discovered(self, index: int) -> Gpu | Fault:
        place = f"index {index}"
        try:
            handle = self._nvml.gpu_by_index(index)
            place = self._nvml.pci_address(handle)
            with explained(f"GPU {place}: reading it"):
                return read_gpu(self._nvml, handle, index)
        except NvmlError as error:
            return Fault(pci_address=place, message=str(error))

    def _mig_uuid(self, handle: Handle, identity: Identity, target: Target) -> str:
        for (instance, compute), uuid in self._nvml.mig_uuids(handle).items():
            if identity == Identity(instance, compute):
                return uuid
        raise VendorError(
            f"GPU {target.gpu}: partition {target.instance} has no MIG device; prepare the claim anew"
        )

    def _capability_nodes(self, handle: Handle, identity: Identity) -> list[str]:
        """Access to a GPU instance and to a compute instance are two rights, each with its node."""
        instance = f"gpu{self._nvml.minor(handle)}/gi{identity.instance}"
        rights = (f"{instance}/access", f"{instance}/ci{identity.compute}/access")
        minors = [self._nvml.capability_minor(right) for right in rights]
        return [f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in minors]
