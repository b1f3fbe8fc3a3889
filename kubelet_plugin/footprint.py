"""What a claim's record means on the hardware: what its steps made, what is next, and how it is all undone. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    DestroyStage,
    Instance,
    PartitionChange,
    Target,
    UnbindPassthrough,
    UndoChange,
)
from dra_driver.model.errors import ClaimError
from dra_driver.model.inventory import Inventory
from dra_driver.model.record import ClaimRecord, Grant, Step


def plan_release(
    record: ClaimRecord,
    inventories: Mapping[str, Inventory],
    records: Iterable[ClaimRecord] = (),
) -> tuple[UndoChange, ...]:
    """The changes that undo what a record did, last first; each may already have been made.

    What another of the `records` has made as well, a partition with parts of several claims, is left to it.

    A process that was killed inside a step left no identity for it. The record names GPU, profile and placement of what it
    was making, so an instance that matches exactly is ours; a GPU that was on its way to vfio-pci, wherever it is by now, goes
    back. A mode stays as it is: switching back would cost the next claim.
    """
    undo: list[UndoChange] = []
    kept = {
        change.made
        for other in records
        if other.claim.uid != record.claim.uid
        for change in _stages(other)
    }
    for step, identity in zip(record.steps, record.identities, strict=False):
        match step.change:
            case CreateStage() as created if created.made not in kept:
                kept.add(created.made)
                undo.append(DestroyStage(created=created, identity=identity))
            case BindPassthrough(gpu=gpu):
                undo.append(UnbindPassthrough(gpu=gpu))
    for step in record.steps[len(record.identities) :][:1]:
        match step.change:
            case CreateStage() as pending if pending.made not in kept:
                undo += _unrecorded(pending, record, inventories)
            case BindPassthrough(gpu=gpu):
                undo.append(UnbindPassthrough(gpu=gpu))
    return tuple(reversed(undo))


def target_of(
    grant: Grant, records: Iterable[ClaimRecord], inventories: Mapping[str, Inventory]
) -> Target:
    """The hardware behind a grant: the GPU, the instance that some record's steps made, or the one that was there."""
    if grant.profile is None:
        return Target(gpu=grant.gpu, passthrough=_is_passed_through(grant, records))
    wanted = (grant.gpu, grant.profile, grant.placement)
    part = grant.placement.part if grant.placement else 0
    made = [
        identity
        for record in records
        for step, identity in zip(record.steps, record.identities, strict=False)
        if isinstance(step.change, CreateStage)
        and (step.change.gpu, step.change.profile, step.change.placement) == wanted
    ]
    if made:
        return Target(gpu=grant.gpu, instance=made[-1], part=part)
    inventory = inventories.get(grant.pool)
    gpu = inventory.gpu(grant.gpu) if inventory else None
    found = [i for i in gpu.instances if is_granted(i, grant)] if gpu else []
    if not found:
        raise ClaimError(
            f"partition {grant.device} is not there any more; delete the pod so that it gets another device"
        )
    return Target(gpu=grant.gpu, instance=found[0].identity, part=part)


def bind_parent(step: Step, record: ClaimRecord) -> PartitionChange:
    """The change of the record's next step, with the identity of its device's former stage filled in."""
    if not isinstance(step.change, CreateStage):
        return step.change
    former = [
        i
        for s, i in zip(record.steps, record.identities, strict=False)
        if s.device == step.device and _creates(s)
    ]
    return replace(step.change, parent=former[-1]) if former else step.change


def is_granted(instance: Instance, grant: Grant) -> bool:
    """Whether the instance is what the grant speaks of, and whole."""
    return instance.complete and (instance.profile, instance.placement) == (
        grant.profile,
        grant.placement,
    )


def _is_passed_through(grant: Grant, records: Iterable[ClaimRecord]) -> bool:
    steps = (step for record in records for step in record.steps)
    return any(s.device == grant.device and isinstance(s.change, BindPassthrough) for s in steps)


def _unrecorded(
    change: CreateStage, record: ClaimRecord, inventories: Mapping[str, Inventory]
) -> Iterator[DestroyStage]:
    gpus = (inventory.gpu(change.gpu) for inventory in inventories.values())
    instances = [i for gpu in gpus if gpu for i in gpu.instances]
    stages = [made.stage for made in _stages(record) if made.gpu == change.gpu]
    for instance in instances:
        if (instance.profile, instance.placement) == (change.profile, change.placement):
            handles = instance.identity.split("/")
            depth = stages.index(change.stage) + 1
            if len(handles) >= depth:
                yield DestroyStage(created=change, identity="/".join(handles[:depth]))


def _stages(record: ClaimRecord) -> Iterator[CreateStage]:
    return (step.change for step in record.steps if isinstance(step.change, CreateStage))


def _creates(step: Step) -> bool:
    return isinstance(step.change, CreateStage)
