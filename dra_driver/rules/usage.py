"""Who uses which device, and which devices are out of reach because what they are made of is taken.

The same arithmetic as the scheduler's (KEP-4815): an allocated device takes its counters from its pool's counter sets, and
a device whose counters are no longer all there cannot be allocated. Claims with admin access look on and take nothing.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from dra_driver.model.claim import Claim, ClaimRef
from dra_driver.model.slices import Device, ResourceSlice

DeviceKey: TypeAlias = tuple[str, str]
"""Pool and device."""
CounterKey: TypeAlias = tuple[str, str, str]
"""Pool, counter set and counter."""


class DeviceState(StrEnum):
    """What a claim that wants the device now would find; the first that holds, in this order."""

    ALLOCATED = "allocated"
    TAINTED = "tainted"
    BLOCKED = "blocked"
    FREE = "free"


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceUse:
    """A published device and its claims, sorted; several where it is shared. `node` is None where it serves several."""

    pool: str
    node: str | None
    device: Device
    state: DeviceState
    claims: tuple[ClaimRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuCount:
    """The GPUs of a node, and those of which at least a part is allocated."""

    gpus: int = 0
    in_use: int = 0


def device_uses(
    driver: str, slices: Iterable[ResourceSlice], claims: Iterable[Claim]
) -> tuple[DeviceUse, ...]:
    """Every device that the driver publishes now, sorted by node, pool and name.

    Slices of a pool's older generations are not counted: their devices are being replaced.
    """
    current = _newest([item for item in slices if item.driver == driver])
    holders = _holders(driver, claims)
    left = _counters_left(current, holders)
    uses = [
        DeviceUse(
            pool=item.pool.name,
            node=device.place.node_name or item.place.node_name,
            device=device,
            state=_state(item.pool.name, device, holders, left),
            claims=tuple(sorted(holders.get((item.pool.name, device.name), ()))),
        )
        for item in current
        for device in item.devices
    ]
    return tuple(sorted(uses, key=lambda use: (use.node or "", use.pool, use.device.name)))


def count_gpus(uses: Iterable[DeviceUse]) -> Mapping[str, GpuCount]:
    """GPUs by node. Devices belong to one GPU if they have the same attribute `parent`."""
    seen: defaultdict[str, set[object]] = defaultdict(set)
    used: defaultdict[str, set[object]] = defaultdict(set)
    for use in uses:
        parent = use.device.attributes.get("parent")
        if use.node is None or parent is None:
            continue
        seen[use.node].add(parent)
        if use.claims:
            used[use.node].add(parent)
    return {node: GpuCount(gpus=len(gpus), in_use=len(used[node])) for node, gpus in seen.items()}


def _newest(slices: Sequence[ResourceSlice]) -> list[ResourceSlice]:
    generation: dict[str, int] = {}
    for item in slices:
        known = generation.get(item.pool.name, item.pool.generation)
        generation[item.pool.name] = max(known, item.pool.generation)
    return [item for item in slices if item.pool.generation == generation[item.pool.name]]


def _holders(driver: str, claims: Iterable[Claim]) -> Mapping[DeviceKey, set[ClaimRef]]:
    holders: defaultdict[DeviceKey, set[ClaimRef]] = defaultdict(set)
    for claim in claims:
        for result in claim.allocation.results if claim.allocation else ():
            if result.driver == driver and not result.admin_access:
                holders[result.pool, result.device].add(claim.ref)
    return holders


def _counters_left(
    slices: Sequence[ResourceSlice], holders: Mapping[DeviceKey, set[ClaimRef]]
) -> Counter[CounterKey]:
    """What remains of each counter; a shared device takes its part once, however many claims it has."""
    left: Counter[CounterKey] = Counter()
    for item in slices:
        for counter_set in item.shared_counters:
            for name, amount in counter_set.counters.items():
                left[item.pool.name, counter_set.name, name] += amount.nanos
        for device in item.devices:
            if (item.pool.name, device.name) in holders:
                left.subtract(_taken(item.pool.name, device))
    return left


def _state(
    pool: str,
    device: Device,
    holders: Mapping[DeviceKey, set[ClaimRef]],
    left: Counter[CounterKey],
) -> DeviceState:
    if (pool, device.name) in holders:
        return DeviceState.ALLOCATED
    if any(taint.effect != "None" for taint in device.taints):
        return DeviceState.TAINTED
    if any(amount > left[key] for key, amount in _taken(pool, device).items()):
        return DeviceState.BLOCKED
    return DeviceState.FREE


def _taken(pool: str, device: Device) -> dict[CounterKey, int]:
    return {
        (pool, part.counter_set, name): amount.nanos
        for part in device.consumes
        for name, amount in part.counters.items()
    }
