"""NVIDIA GPUs as the rest of the driver sees them: whole GPUs and MIG partitions. Not a word of NVML gets past here."""

from __future__ import annotations

from collections.abc import Sequence

from dra_driver.model.activity import Activity
from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    DestroyStage,
    Gpu,
    PartitionChange,
    SetMode,
    Target,
    UnbindPassthrough,
    Vendor,
)
from dra_driver.model.edits import ContainerEdits, DeviceNode, SharedEdits
from dra_driver.model.errors import VendorError
from dra_driver.model.health import Ailment
from dra_driver.model.names import device_variable
from dra_driver.vendors.nvidia.activity import ActivityMeter
from dra_driver.vendors.nvidia.changes import create_stage, destroy_stage, set_mode
from dra_driver.vendors.nvidia.discovery import explained, read_gpu
from dra_driver.vendors.nvidia.health_watch import HealthWatch
from dra_driver.vendors.nvidia.host import DriverHost
from dra_driver.vendors.nvidia.mig_names import Identity
from dra_driver.vendors.nvidia.nvml import Handle
from dra_driver.vendors.nvidia.nvml_library import NvmlLibrary
from dra_driver.vendors.nvidia.splits import Splits
from dra_driver.vendors.pci import Numbering

_COMMON_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools")


class NvidiaBackend:
    """Implements `ports.Backend` on NVML. Without a `host`, as in simulation, containers get device nodes and variables alone.

    `splits` are the profiles of parts of partitions that may be offered, in the order of preference: a GPU offers one.
    """

    vendor = Vendor.NVIDIA

    def __init__(
        self, nvml: NvmlLibrary, host: DriverHost | None = None, *, splits: Sequence[str] = ()
    ) -> None:
        self._nvml = nvml
        self._host = host
        self._splits = Splits(splits)
        self._health = HealthWatch(nvml)
        self._meter = ActivityMeter(nvml)
        self._numbering = Numbering()

    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of the GPUs that the nvidia driver has.

        The kernel's list and not NVML's: NVML gives addresses out for handles only, and the call for a handle brings a GPU
        up that is not up yet, which takes as long as that GPU likes.
        """
        present = self._nvml.pci_addresses()
        self._health.keep_only(present)
        return present

    def read(self, pci_address: str) -> Gpu:
        """Everything that NVML says about the GPU, the driver's version included, asked anew on each call."""
        present = self.addresses()
        if pci_address not in present:
            raise VendorError(
                f"GPU {pci_address} is not bound to the nvidia driver (any more); bind it, or drain the node",
                retryable=True,
            )
        with explained(f"GPU {pci_address}: reading it"):
            if self._host is not None:
                self._host.expect(self._nvml.driver_version())
            index = self._numbering.index(pci_address, present)
            return read_gpu(self._nvml, pci_address, index=index, splits=self._splits)

    def partition(self, change: PartitionChange) -> str:
        """Change the MIG mode, or create or destroy a GPU instance (`gi-3`) or compute instance (`gi-3/ci-0`).

        What we measure with is closed before: no instance, and no mode, may be kept in use by us. Other instances' averages go
        on, or a GPU on which claims come and go would have none.
        """
        match change:
            case SetMode():
                self._meter.close(change.gpu)
                self._health.let_go(change.gpu)
                return set_mode(self._nvml, change)
            case CreateStage():
                return create_stage(self._nvml, change)
            case DestroyStage(gpu=gpu, identity=identity):
                self._meter.leave(gpu, Identity.parse(identity, gpu).instance)
                return destroy_stage(self._nvml, change)
            case BindPassthrough() | UnbindPassthrough():
                raise VendorError(f"GPU {change.gpu}: NVML cannot pass GPUs through; sysfs can")

    def identify(self, target: Target) -> tuple[str, ...]:
        """The GPU's UUID, and the MIG device's: one made anew has the old one's numbers, but never its UUID."""
        with explained(f"GPU {target.gpu}: identifying {target.instance or 'it'}"):
            handle = self._nvml.gpu_by_address(target.gpu)
            uuid = self._nvml.uuid(handle)
            if target.instance is None:
                return (uuid,)
            identity = Identity.parse(target.instance, target.gpu)
            return uuid, self._mig_uuid(handle, identity, target)

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
                part = f"-{target.part}" if target.part else ""
                variable = device_variable(target.gpu, f"-mig-{start}{part}")
                uuid = self._mig_uuid(handle, identity, target)
                nodes += self._capability_nodes(handle, identity)
        own = ContainerEdits(
            env=(("NVIDIA_VISIBLE_DEVICES", "void"), (variable, uuid)),
            device_nodes=tuple(DeviceNode(path=path) for path in nodes),
        )
        return own if self._host is None else self._host.on_host(own, target)

    def shared(self) -> SharedEdits | None:
        """The driver's files, of the version that is loaded now."""
        if self._host is None:
            return None
        with explained("asking for the version of the NVIDIA driver"):
            version = self._nvml.driver_version()
        return self._host.driver_files(version)

    def health(self, pci_address: str) -> tuple[Ailment, ...]:
        """By XIDs, or the action that the driver recommends, ECC and memory repair, NVLinks, heat: whatever this GPU tells."""
        return self._health.look(pci_address)

    def activity(self, pci_address: str) -> tuple[Activity, ...]:
        """Of the GPU, then of each MIG device; GPM's figures (Hopper and newer) from the second time on."""
        with explained(f"GPU {pci_address}: measuring it"):
            return self._meter.measure(pci_address)

    def close(self) -> None:
        """Give NVML back, with the event sets and samples of all GPUs; not while it is asked about any."""
        self._nvml.close()

    def _mig_uuid(self, handle: Handle, identity: Identity, target: Target) -> str:
        for (instance, compute), uuid in self._nvml.mig_uuids(handle).items():
            if identity == Identity(instance, compute):
                return uuid
        raise VendorError(
            f"GPU {target.gpu}: partition {target.instance} has no MIG device; prepare the claim anew",
            refused=True,
        )

    def _capability_nodes(self, handle: Handle, identity: Identity) -> list[str]:
        """Access to a GPU instance and to a compute instance are two rights, each with its node."""
        instance = f"gpu{self._nvml.minor(handle)}/gi{identity.instance}"
        rights = (f"{instance}/access", f"{instance}/ci{identity.compute}/access")
        minors = [self._nvml.capability_minor(right) for right in rights]
        return [f"/dev/nvidia-caps/nvidia-cap{minor}" for minor in minors]
