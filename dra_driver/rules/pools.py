"""Resource pools as one node sees them, in the order in which the scheduler tries their devices.

A driver replaces a pool slice by slice: only the newest generation that the node sees counts, and it counts as complete
when it has as many slices as it says, those for other nodes included. Sources: KEP-4381 (pools), KEP-4815 (counters).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from dra_driver.model.slices import CounterSet, Device, NodePlace, ResourceSlice
from dra_driver.rules.nodes import NodeInfo, reaches


class PoolId(NamedTuple):
    """Pool names are unique per driver only."""

    driver: str
    name: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.name}"


class DeviceId(NamedTuple):
    """A device of the cluster."""

    driver: str
    pool: str
    device: str

    def __str__(self) -> str:
        return f"{self.driver}/{self.pool}/{self.device}"


class CounterId(NamedTuple):
    """A counter of the cluster."""

    pool: PoolId
    set: str
    counter: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A device in a slice that concerns the node. `charges`, in nano-units: what it takes from its pool's counters.

    Where a slice selects nodes device by device, some of its devices are not `reachable`; their selectors are evaluated
    all the same, and may fail.
    """

    id: DeviceId
    device: Device
    place: NodePlace
    reachable: bool
    charges: Mapping[CounterId, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A pool that has something for the node.

    `incomplete` and `invalid` say why it cannot be used, and are empty where it can; then, `candidates` are the devices
    to try in order, `counters` what the pool has, and `charges` what each device of the pool takes while it is
    allocated, on whatever node; both in nano-units.
    """

    id: PoolId
    incomplete: str = ""
    invalid: str = ""
    candidates: tuple[Candidate, ...] = ()
    counters: Mapping[CounterId, int] = field(default_factory=dict)
    charges: Mapping[DeviceId, Mapping[CounterId, int]] = field(default_factory=dict)


def gather_pools(slices: Iterable[ResourceSlice], node: NodeInfo) -> tuple[Pool, ...]:
    """The node's pools by driver and name, those with binding conditions last; their slices by name."""
    members: dict[PoolId, list[ResourceSlice]] = defaultdict(list)
    for published in sorted(slices, key=lambda s: s.name):
        members[PoolId(published.driver, published.pool.name)].append(published)
    found = (_pool(pool, members[pool], node) for pool in sorted(members))
    return tuple(sorted((pool for pool in found if pool is not None), key=_has_bindings))


def _has_bindings(pool: Pool) -> bool:
    return any(candidate.device.binding_conditions for candidate in pool.candidates)


def _pool(pool: PoolId, published: Sequence[ResourceSlice], node: NodeInfo) -> Pool | None:
    seen = [s for s in published if _is_visible(s, node)]
    if not seen:
        return None
    generation = max(s.pool.generation for s in seen)
    members = visible = [s for s in seen if s.pool.generation == generation]
    declared = visible[0].pool.slice_count
    if len(visible) != declared:
        if any(s.pool.generation > generation for s in published):
            return None  # outdated, and what comes instead is not for this node
        members = [s for s in published if s.pool.generation == generation]
    if len(members) != declared:
        return Pool(id=pool, incomplete=f"{len(members)} of {declared} slices are there")
    sets = [counter_set for s in members for counter_set in s.shared_counters]
    flaw = next(_flaws(visible, members, sets), "")
    if flaw:
        return Pool(id=pool, invalid=flaw)
    return Pool(
        id=pool,
        candidates=tuple(_candidates(pool, visible, node)),
        counters={
            CounterId(pool, counter_set.name, counter): amount.nanos
            for counter_set in sets
            for counter, amount in counter_set.counters.items()
        },
        charges={
            DeviceId(*pool, device.name): _charges(pool, device)
            for s in members
            for device in s.devices
            if device.consumes
        },
    )


def _is_visible(published: ResourceSlice, node: NodeInfo) -> bool:
    if published.per_device_node_selection:
        return any(reaches(device.place, node) for device in published.devices)
    return reaches(published.place, node)


def _candidates(
    pool: PoolId, visible: Iterable[ResourceSlice], node: NodeInfo
) -> Iterator[Candidate]:
    for published in visible:
        for device in published.devices:
            place = device.place if published.per_device_node_selection else published.place
            yield Candidate(
                id=DeviceId(*pool, device.name),
                device=device,
                place=place,
                reachable=reaches(place, node),
                charges=_charges(pool, device),
            )


def _charges(pool: PoolId, device: Device) -> Mapping[CounterId, int]:
    return {
        CounterId(pool, consumption.counter_set, counter): amount.nanos
        for consumption in device.consumes
        for counter, amount in consumption.counters.items()
    }


def _flaws(
    visible: Iterable[ResourceSlice], members: Iterable[ResourceSlice], sets: Sequence[CounterSet]
) -> Iterator[str]:
    """Why the allocator cannot trust the pool."""
    for name in _repeated(device.name for s in visible for device in s.devices):
        yield f"device {name} is there twice"
    for name in _repeated(counter_set.name for counter_set in sets):
        yield f"counter set {name} is there twice"
    declared = {counter_set.name: counter_set.counters for counter_set in sets}
    for device in (device for s in members for device in s.devices):
        for consumption in device.consumes:
            if consumption.counter_set not in declared:
                yield f"device {device.name} consumes from counter set {consumption.counter_set}, which is not there"
                continue
            for counter in sorted(
                set(consumption.counters) - set(declared[consumption.counter_set])
            ):
                yield f"device {device.name} consumes counter {counter}, which is not in {consumption.counter_set}"


def _repeated(names: Iterable[str]) -> Iterator[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            yield name
        seen.add(name)
