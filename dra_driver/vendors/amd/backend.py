"""AMD GPUs as the rest of the driver sees them: whole, in SPX mode, each reached through its own render node.

`/dev/kfd` is shared by all containers; the kernel lets a process use a GPU through it only if the device cgroup admits
that GPU's render node, so the pair isolates, and `card` nodes are not needed for compute.
"""

from __future__ import annotations

from types import MappingProxyType

from dra_driver.model.activity import Activity
from dra_driver.model.device import Gpu, PartitionChange, Target, Vendor
from dra_driver.model.edits import ContainerEdits, DeviceNode
from dra_driver.model.errors import VendorError
from dra_driver.model.names import device_variable
from dra_driver.vendors.amd.sdk import KfdNode, PciGpu, Sysfs
from dra_driver.vendors.pci import Numbering

_WHOLE_MODE = "SPX"


class AmdBackend:
    """Implements `ports.Backend` on sysfs."""

    vendor = Vendor.AMD

    def __init__(self, sysfs: Sysfs) -> None:
        self._sysfs = sysfs
        self._numbering = Numbering()

    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of the devices bound to amdgpu."""
        return self._sysfs.addresses()

    def read(self, pci_address: str) -> Gpu:
        """Everything that sysfs says about the GPU, the driver's version included, read anew on each call."""
        found, kfd = self._usable(pci_address)
        index = self._numbering.index(pci_address, self.addresses())
        return _gpu(found, kfd, index=index, driver_version=self._sysfs.driver_version())

    def partition(self, change: PartitionChange) -> str:
        """Always raises VendorError: partition modes are not ours to change yet."""
        raise VendorError(
            f"AMD GPU {change.gpu}: AMD repartitioning is not supported yet; claim the whole GPU"
        )

    def identify(self, target: Target) -> tuple[str, ...]:
        """The GPU's UUID."""
        return (_uuid(self._usable_target(target)[0]),)

    def edits(self, target: Target) -> ContainerEdits:
        """`/dev/kfd`, the GPU's render node, and a variable that says which GPU it is."""
        found, kfd = self._usable_target(target)
        return ContainerEdits(
            env=((device_variable(target.gpu), _uuid(found)),),
            device_nodes=(
                DeviceNode(path="/dev/kfd"),
                DeviceNode(path=f"/dev/dri/renderD{kfd.render_minor}"),
            ),
        )

    def shared(self) -> None:
        """Nothing: images bring ROCm's libraries themselves."""

    def health(self, pci_address: str) -> None:
        """Nothing: what sysfs tells of errors is not read yet."""

    def activity(self, pci_address: str) -> tuple[Activity, ...]:  # noqa: ARG002 (the port's)
        """Nothing: AMD GPUs are not measured yet."""
        return ()

    def close(self) -> None:
        """Nothing is held between calls."""

    def _usable_target(self, target: Target) -> tuple[PciGpu, KfdNode]:
        if target.instance is not None:
            raise VendorError(
                f"AMD GPU {target.gpu} has no partition {target.instance!r}: "
                "AMD partitions are not supported yet; claim the whole GPU"
            )
        return self._usable(target.gpu)

    def _usable(self, address: str) -> tuple[PciGpu, KfdNode]:
        """The GPU with its KFD node, or VendorError saying why it cannot be used."""
        found = self._sysfs.gpu(address, self._sysfs.kfd_nodes())
        if found is None:
            raise VendorError(
                f"AMD GPU {address} is not bound to amdgpu any more; bind it, or drain the node",
                retryable=True,
            )
        if found.compute_mode not in (None, _WHOLE_MODE):
            raise VendorError(
                f"AMD GPU {address} is in {found.compute_mode} mode and partitions are not supported yet; "
                f"write {_WHOLE_MODE} to its current_compute_partition while it is idle"
            )
        if not found.memory_bytes:
            raise VendorError(
                f"AMD GPU {address} reports no memory (mem_info_vram_total); "
                "look for amdgpu errors in the kernel log, then reset it",
                retryable=True,
            )
        if found.kfd is None:
            raise VendorError(
                f"AMD GPU {address} has no node in the KFD topology, so compute cannot reach it; "
                "look for kfd errors in the kernel log",
                retryable=True,
            )
        return found, found.kfd


def _gpu(found: PciGpu, kfd: KfdNode, *, index: int, driver_version: str) -> Gpu:
    modes = {} if found.compute_mode is None else {"computeMode": found.compute_mode}
    return Gpu(
        vendor=Vendor.AMD,
        pci_address=found.pci_address,
        uuid=_uuid(found),
        index=index,
        product_name=found.product_name or f"AMD GPU {found.pci_id}",
        architecture=_architecture(kfd.gfx_target_version),
        memory_bytes=found.memory_bytes or 0,
        compute_units=kfd.compute_units,
        driver_version=driver_version,
        numa_node=found.numa_node,
        pcie_root=found.pcie_root,
        extras=MappingProxyType(modes),
    )


def _uuid(found: PciGpu) -> str:
    """As ROCm spells it (`GPU-` and the unique id); a GPU without one is named by its PCI address."""
    return f"GPU-{found.unique_id or found.pci_address}"


def _architecture(version: int) -> str:
    """90402 gives `gfx942`, 90010 gives `gfx90a`: major, then minor and stepping in hexadecimal."""
    return f"gfx{version // 10000}{version // 100 % 100:x}{version % 100:x}"
