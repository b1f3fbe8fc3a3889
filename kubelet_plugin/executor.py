"""Carries plans out: the record first, then one hardware change after the other, then the CDI file, then the result.

It can be interrupted after any line. What a process that died has left is undone by the next one from the record alone. Nothing
here locks: the caller has its turn on the claim, and on the GPUs that the record changes.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

import structlog

from dra_driver.model.device import BindPassthrough, CreateStage, PartitionChange, SetMode
from dra_driver.model.edits import ContainerEdits
from dra_driver.model.errors import ClaimError, DraError, VendorError
from dra_driver.model.names import cdi_device_id, cdi_device_name, shared_cdi_id
from dra_driver.model.record import ClaimRecord, Grant, Preparation, PreparedDevice, Step
from dra_driver.ports import CdiStore, ClaimStore
from kubelet_plugin.footprint import bind_parent, plan_release, target_of
from kubelet_plugin.gpu_calls import GpuCalls
from kubelet_plugin.slow_lane import end_step
from kubelet_plugin.state import NodeState
from kubelet_plugin.survey import Survey
from kubelet_plugin.telemetry import Telemetry

log = structlog.get_logger(__name__)


class Executor:
    """Needs nobody else's help: what it does for a claim touches that claim's record, CDI file and GPUs alone."""

    def __init__(
        self,
        state: NodeState,
        stores: tuple[ClaimStore, CdiStore],
        calls: GpuCalls,
        survey: Survey,
        telemetry: Telemetry,
    ) -> None:
        self._state = state
        self._store, self._cdi = stores
        self._calls = calls
        self._survey = survey
        self._telemetry = telemetry

    async def carry_out(self, record: ClaimRecord) -> Preparation:
        """Do what the record says; undo it in the same call if that fails. Nothing is undone that this call did not write."""
        self._state.reserve(record)
        preparation = await (self._change(record) if record.steps else self._grant(record))
        self._state.complete(record.claim.uid, preparation)
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
            if device.hardware and device.hardware != now.hardware:
                raise ClaimError(
                    f"device {device.device} of claim {record.claim} is {', '.join(now.hardware)} and was "
                    f"{', '.join(device.hardware)} when it was prepared: somebody changed it; delete the pod"
                )
            for lost in device.cdi_ids[1:]:
                if not self._cdi.shares(lost):
                    raise ClaimError(
                        f"device {device.device} of claim {record.claim} was prepared with the driver's files as {lost}, "
                        "and its CDI file is gone, as that driver is: delete the pod"
                    )
        self.restore_file(record)
        return preparation

    def restore_file(self, record: ClaimRecord) -> None:
        """A prepared claim's CDI file is what was recorded, and is written again where it is not."""
        uid, preparation = record.claim.uid, record.preparation
        assert preparation is not None
        note = self._store.note(record)
        if not self._cdi.holds(uid, preparation.edits, note):
            log.warning("the CDI file was gone or changed and is written again")
            self._cdi.write(uid, preparation.edits, note)
            self._telemetry.metrics.recovery("cdi_written")

    async def release(self, uid: str) -> None:
        """Undo everything the claim's record says, then forget the claim. Safe to repeat after any failure."""
        record = self._state.mark_releasing(uid)
        if record.steps:
            self._store.releasing(uid)
            await self._see_unrecorded_step(record)
            others = self._state.records.values()
            for change in plan_release(record, self._state.inventories, others):
                await self._calls.change(record.changed_gpus[change.gpu], change)
                self._state.retire(change)
        await asyncio.to_thread(self._remove, uid)
        self._state.forget(uid)

    async def _grant(self, record: ClaimRecord) -> Preparation:
        """Nothing is changed, so the record is written at once with its outcome."""
        uid = record.claim.uid
        try:
            with self._telemetry.phase("hardware"):
                preparation = await self.describe(record)
            await end_step()
            with self._telemetry.phase("record"):
                self._store.begin(record, preparation)
        except Exception as error:
            self._state.forget(uid)
            if isinstance(error, VendorError) and error.refused:
                await self._look_again(record)
            raise
        try:
            await end_step()
            self._write_file(record, preparation)
            await self._sync(uid)
        except Exception:
            await self._undo_after_failure(uid)
            raise
        return preparation

    async def _change(self, record: ClaimRecord) -> Preparation:
        uid = record.claim.uid
        try:
            with self._telemetry.phase("record"):
                self._store.begin(record)
        except Exception:
            self._state.forget(uid)
            raise
        try:
            await self._sync(uid)
            with self._telemetry.phase("hardware"):
                for step in record.steps:
                    await self._take(step, self._state.records[uid])
                done = self._state.records[uid]
                preparation = await self.describe(done)
            await end_step()
            self._write_file(done, preparation)
            with self._telemetry.phase("record"):
                self._store.finish(uid, preparation)
            await self._sync(uid)
        except Exception:
            await self._undo_after_failure(uid)
            raise
        return preparation

    async def _take(self, step: Step, record: ClaimRecord) -> None:
        """One step; one that was refused made nothing, whatever stands where it was to be made.

        That is written down before anything else: a successor would take somebody else's instance there for ours.
        """
        uid, change = record.claim.uid, bind_parent(step, record)
        pool = record.changed_gpus[change.gpu]
        try:
            identity = await self._calls.change(pool, change)
        except VendorError as error:
            if error.refused:
                self._state.drop_untaken(uid)
                self._store.releasing(uid, refused=True)
                await self._learn_from_refusal(pool, change)
            raise
        self._state.advance(uid, step, identity)
        self._store.step(uid, identity)

    async def _learn_from_refusal(self, pool: str, change: PartitionChange) -> None:
        """The next call plans from what is there now; a mode that cannot be changed is not counted on until the next look."""
        with suppress(VendorError):
            await self._survey.look_at(pool, change.gpu)
        if isinstance(change, SetMode):
            self._state.bind_mode(pool, change.gpu)

    async def _look_again(self, record: ClaimRecord) -> None:
        """What the record was planned from is not true any more; GPUs that it only monitors are not the caller's to look at."""
        for gpu, pool in {(one.gpu, one.pool) for one in record.grants if not one.monitor}:
            with suppress(VendorError):
                await self._survey.look_at(pool, gpu)

    def _write_file(self, record: ClaimRecord, preparation: Preparation) -> None:
        with self._telemetry.phase("cdi"):
            self._cdi.write(record.claim.uid, preparation.edits, self._store.note(record))

    async def _sync(self, uid: str) -> None:
        """In a thread, as it waits for the disk; what does not is written on the loop, which is cheaper than a thread is."""
        with self._telemetry.phase("sync"):
            await asyncio.to_thread(self._store.sync, uid)

    def _remove(self, uid: str) -> None:
        self._cdi.remove(uid)
        self._store.forget(uid)

    async def _see_unrecorded_step(self, record: ClaimRecord) -> None:
        """If a step that makes something has no identity, look at its GPU once that step is over.

        A call that timed out may still be running and make something after a look: nothing is undone before it has ended.
        """
        for step in record.steps[len(record.identities) :][:1]:
            if isinstance(step.change, CreateStage | BindPassthrough):
                gpu = step.change.gpu
                await self._calls.finished(gpu)
                await self._survey.look_at(record.changed_gpus[gpu], gpu)

    async def _undo_after_failure(self, uid: str) -> None:
        try:
            await self.release(uid)
        except DraError as error:
            log.warning(
                "a failed prepare is not undone yet; the next call for the claim goes on with it",
                error=str(error),
            )

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
        found = await self._calls.describe(grant.pool, target)
        ids = [cdi_device_id(record.claim.uid, grant.device, grant.share_id)]
        if found.shared is not None:
            self._cdi.share(found.shared)
            ids.append(shared_cdi_id(found.shared.name))
        device = PreparedDevice(
            requests=grant.requests,
            pool=grant.pool,
            device=grant.device,
            cdi_ids=tuple(ids),
            share_id=grant.share_id,
            hardware=found.hardware,
        )
        return device, found.edits
