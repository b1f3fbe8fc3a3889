"""What a node should publish, and which writes bring the API server there.

Everything a GPU can become is published at once and excludes itself through one counter set per GPU. Where counters cannot be
had (Kubernetes before 1.35, or a feature gate that is off) only what exists on the hardware now is published: partitions without
their counters would be handed out twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import sha256
from typing import TypeVar

from dra_driver.model.device import Gpu, Instance
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import DRIVER_NAME, pool_name
from dra_driver.model.quantity import Quantity
from dra_driver.model.slices import (
    CounterConsumption,
    CounterSet,
    Device,
    NodePlace,
    PoolRef,
    ResourceSlice,
)
from dra_driver.rules.devices import MONITOR_TAINT, render_counters, render_device
from dra_driver.rules.forms import Form, Made, Sharing, all_forms, covered, foreign_instances

LIMITED_ANNOTATION = "gpu.dra-driver.dev/partitions-not-published"
"""On the slices of a node that publishes PLAIN; its value says why."""
DEVICES_PER_SLICE = 64
COUNTER_SETS_PER_SLICE = 8
_NAME_LIMIT = 253

T = TypeVar("T")


class PublishMode(StrEnum):
    """FULL: every form, with counters. PLAIN: what exists now, without."""

    FULL = "full"
    PLAIN = "plain"


@dataclass(frozen=True, slots=True, kw_only=True)
class DesiredPool:
    """A pool as it should be: its slices in order, all with generation 0 until a diff decides on one.

    `left_out` names, per GPU, the profiles that did not fit into the budget of devices.
    """

    name: str
    slices: tuple[ResourceSlice, ...]
    left_out: tuple[str, ...] = ()


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


def desired_pool(
    node: str,
    inventory: Inventory,
    made: frozenset[Made],
    mode: PublishMode,
    devices_per_gpu: int,
) -> DesiredPool:
    """The pool of one vendor on a node. A node whose GPUs are all unusable gets one empty slice: a complete, empty pool."""
    kept = [
        _within_budget(tuple(published_forms(gpu, made, mode)), devices_per_gpu)
        for gpu in inventory.gpus
    ]
    with_counters = mode is PublishMode.FULL
    rendered = [
        tuple(render_device(form, with_counters=with_counters) for form in forms)
        for forms, _ in kept
    ]
    counters = _counter_sets(inventory.gpus) if with_counters else ()
    contents: list[tuple[tuple[Device, ...], tuple[CounterSet, ...]]] = [
        *(((), chunk) for chunk in _chunks(counters, COUNTER_SETS_PER_SLICE)),
        *((chunk, ()) for devices in rendered for chunk in _chunks(devices, DEVICES_PER_SLICE)),
    ]
    pool = PoolRef(
        name=pool_name(node, inventory.vendor), generation=0, slice_count=max(1, len(contents))
    )
    slices = tuple(
        ResourceSlice(
            name=slice_name(index, pool.name),
            driver=DRIVER_NAME,
            pool=pool,
            place=NodePlace(node_name=node),
            devices=devices,
            shared_counters=sets,
        )
        for index, (devices, sets) in enumerate(contents or [((), ())])
    )
    return DesiredPool(
        name=pool.name, slices=slices, left_out=tuple(name for _, names in kept for name in names)
    )


def slice_name(index: int, pool: str) -> str:
    """`00002-nvidia-node-a-gpu.dra-driver.dev`: sorted by index, unique in the cluster, at most 253 characters."""
    node, _, vendor = pool.rpartition("/")
    name = f"{index:05x}-{vendor}-{node}-{DRIVER_NAME}"
    if len(name) <= _NAME_LIMIT:
        return name
    digest = sha256(pool.encode()).hexdigest()[:16]
    return f"{index:05x}-{vendor}-{digest}-{DRIVER_NAME}"


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


def published_forms(gpu: Gpu, made: frozenset[Made], mode: PublishMode) -> Iterator[Form]:
    """The forms that may be given out: reachable, and not in the way of an instance that somebody else made.

    Such an instance is published as a device itself; `made` tells which instances are ours.
    """
    forms = all_forms(gpu)
    if mode is PublishMode.PLAIN:
        return (form for form in forms if _exists(form))
    foreign = foreign_instances(gpu, made)
    return (form for form in forms if _reachable(form) and _leaves_alone(form, foreign))


def _exists(form: Form) -> bool:
    """Whether the form is on the hardware now, so that giving it out takes nothing from another form."""
    if form.sharing is Sharing.MONITOR:
        return False
    if form.profile is None:
        return not form.gpu.instances and (
            form.gpu.partitioning is None or form.gpu.partitioning.mode == form.mode
        )
    return _key(form) in {
        (instance.profile, instance.placement)
        for instance in form.gpu.instances
        if instance.complete
    }


def _reachable(form: Form) -> bool:
    """Whether the GPU is in the form's mode, or can be brought there."""
    partitioning = form.gpu.partitioning
    return (
        partitioning is None
        or form.mode is None
        or partitioning.switchable
        or partitioning.mode == form.mode
    )


def _leaves_alone(form: Form, foreign: Sequence[Instance]) -> bool:
    """Whether the form is one of these instances, or fits beside them all: positions, engines, everything."""
    partitioning = form.gpu.partitioning
    if any(
        instance.complete and _key(form) == (instance.profile, instance.placement)
        for instance in foreign
    ):
        return True
    if partitioning is None or not foreign:
        return True
    if form.positions & frozenset().union(*(covered(instance.placement) for instance in foreign)):
        return False
    profiles = [
        profile for instance in foreign if (profile := partitioning.profile(instance.profile))
    ]
    return all(
        amount + sum(profile.consumes.get(name, 0) for profile in profiles)
        <= partitioning.counters.get(name, 0)
        for name, amount in form.consumption.items()
    )


def _within_budget(
    forms: tuple[Form, ...], budget: int
) -> tuple[tuple[Form, ...], tuple[str, ...]]:
    """The forms that fit, and the profiles left out: whole profiles, the smallest first, as they are the most numerous."""
    left_out: list[str] = []
    while len(forms) > budget and (profile := forms[0].profile) is not None:
        left_out.append(f"{forms[0].gpu.pci_address} {profile.name}")
        forms = tuple(form for form in forms if form.profile != profile)
    return forms, tuple(left_out)


def _key(form: Form) -> tuple[str | None, object]:
    return (form.profile.name if form.profile else None, form.placement)


def _counter_sets(gpus: Iterable[Gpu]) -> tuple[CounterSet, ...]:
    return tuple(counters for gpu in gpus if (counters := render_counters(gpu)) is not None)


def _chunks(items: Sequence[T], size: int) -> Iterator[tuple[T, ...]]:
    return (tuple(items[start : start + size]) for start in range(0, len(items), size))


def probe_slices(node: str) -> tuple[ResourceSlice, ResourceSlice]:
    """Two slices that use every gated field FULL needs; if a dry run gives them back whole, the API server stores them whole."""
    pool = PoolRef(name=f"{node}/probe", generation=1, slice_count=2)
    counters = {"memory-slice-0": Quantity.of(1)}
    device = Device(
        name="probe",
        consumes=(CounterConsumption(counter_set="probe", counters=counters),),
        taints=(MONITOR_TAINT,),
    )
    empty = ResourceSlice(name="", driver=DRIVER_NAME, pool=pool, place=NodePlace(node_name=node))
    return (
        replace(empty, name=slice_name(0, pool.name), devices=(device,)),
        replace(
            empty,
            name=slice_name(1, pool.name),
            shared_counters=(CounterSet(name="probe", counters=counters),),
        ),
    )
