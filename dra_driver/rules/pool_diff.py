"""Which writes bring a pool from what is stored to what is desired."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from dra_driver.model.slices import Device, ResourceSlice
from dra_driver.rules.pool_layout import DesiredPool


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolWrites:
    """What brings a pool to its desired state, to be done in this order: deletes by name, then creates and updates.

    Device slices come before counter slices, so the pool is complete, and thus usable, only when its counters are there and
    every device slice was seen to be stored whole.
    """

    deletes: tuple[str, ...] = ()
    writes: tuple[ResourceSlice, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.deletes or self.writes)


def diff_pool(pool: DesiredPool, observed: Iterable[ResourceSlice]) -> PoolWrites:
    """The writes from what is stored to what is desired; none where nothing differs.

    Changed taints rewrite their slices alone, and so does one change of another kind; anything more raises the generation of
    all slices, so that no reader mistakes a half-written pool for a whole one.
    """
    stored = {item.name: item for item in observed if item.pool.name == pool.name}
    wanted = {item.name: item for item in pool.slices}
    generation = max((item.pool.generation for item in stored.values()), default=1)
    current = {name: at_generation(item, generation) for name, item in wanted.items()}
    changed = [
        name for name, item in current.items() if name in stored and not is_same(stored[name], item)
    ]
    reshaped = [name for name in changed if not _is_same_but_taints(stored[name], current[name])]
    missing = [name for name in wanted if name not in stored]
    obsolete = tuple(sorted(stored.keys() - wanted.keys()))
    if stored and (missing or obsolete or len(reshaped) > 1):
        generation += 1
        changed = [name for name in wanted if name in stored]
    due = {*missing, *changed}
    target = [at_generation(item, generation) for item in pool.slices if item.name in due]
    return PoolWrites(
        deletes=obsolete,
        writes=tuple(sorted(target, key=lambda item: (bool(item.shared_counters), item.name))),
    )


def with_known_times(pool: DesiredPool, known: Iterable[ResourceSlice]) -> DesiredPool:
    """The pool with the time of each taint that was there before; a new one gets its time from the API server."""
    times = {
        (device.name, taint.key, taint.value, taint.effect): taint.time_added
        for item in known
        for device in item.devices
        for taint in device.taints
    }

    def timed(device: Device) -> Device:
        taints = tuple(
            replace(
                taint,
                time_added=taint.time_added
                or times.get((device.name, taint.key, taint.value, taint.effect)),
            )
            for taint in device.taints
        )
        return replace(device, taints=taints)

    slices = tuple(
        replace(item, devices=tuple(timed(device) for device in item.devices))
        for item in pool.slices
    )
    return replace(pool, slices=slices)


def at_generation(item: ResourceSlice, generation: int) -> ResourceSlice:
    """The slice as part of that generation of its pool."""
    return replace(item, pool=replace(item.pool, generation=generation))


def is_same(stored: ResourceSlice, wanted: ResourceSlice) -> bool:
    """Equal in all we set: quantities by value, taints without the time the server added."""
    return _without_times(stored) == _without_times(wanted)


def _is_same_but_taints(stored: ResourceSlice, wanted: ResourceSlice) -> bool:
    return _without_taints(stored) == _without_taints(wanted)


def _without_taints(item: ResourceSlice) -> ResourceSlice:
    return replace(item, devices=tuple(replace(device, taints=()) for device in item.devices))


def _without_times(item: ResourceSlice) -> ResourceSlice:
    return replace(
        item,
        devices=tuple(
            replace(
                device, taints=tuple(replace(taint, time_added=None) for taint in device.taints)
            )
            for device in item.devices
        ),
    )
