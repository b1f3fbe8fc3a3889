"""Carries plans out: the record first, then one hardware change after the other, then the CDI file, then the result.

It can be interrupted after any line. What a process that died has left is undone by the next one from the record alone. Nothing
here locks: the caller has its turn on the claim, and on the GPUs that the record changes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog

from dra_driver.model.device import PartitionChange
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import ClaimError, DraError, VendorError
from dra_driver.model.names import cdi_device_id, cdi_device_name
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice
from dra_driver.ports import Backend, CdiStore, ClaimStore
from kubelet_plugin.planner import bind_parent, plan_release, target_of
from kubelet_plugin.state import NodeState
from kubelet_plugin.survey import Survey
from kubelet_plugin.workers import Workers

log = structlog.get_logger(__name__)


class Executor:
    """`backends` by pool name; calls into them go through `workers`, one at a time for each GPU."""

    def __init__(
        self,
        state: NodeState,
        backends: Mapping[str, Backend],
        stores: tuple[ClaimStore, CdiStore],
        workers: Workers,
        survey: Survey,
    ) -> None:
        self._state = state
        self._backends = backends
        self._store, self._cdi = stores
        self._workers = workers
        self._survey = survey

    async def carry_out(self, record: ClaimRecord) -> Preparation:
        """Do what the record says; undo it in the same call if that fails."""
        uid = record.claim.uid
        self._state.reserve(record)
        try:
            await asyncio.to_thread(self._store.begin, record)
        except Exception:
            self._state.forget(uid)
            raise
        try:
            for step in record.steps:
                change = bind_parent(step, self._state.records[uid])
                identity = await self._change(record, change)
                self._state.advance(uid, step, identity)
                await asyncio.to_thread(self._store.step, uid, identity)
            preparation = await self.describe(self._state.records[uid])
            await asyncio.to_thread(self._finish, self._state.records[uid], preparation)
        except Exception:
            await self._undo_after_failure(uid)
            raise
        self._state.complete(uid, preparation)
        return preparation

    async def verify(self, record: ClaimRecord) -> Preparation:
        """The record's own answer, after making sure that the same hardware is there; a lost CDI file is written again.

        What containers get stays as it was recorded, whatever this release would write. Raises DraError where the hardware
        is gone: the answer would promise what is not there.
        """
        preparation = record.preparation
        assert preparation is not None
        found = await self.describe(record)
        for device, now in zip(preparation.devices, found.devices, strict=True):
            if device.hardware != now.hardware:
                raise ClaimError(
                    f"device {device.device} of claim {record.claim} is {', '.join(now.hardware)} and was "
                    f"{', '.join(device.hardware)} when it was prepared: somebody changed it; delete the pod"
                )
        await self.restore_file(record)
        return preparation

    async def restore_file(self, record: ClaimRecord) -> None:
        """A prepared claim's CDI file is what was recorded, and is written again where it is not."""
        uid, preparation = record.claim.uid, record.preparation
        assert preparation is not None
        note = self._store.note(record)
        if not await asyncio.to_thread(self._cdi.holds, uid, preparation.edits, note):
            log.warning("the CDI file was gone or changed and is written again")
            await asyncio.to_thread(self._cdi.write, uid, preparation.edits, note)

    async def release(self, uid: str) -> None:
        """Undo everything the claim's record says, then forget the claim. Safe to repeat after any failure."""
        record = self._state.mark_releasing(uid)
        if record.steps:
            await asyncio.to_thread(self._store.releasing, uid)
            if len(record.identities) < len(record.steps):
                await self._see_unrecorded_step(record)
            for change in plan_release(record, self._state.inventories):
                await self._change(record, change)
                self._state.retire(change)
        await asyncio.to_thread(self._cdi.remove, uid)
        await asyncio.to_thread(self._store.forget, uid)
        self._state.forget(uid)

    def _finish(self, record: ClaimRecord, preparation: Preparation) -> None:
        uid = record.claim.uid
        self._cdi.write(uid, preparation.edits, self._store.note(record))
        self._store.finish(uid, preparation)

    async def _see_unrecorded_step(self, record: ClaimRecord) -> None:
        """Look at the record's GPUs once the step that has no identity is over.

        A call that timed out may still be running and make something after a look: nothing is undone before it has ended.
        """
        for gpu, pool in record.changed_gpus.items():
            await self._workers.call(gpu, lambda: None)
            await self._survey.look_at(pool, gpu)

    async def _undo_after_failure(self, uid: str) -> None:
        try:
            await self.release(uid)
        except DraError as error:
            log.warning(
                "a failed prepare is not undone yet; the next call for the claim goes on with it",
                error=str(error),
            )

    async def _change(self, record: ClaimRecord, change: PartitionChange) -> str:
        backend = self._backend(record.changed_gpus[change.gpu])
        log.info("hardware change", change=type(change).__name__, gpu=change.gpu)
        return await self._workers.call(change.gpu, lambda: backend.partition(change))

    def _backend(self, pool: str) -> Backend:
        if pool not in self._backends:
            raise VendorError(
                f"pool {pool}: its GPUs' driver is not loaded any more; load it again, or restart the node",
                retryable=True,
            )
        return self._backends[pool]

    async def describe(self, record: ClaimRecord) -> Preparation:
        """What containers get and the kubelet is told, from the hardware that is there now."""
        found = await asyncio.gather(*(self._device(grant, record) for grant in record.grants))
        return Preparation(
            devices=tuple(device for device, _ in found),
            edits=tuple(
                (cdi_device_name(record.claim.uid, grant.device, grant.share_id), edits)
                for grant, (_, edits) in zip(record.grants, found, strict=True)
            ),
        )

    async def _device(
        self, grant: Grant, record: ClaimRecord
    ) -> tuple[PreparedDevice, ContainerEdits]:
        records = (record, *self._state.records.values())
        target = target_of(grant, records, self._state.inventories)
        backend = self._backend(grant.pool)
        hardware, edits = await self._workers.call(
            grant.gpu, lambda: (backend.identify(target), backend.edits(target))
        )
        device = PreparedDevice(
            requests=grant.requests,
            pool=grant.pool,
            device=grant.device,
            cdi_ids=(cdi_device_id(record.claim.uid, grant.device, grant.share_id),),
            share_id=grant.share_id,
            hardware=hardware,
        )
        return device, edits
