"""Everything one vendor's backend found on a node, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.model.device import Gpu, Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A GPU that is there and cannot be used, and why; the others go on. `unseen`: nobody could look at it, so it may be sound."""

    pci_address: str
    message: str
    unseen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The GPUs of one vendor, sorted by PCI address."""

    vendor: Vendor
    gpus: tuple[Gpu, ...]
    faults: tuple[Fault, ...] = ()

    @property
    def addresses(self) -> tuple[str, ...]:
        """PCI addresses of all GPUs, usable or not, ascending."""
        usable = (gpu.pci_address for gpu in self.gpus)
        return tuple(sorted([*usable, *(fault.pci_address for fault in self.faults)]))

    def fault(self, pci_address: str) -> Fault | None:
        """What is wrong with the GPU there, if it cannot be used."""
        return next((fault for fault in self.faults if fault.pci_address == pci_address), None)

    def gpu(self, pci_address: str) -> Gpu | None:
        """The GPU at that address, or None."""
        return next((g for g in self.gpus if g.pci_address == pci_address), None)
