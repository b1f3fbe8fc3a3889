"""What a node should publish.

Everything a GPU can become is published at once and excludes itself through one counter set per GPU. Where counters cannot be
had (Kubernetes before 1.35, or a feature gate that is off) only what exists on the hardware now is published: partitions without
their counters would be handed out twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from enum import StrEnum

from dra_driver.model.device import Gpu, Instance, Passthrough
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import DRIVER_NAME, gpu_name, pool_name
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
from dra_driver.rules.pool_layout import DesiredPool, GpuOffer, lay_out, slice_name

LIMITED_ANNOTATION = "gpu.dra-driver.dev/partitions-not-published"
"""On the slices of a node that publishes PLAIN; its value says why."""


class PublishMode(StrEnum):
    """FULL: every form, with counters. PLAIN: what exists now, without."""

    FULL = "full"
    PLAIN = "plain"


def desired_pool(
    node: str,
    inventory: Inventory,
    made: frozenset[Made],
    mode: PublishMode,
    devices_per_gpu: int,
) -> DesiredPool:
    """The pool of one vendor on a node. A node whose GPUs are all unusable gets one empty slice: a complete, empty pool."""
    with_counters = mode is PublishMode.FULL
    offers: list[GpuOffer] = []
    left_out: list[str] = []
    for gpu in inventory.gpus:
        forms, profiles = _within_budget(tuple(published_forms(gpu, made, mode)), devices_per_gpu)
        left_out.extend(profiles)
        offers.append(
            GpuOffer(
                gpu=gpu_name(gpu.pci_address),
                devices=tuple(render_device(form, with_counters=with_counters) for form in forms),
                counters=render_counters(gpu) if with_counters else None,
            )
        )
    name = pool_name(node, inventory.vendor)
    return replace(lay_out(name, node, offers), left_out=tuple(left_out))


def published_forms(gpu: Gpu, made: frozenset[Made], mode: PublishMode) -> Iterator[Form]:
    """The forms that may be given out: reachable, and not in the way of an instance that somebody else made.

    Such an instance is published as a device itself; `made` tells which instances are ours.
    """
    foreign = foreign_instances(gpu, made)
    theirs = {(one.profile, one.placement) for one in foreign if one.complete}
    for form in all_forms(gpu):
        if mode is PublishMode.PLAIN:
            is_published = _exists(form)
        else:
            is_published = _reachable(form) and _leaves_alone(form, foreign)
        if is_published:
            yield replace(form, foreign=True) if _key(form) in theirs else form


def _exists(form: Form) -> bool:
    """Whether the form is on the hardware now, so that giving it out takes nothing from another form."""
    if form.sharing is Sharing.MONITOR:
        return False
    if form.passthrough is not (form.gpu.passthrough is Passthrough.BOUND):
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
    profiles = [  # a split partition is among the instances itself, with all that its parts take
        profile
        for instance in foreign
        if (profile := partitioning.profile(instance.profile)) and profile.whole is None
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
