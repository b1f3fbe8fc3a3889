"""The node's state in memory: the truth while the process lives; the journal is there for the next process.

Only the event loop touches it and no method awaits, so a plan and the reservation of what it takes are one step, without a lock.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from dra_driver.model.claim import Claim
from dra_driver.model.device import DestroyStage, Gpu, SetMode
from dra_driver.model.inventory import Inventory
from dra_driver.model.names import pool_name
from dra_driver.model.record import ClaimRecord, Preparation, Step
from kubelet_plugin.planner import Snapshot


class NodeState:
    """Inventories by pool, records by claim UID, and a signal for those who wait for a device."""

    def __init__(self, node: str, *, boot_id: str, owner: str) -> None:
        self.node = node
        self._boot_id = boot_id
        self._owner = owner
        self._inventories: dict[str, Inventory] = {}
        self._records: dict[str, ClaimRecord] = {}
        self._released = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []

    @property
    def inventories(self) -> Mapping[str, Inventory]:
        """By pool name."""
        return MappingProxyType(self._inventories)

    @property
    def records(self) -> Mapping[str, ClaimRecord]:
        """By claim UID."""
        return MappingProxyType(self._records)

    def snapshot(self, claim: Claim) -> Snapshot:
        """All facts for planning that claim, as one value."""
        return Snapshot(
            claim=claim,
            inventories=dict(self._inventories),
            records=dict(self._records),
            boot_id=self._boot_id,
            owner=self._owner,
        )

    def on_inventory(self, listener: Callable[[], None]) -> None:
        """Have it called whenever an inventory has changed."""
        self._listeners.append(listener)

    def observe(self, inventory: Inventory) -> None:
        """Take over what was discovered."""
        pool = pool_name(self.node, inventory.vendor)
        if self._inventories.get(pool) != inventory:
            self._inventories[pool] = inventory
            for listener in self._listeners:
                listener()

    def restore(self, records: Iterable[ClaimRecord]) -> None:
        """Take over what the journal says."""
        self._records |= {record.claim.uid: record for record in records}

    def reserve(self, record: ClaimRecord) -> None:
        """From now on other claims see these devices as held."""
        self._records[record.claim.uid] = record

    def advance(self, uid: str, step: Step, identity: str) -> ClaimRecord:
        """A step was carried out."""
        record = self._records[uid]
        self._records[uid] = replace(record, identities=(*record.identities, identity))
        if isinstance(step.change, SetMode):
            self._set_mode(step.change)
        return self._records[uid]

    def retire(self, change: DestroyStage) -> None:
        """An instance, or a stage of one, was destroyed."""
        for pool, inventory in self._inventories.items():
            gpus = tuple(
                _without(gpu, change) if gpu.pci_address == change.gpu else gpu
                for gpu in inventory.gpus
            )
            self._inventories[pool] = replace(inventory, gpus=gpus)

    def complete(self, uid: str, preparation: Preparation) -> None:
        """All is done."""
        self._records[uid] = replace(self._records[uid], preparation=preparation)

    def mark_releasing(self, uid: str) -> ClaimRecord:
        """From now on the claim is only undone."""
        self._records[uid] = replace(self._records[uid], releasing=True)
        return self._records[uid]

    def forget(self, uid: str) -> None:
        """The claim holds nothing any more: whoever waits may plan anew."""
        self._records.pop(uid, None)
        released, self._released = self._released, asyncio.Event()
        released.set()

    async def wait_for_release(self) -> None:
        """Return when any claim has been released since this call."""
        await self._released.wait()

    def _set_mode(self, change: SetMode) -> None:
        for pool, inventory in self._inventories.items():
            gpus = tuple(
                _in_mode(gpu, change.mode) if gpu.pci_address == change.gpu else gpu
                for gpu in inventory.gpus
            )
            self._inventories[pool] = replace(inventory, gpus=gpus)


def _in_mode(gpu: Gpu, mode: str) -> Gpu:
    if gpu.partitioning is None:
        return gpu
    return replace(gpu, partitioning=replace(gpu.partitioning, mode=mode))


def _without(gpu: Gpu, change: DestroyStage) -> Gpu:
    return replace(
        gpu,
        instances=tuple(
            i for i in gpu.instances if not f"{i.identity}/".startswith(f"{change.identity}/")
        ),
    )
