"""All GPUs of a backend in one look, for tools and tests; the plugin reads each GPU in that GPU's own thread."""

from __future__ import annotations

from dra_driver.model.device import Gpu
from dra_driver.model.errors import VendorError
from dra_driver.model.inventory import Fault, Inventory
from dra_driver.ports import Backend


def discover(backend: Backend) -> Inventory:
    """Every GPU that the driver knows; one that cannot be used is a fault and hides no other.

    Raises VendorError where the driver itself does not answer.
    """
    gpus: list[Gpu] = []
    faults: list[Fault] = []
    for address in backend.addresses():
        try:
            gpus.append(backend.read(address))
        except VendorError as error:
            faults.append(Fault(pci_address=address, message=str(error)))
    return Inventory(vendor=backend.vendor, gpus=tuple(gpus), faults=tuple(faults))
