"""How devices are laid out in the slices of a pool: by GPU, in an order that packs, under names that never change.

Counter sets are in slices of their own, before all devices (KEP-4815), and GPUs are sorted by address: the scheduler takes pool, slice
and device in order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import TypeVar

from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.slices import CounterSet, Device, NodePlace, PoolRef, ResourceSlice

DEVICES_PER_SLICE = 64
COUNTER_SETS_PER_SLICE = 8
_NAME_LIMIT = 253

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOffer:
    """What one GPU offers: devices in order, all on one counter set, which is named as the GPU."""

    gpu: str
    devices: tuple[Device, ...]
    counters: CounterSet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """A pool as it should be: its slices in order, all with generation 0 until a diff decides on one.

    `left_out` names, per GPU, the profiles that did not fit into the budget of devices.
    """

    name: str
    slices: tuple[ResourceSlice, ...]
    left_out: tuple[str, ...] = ()


def lay_out(pool_name: str, node: str, offers: Sequence[GpuOffer]) -> DesiredPool:
    """The pool with these offers, in this order; without any, one empty slice: a complete, empty pool."""
    counters = [offer.counters for offer in offers if offer.counters is not None]
    contents: list[tuple[tuple[Device, ...], tuple[CounterSet, ...]]] = [
        *(((), chunk) for chunk in _chunks(counters, COUNTER_SETS_PER_SLICE)),
        *((chunk, ()) for offer in offers for chunk in _chunks(offer.devices, DEVICES_PER_SLICE)),
    ]
    pool = PoolRef(name=pool_name, generation=0, slice_count=max(1, len(contents)))
    slices = tuple(
        ResourceSlice(
            name=slice_name(index, pool_name),
            driver=DRIVER_NAME,
            pool=pool,
            place=NodePlace(node_name=node),
            devices=devices,
            shared_counters=sets,
        )
        for index, (devices, sets) in enumerate(contents or [((), ())])
    )
    return DesiredPool(name=pool_name, slices=slices)


def offers_in(slices: Iterable[ResourceSlice]) -> dict[str, GpuOffer]:
    """What each GPU offers by these slices of one pool, by the GPU's name, sorted."""
    devices: defaultdict[str, list[Device]] = defaultdict(list)
    counters: dict[str, CounterSet] = {}
    for item in sorted(slices, key=lambda one: one.name):
        counters |= {counter_set.name: counter_set for counter_set in item.shared_counters}
        for device in item.devices:
            devices[str(device.attributes.get("parent", device.name))].append(device)
    return {
        gpu: GpuOffer(gpu=gpu, devices=tuple(devices[gpu]), counters=counters.get(gpu))
        for gpu in sorted(devices)
    }


def slice_name(index: int, pool: str) -> str:
    """`00002-nvidia-node-a-gpu.dra-driver.dev`: sorted by index, unique in the cluster, at most 253 characters."""
    node, _, vendor = pool.rpartition("/")
    name = f"{index:05x}-{vendor}-{node}-{DRIVER_NAME}"
    if len(name) <= _NAME_LIMIT:
        return name
    digest = sha256(pool.encode()).hexdigest()[:16]
    return f"{index:05x}-{vendor}-{digest}-{DRIVER_NAME}"


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))
