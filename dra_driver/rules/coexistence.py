"""Which GPUs somebody else gives out, or partitions, too.

A device plugin is known by the Node's allocatable, NVIDIA's MIG manager by the Node's labels, another DRA driver by its slices.
Two who give out the same GPU do not know of each other's pods, so each would break the other's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from dra_driver.model.device import Gpu, Vendor
from dra_driver.model.errors import QuantityError
from dra_driver.model.inventory import Inventory
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import Device, ResourceSlice

DEVICE_PLUGIN_RESOURCES: Final = MappingProxyType(
    {
        Vendor.NVIDIA: re.compile(r"nvidia\.com/(gpu|mig-).*"),
        Vendor.AMD: re.compile(r"amd\.com/(gpu|[sdtqc]px_nps\d).*"),
    }
)
"""GPUs, shares and partitions as the vendors' device plugins name them; `nvidia.com/` has network devices as well."""
VENDOR_DRIVERS: Final = MappingProxyType(
    {Vendor.NVIDIA: "gpu.nvidia.com", Vendor.AMD: "gpu.amd.com"}
)
MIG_MANAGER_STATE: Final = "nvidia.com/mig.config.state"
"""The Node's label in which NVIDIA's MIG manager says how far it is."""
_CHANGING = frozenset({"pending", "rebooting"})
_ADDRESS = re.compile(r"0*([0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-9a-f])")
_UUID = re.compile(r"(gpu-|mig-)?[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


def offered_elsewhere(
    inventory: Inventory,
    allocatable: Mapping[str, str],
    labels: Mapping[str, str],
    others: Iterable[ResourceSlice],
) -> dict[str, str]:
    """By PCI address, who else has the GPU. `others` are the node's slices of other drivers.

    The MIG manager has all GPUs while it changes the node's partitions, whoever uses them; once it is done they are as it left them.

    A device of another driver is one of our GPUs if any attribute is its address or UUID. Where such a driver names none of its devices
    so, and it is the vendor's own, they may be any of that vendor's GPUs.
    """
    resource = offered_resource(allocatable, inventory.vendor)
    if resource:
        return {gpu.pci_address: f"a device plugin offers {resource}" for gpu in inventory.gpus}
    state = labels.get(MIG_MANAGER_STATE, "")
    if inventory.vendor is Vendor.NVIDIA and state in _CHANGING:
        who = f"the MIG manager is at work ({MIG_MANAGER_STATE} is {state})"
        return {gpu.pci_address: who for gpu in inventory.gpus}
    found: dict[str, str] = {}
    for item in others:
        names = [_names(device) for device in item.devices]
        is_vague = item.driver == VENDOR_DRIVERS[inventory.vendor] and not all(map(_tells, names))
        for gpu in inventory.gpus:
            if is_vague or any(_own_names(gpu) & one for one in names):
                found.setdefault(gpu.pci_address, f"the DRA driver {item.driver} offers it as well")
    return found


def offered_resource(allocatable: Mapping[str, str], vendor: Vendor) -> str:
    """The first resource by which a device plugin offers GPUs of that vendor, or nothing."""
    names = filter(DEVICE_PLUGIN_RESOURCES[vendor].fullmatch, sorted(allocatable))
    return next((name for name in names if _is_positive(allocatable[name])), "")


def without(inventory: Inventory, addresses: Iterable[str]) -> Inventory:
    """The inventory less these GPUs."""
    hidden = frozenset(addresses)
    return Inventory(
        vendor=inventory.vendor,
        gpus=tuple(gpu for gpu in inventory.gpus if gpu.pci_address not in hidden),
        faults=inventory.faults,
    )


def _is_positive(amount: str) -> bool:
    try:
        return Quantity.parse(amount).nanos > 0
    except QuantityError:
        return True


def _names(device: Device) -> frozenset[str]:
    """All that its attributes say, in one spelling: addresses may have eight leading digits, and capital letters."""
    texts = (value.lower() for value in device.attributes.values() if isinstance(value, str))
    return frozenset(match[1] if (match := _ADDRESS.fullmatch(text)) else text for text in texts)


def _own_names(gpu: Gpu) -> frozenset[str]:
    uuids = (gpu.uuid, *(instance.uuid for instance in gpu.instances))
    return frozenset(name.lower() for name in (gpu.pci_address, *uuids) if name)


def _tells(names: frozenset[str]) -> bool:
    """Whether an address or a UUID is among them."""
    return any(_ADDRESS.fullmatch(name) or _UUID.fullmatch(name) for name in names)
