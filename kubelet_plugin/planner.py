"""What to do about a claim: pure decisions from facts to a plan, which anybody can print, test and replay.

A plan for a prepare is the record that is written down before hardware is touched: who gets what (grants), and the hardware
changes that make it so (steps), in order. Nothing here does I/O, waits or changes anything.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dra_driver.config.params import parse_gpu_config
from dra_driver.model.claim import AllocatedClaim, Allocation, AllocationResult
from dra_driver.model.device import (
    BindPassthrough,
    CreateStage,
    Passthrough,
    Placement,
    SetMode,
    UnbindPassthrough,
    Vendor,
)
from dra_driver.model.errors import ClaimError, DeviceHeld, DraError, VendorError
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import DRIVER_NAME, is_device_of, pool_name
from dra_driver.model.record import ClaimRecord, Grant, Step
from dra_driver.rules.forms import (
    Form,
    Sharing,
    covered,
    find_form,
    foreign_instances,
    gpu_of,
    made_instances,
    same_place,
)
from dra_driver.rules.precedence import config_for
from kubelet_plugin.footprint import is_granted


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """All that a decision may depend on.

    `inventories` by pool name, of those pools whose hardware answers; `records` by UID, of the claims on this claim's GPUs.
    """

    claim: AllocatedClaim
    node: str
    inventories: Mapping[str, Inventory]
    boot_id: str
    owner: str
    records: Mapping[str, ClaimRecord] = field(default_factory=dict)

    @property
    def results(self) -> tuple[AllocationResult, ...]:
        """Those of this driver and this node."""
        return results_of_node(self.claim, self.node)

    def gpus(self, *, exclusive: bool = False) -> Mapping[str, str]:
        """The GPUs behind the claim's devices, each with its pool, as far as they are there.

        With `exclusive` those that it takes from others, which adminAccess does not.
        """
        return {
            gpu.pci_address: result.pool
            for result in self.results
            if result.pool in self.inventories and not (exclusive and result.admin_access)
            if (gpu := gpu_of(self.inventories[result.pool], result.device))
        }


def results_of_node(claim: AllocatedClaim, node: str) -> tuple[AllocationResult, ...]:
    """The claim's results that are this driver's and this node's; claims may name other drivers' devices too."""
    pools = {pool_name(node, vendor) for vendor in Vendor}
    all_results = claim.allocation.results if claim.allocation else ()
    return tuple(r for r in all_results if r.driver == DRIVER_NAME and r.pool in pools)


def plan_prepare(snapshot: Snapshot) -> ClaimRecord:
    """The record of a prepare that may begin now.

    Raises ClaimError where the claim cannot be served, DeviceHeld where it may be once another claim is gone, VendorError
    where hardware does not answer, and ParametersError for parameters that we refuse.
    """
    claim, allocation = snapshot.claim, _allocation(snapshot)
    grants: list[Grant] = []
    steps: list[Step] = []
    for result in snapshot.results:
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


def _allocation(snapshot: Snapshot) -> Allocation:
    claim = snapshot.claim
    if claim.allocation is None:
        raise ClaimError(
            f"claim {claim.ref} is not allocated; the scheduler allocates it when a pod needs it"
        )
    if not snapshot.results:
        raise ClaimError(
            f"claim {claim.ref} has no device of {DRIVER_NAME} on node {snapshot.node}; it was allocated for another node"
        )
    return claim.allocation


def _form(snapshot: Snapshot, result: AllocationResult) -> Form:
    inventory = snapshot.inventories.get(result.pool)
    if inventory is None:
        raise VendorError(
            f"pool {result.pool}: the driver of its GPUs does not answer; see whether it is loaded on node {snapshot.node}",
            retryable=True,
        )
    form = find_form(inventory, result.device)
    if form is None:
        raise _absence(inventory, result, snapshot.claim)
    if form.sharing is Sharing.MONITOR and not result.admin_access:
        raise ClaimError(
            f"device {form.name} is for monitoring only, and request {result.request} of claim {snapshot.claim.ref} "
            "has no adminAccess; ask for adminAccess, or for another DeviceClass"
        )
    if form.passthrough and result.admin_access:
        raise ClaimError(
            f"device {form.name} is for virtual machines, which nobody can look into from here, and request {result.request} of "
            f"claim {snapshot.claim.ref} has adminAccess; leave it out, or ask for the GPU's monitor"
        )
    return form


def _absence(inventory: Inventory, result: AllocationResult, claim: AllocatedClaim) -> DraError:
    """Why no GPU has that device: one that does not answer may come back, one that is there may be offered otherwise."""
    for fault in inventory.faults:
        if is_device_of(fault.pci_address, result.device):
            return VendorError(
                f"device {result.device} of claim {claim.ref} cannot be used: {fault.message}",
                retryable=True,
            )
    gpu = gpu_of(inventory, result.device)
    why = "its GPU is gone" if gpu is None else f"GPU {gpu.pci_address} cannot be that (any more)"
    return ClaimError(
        f"device {result.device} of claim {claim.ref} is not on this node: {why}; "
        "delete the pod so that it gets another device"
    )


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
                    "it becomes free when that claim's pod has ended",
                    holder=record.claim.uid,
                )


def _collide(one: Grant, other: Grant) -> bool:
    if one.gpu != other.gpu or one.monitor or other.monitor:
        return False
    if one.placement is None or other.placement is None:
        return True
    return same_place((one.profile, one.placement), (other.profile, other.placement))


def _steps(snapshot: Snapshot, form: Form, grant: Grant, planned: Sequence[Step]) -> Iterator[Step]:
    """The hardware changes for one device. Claims with adminAccess look; they never change anything."""
    gpu, made = form.gpu, made_instances(snapshot.records.values())
    foreign = foreign_instances(gpu, made)
    adopted = any(is_granted(instance, grant) for instance in foreign)
    if grant.monitor or adopted:
        return
    in_the_way = [instance for instance in foreign if covered(instance.placement) & form.positions]
    if in_the_way:
        raise ClaimError(
            f"device {form.name} cannot be made: instance {in_the_way[0].identity} ({in_the_way[0].profile}) on GPU "
            f"{gpu.pci_address} was made by somebody else; destroy it, or delete the pod so that it gets another device"
        )
    if gpu.passthrough is Passthrough.BOUND and not form.passthrough:
        yield Step(device=form.name, change=UnbindPassthrough(gpu=gpu.pci_address))
    set_modes = {
        step.change.gpu: step.change.mode for step in planned if isinstance(step.change, SetMode)
    }
    now = set_modes.get(gpu.pci_address, gpu.partitioning.mode if gpu.partitioning else None)
    if form.mode is not None and form.mode != now:
        yield Step(device=form.name, change=SetMode(gpu=gpu.pci_address, mode=form.mode))
    there = _shareable(snapshot, planned)
    for stage in _stages(form):
        parent = there.get(stage.made)
        change = replace(stage, shared=stage.made in there, parent=parent)
        yield Step(device=form.name, change=change)
    if form.passthrough:
        yield Step(device=form.name, change=BindPassthrough(gpu=gpu.pci_address))


def _stages(form: Form) -> Iterator[CreateStage]:
    """The stages of a partition; of a part of one, the first is the whole partition's, and other parts' too."""
    profile, placement = form.profile, form.placement
    if profile is None or placement is None:
        return
    for number, stage in enumerate(profile.stages):
        is_common = profile.whole is not None and number == 0
        yield CreateStage(
            gpu=form.gpu.pci_address,
            profile=profile.whole if profile.whole and is_common else profile.name,
            placement=placement.undivided if is_common else placement,
            stage=stage,
        )


def _shareable(
    snapshot: Snapshot, planned: Sequence[Step]
) -> Mapping[tuple[str, str, Placement, str], str | None]:
    """The stages that claims have made and not begun to destroy, with what they are, and that this one has planned before."""
    made = [
        (step, identity)
        for record in snapshot.records.values()
        if not record.releasing
        for step, identity in zip(record.steps, record.identities, strict=False)
    ]
    planned_now = [
        (step, step.change.parent) for step in planned if isinstance(step.change, CreateStage)
    ]
    return {
        step.change.made: identity
        for step, identity in (*planned_now, *made)
        if isinstance(step.change, CreateStage)
    }
