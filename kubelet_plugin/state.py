"""What this process knows of its node: inventories by pool, records by claim, and a signal for those who wait.

Only the event loop touches it and no method awaits, so a plan and the reservation of what it takes are one step. As long as the
process is alone, this is the truth and the journal is there for the next one; beside another process `refresh` brings in what
that one wrote.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from types import MappingProxyType

from dra_driver.model.claim import AllocatedClaim
from dra_driver.model.device import (
    BindPassthrough,
    DestroyStage,
    Gpu,
    Instance,
    Passthrough,
    SetMode,
    StepChange,
    UnbindPassthrough,
    UndoChange,
)
from dra_driver.model.health import Condition
from dra_driver.model.inventory import Fault, Inventory
from dra_driver.model.names import pool_name
from dra_driver.model.record import ClaimRecord, Preparation, Step
from dra_driver.rules.health import afflicted
from kubelet_plugin.footprint import plan_release
from kubelet_plugin.planner import Snapshot


class NodeState:
    """The facts, and their changes as they happen."""

    def __init__(self, node: str, *, boot_id: str, owner: str) -> None:
        self.node = node
        self._boot_id = boot_id
        self._owner = owner
        self._inventories: dict[str, Inventory] = {}
        self._conditions: dict[str, tuple[Condition, ...]] = {}
        self._records: dict[str, ClaimRecord] = {}
        self._on_gpu: defaultdict[str, set[str]] = defaultdict(set)
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def inventories(self) -> Mapping[str, Inventory]:
        """By pool name."""
        return MappingProxyType(self._inventories)

    @property
    def conditions(self) -> Mapping[str, tuple[Condition, ...]]:
        """What is wrong with GPUs, by PCI address: nothing with those that are well; those that never told are not named."""
        return MappingProxyType(self._conditions)

    def afflicted(self, pool: str) -> Mapping[str, tuple[Condition, ...]]:
        """Those conditions by the names of the pool's devices that have them."""
        inventory = self._inventories.get(pool)
        found: dict[str, tuple[Condition, ...]] = {}
        for gpu in inventory.gpus if inventory else ():
            found |= afflicted(gpu, self._conditions.get(gpu.pci_address, ()))
        return found

    @property
    def records(self) -> Mapping[str, ClaimRecord]:
        """By claim UID."""
        return MappingProxyType(self._records)

    def snapshot(self, claim: AllocatedClaim) -> Snapshot:
        """All facts for planning that claim, as one value; of other claims those that hold something on its GPUs."""
        facts = self._facts(claim)
        uids = {uid for gpu in facts.gpus() for uid in self._on_gpu[gpu]}
        return replace(facts, records={uid: self._records[uid] for uid in uids})

    def gpus_of(self, claim: AllocatedClaim) -> Mapping[str, str]:
        """The GPUs that the claim takes from others, each with its pool."""
        return self._facts(claim).gpus(exclusive=True)

    def on_inventory(self, listener: Callable[[], None]) -> None:
        """Have it called whenever an inventory, or the health of a GPU, has changed."""
        self._listeners.append(listener)

    def observe(self, inventory: Inventory) -> None:
        """Take over what was discovered of a whole vendor."""
        pool = pool_name(self.node, inventory.vendor)
        if self._inventories.get(pool) != inventory:
            self._inventories[pool] = inventory
            self._signal()
            self._notify()

    def observe_conditions(self, address: str, found: tuple[Condition, ...] | None) -> None:
        """Take over what is wrong with one GPU now; None where that is not known any more."""
        former = self._conditions.pop(address, ())
        if found is not None:
            self._conditions[address] = found
        if former != (found or ()):
            self._notify()

    def observe_gpu(self, pool: str, found: Gpu | Fault) -> None:
        """Take over what was seen of one GPU."""
        former = self._inventories[pool]
        known: tuple[Gpu | Fault, ...] = (*former.gpus, *former.faults)
        others = [one for one in known if one.pci_address != found.pci_address]
        by_address = sorted([*others, found], key=lambda one: one.pci_address)
        gpus = tuple(one for one in by_address if isinstance(one, Gpu))
        faults = tuple(one for one in by_address if isinstance(one, Fault))
        self.observe(replace(former, gpus=gpus, faults=faults))

    def bind_mode(self, pool: str, address: str) -> None:
        """The GPU stays in its mode, whatever it can do, until the next look finds otherwise, or a change succeeds."""
        gpu = self._inventories[pool].gpu(address)
        if gpu is not None and gpu.partitioning is not None:
            bound = replace(gpu.partitioning, switchable=False)
            self.observe_gpu(pool, replace(gpu, partitioning=bound))

    def lose_gpu(self, pool: str, address: str) -> None:
        """The GPU is not there any more."""
        former = self._inventories.get(pool)
        if former is not None:
            gpus = tuple(gpu for gpu in former.gpus if gpu.pci_address != address)
            faults = tuple(fault for fault in former.faults if fault.pci_address != address)
            self.observe(replace(former, gpus=gpus, faults=faults))

    def refresh(self, stored: Mapping[str, ClaimRecord], kept: Collection[str] = ()) -> None:
        """Take over what the journal says of all claims but those to be `kept` as they are."""
        for uid in (self._records.keys() | stored.keys()) - set(kept):
            self.take_over(uid, stored.get(uid))

    def take_over(self, uid: str, stored: ClaimRecord | None) -> None:
        """What the journal says of the claim; with the record of one that another process released, its instances are gone."""
        if stored is not None:
            self._put(stored)
        elif uid in self._records:
            others = self._records.values()
            for change in plan_release(self._records[uid], self._inventories, others):
                self.retire(change)
            self.forget(uid)

    def reserve(self, record: ClaimRecord) -> None:
        """From now on other claims see these devices as held."""
        self._put(record)

    def advance(self, uid: str, step: Step, identity: str) -> ClaimRecord:
        """A step was carried out."""
        record = self._records[uid]
        self._records[uid] = replace(record, identities=(*record.identities, identity))
        self._change_gpu(step.change.gpu, lambda gpu: _after(gpu, step.change))
        return self._records[uid]

    def drop_untaken(self, uid: str) -> None:
        """The claim's next step was refused: neither it nor a later one has made anything that is to be undone."""
        record = self._records[uid]
        self._records[uid] = replace(record, steps=record.steps[: len(record.identities)])

    def retire(self, change: UndoChange) -> None:
        """An instance, or a stage of one, was destroyed; or a GPU is back from where virtual machines use it."""
        self._change_gpu(change.gpu, lambda gpu: _without(gpu, change))

    def complete(self, uid: str, preparation: Preparation) -> None:
        """All is done."""
        self._records[uid] = replace(self._records[uid], preparation=preparation)

    def mark_releasing(self, uid: str) -> ClaimRecord:
        """From now on the claim is only undone."""
        self._records[uid] = replace(self._records[uid], releasing=True)
        return self._records[uid]

    def forget(self, uid: str) -> None:
        """The claim holds nothing any more: whoever waits may plan anew."""
        self._drop(uid)
        self._signal()

    @property
    def changed(self) -> asyncio.Event:
        """Set once a claim was released, or hardware seen to be different, after this was asked for."""
        return self._changed

    async def wait_for_release(self) -> None:
        """Return when a claim may have been released since this call."""
        await self._changed.wait()

    def _facts(self, claim: AllocatedClaim) -> Snapshot:
        return Snapshot(
            claim=claim,
            node=self.node,
            inventories=dict(self._inventories),
            boot_id=self._boot_id,
            owner=self._owner,
        )

    def _put(self, record: ClaimRecord) -> None:
        self._drop(record.claim.uid)
        self._records[record.claim.uid] = record
        for grant in record.grants:
            self._on_gpu[grant.gpu].add(record.claim.uid)

    def _drop(self, uid: str) -> None:
        record = self._records.pop(uid, None)
        for grant in record.grants if record else ():
            self._on_gpu[grant.gpu].discard(uid)

    def _signal(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _notify(self) -> None:
        for listener in self._listeners:
            listener()

    def _change_gpu(self, address: str, changed: Callable[[Gpu], Gpu]) -> None:
        for pool, inventory in self._inventories.items():
            gpus = tuple(
                changed(gpu) if gpu.pci_address == address else gpu for gpu in inventory.gpus
            )
            self._inventories[pool] = replace(inventory, gpus=gpus)


def _after(gpu: Gpu, change: StepChange) -> Gpu:
    """What a stage has made is seen at the next look."""
    match change:
        case SetMode(mode=mode) if gpu.partitioning is not None:
            return replace(gpu, partitioning=replace(gpu.partitioning, mode=mode, switchable=True))
        case BindPassthrough():
            return replace(gpu, passthrough=Passthrough.BOUND)
        case UnbindPassthrough():
            return replace(gpu, passthrough=Passthrough.POSSIBLE)
        case _:
            return gpu


def _without(gpu: Gpu, change: UndoChange) -> Gpu:
    if not isinstance(change, DestroyStage):
        return _after(gpu, change)

    def stays(instance: Instance) -> bool:
        return not f"{instance.identity}/".startswith(f"{change.identity}/")

    return replace(gpu, instances=tuple(filter(stays, gpu.instances)))
