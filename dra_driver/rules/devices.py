"""How a form looks as a device of a ResourceSlice: attributes, capacities, counters, taints.

Our own attributes are on every device, an unknown one with a neutral value (empty string, `0.0.0`), so that no CEL
expression fails on a missing key. Standard ones and vendors' extras may be absent. Values are checked here: a bad one of ours
becomes neutral, a bad optional one is dropped, and never does one attribute cost the slice.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from dra_driver.model.device import Gpu
from dra_driver.model.names import (
    DRIVER_NAME,
    gpu_name,
    is_qualified_name,
    is_semver,
    normal_version,
)
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    AttributeValue,
    Capacity,
    CounterConsumption,
    CounterSet,
    Device,
    Taint,
    Version,
)
from dra_driver.rules.forms import Form, Sharing, counters_of

ATTRIBUTES_AND_CAPACITIES_LIMIT = 32
MONITOR_TAINT = Taint(key=f"{DRIVER_NAME}/monitor", effect="NoSchedule")
PCI_BUS_ID = "resource.kubernetes.io/pciBusID"

_NO_VERSION = Version("0.0.0")
_STRING_LIMIT = 64
_COMPUTE_SLICES = "compute-slices"


def render_device(form: Form, *, with_counters: bool) -> Device:
    """The device for a form. Without counters it excludes nothing: only forms that exclude nothing may be so."""
    return Device(
        name=form.name,
        attributes=_attributes(form),
        capacity=_capacities(form),
        consumes=_consumption(form) if with_counters else (),
        taints=(MONITOR_TAINT,) if form.sharing is Sharing.MONITOR else (),
    )


def render_counters(gpu: Gpu) -> CounterSet | None:
    """The counter set of a GPU, named as the GPU; None where it has but one form that holds it."""
    positions = range(gpu.partitioning.positions if gpu.partitioning else 0)
    totals = _counters(frozenset(positions), counters_of(gpu), _parts(gpu))
    return CounterSet(name=gpu_name(gpu.pci_address), counters=totals) if totals else None


def _consumption(form: Form) -> tuple[CounterConsumption, ...]:
    is_part = form.profile is not None and form.profile.whole is not None
    taken = _counters(form.positions, form.consumption, 1 if is_part else _parts(form.gpu))
    return (
        (CounterConsumption(counter_set=gpu_name(form.gpu.pci_address), counters=taken),)
        if taken
        else ()
    )


def _parts(gpu: Gpu) -> int:
    """As how many everything counts, so that a part of a partition can count as one (`rules.splitting`)."""
    return gpu.partitioning.parts if gpu.partitioning else 1


def _counters(
    positions: frozenset[int], amounts: Mapping[str, int], parts: int
) -> dict[str, Quantity]:
    slices = {f"memory-slice-{position}": parts for position in sorted(positions)}
    engines = {name: parts * amount for name, amount in amounts.items() if amount}
    return {name: Quantity.of(amount) for name, amount in (slices | engines).items()}


def _attributes(form: Form) -> dict[str, AttributeValue]:
    gpu = form.gpu
    attributes: dict[str, AttributeValue] = {
        "vendor": gpu.vendor.value,
        "type": _type(form),
        "productName": gpu.product_name[:_STRING_LIMIT],
        "architecture": gpu.architecture[:_STRING_LIMIT],
        "uuid": _uuid(form),
        "index": gpu.index,
        "parent": gpu_name(gpu.pci_address),
        "profile": form.profile.name if form.profile else "",
        "sharing": form.sharing.value,
        "isolation": "hardware" if form.sharing is Sharing.EXCLUSIVE else "none",
        "computeCapability": _version(gpu.compute_capability),
        "driverVersion": _version(None if form.passthrough else gpu.driver_version),
        PCI_BUS_ID: gpu.pci_address,
    }
    if form.foreign:
        attributes["foreign"] = True
    if gpu.pcie_root is not None:
        attributes["resource.kubernetes.io/pcieRoot"] = gpu.pcie_root
    if gpu.numa_node is not None:
        attributes["resource.kubernetes.io/numaNode"] = gpu.numa_node
    return attributes | {
        name: value for name, value in gpu.extras.items() if _is_sound(name, value)
    }


def _type(form: Form) -> str:
    """None but its own class selects a GPU for virtual machines: it is no device that a container can use."""
    if form.passthrough:
        return "passthrough"
    return "partition" if form.profile else "gpu"


def _uuid(form: Form) -> str:
    """A partition's UUID is born with it, so before that it is neutral; publishing it would rewrite slices at each claim."""
    return "" if form.profile else form.gpu.uuid


def _version(text: str | None) -> Version:
    normal = normal_version(text) if text else None
    return Version(normal) if normal and is_semver(normal) else _NO_VERSION


def _is_sound(name: str, value: AttributeValue) -> bool:
    if not is_qualified_name(name):
        return False
    if isinstance(value, Version):
        return is_semver(value.text)
    return not isinstance(value, str) or len(value) <= _STRING_LIMIT


def _capacities(form: Form) -> dict[str, Capacity]:
    source = form.profile or form.gpu
    amounts = {
        "memory": Quantity.of_bytes(source.memory_bytes),
        "computeUnits": Quantity.of(source.compute_units),
    }
    engines = form.profile.consumes if form.profile else form.gpu.engines
    amounts |= {
        _camel(name): Quantity.of(n) for name, n in engines.items() if n and name != _COMPUTE_SLICES
    }
    return {name: Capacity(value=amount) for name, amount in amounts.items()}


def _camel(name: str) -> str:
    return re.sub(r"-(\w)", lambda match: match[1].upper(), name)
