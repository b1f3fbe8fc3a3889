"""Carries plans out: the record first, then one hardware change after the other, then the CDI file, then the result.

It can be interrupted after any line. What a process that died has left is undone by the next one from the record alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog

from dra_driver.model.device import PartitionChange
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import ClaimError, DraError, VendorError
from dra_driver.model.names import cdi_device_id, cdi_device_name
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice
from dra_driver.ports import Backend, CdiStore, ClaimStore
from dra_driver.vendors.discovery import discover
from kubelet_plugin.planner import bind_parent, plan_release, target_of
from kubelet_plugin.state import NodeState
from kubelet_plugin.workers import Workers

log = structlog.get_logger(__name__)


class Executor:
    """`backends` by pool name. Steps of different GPUs run side by side; on one GPU, one claim at a time."""

    def __init__(
        self,
        state: NodeState,
        backends: Mapping[str, Backend],
        store: ClaimStore,
        cdi: CdiStore,
        workers: Workers,
    ) -> None:
        self._state = state
        self._backends = backends
        self._store = store
        self._cdi = cdi
        self._workers = workers
        self._gpu_locks: dict[str, asyncio.Lock] = {}
        self._changes = 0

    async def carry_out(self, record: ClaimRecord) -> Preparation:
        """Do what the record (already reserved in the state) says; undo it in the same call if that fails."""
        uid = record.claim.uid
        try:
            await asyncio.to_thread(self._store.begin, record)
        except Exception:
            self._state.forget(uid)
            raise
        try:
            async with self._gpus(record):
                for step in record.steps:
                    change = bind_parent(step, self._state.records[uid])
                    identity = await self._change(record, change)
                    self._state.advance(uid, step, identity)
                    await asyncio.to_thread(self._store.step, uid, identity)
            preparation = await self._describe(self._state.records[uid])
            await asyncio.to_thread(self._cdi.write, uid, preparation.edits)
            await asyncio.to_thread(self._store.finish, uid, preparation)
        except Exception:
            await self._undo_after_failure(uid)
            raise
        self._state.complete(uid, preparation)
        return preparation

    async def verify(self, record: ClaimRecord) -> Preparation:
        """The record's own answer, after making sure that hardware and CDI file still hold; a lost file is written again.

        Raises DraError where the hardware is gone: the answer would promise what is not there.
        """
        uid, preparation = record.claim.uid, record.preparation
        assert preparation is not None
        if await self._describe(record) != preparation:
            raise ClaimError(
                f"the hardware of claim {record.claim} is not what was prepared: somebody changed it; delete the pod"
            )
        if not await asyncio.to_thread(self._cdi.holds, uid, preparation.edits):
            log.warning("the CDI file was gone or changed and is written again")
            await asyncio.to_thread(self._cdi.write, uid, preparation.edits)
        return preparation

    async def release(self, uid: str) -> None:
        """Undo everything the claim's record says, then forget the claim. Safe to repeat after any failure."""
        record = self._state.mark_releasing(uid)
        if record.steps:
            await asyncio.to_thread(self._store.releasing, uid)
            async with self._gpus(record):
                if len(record.identities) < len(record.steps):
                    await self._see_unrecorded_step(record)
                for change in plan_release(record, self._state.inventories):
                    await self._change(record, change)
                    self._state.retire(change)
        await asyncio.to_thread(self._cdi.remove, uid)
        await asyncio.to_thread(self._store.forget, uid)
        self._state.forget(uid)

    async def rescan(self) -> None:
        """Look at all hardware again; raises the first VendorError after every backend was asked.

        What was seen while a change was being made may be neither old nor new, so it is looked at once more.
        """
        failures = []
        for backend in dict.fromkeys(self._backends.values()):
            changes = -1
            try:
                while changes != self._changes:
                    changes = self._changes
                    inventory = await self._workers.call(
                        backend.vendor.value, partial(discover, backend)
                    )
                for fault in inventory.faults:
                    log.warning("a GPU cannot be used", gpu=fault.pci_address, why=fault.message)
                self._state.observe(inventory)
            except VendorError as error:
                failures.append(error)
        if failures:
            raise failures[0]

    async def _see_unrecorded_step(self, record: ClaimRecord) -> None:
        """Look at the hardware once the step that has no identity is over.

        A call that timed out may still be running and make something after a look: nothing is undone before it has ended.
        """
        for gpu in sorted({step.change.gpu for step in record.steps}):
            await self._workers.call(gpu, lambda: None)
        await self.rescan()

    async def _undo_after_failure(self, uid: str) -> None:
        try:
            await self.release(uid)
        except DraError as error:
            log.warning(
                "a failed prepare is not undone yet; the next call for the claim goes on with it",
                error=str(error),
            )

    async def _change(self, record: ClaimRecord, change: PartitionChange) -> str:
        backend = self._backend(
            next(grant.pool for grant in record.grants if grant.gpu == change.gpu)
        )
        log.info("hardware change", change=type(change).__name__, gpu=change.gpu)
        self._changes += 1
        try:
            return await self._workers.call(change.gpu, lambda: backend.partition(change))
        finally:
            self._changes += 1

    def _backend(self, pool: str) -> Backend:
        if pool not in self._backends:
            raise VendorError(
                f"pool {pool}: its GPUs' driver is not loaded any more; load it again, or restart the node",
                retryable=True,
            )
        return self._backends[pool]

    async def _edits(self, grant: Grant, record: ClaimRecord) -> ContainerEdits:
        backend, target = (
            self._backend(grant.pool),
            target_of(grant, record, self._state.inventories),
        )
        return await self._workers.call(grant.gpu, lambda: backend.edits(target))

    async def _describe(self, record: ClaimRecord) -> Preparation:
        uid = record.claim.uid
        devices = [
            PreparedDevice(
                requests=grant.requests,
                pool=grant.pool,
                device=grant.device,
                cdi_ids=(cdi_device_id(uid, grant.device, grant.share_id),),
                share_id=grant.share_id,
            )
            for grant in record.grants
        ]
        edits = [
            (cdi_device_name(uid, g.device, g.share_id), await self._edits(g, record))
            for g in record.grants
        ]
        return Preparation(devices=tuple(devices), edits=tuple(edits))

    @asynccontextmanager
    async def _gpus(self, record: ClaimRecord) -> AsyncIterator[None]:
        """The GPUs that the record changes, locked in sorted order, so that no two claims wait for each other."""
        async with AsyncExitStack() as stack:
            for gpu in sorted({step.change.gpu for step in record.steps}):
                await stack.enter_async_context(self._gpu_locks.setdefault(gpu, asyncio.Lock()))
            yield
