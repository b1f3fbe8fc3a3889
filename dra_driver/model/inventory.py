"""Everything one vendor's backend found on a node, as one value."""

from __future__ import annotations

from dataclasses import dataclass

from dra_driver.model.device import Gpu, Vendor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A GPU that is there and cannot be used, and why; the others go on."""

    pci_address: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """The GPUs of one vendor, sorted by PCI address."""

    vendor: Vendor
    gpus: tuple[Gpu, ...]
    faults: tuple[Fault, ...] = ()

    def gpu(self, pci_address: str) -> Gpu | None:
        """The GPU at that address, or None."""
        return next((g for g in self.gpus if g.pci_address == pci_address), None)
