"""What to do about a claim: pure decisions from facts to a plan, which anybody can print, test and replay.

A plan for a prepare is the record that is written down before hardware is touched: who gets what (grants), and the hardware
changes that make it so (steps), in order. Nothing here does I/O, waits or changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dra_driver.config.params import parse_gpu_config
from dra_driver.model.claim import Allocation, AllocationResult, Claim
from dra_driver.model.device import (
    CreateStage,
    DestroyStage,
    Instance,
    PartitionChange,
    SetMode,
    Target,
)
from dra_driver.model.errors import ClaimError, DeviceHeld
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import DRIVER_NAME
from dra_driver.model.record import ClaimRecord, Grant, Step
from dra_driver.rules.forms import (
    Form,
    Sharing,
    covered,
    find_form,
    foreign_instances,
    made_instances,
)
from dra_driver.rules.precedence import config_for


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision may depend on. `inventories` by pool name; `records` of all claims, by UID."""

    claim: Claim
    inventories: Mapping[str, Inventory]
    records: Mapping[str, ClaimRecord]
    boot_id: str
    owner: str


def plan_prepare(snapshot: Snapshot) -> ClaimRecord:
    """The record of a prepare that may begin now.

    Raises ClaimError where the claim cannot be served, DeviceHeld where it may be once another claim is gone, and
    ParametersError for parameters that we refuse.
    """
    claim, allocation = snapshot.claim, _allocation(snapshot)
    grants: list[Grant] = []
    steps: list[Step] = []
    for result in _ours(snapshot, allocation):
        form = _form(snapshot, result)
        _check_parameters(snapshot, allocation, result, form)
        grant = _grant(result, form)
        _check_free(snapshot, grant)
        grants.append(grant)
        steps += _steps(snapshot, form, grant, steps)
    return ClaimRecord(
        claim=claim.ref,
        boot_id=snapshot.boot_id,
        owner=snapshot.owner,
        grants=tuple(grants),
        steps=tuple(steps),
    )


def plan_release(
    record: ClaimRecord, inventories: Mapping[str, Inventory]
) -> tuple[DestroyStage, ...]:
    """The changes that undo what a record did, last first; each may already have been made.

    A process that was killed inside a step left no identity for it. The record names GPU, profile and placement of what it
    was making, so an instance that matches exactly is ours. A mode stays as it is: switching back would cost the next claim.
    """
    done = list(zip(record.steps, record.identities, strict=False))
    undo = [
        DestroyStage(created=step.change, identity=identity)
        for step, identity in done
        if isinstance(step.change, CreateStage)
    ]
    pending = record.steps[len(record.identities) :]
    if pending and isinstance(pending[0].change, CreateStage):
        undo += _unrecorded(pending[0].change, record, inventories)
    return tuple(reversed(undo))


def target_of(grant: Grant, record: ClaimRecord, inventories: Mapping[str, Inventory]) -> Target:
    """The hardware behind a grant: the GPU, the instance that the record's steps made, or the one that was there."""
    if grant.profile is None:
        return Target(gpu=grant.gpu)
    made = [
        i
        for s, i in zip(record.steps, record.identities, strict=False)
        if s.device == grant.device and _creates(s)
    ]
    if made:
        return Target(gpu=grant.gpu, instance=made[-1])
    gpu = inventories[grant.pool].gpu(grant.gpu)
    found = [i for i in gpu.instances if _matches(i, grant)] if gpu else []
    if not found:
        raise ClaimError(
            f"partition {grant.device} is not there any more; delete the pod so that it gets another device"
        )
    return Target(gpu=grant.gpu, instance=found[0].identity)


def _allocation(snapshot: Snapshot) -> Allocation:
    claim = snapshot.claim
    if claim.allocation is None:
        raise ClaimError(
            f"claim {claim.ref} is not allocated; the scheduler allocates it when a pod needs it"
        )
    return claim.allocation


def _ours(snapshot: Snapshot, allocation: Allocation) -> Iterator[AllocationResult]:
    """The results that are this driver's and this node's: claims may name other drivers' devices too."""
    ours = [
        r for r in allocation.results if r.driver == DRIVER_NAME and r.pool in snapshot.inventories
    ]
    if not ours:
        pools = ", ".join(sorted(snapshot.inventories)) or "no pool"
        raise ClaimError(
            f"claim {snapshot.claim.ref} has no device of {DRIVER_NAME} in {pools}; it was allocated for another node"
        )
    return iter(ours)


def _form(snapshot: Snapshot, result: AllocationResult) -> Form:
    form = find_form(snapshot.inventories[result.pool], result.device)
    if form is None:
        raise ClaimError(
            f"device {result.device} of claim {snapshot.claim.ref} is not on this node: its GPU is gone or failed; "
            "delete the pod so that it gets another device"
        )
    if form.sharing is Sharing.MONITOR and not result.admin_access:
        raise ClaimError(
            f"device {form.name} is for monitoring only, and request {result.request} of claim {snapshot.claim.ref} "
            "has no adminAccess; ask for adminAccess, or for another DeviceClass"
        )
    return form


def _check_parameters(
    snapshot: Snapshot, allocation: Allocation, result: AllocationResult, form: Form
) -> None:
    winner = config_for(result, allocation.config, DRIVER_NAME)
    if winner is None:
        return
    where = f"claim {snapshot.claim.ref}" + (
        " (from its DeviceClass)" if winner.source == "FromClass" else ""
    )
    sharing = parse_gpu_config(winner.parameters, where).sharing
    if sharing is not None and sharing.strategy != "Exclusive":
        raise ClaimError(
            f"{where}: sharing.strategy {sharing.strategy} does not fit device {form.name}, which is {form.sharing.value}; "
            "leave sharing out, or ask for a DeviceClass whose devices are shared that way"
        )


def _grant(result: AllocationResult, form: Form) -> Grant:
    return Grant(
        device=form.name,
        pool=result.pool,
        requests=(result.main_request,),
        gpu=form.gpu.pci_address,
        profile=form.profile.name if form.profile else None,
        placement=form.placement,
        share_id=result.share_id,
        monitor=result.admin_access,
    )


def _check_free(snapshot: Snapshot, grant: Grant) -> None:
    """Last line of defence: the scheduler allocates exclusively, and has been wrong (kubernetes#141471)."""
    for record in snapshot.records.values():
        if record.claim.uid == snapshot.claim.ref.uid:
            continue
        for other in record.grants:
            if _collide(grant, other):
                raise DeviceHeld(
                    f"device {grant.device} is held by claim {record.claim} (UID {record.claim.uid}) through {other.device}; "
                    "it becomes free when that claim's pod has ended"
                )


def _collide(one: Grant, other: Grant) -> bool:
    if one.gpu != other.gpu or one.monitor or other.monitor:
        return False
    if one.placement is None or other.placement is None:
        return True
    return bool(covered(one.placement) & covered(other.placement))


def _steps(snapshot: Snapshot, form: Form, grant: Grant, planned: Sequence[Step]) -> Iterator[Step]:
    """The hardware changes for one device. Claims with adminAccess look; they never change anything."""
    gpu, made = form.gpu, made_instances(snapshot.records.values())
    foreign = foreign_instances(gpu, made)
    adopted = any(_matches(instance, grant) for instance in foreign)
    if grant.monitor or adopted:
        return
    in_the_way = [instance for instance in foreign if covered(instance.placement) & form.positions]
    if in_the_way:
        raise ClaimError(
            f"device {form.name} cannot be made: instance {in_the_way[0].identity} ({in_the_way[0].profile}) on GPU "
            f"{gpu.pci_address} was made by somebody else; destroy it, or delete the pod so that it gets another device"
        )
    set_modes = {
        step.change.gpu: step.change.mode for step in planned if isinstance(step.change, SetMode)
    }
    now = set_modes.get(gpu.pci_address, gpu.partitioning.mode if gpu.partitioning else None)
    if form.mode is not None and form.mode != now:
        yield Step(device=form.name, change=SetMode(gpu=gpu.pci_address, mode=form.mode))
    if form.profile is not None and form.placement is not None:
        for stage in form.profile.stages:
            change = CreateStage(
                gpu=gpu.pci_address,
                profile=form.profile.name,
                placement=form.placement,
                stage=stage,
            )
            yield Step(device=form.name, change=change)


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


def _unrecorded(
    change: CreateStage, record: ClaimRecord, inventories: Mapping[str, Inventory]
) -> Iterator[DestroyStage]:
    gpus = (inventory.gpu(change.gpu) for inventory in inventories.values())
    instances = [i for gpu in gpus if gpu for i in gpu.instances]
    stages = [
        s.change.stage
        for s in record.steps
        if isinstance(s.change, CreateStage) and s.change.gpu == change.gpu
    ]
    for instance in instances:
        if (instance.profile, instance.placement) == (change.profile, change.placement):
            handles = instance.identity.split("/")
            depth = stages.index(change.stage) + 1
            if len(handles) >= depth:
                yield DestroyStage(created=change, identity="/".join(handles[:depth]))


def _creates(step: Step) -> bool:
    return isinstance(step.change, CreateStage)


def _matches(instance: Instance, grant: Grant) -> bool:
    return instance.complete and (instance.profile, instance.placement) == (
        grant.profile,
        grant.placement,
    )
